use super::{Alert, Side};

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Accepted; limits are checked.
    Accept,
    /// Waiting for a complete PROXY header.
    ProxyHeader,
    /// Waiting for a complete ClientHello.
    ClientHello,
    /// TLS handshake with the client.
    DownstreamHandshake,
    /// Opening a TCP or unix connection to a server.
    Connect,
    /// TLS handshake with the server.
    UpstreamHandshake,
    /// Bytes flow.
    Relay,
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::Accept,
        Self::ProxyHeader,
        Self::ClientHello,
        Self::DownstreamHandshake,
        Self::Connect,
        Self::UpstreamHandshake,
        Self::Relay,
    ];

    /// The word in the access log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::ProxyHeader => "proxy_header",
            Self::ClientHello => "client_hello",
            Self::DownstreamHandshake => "downstream_handshake",
            Self::Connect => "connect",
            Self::UpstreamHandshake => "upstream_handshake",
            Self::Relay => "relay",
        }
    }
}

/// What ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Both directions came to their clean end.
    Finished,
    /// The peer closed (FIN) before the phase was over.
    Closed,
    /// The peer reset the connection, or the network reported it dead.
    Reset,
    /// A TLS peer ended without close_notify: its data may be cut short.
    Truncated,
    /// A time limit of the configuration passed.
    Timeout,
    /// The peer's bytes break TLS or the PROXY protocol.
    Protocol,
    /// The peer sent a fatal TLS alert.
    Alert,
    /// The peer's certificate was missing or did not verify.
    Certificate,
    /// The certificate is valid, but its identity is not in `allow_identities`.
    Identity,
    /// A PROXY header is required, and the peer is not one that may send it.
    Untrusted,
    /// No route matches the ClientHello.
    NoRoute,
    /// A limit of the configuration refused the connection.
    Limit,
    /// The client's address may not connect.
    Denied,
    /// The connection had lived as long as it may.
    Expired,
    /// The server refused the connection, or could not be reached.
    Unreachable,
    /// No server of the group could be tried: without an address, down, or full.
    NoServer,
    /// The drain time was over, Ringway's or the server's address's, or a second signal came.
    Shutdown,
    /// Who operates Ringway closed it, or took its server down.
    Operator,
    /// The kernel refused something that is not the peer's fault (files, memory).
    System,
    /// A defect of Ringway: the connection's task panicked or was dropped unfinished.
    Internal,
}

impl Cause {
    pub const ALL: [Self; 20] = [
        Self::Finished,
        Self::Closed,
        Self::Reset,
        Self::Truncated,
        Self::Timeout,
        Self::Protocol,
        Self::Alert,
        Self::Certificate,
        Self::Identity,
        Self::Untrusted,
        Self::NoRoute,
        Self::Limit,
        Self::Denied,
        Self::Expired,
        Self::Unreachable,
        Self::NoServer,
        Self::Shutdown,
        Self::Operator,
        Self::System,
        Self::Internal,
    ];

    /// The word in the access log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol_error",
            Self::Alert => "alert",
            Self::Certificate => "certificate_refused",
            Self::Identity => "identity_refused",
            Self::Untrusted => "untrusted_peer",
            Self::NoRoute => "no_route",
            Self::Limit => "limit",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::NoServer => "no_server",
            Self::Shutdown => "shutdown",
            Self::Operator => "operator",
            Self::System => "system_error",
            Self::Internal => "internal_error",
        }
    }
}

/// Why, in which phase and by whose doing a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub cause: Cause,
    pub phase: Phase,
    /// Whose doing it was; `None`: Ringway's own (a limit, a shutdown, a clean end).
    pub side: Option<Side>,
    /// On the leg that failed: received from the peer where the cause is `Alert`, else sent to it.
    pub alert: Option<Alert>,
    /// Words for a human: the errno's text, the alert's name, what failed in a certificate.
    pub detail: Option<Box<str>>,
}

impl End {
    #[must_use]
    pub fn new(cause: Cause, phase: Phase, side: Option<Side>) -> Self {
        Self {
            cause,
            phase,
            side,
            alert: None,
            detail: None,
        }
    }

    #[must_use]
    pub fn with_alert(self, alert: Option<Alert>) -> Self {
        Self { alert, ..self }
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// Why connections are to end that neither peer has ended: what their records say.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    pub cause: Cause,
    pub detail: &'static str,
}

impl Order {
    pub const DRAIN_OVER: Self = Self::new(Cause::Shutdown, "drain_timeout");
    /// The server's address has been away from the DNS for so long.
    pub const RESOLVE_DRAIN_OVER: Self = Self::new(Cause::Shutdown, "resolve_drain");
    pub const BY_OPERATOR: Self = Self::new(Cause::Operator, "closed by the operator");
    /// Of a connection whose proof says more: a certificate that was shown would not be taken now.
    pub const WITHDRAWN: Self = Self::new(Cause::Certificate, "close_revoked");
    pub const SERVER_TAKEN_DOWN: Self =
        Self::new(Cause::Operator, "its server was taken down by the operator");

    const fn new(cause: Cause, detail: &'static str) -> Self {
        Self { cause, detail }
    }

    #[must_use]
    pub fn end(&self, phase: Phase) -> End {
        End::new(self.cause, phase, None).with_detail(self.detail)
    }
}
