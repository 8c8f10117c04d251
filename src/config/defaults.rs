//! What a key means when the file does not set it, the bounds it must keep, and why.

mod admin;
mod checks;
mod limits;
mod log;
mod names;
mod proxied;
mod sandbox;
mod servers;

use std::time::Duration;

use super::plan::{CipherSuite, Group, PathChoice, Steering, TlsVersions, VerifyClient};

pub use admin::ADMIN_SOCKET;
pub(super) use admin::*;
pub(super) use checks::*;
pub(super) use log::*;
pub(super) use names::*;
pub(super) use sandbox::*;
pub(super) use servers::*;

pub(super) use proxied::{
    PROXY_ALLOW_CN, PROXY_PROTOCOL, PROXY_PROTOCOL_TIMEOUT, PROXY_TRUSTED, UPSTREAM_PROXY_PROTOCOL,
};

pub(super) use limits::*;

/// A number or a time: its default and both bounds are inclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<T> {
    pub(super) key: &'static str,
    pub(super) default: T,
    pub(super) min: T,
    pub(super) max: T,
    pub(super) why: &'static str,
}

/// One of a few words. The first is the default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<T: 'static> {
    pub(super) key: &'static str,
    pub(super) words: &'static [(&'static str, T)],
    pub(super) why: &'static str,
}

/// On or off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch {
    pub(super) key: &'static str,
    pub(super) default: bool,
    pub(super) why: &'static str,
}

/// A key that has no value unless the file gives one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Optional {
    pub(super) key: &'static str,
    pub(super) why: &'static str,
}

/// A list that stands for itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<T: 'static> {
    pub(super) key: &'static str,
    pub(super) default: &'static [T],
    pub(super) why: &'static str,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// [runtime]

/// One worker a CPU: data stays in that core's cache, and no core waits for another.
pub(super) const WORKERS_WHY: &str = "one for each CPU that this process may run on";

/// More than the largest machines have threads would be a slip. CoreId is a u16.
pub(super) const WORKERS_MAX: usize = 1024;

/// Longer than most requests, shorter than systemd's TimeoutStopSec of 90 s, which would kill.
pub(super) const DRAIN_TIMEOUT: Setting<Duration> = Setting {
    key: "drain_timeout",
    default: secs(30),
    min: Duration::ZERO,
    max: secs(DAY),
    why: "well inside the 90s after which systemd kills a stopping service",
};

/// A full handshake costs about 100 us of CPU: 1,024 of them are 100 ms of one core's work. With
/// ten times as many, each would wait a second for its turn.
pub(super) const MAX_HANDSHAKES: Setting<usize> = Setting {
    key: "max_handshakes",
    default: 1024,
    min: 1,
    max: 1_000_000,
    why: "about 100 ms of one core's work, so each soon has its turn",
};

/// Accepting 64 takes well under a millisecond, so bytes already flowing hardly wait.
pub(super) const ACCEPT_BATCH: Setting<usize> = Setting {
    key: "accept_batch",
    default: 64,
    min: 1,
    max: 4096,
    why: "bytes that already flow wait under a millisecond for new connections",
};

pub(super) const WATCH: Switch = Switch {
    key: "watch",
    default: false,
    why: "who replaces files says when they are complete: `ringway reload`, SIGHUP",
};

/// Past 1,024 pipes of one unprivileged user Linux shrinks new ones to 8 KiB
/// (pipe-user-pages-soft); a pipe is lent only while it holds bytes, so few are busy at once.
pub(super) const PIPES: Setting<usize> = Setting {
    key: "pipes",
    default: 256,
    min: 0,
    max: 65_536,
    why: "four cores stay within the 1,024 full-size pipes Linux grants a user",
};

/// Whoever may connect there is given the sockets and the ticket keys.
pub(super) const TAKEOVER: Optional = Optional {
    key: "takeover",
    why: "no other process can have the sockets of this one",
};

// [[listener]]

/// Two file descriptors a connection, so 16,384 for a full listener. Who needs more raises the
/// process's limit with it, and finds out here rather than from EMFILE.
pub(super) const MAX_CONNECTIONS: Setting<usize> = Setting {
    key: "max_connections",
    default: 8192,
    min: 1,
    max: 10_000_000,
    why: "two descriptors each, so 16,384; raise RLIMIT_NOFILE together with it",
};

/// The kernel's own default bound (net.core.somaxconn since Linux 5.4); it cuts larger values.
pub(super) const BACKLOG: Setting<u32> = Setting {
    key: "backlog",
    default: 4096,
    min: 1,
    max: 65_535,
    why: "the kernel's own default for net.core.somaxconn",
};

/// Best spread; stateless tickets let a client resume on any core.
pub(super) const STEERING: Choice<Steering> = Choice {
    key: "steering",
    words: &[
        ("kernel", Steering::Kernel),
        ("source-address", Steering::SourceAddress),
    ],
    why: "spreads best, and tickets resume on any core",
};

/// A ClientHello is sent at once after connect: five seconds outlast two lost packets (1 s and
/// 3 s after RFC 6298), and a silent client holds its place no longer.
pub(super) const CLIENT_HELLO_TIMEOUT: Setting<Duration> = Setting {
    key: "client_hello_timeout",
    default: secs(5),
    min: Duration::from_millis(10),
    max: secs(10 * MINUTE),
    why: "outlasts two lost packets; a silent client holds its place no longer",
};

/// A handshake is two round trips: ten seconds serve satellite links with losses. nginx allows
/// 60 s, in which an attacker holds six times as many.
pub(super) const HANDSHAKE_TIMEOUT: Setting<Duration> = Setting {
    key: "handshake_timeout",
    default: secs(10),
    min: Duration::from_millis(10),
    max: secs(10 * MINUTE),
    why: "two round trips with losses on a slow link; nginx's 60s serve attackers",
};

/// Outlasts two lost packets, as CLIENT_HELLO_TIMEOUT does. nginx's 60 s outlast most clients.
pub(super) const CONNECT_TIMEOUT: Setting<Duration> = Setting {
    key: "connect_timeout",
    default: secs(5),
    min: Duration::from_millis(10),
    max: secs(10 * MINUTE),
    why: "a dead server is passed over while the client still waits",
};

/// nginx's proxy_timeout: long enough for pooled database connections between queries.
pub(super) const IDLE_TIMEOUT: Setting<Duration> = Setting {
    key: "idle_timeout",
    default: secs(10 * MINUTE),
    min: Duration::from_millis(100),
    max: secs(30 * DAY),
    why: "as nginx's proxy_timeout; pooled connections outlive a pause",
};

/// Two dead servers are survived; a client never waits for more than three time-outs.
pub(super) const NEXT_UPSTREAM_TRIES: Setting<u32> = Setting {
    key: "next_upstream_tries",
    default: 3,
    min: 1,
    max: 1024,
    why: "survives two dead servers and bounds the client's wait",
};

// Sockets, both legs

pub(super) const ROUTE_PLAIN: Switch = Switch {
    key: "plain",
    default: false,
    why: "where TLS is expected, a client without it is refused unless a route is made for it",
};

/// A proxy sends whole batches itself; Nagle's wait (RFC 896) only adds delayed-ACK pauses.
pub(super) const TCP_NODELAY: Switch = Switch {
    key: "tcp_nodelay",
    default: true,
    why: "Ringway batches by itself; Nagle's wait would only add latency",
};

pub(super) const KEEPALIVE_WHY: &str =
    "finds peers that vanished, and keeps NAT entries of a few minutes alive";

pub(super) const KEEPALIVE_IDLE: Setting<Duration> = Setting {
    key: "idle",
    default: secs(60),
    min: secs(1),
    max: secs(32_767),
    why: "shorter than the few minutes after which NAT boxes forget a connection",
};

pub(super) const KEEPALIVE_INTERVAL: Setting<Duration> = Setting {
    key: "interval",
    default: secs(15),
    min: secs(1),
    max: secs(32_767),
    why: "with four probes a dead peer is known two minutes after its last word",
};

pub(super) const KEEPALIVE_PROBES: Setting<u32> = Setting {
    key: "probes",
    default: 4,
    min: 1,
    max: 127,
    why: "three lost probes in a row may be congestion; four are not",
};

/// The kernel's own limit is its retransmissions, 15 minutes or more.
pub(super) const TCP_USER_TIMEOUT: Setting<Duration> = Setting {
    key: "tcp_user_timeout",
    default: secs(60),
    min: secs(1),
    max: secs(DAY),
    why: "unacknowledged data for a minute: the peer is gone; the kernel would wait 15m",
};

// The relay, both legs

pub(super) const RELAY_PATH: Choice<PathChoice> = Choice {
    key: "relay_path",
    words: &[
        ("auto", PathChoice::Auto),
        ("splice", PathChoice::Splice),
        ("user", PathChoice::User),
    ],
    why: "bulky directions go through the kernel, where it can; short ones do not pay for it",
};

/// docs/benchmarks.md, "Kernel TLS": what the hand-over costs, and when it has paid for itself.
pub(super) const KTLS_AFTER: Setting<u32> = Setting {
    key: "ktls_after",
    default: 256 * 1024,
    min: 0,
    max: 1 << 30,
    why: "the hand-over to kernel TLS has paid for itself by then, and short connections skip it",
};

// [listener.tls]

pub(super) const OCSP_RESPONSE: Optional = Optional {
    key: "ocsp_response",
    why: "nothing is stapled unless a file is named",
};

pub(super) const CLIENT_CA: Optional = Optional {
    key: "client_ca",
    why: "client certificates are not verified without it",
};

/// With a CA in the file, clients must show a certificate: a forgotten line must not open a door.
pub(super) const VERIFY_CLIENT: Choice<VerifyClient> = Choice {
    key: "verify_client",
    words: &[
        ("off", VerifyClient::Off),
        ("optional", VerifyClient::Optional),
        ("required", VerifyClient::Required),
        ("optional-no-ca", VerifyClient::OptionalNoCa),
    ],
    why: "no client_ca to verify with",
};

pub(super) const VERIFY_CLIENT_WITH_CA_WHY: &str =
    "client_ca is set, so clients must show a certificate";

/// nginx's default. 6 is what the verifier can walk.
pub(super) const VERIFY_DEPTH: Setting<u32> = Setting {
    key: "verify_depth",
    default: 1,
    min: 0,
    max: 6,
    why: "as nginx: one intermediate between certificate and CA",
};

pub(super) const CRL: Optional = Optional {
    key: "crl",
    why: "revocation is not checked unless a list is named",
};

pub(super) const ALLOW_IDENTITIES: Optional = Optional {
    key: "allow_identities",
    why: "every certificate that verifies may pass",
};

pub(super) const PROTOCOLS_WHY: &str = "what is not broken; older ones are (RFC 8996)";

pub(super) const PROTOCOLS: TlsVersions = TlsVersions {
    tls12: true,
    tls13: true,
};

pub(super) const CIPHERS: List<CipherSuite> = List {
    key: "ciphers",
    default: &[],
    why: "every suite Ringway has is strong; the fastest of this CPU comes first",
};

/// X25519MLKEM768 first: traffic recorded today stays closed to a quantum computer later. The
/// others are what today's clients without it have.
pub(super) const DOWNSTREAM_GROUPS: List<Group> = List {
    key: "groups",
    default: &[
        Group::X25519MlKem768,
        Group::X25519,
        Group::P256,
        Group::P384,
    ],
    why: "post-quantum first for clients that have it; X25519 is the fastest of the rest",
};

/// X25519MLKEM768 makes every ClientHello 1,184 bytes longer (its ML-KEM key share, FIPS 203) and
/// costs both ends 14 to 26 us a handshake; a hello in two packets upsets some servers and
/// middleboxes, and this leg is mostly inside one's own network.
pub(super) const UPSTREAM_GROUPS: List<Group> = List {
    key: "groups",
    default: &[Group::X25519, Group::P256, Group::P384],
    why: "the fastest first; add X25519MLKEM768 where this leg leaves your network",
};

pub(super) const DOWNSTREAM_ALPN: Optional = Optional {
    key: "alpn",
    why: "ALPN is not answered, as peers without it expect",
};

pub(super) const SESSION_RESUMPTION: Switch = Switch {
    key: "session_resumption",
    default: true,
    why: "a resumed handshake costs a fraction of a full one; tickets are bound to the policy",
};

/// A stolen ticket key opens a day at most; RFC 8446 4.6.1 allows seven.
pub(super) const SESSION_LIFETIME: Setting<Duration> = Setting {
    key: "session_lifetime",
    default: secs(DAY),
    min: secs(1),
    max: secs(7 * DAY),
    why: "clients that come back daily resume; RFC 8446 allows 7d",
};

pub(super) const SESSION_TICKET_KEYS: Optional = Optional {
    key: "session_ticket_keys",
    why: "keys are made at start, shared by all cores and rotated by themselves",
};

/// Tickets serve nearly all clients; this is for the few that resume by session ID alone.
pub(super) const SESSION_CACHE: Setting<usize> = Setting {
    key: "session_cache",
    default: 4096,
    min: 0,
    max: 1_048_576,
    why: "room for the few clients that resume by session ID and not by ticket",
};

/// A ticket costs about 6 us to make. Every connection, full or resumed, leaves one, so a client
/// has as many as it has connections; OpenSSL's and rustls's 2 pay for one that is rarely used.
pub(super) const SESSION_TICKETS: Setting<usize> = Setting {
    key: "session_tickets",
    default: 1,
    min: 0,
    max: 8,
    why: "each connection leaves the ticket for the next; a second costs 6 us unused",
};

// Both legs

pub(super) const KEY_LOG: Optional = Optional {
    key: "key_log",
    why: "TLS secrets are written nowhere; SSLKEYLOGFILE in the environment changes nothing",
};

pub(super) const KEY_LOG_SOURCES: Optional = Optional {
    key: "key_log_sources",
    why: "nobody's secrets are written",
};

// [upstream.X]

pub(super) const WEIGHT: Setting<u32> = Setting {
    key: "weight",
    default: 1,
    min: 1,
    max: 65_535,
    why: "every server gets the same share",
};

/// A TTL of 0 or 1 would ask the resolver without end.
pub(super) const RESOLVE_TTL_MIN: Setting<Duration> = Setting {
    key: "resolve_ttl_min",
    default: secs(5),
    min: secs(1),
    max: secs(DAY),
    why: "a TTL of 0 must not ask the resolver without end",
};

/// A day's TTL would keep a moved server's old address for a day.
pub(super) const RESOLVE_TTL_MAX: Setting<Duration> = Setting {
    key: "resolve_ttl_max",
    default: secs(5 * MINUTE),
    min: secs(1),
    max: secs(7 * DAY),
    why: "a server that moves is found in five minutes, whatever its TTL",
};

pub(super) const TRANSPARENT: Switch = Switch {
    key: "transparent",
    default: false,
    why: "servers see the proxy's address; the client's needs rights and routes",
};

// [upstream.X.tls]

pub(super) const CLIENT_CERTIFICATE: Optional = Optional {
    key: "certificate",
    why: "no certificate is shown to the servers",
};

pub(super) const CLIENT_PRIVATE_KEY: Optional = Optional {
    key: "private_key",
    why: "no certificate is shown to the servers",
};

pub(super) const TRUSTED_CERTIFICATE_WHY: &str =
    "the public CAs that this system trusts; an internal CA is named by its file";

pub(super) const VERIFY: Switch = Switch {
    key: "verify",
    default: true,
    why: "a server that is not verified could be anyone",
};

pub(super) const SERVER_NAME: Optional = Optional {
    key: "server_name",
    why: "each server's own host name or IP address is asked for and verified",
};

pub(super) const UPSTREAM_ALPN_WHY: &str =
    "what the listener agreed on with the client, if anything";

pub(super) const SESSION_REUSE: Switch = Switch {
    key: "session_reuse",
    default: true,
    why: "a resumed handshake costs a fraction of a full one",
};

const _: () = assert!(RESOLVE_TTL_MIN.default.as_secs() <= RESOLVE_TTL_MAX.default.as_secs());
