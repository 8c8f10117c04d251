//! Limits of clients and of single connections. Most are off unless the file sets them: what is
//! much for one service is little for another.

use std::time::Duration;

use super::{DAY, Optional, Setting, secs};

/// What a key that has no default may be set to.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Bounds<T> {
    pub(in crate::config) min: T,
    pub(in crate::config) max: T,
}

pub(in crate::config) const ALLOW: Optional = Optional {
    key: "allow",
    why: "every address may connect that `deny` does not name",
};

pub(in crate::config) const DENY: Optional = Optional {
    key: "deny",
    why: "no address is shut out",
};

pub(in crate::config) const MAX_CONNECTIONS_PER_SOURCE: Optional = Optional {
    key: "max_connections_per_source",
    why: "many clients may share an address behind NAT",
};

pub(in crate::config) const MAX_CONNECTIONS_PER_PREFIX: Optional = Optional {
    key: "max_connections_per_prefix",
    why: "many clients may share a network",
};

pub(in crate::config) const CONNECTIONS: Bounds<u32> = Bounds {
    min: 1,
    max: 10_000_000,
};

/// The longest prefix that the Internet's routers pass on, so mostly one holder's.
pub(in crate::config) const SOURCE_PREFIX_IPV4: Setting<u8> = Setting {
    key: "source_prefix_ipv4",
    default: 24,
    min: 8,
    max: 32,
    why: "the smallest network that the Internet routes, so mostly one holder's",
};

/// What a provider mostly gives one customer (RFC 6177).
pub(in crate::config) const SOURCE_PREFIX_IPV6: Setting<u8> = Setting {
    key: "source_prefix_ipv6",
    default: 56,
    min: 16,
    max: 64,
    why: "what a provider mostly gives one customer (RFC 6177)",
};

pub(in crate::config) const NEW_CONNECTIONS: Optional = Optional {
    key: "new_connections",
    why: "the listener accepts as fast as it can",
};

pub(in crate::config) const NEW_CONNECTIONS_PER_SOURCE: Optional = Optional {
    key: "new_connections_per_source",
    why: "a source may connect as fast as it can",
};

pub(in crate::config) const FULL_HANDSHAKES: Optional = Optional {
    key: "full_handshakes",
    why: "full handshakes are made as fast as the cores can",
};

pub(in crate::config) const FULL_HANDSHAKES_PER_SOURCE: Optional = Optional {
    key: "full_handshakes_per_source",
    why: "a source may ask for as many full handshakes as it can",
};

/// A bucket of a listener counts in nanoseconds.
pub(in crate::config) const RATE: Bounds<u32> = Bounds {
    min: 1,
    max: 1_000_000,
};

/// A bucket of a source counts in 8 microseconds: 12 of them are 10,000 a second.
pub(in crate::config) const RATE_PER_SOURCE: Bounds<u32> = Bounds {
    min: 1,
    max: 10_000,
};

pub(in crate::config) const BURST: Bounds<u32> = Bounds {
    min: 1,
    max: 10_000_000,
};

pub(in crate::config) const BURST_WHY: &str = "as many at once as come in a second";

pub(in crate::config) const MAX_UPLOAD_RATE: Optional = Optional {
    key: "max_upload_rate",
    why: "a client may send as fast as it can",
};

pub(in crate::config) const MAX_DOWNLOAD_RATE: Optional = Optional {
    key: "max_download_rate",
    why: "a server may send as fast as it can",
};

/// The largest receive of a slow connection, 68 KiB, is then paid off in about four seconds.
pub(in crate::config) const BYTE_RATE: Bounds<u32> = Bounds {
    min: 16 * 1024,
    max: 1 << 31,
};

pub(in crate::config) const MAX_SESSION: Optional = Optional {
    key: "max_session",
    why: "a connection lives as long as its ends use it",
};

pub(in crate::config) const SESSION: Bounds<Duration> = Bounds {
    min: Duration::from_millis(100),
    max: secs(365 * DAY),
};

pub(in crate::config) const CLOSE_REVOKED: Optional = Optional {
    key: "close_revoked",
    why: "a certificate is judged at the handshake, and a session may outlive it",
};

/// A core looks four times in that long.
pub(in crate::config) const REVOKED_CLOSED: Bounds<Duration> = Bounds {
    min: secs(1),
    max: secs(DAY),
};

/// At 500 bytes a line, 50 KB a second for each reason: no weapon, and more than a human reads.
pub(in crate::config) const REFUSED: Setting<u32> = Setting {
    key: "refused",
    default: 100,
    min: 1,
    max: 1_000_000,
    why: "more than a human reads, and 50 KB a second; the rest is counted",
};

pub(in crate::config) const SOURCE_ADDRESS: Optional = Optional {
    key: "source_address",
    why: "the kernel chooses by its routes",
};
