//! What the data plane runs on: every value checked and every default filled in.
//!
//! A [`Plan`] is immutable. It is made once from a file (or by `demo`) and shared by all cores.

mod admin;
mod check;
mod files;
mod log;
mod sandbox;
mod tls;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::access::{AccessPlan, LocalAddress, Pace};
use crate::types::{GroupId, ListenerId};

pub use admin::AdminPlan;
pub use check::{CheckKind, CheckPlan};
pub use files::{FileKind, NamedFile};
pub use log::{AccessLog, Facility, LogFormat, LogPlan, Piece, SyslogPlan};
pub use sandbox::{AccountPlan, SandboxPlan};
pub use tls::{
    CertificatePlan, CipherSuite, DownstreamTls, Group, IdentityPattern, KeyLogPlan, Resumption,
    TlsPolicy, TlsVersions, Trust, UpstreamAlpn, UpstreamTls, VerifyClient,
};

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub struct Plan {
    /// SHA-256 of the file's text, in hexadecimal. The files that it names are not in it.
    pub digest: String,
    pub runtime: RuntimePlan,
    pub log: LogPlan,
    /// `None`: nothing listens for those who operate it.
    pub admin: Option<AdminPlan>,
    pub sandbox: SandboxPlan,
    /// Indexed by [`ListenerId`].
    pub listeners: Vec<ListenerPlan>,
    /// Indexed by [`GroupId`].
    pub upstreams: Vec<UpstreamPlan>,
}

impl Plan {
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> &ListenerPlan {
        &self.listeners[usize::from(id.0)]
    }

    #[must_use]
    pub fn listener_named(&self, name: &str) -> Option<ListenerId> {
        let mut all = (0..).map(ListenerId).zip(&self.listeners);
        all.find(|(_, it)| it.name == name).map(|(id, _)| id)
    }

    #[must_use]
    pub fn upstream_named(&self, name: &str) -> Option<GroupId> {
        let mut all = (0..).map(GroupId).zip(&self.upstreams);
        all.find(|(_, it)| it.name == name).map(|(id, _)| id)
    }

    #[must_use]
    pub fn upstream(&self, id: GroupId) -> &UpstreamPlan {
        &self.upstreams[usize::from(id.0)]
    }
}

/// Where in the configuration file something stands: what a diagnostic blames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Byte range in the file's text. Empty for a default.
    pub span: Range<usize>,
}

/// A value that a later check (the file behind a path, say) may have to blame.
#[derive(Debug, Clone)]
pub struct Located<T> {
    pub value: T,
    pub place: Place,
}

/// Where a value stands does not make it another one.
impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

#[derive(Debug, Clone)]
pub struct RuntimePlan {
    pub workers: Workers,
    /// How long connections may go on after SIGTERM or SIGINT.
    pub drain_timeout: Duration,
    /// TLS handshakes in flight per core, both legs together, before new connections are refused.
    pub handshakes_max: usize,
    /// Connections that one readiness event may accept before other work has its turn.
    pub accept_batch: usize,
    /// Spare pipes a core keeps for splice.
    pub pipes_max: usize,
    /// Name servers to ask. Empty: those of /etc/resolv.conf.
    pub resolver: Vec<SocketAddr>,
    /// Reload when the configuration or a file that it names has changed.
    pub watch: bool,
    /// The unix socket at which a new process asks this one for its sockets. `None`: none may.
    pub takeover: Option<PathBuf>,
    pub account: AccountPlan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU that this process may run on.
    Auto,
    Count(usize),
    /// One on each of these CPUs.
    Cpus(Vec<usize>),
}

#[derive(Debug, Clone)]
pub struct ListenerPlan {
    pub name: String,
    pub binds: Vec<Located<BindAddress>>,
    pub target: Target,
    pub tls: Option<DownstreamTls>,
    /// Connections of this listener, all cores together.
    pub connections_max: usize,
    pub access: AccessPlan,
    pub pace: Pace,
    /// Length of the kernel's queue of connections not yet accepted, per core.
    pub backlog: u32,
    pub steering: Steering,
    pub client_hello_timeout: Duration,
    pub handshake_timeout: Duration,
    /// Opening a connection to one server.
    pub connect_timeout: Duration,
    /// TLS handshake with one server.
    pub upstream_handshake_timeout: Duration,
    /// After which failures of a server the next one is tried.
    pub next_upstream: Vec<Setback>,
    /// Servers tried for one connection.
    pub next_upstream_tries: u32,
    /// All tries together.
    pub next_upstream_timeout: Duration,
    /// No byte in either direction for this long ends the connection.
    pub idle_timeout: Duration,
    pub socket: SocketOptions,
    pub carriage: Carriage,
    /// `None`: a PROXY header is not looked for.
    pub proxied: Option<ProxiedPlan>,
}

/// Whose PROXY headers a listener takes.
#[derive(Debug, Clone)]
pub struct ProxiedPlan {
    pub demand: ProxyDemand,
    /// Peers of unix sockets are trusted, too.
    pub trusted: Vec<IpNet>,
    /// Common names, one of which the header must say that the client has proved. Empty: any, also
    /// none.
    pub allow_cn: Vec<String>,
    /// From accept to a whole header.
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyDemand {
    /// Taken from trusted peers that send one; all others are served without.
    Optional,
    /// Without one, or from a peer that is not trusted, a connection is refused.
    Required,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where a listener's connections go.
#[derive(Debug, Clone)]
pub enum Target {
    Group(GroupId),
    /// The first match wins; `default` is for clients that none matches, but for plain ones where
    /// TLS is expected.
    Routes {
        routes: Vec<RoutePlan>,
        default: Option<GroupId>,
    },
}

impl Target {
    /// Whether the client's first bytes decide where it goes.
    #[must_use]
    pub fn reads_hello(&self) -> bool {
        match self {
            Self::Group(_) => false,
            Self::Routes { routes, .. } => routes.iter().any(RoutePlan::reads_hello),
        }
    }

    /// Whether a client that does not speak TLS may have a route where TLS is expected.
    #[must_use]
    pub fn takes_plain(&self) -> bool {
        match self {
            Self::Group(_) => false,
            Self::Routes { routes, .. } => routes.iter().any(|route| route.plain),
        }
    }

    /// Every group that a connection may go to.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let (one, routes, default) = match self {
            Self::Group(group) => (Some(*group), &[][..], None),
            Self::Routes { routes, default } => (None, routes.as_slice(), *default),
        };
        one.into_iter()
            .chain(routes.iter().map(|route| route.upstream))
            .chain(default)
    }
}

/// All that is given must match.
#[derive(Debug, Clone)]
pub struct RoutePlan {
    /// Lower-case names; `*.example.org` stands for one more label. Empty: any, also none.
    pub server_names: Vec<NamePattern>,
    /// One of these is offered. Empty: any, also none.
    pub alpn: Vec<Vec<u8>>,
    /// The client's address is in one of these. Empty: any, also none.
    pub sources: Vec<IpNet>,
    /// For clients whose first bytes are not TLS, and for them alone. Has no names and no `alpn`.
    pub plain: bool,
    pub upstream: GroupId,
}

impl RoutePlan {
    fn reads_hello(&self) -> bool {
        self.plain || !self.server_names.is_empty() || !self.alpn.is_empty()
    }
}

/// A DNS name in lower case, or a wildcard for its left-most label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NamePattern {
    Exact(String),
    /// `*.example.org` is kept as `example.org`.
    Wildcard(String),
}

impl NamePattern {
    /// Compares without regard to case and a trailing dot, as RFC 6125 6.4.3 does: a wildcard
    /// stands for exactly one label.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(name),
            Self::Wildcard(parent) => name.split_once('.').is_some_and(|(label, rest)| {
                !label.is_empty() && rest.eq_ignore_ascii_case(parent)
            }),
        }
    }
}

/// How the kernel spreads a listener's connections over the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// By a hash of addresses and ports.
    Kernel,
    /// By source address alone, so that a returning client meets the core with its session.
    SourceAddress,
}

/// How the bytes of a leg are carried, once its handshake is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carriage {
    pub path: PathChoice,
    /// With [`PathChoice::Auto`]: application bytes that a direction has carried when its TLS goes
    /// to the kernel.
    pub ktls_after: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathChoice {
    /// Through the kernel (splice, kernel TLS) where a direction is bulky.
    Auto,
    /// Through the kernel from the first byte on, wherever it can be.
    Splice,
    /// Through our own buffers.
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    pub tcp_nodelay: bool,
    /// `None`: SO_KEEPALIVE stays off.
    pub keepalive: Option<Keepalive>,
    /// Sent data may stay unacknowledged this long. `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    pub idle: Duration,
    pub interval: Duration,
    pub probes: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamPlan {
    pub name: String,
    /// At least one.
    pub servers: Vec<ServerPlan>,
    pub balance: Balance,
    /// Connections that may wait on each core for a server with room; 0: none does.
    pub queue_max: usize,
    pub queue_timeout: Duration,
    pub warm: WarmPlan,
    pub tls: Option<UpstreamTls>,
    /// `None`: its connections alone show how its servers are.
    pub check: Option<CheckPlan>,
    pub resolve: ResolvePlan,
    pub local: LocalAddress,
    /// How long connections to an address that left the DNS may go on. `None`: to their end.
    pub resolve_drain: Option<Duration>,
    /// How long an address may take to connect until one of the other family is dialled beside
    /// it. `None`: none is.
    pub happy_eyeballs_delay: Option<Duration>,
    pub socket: SocketOptions,
    pub carriage: Carriage,
    /// The PROXY header that each connection to a server begins with.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// Connections to servers that are ready before a client needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmPlan {
    /// For each server and core; 0: none are.
    pub connections_max: usize,
    /// A ready connection that nobody needed is thrown away after so long.
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConnections,
    RandomTwoChoices,
    /// By the client's address.
    HashSource,
    /// By the server name of the ClientHello; by the client's address where there is none.
    HashSni,
}

/// How a try at a server fails, no byte of the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setback {
    /// Refused, reset or not to be reached.
    Refused,
    ConnectTimeout,
    /// TLS, by the server's words or its silence.
    Handshake,
    /// The server's certificate does not verify.
    Verification,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServerPlan {
    pub address: Located<ServerAddress>,
    /// 1 to 65,535: share of connections relative to the others.
    pub weight: u32,
    /// Has connections only when no other server may be tried.
    pub backup: bool,
    /// Has no connections at all.
    pub down: bool,
    /// Connections of all cores together; 0: no limit.
    pub connections_max: u32,
    pub health: HealthPlan,
}

/// When a server's failures take it out, and how it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPlan {
    /// Failures within `fail_timeout` that take it out; 0: none does.
    pub fails_max: u32,
    /// Also how long it is out.
    pub fail_timeout: Duration,
    /// In which its share grows after a recovery; zero: it has all of it at once.
    pub slow_start: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    Ip(SocketAddr),
    /// Resolved off the data plane, again when its TTL is over.
    Name {
        host: String,
        port: u16,
    },
    /// The name of an SRV record, `_service._tcp.domain`: hosts, ports and shares are found there.
    Service(String),
    Unix(PathBuf),
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResolvePlan {
    /// A shorter TTL counts as this long.
    pub ttl_min: Duration,
    /// A longer TTL counts as this long.
    pub ttl_max: Duration,
}
