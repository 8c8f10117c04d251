//! What can be measured. A row of the table is one [`Work`]: the legs that carry TLS, what the
//! clients do, and what both ends offer. Its name says all of it.

mod rows;

use clap::ValueEnum;

pub(crate) use rows::{LADDER, all_rows, select, table};

/// Which legs of the proxy carry TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// No TLS anywhere.
    Plain,
    /// TLS from the client to the proxy.
    Terminate,
    /// TLS from the proxy to the upstream server.
    Originate,
    /// TLS on both legs, each with its own session.
    Both,
    /// One TLS session from the client to the upstream server; the proxy reads the ClientHello.
    Passthrough,
}

impl Role {
    pub(crate) fn terminates(self) -> bool {
        matches!(self, Self::Terminate | Self::Both)
    }

    pub(crate) fn originates(self) -> bool {
        matches!(self, Self::Originate | Self::Both)
    }

    pub(crate) fn client_speaks_tls(self) -> bool {
        self.terminates() || self == Self::Passthrough
    }

    pub(crate) fn server_speaks_tls(self) -> bool {
        self.originates() || self == Self::Passthrough
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Terminate => "terminate",
            Self::Originate => "originate",
            Self::Both => "both",
            Self::Passthrough => "passthrough",
        }
    }

    /// What a stream that stays is called after it.
    fn participle(self) -> &'static str {
        match self {
            Self::Terminate => "terminated",
            Self::Originate => "originated",
            Self::Plain | Self::Both | Self::Passthrough => self.name(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Handshake {
    Full,
    Resumed,
}

impl Handshake {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Client,
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A new connection for each operation, as many at a time as are in flight: it counts when the
    /// first byte has come back.
    Connect(Handshake),
    /// The same at times of its own, whatever became of the ones before.
    Open(Handshake),
    /// Messages of this size there and back over connections that stay.
    Pingpong { bytes: usize },
    /// One direction as fast as it goes.
    Bulk(Toward),
    /// Connections that say nothing: the proxy's memory for each.
    Idle,
}

impl Mode {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Pingpong { .. } => "CPU us/op",
            Self::Open(_) => "p99 us",
            Self::Bulk(_) => "CPU s/GiB",
            Self::Idle => "KiB/conn",
        }
    }

    /// Bytes that the upstream server waits for before it sends as many back.
    pub(crate) fn message_bytes(self) -> usize {
        match self {
            Self::Pingpong { bytes } => bytes,
            Self::Connect(_) | Self::Open(_) | Self::Bulk(_) | Self::Idle => 1,
        }
    }

    /// The kind that every operation's handshake must be of, where each has one.
    pub(crate) fn handshake(self) -> Option<Handshake> {
        match self {
            Self::Connect(handshake) | Self::Open(handshake) => Some(handshake),
            Self::Pingpong { .. } | Self::Bulk(_) | Self::Idle => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// The key of every certificate that a TLS server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Key {
    #[value(name = "p256")]
    EcdsaP256,
    #[value(name = "rsa")]
    Rsa2048,
}

/// The group that every handshake must come out with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    #[value(name = "x25519")]
    X25519,
    #[value(name = "mlkem")]
    X25519MlKem768,
}

impl Group {
    /// As OpenSSL, AWS-LC and Ringway name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::X25519MlKem768 => "X25519MLKEM768",
        }
    }
}

/// The cipher suites that the harness's own end offers or accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suites {
    /// AES-128-GCM with SHA-256 alone: the same work for every proxy.
    Aes128,
    /// AES-256-GCM with SHA-384 first, as OpenSSL's and rustls's clients do.
    AsTheyCome,
}

/// Who opens a TLS leg, client or proxy, shows a certificate on it, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientIdentity {
    Anonymous,
    Certificate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) version: Version,
    pub(crate) key: Key,
    pub(crate) group: Group,
    pub(crate) suites: Suites,
    pub(crate) client: ClientIdentity,
    /// Connections at a time, where the row says so and not the command line.
    pub(crate) connections: Option<u16>,
}

impl Work {
    pub(crate) const fn new(role: Role, mode: Mode) -> Self {
        Self {
            role,
            mode,
            version: Version::Tls13,
            key: Key::EcdsaP256,
            group: Group::X25519,
            suites: Suites::Aes128,
            client: ClientIdentity::Anonymous,
            connections: None,
        }
    }

    /// X25519MLKEM768 is of TLS 1.3 only.
    pub(crate) fn is_possible(&self) -> bool {
        self.version == Version::Tls13 || self.group == Group::X25519
    }

    pub(crate) fn name(&self) -> String {
        let (role, mut tags) = (self.role, self.tags());
        match self.mode {
            Mode::Connect(_) if role == Role::Plain => "connect-plain".to_owned(),
            Mode::Open(_) if role == Role::Plain => "open-plain".to_owned(),
            Mode::Connect(kind) => {
                let (kind, version) = (kind.name(), self.version.name());
                format!("{}{tags}-{kind}-{version}", role.name())
            }
            Mode::Open(kind) => {
                let (kind, version) = (kind.name(), self.version.name());
                format!("open-{}{tags}-{kind}-{version}", role.name())
            }
            Mode::Pingpong { bytes } => {
                if let Some(connections) = self.connections {
                    tags += &format!("-x{connections}");
                }
                format!("pingpong-{}-{}{tags}", size(bytes), role.participle())
            }
            Mode::Bulk(Toward::Client) => format!("bulk-down-{}{tags}", role.participle()),
            Mode::Bulk(Toward::Server) => format!("bulk-up-{}{tags}", role.participle()),
            Mode::Idle => format!("idle-{}{tags}", role.participle()),
        }
    }

    /// What is not as in most rows. The version stands at the end where there are handshakes.
    fn tags(&self) -> String {
        let tags = [
            (self.key == Key::Rsa2048, "-rsa"),
            (self.group == Group::X25519MlKem768, "-mlkem"),
            (
                self.client == ClientIdentity::Certificate,
                "-client-certificate",
            ),
            (self.suites == Suites::AsTheyCome, "-as-they-come"),
            (
                self.mode.handshake().is_none() && self.version == Version::Tls12,
                "-1.2",
            ),
        ];
        tags.into_iter()
            .filter_map(|(is_on, tag)| is_on.then_some(tag))
            .collect()
    }
}

/// 16384 is 16k, 1000 is 1000.
fn size(bytes: usize) -> String {
    match bytes {
        1024.. if bytes.is_multiple_of(1024) => format!("{}k", bytes / 1024),
        _ => bytes.to_string(),
    }
}
