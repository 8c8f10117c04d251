//! The access log's field names. Operators build on them: docs/access-log.md has every one, and
//! a test holds both together.

pub const TIME: &str = "time";
pub const ID: &str = "id";
pub const CORE: &str = "core";
pub const LISTENER: &str = "listener";
pub const CLIENT: &str = "client";
pub const LOCAL: &str = "local";
pub const PROXIED_BY: &str = "proxied_by";
pub const PROXIED_AUTHORITY: &str = "proxied_authority";
pub const PROXIED_ID: &str = "proxied_id";
pub const PROXIED_PROTOCOL: &str = "proxied_protocol";
pub const PROXIED_CIPHER: &str = "proxied_cipher";
pub const PROXIED_CN: &str = "proxied_cn";
pub const PROXIED_VERIFIED: &str = "proxied_verified";
pub const SNI: &str = "sni";
pub const DOWNSTREAM_PROTOCOL: &str = "downstream_protocol";
pub const DOWNSTREAM_CIPHER: &str = "downstream_cipher";
pub const DOWNSTREAM_GROUP: &str = "downstream_group";
pub const DOWNSTREAM_ALPN: &str = "downstream_alpn";
pub const DOWNSTREAM_RESUMED: &str = "downstream_resumed";
pub const CLIENT_IDENTITY: &str = "client_identity";
pub const CLIENT_VERIFIED: &str = "client_verified";
pub const UPSTREAM: &str = "upstream";
pub const SERVER: &str = "server";
pub const SERVER_ADDRESS: &str = "server_address";
pub const TRIES: &str = "tries";
pub const PASSED_OVER: &str = "passed_over";
pub const UPSTREAM_SNI: &str = "upstream_sni";
pub const UPSTREAM_PROTOCOL: &str = "upstream_protocol";
pub const UPSTREAM_CIPHER: &str = "upstream_cipher";
pub const UPSTREAM_GROUP: &str = "upstream_group";
pub const UPSTREAM_ALPN: &str = "upstream_alpn";
pub const UPSTREAM_RESUMED: &str = "upstream_resumed";
pub const SERVER_IDENTITY: &str = "server_identity";
pub const SERVER_VERIFIED: &str = "server_verified";
pub const BYTES_UP: &str = "bytes_up";
pub const BYTES_DOWN: &str = "bytes_down";
pub const PATH_UP: &str = "path_up";
pub const PATH_DOWN: &str = "path_down";
pub const FALLBACK_UP: &str = "fallback_up";
pub const FALLBACK_DOWN: &str = "fallback_down";
pub const PROXY_HEADER_MS: &str = "proxy_header_ms";
pub const CLIENT_HELLO_MS: &str = "client_hello_ms";
pub const DOWNSTREAM_HANDSHAKE_MS: &str = "downstream_handshake_ms";
pub const QUEUE_MS: &str = "queue_ms";
pub const WARM_MS: &str = "warm_ms";
pub const CONNECT_MS: &str = "connect_ms";
pub const UPSTREAM_HANDSHAKE_MS: &str = "upstream_handshake_ms";
pub const FIRST_BYTE_MS: &str = "first_byte_ms";
pub const TOTAL_MS: &str = "total_ms";
pub const END: &str = "end";
pub const PHASE: &str = "phase";
pub const ENDED_BY: &str = "ended_by";
pub const ALERT: &str = "alert";
pub const DETAIL: &str = "detail";
pub const LEFT_OUT: &str = "left_out";
pub const SAMPLED: &str = "sampled";

/// Every field, in the order of a line.
pub const ALL: [&str; 56] = [
    TIME,
    ID,
    CORE,
    LISTENER,
    CLIENT,
    LOCAL,
    PROXIED_BY,
    PROXIED_AUTHORITY,
    PROXIED_ID,
    PROXIED_PROTOCOL,
    PROXIED_CIPHER,
    PROXIED_CN,
    PROXIED_VERIFIED,
    SNI,
    DOWNSTREAM_PROTOCOL,
    DOWNSTREAM_CIPHER,
    DOWNSTREAM_GROUP,
    DOWNSTREAM_ALPN,
    DOWNSTREAM_RESUMED,
    CLIENT_IDENTITY,
    CLIENT_VERIFIED,
    UPSTREAM,
    SERVER,
    SERVER_ADDRESS,
    TRIES,
    PASSED_OVER,
    UPSTREAM_SNI,
    UPSTREAM_PROTOCOL,
    UPSTREAM_CIPHER,
    UPSTREAM_GROUP,
    UPSTREAM_ALPN,
    UPSTREAM_RESUMED,
    SERVER_IDENTITY,
    SERVER_VERIFIED,
    BYTES_UP,
    BYTES_DOWN,
    PATH_UP,
    PATH_DOWN,
    FALLBACK_UP,
    FALLBACK_DOWN,
    PROXY_HEADER_MS,
    CLIENT_HELLO_MS,
    DOWNSTREAM_HANDSHAKE_MS,
    QUEUE_MS,
    WARM_MS,
    CONNECT_MS,
    UPSTREAM_HANDSHAKE_MS,
    FIRST_BYTE_MS,
    TOTAL_MS,
    END,
    PHASE,
    ENDED_BY,
    ALERT,
    DETAIL,
    LEFT_OUT,
    SAMPLED,
];

/// The word of `ended_by` where neither side ended the connection.
pub const ENDED_BY_RINGWAY: &str = "ringway";

/// A field of the access log, by its place in [`ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogField(usize);

impl LogField {
    pub const COUNT: usize = ALL.len();

    /// Every field, in the order of a line.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().position(|known| *known == name).map(Self)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        ALL[self.0]
    }

    /// Below [`COUNT`](Self::COUNT).
    #[must_use]
    pub fn place(self) -> usize {
        self.0
    }
}
