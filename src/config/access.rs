//! Who may connect, how many, how fast and for how long, as the plan has it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::plan::Located;

/// What a listener asks of clients before it serves them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessPlan {
    /// Empty: every address that `deny` does not name.
    pub allow: Vec<IpNet>,
    /// Wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Connections of one source address, all cores together.
    pub connections_per_source_max: Option<u32>,
    /// Connections of one network, all cores together.
    pub connections_per_prefix_max: Option<u32>,
    pub prefix: SourcePrefix,
    pub new_connections: Option<Rate>,
    pub new_connections_per_source: Option<Rate>,
    /// TLS handshakes that resume no session.
    pub full_handshakes: Option<Rate>,
    pub full_handshakes_per_source: Option<Rate>,
}

impl AccessPlan {
    /// Whether any client may be turned away by it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let counts = [
            self.connections_per_source_max,
            self.connections_per_prefix_max,
        ];
        let rates = [
            self.new_connections,
            self.new_connections_per_source,
            self.full_handshakes,
            self.full_handshakes_per_source,
        ];
        self.allow.is_empty()
            && self.deny.is_empty()
            && counts.iter().all(Option::is_none)
            && rates.iter().all(Option::is_none)
    }
}

/// How many leading bits of an address name its network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourcePrefix {
    pub ipv4: u8,
    pub ipv6: u8,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    /// So many at once after a pause.
    pub burst: u32,
}

/// How fast and how long one connection may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Application bytes a second from client to server.
    pub upload_max: Option<u32>,
    /// Application bytes a second from server to client.
    pub download_max: Option<u32>,
    /// From accept on.
    pub session_max: Option<Duration>,
}

/// Which address of our own a server sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum LocalAddress {
    /// The kernel chooses by its routes.
    #[default]
    Kernel,
    /// At most one of each family.
    Fixed(Vec<Located<IpAddr>>),
    /// The client's, which needs IP_TRANSPARENT.
    Client(Located<()>),
}
