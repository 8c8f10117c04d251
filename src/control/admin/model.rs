//! What the admin server answers, as JSON has it. The commands read the same.

use serde::{Deserialize, Serialize};

/// `GET /status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_secs: u64,
    /// "running" or "draining"
    pub state: String,
    pub workers: usize,
    pub plan: PlanSeen,
    /// Those cores that have answered.
    pub cores: Vec<CoreSeen>,
    pub listeners: Vec<ListenerSeen>,
    pub upstreams: Vec<UpstreamSeen>,
}

/// Which configuration is in effect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanSeen {
    pub file: String,
    /// SHA-256 of the file's text.
    pub digest: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CoreSeen {
    pub core: u16,
    pub connections: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerSeen {
    pub name: String,
    pub addresses: Vec<String>,
    pub connections: usize,
    pub max_connections: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpstreamSeen {
    pub name: String,
    pub servers: Vec<ServerSeen>,
}

/// One address of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerSeen {
    /// As the configuration names it.
    pub server: String,
    /// `None`: the name has none yet.
    pub address: Option<String>,
    /// See [`STATES`].
    pub state: String,
    /// Why, where somebody has said it.
    pub reason: Option<String>,
    /// In seconds since 1970; `None`: since the process began.
    pub since: Option<u64>,
    pub backup: bool,
    pub connections: u32,
}

/// The states of a server: `down` by what connections met, `barred` by its checks, `drained` and
/// `taken_down` by the operator, `off` by the configuration; `unresolved`: its name has no address.
pub const STATES: [&str; 7] = [
    "up",
    "down",
    "barred",
    "drained",
    "taken_down",
    "off",
    "unresolved",
];

/// `GET /connections`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connections {
    /// How many there are; `connections` may have fewer.
    pub total: usize,
    /// The oldest first.
    pub connections: Vec<ConnectionSeen>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionSeen {
    /// As in the access log.
    pub id: String,
    pub core: u16,
    pub listener: String,
    /// `None`: of a unix socket.
    pub client: Option<String>,
    pub upstream: Option<String>,
    /// While bytes are relayed: as the configuration names it.
    pub server: Option<String>,
    pub address: Option<String>,
    pub phase: String,
    pub age_ms: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// `POST /connections/close`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Closed {
    pub closed: usize,
}

/// `POST /server`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerHeld {
    pub upstream: String,
    pub server: String,
    /// "up", "drained" or "taken_down"
    pub state: String,
}

/// `GET /log-level` and `POST /log-level`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLevel {
    pub level: String,
}

/// One value of `GET /plan?format=json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanValue {
    pub key: String,
    pub value: String,
    /// Of the file; `None`: a default.
    pub line: Option<usize>,
    /// Why the default is what it is.
    pub why: Option<String>,
}
