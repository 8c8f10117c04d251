//! Active health checks.

use std::time::Duration;

use super::{DAY, MINUTE, Optional, Setting, secs};

pub(in crate::config) const CHECK_WHY: &str =
    "no [upstream.X.check]: failures of connections alone take servers out";

/// A server whose port is open and whose certificate has expired serves nobody.
pub(in crate::config) const CHECK_KIND_TLS_WHY: &str =
    "the group has TLS: what a connection needs is what a check should need";

pub(in crate::config) const CHECK_KIND_TCP_WHY: &str = "the group has no TLS: the port answers";

pub(in crate::config) const CHECK_PORT: Optional = Optional {
    key: "port",
    why: "the port that has the connections is the one to ask",
};

pub(in crate::config) const CHECK_SEND: Optional = Optional {
    key: "send",
    why: "who speaks first, and what, only the protocol knows",
};

pub(in crate::config) const CHECK_EXPECT: Optional = Optional {
    key: "expect",
    why: "a connection that is made is proof enough",
};

/// Bytes of `send` and of `expect`, and of what a server may send before `expect` is found.
pub(in crate::config) const CHECK_BYTES_MAX: usize = 4096;

/// HAProxy's. With `fall` a server that dies is out within six seconds.
pub(in crate::config) const CHECK_INTERVAL: Setting<Duration> = Setting {
    key: "interval",
    default: secs(2),
    min: Duration::from_millis(50),
    max: secs(DAY),
    why: "as HAProxy: with fall, a server that dies is out within six seconds",
};

/// HAProxy's, which takes the interval. Linux repeats a lost SYN after one second.
pub(in crate::config) const CHECK_TIMEOUT: Setting<Duration> = Setting {
    key: "timeout",
    default: secs(2),
    min: Duration::from_millis(10),
    max: secs(10 * MINUTE),
    why: "as HAProxy: outlasts a lost packet, which is repeated after a second",
};

/// HAProxy's.
pub(in crate::config) const CHECK_RISE: Setting<u32> = Setting {
    key: "rise",
    default: 2,
    min: 1,
    max: 1000,
    why: "as HAProxy: one good answer may be the last of a server that dies again",
};

/// HAProxy's.
pub(in crate::config) const CHECK_FALL: Setting<u32> = Setting {
    key: "fall",
    default: 3,
    min: 1,
    max: 1000,
    why: "as HAProxy: a lost packet or a short stall takes nobody out",
};
