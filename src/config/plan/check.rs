use std::time::Duration;

/// How a group's servers are asked whether they serve, beside its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPlan {
    pub kind: CheckKind,
    /// Instead of the server's own.
    pub port: Option<u16>,
    /// Sent once the connection is there. Empty: nothing is.
    pub send: Vec<u8>,
    /// Must come within `timeout`, wherever it stands in what comes. Empty: the connection is proof.
    pub expect: Vec<u8>,
    /// From the beginning of one check to that of the next.
    pub interval: Duration,
    /// For all of one check.
    pub timeout: Duration,
    /// Checks in a row that must pass before a server that is down is up.
    pub rise: u32,
    /// Checks in a row that must fail before a server that is up is down.
    pub fall: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    Tcp,
    /// As the group's own connections: its CAs, name, depth, lists and certificate.
    Tls,
}

impl CheckKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}
