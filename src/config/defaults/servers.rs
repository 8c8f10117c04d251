//! The choice of a server: balancing, limits, failures, and going on to the next.

use std::time::Duration;

use super::{Choice, DAY, HOUR, List, MINUTE, Setting, Switch, secs};
use crate::config::plan::{Balance, Setback};

/// Two round trips within one's own network and the server's signature: a server that needs
/// longer is stuck.
pub(in crate::config) const UPSTREAM_HANDSHAKE_TIMEOUT: Setting<Duration> = Setting {
    key: "upstream_handshake_timeout",
    default: secs(5),
    min: Duration::from_millis(10),
    max: secs(10 * MINUTE),
    why: "a server that hangs is passed over while the client still waits",
};

/// No byte of the client is sent before a server is ready, so none of these can do a thing twice.
pub(in crate::config) const NEXT_UPSTREAM: List<(&str, Setback)> = List {
    key: "next_upstream",
    default: &[
        ("refused", Setback::Refused),
        ("connect-timeout", Setback::ConnectTimeout),
        ("handshake", Setback::Handshake),
        ("verification", Setback::Verification),
    ],
    why: "no byte of the client was sent yet, so all of them are safe",
};

/// Three tries that take their connect_timeout. nginx has no limit, and clients have.
pub(in crate::config) const NEXT_UPSTREAM_TIMEOUT: Setting<Duration> = Setting {
    key: "next_upstream_timeout",
    default: secs(15),
    min: Duration::from_millis(10),
    max: secs(HOUR),
    why: "three tries of connect_timeout; most clients wait no longer",
};

pub(in crate::config) const BALANCE: Choice<Balance> = Choice {
    key: "balance",
    words: &[
        ("round-robin", Balance::RoundRobin),
        ("least-connections", Balance::LeastConnections),
        ("random-two-choices", Balance::RandomTwoChoices),
        ("hash-source", Balance::HashSource),
        ("hash-sni", Balance::HashSni),
    ],
    why: "even load without shared state",
};

pub(in crate::config) const BACKUP: Switch = Switch {
    key: "backup",
    default: false,
    why: "every server has its share",
};

pub(in crate::config) const DOWN: Switch = Switch {
    key: "down",
    default: false,
    why: "who stands in the file is used",
};

/// 0 is nginx's word for none, too. What a server bears only its operator knows.
pub(in crate::config) const SERVER_MAX_CONNECTIONS: Setting<u32> = Setting {
    key: "max_connections",
    default: 0,
    min: 0,
    max: 10_000_000,
    why: "0: no limit; only its operator knows what a server bears",
};

pub(in crate::config) const SERVER_QUEUE: Setting<usize> = Setting {
    key: "queue",
    default: 0,
    min: 0,
    max: 1_000_000,
    why: "0: a client is told at once that there is no room",
};

/// Each costs a descriptor and the server's memory, on every core.
pub(in crate::config) const WARM: Setting<usize> = Setting {
    key: "warm",
    default: 0,
    min: 0,
    max: 1024,
    why: "0: no connection is made before a client needs it; not every server likes idle ones",
};

/// Shorter than the time after which servers end idle connections: nginx 60 s and more, Apache 5 s.
pub(in crate::config) const WARM_IDLE: Setting<Duration> = Setting {
    key: "warm_idle",
    default: secs(30),
    min: secs(1),
    max: secs(HOUR),
    why: "most servers end a connection that is silent for a minute",
};

pub(in crate::config) const QUEUE_TIMEOUT: Setting<Duration> = Setting {
    key: "queue_timeout",
    default: secs(5),
    min: Duration::from_millis(10),
    max: secs(10 * MINUTE),
    why: "as connect_timeout: a client waits no longer for room than for a server",
};

/// nginx's. A failed try costs the client a wait, not an error: there is no use in repeating it.
pub(in crate::config) const MAX_FAILS: Setting<u32> = Setting {
    key: "max_fails",
    default: 1,
    min: 0,
    max: 1_000_000,
    why: "as nginx: who fails is left alone for a while; 0: never",
};

/// nginx's: with many clients a dead server costs one wait in ten seconds and core.
pub(in crate::config) const FAIL_TIMEOUT: Setting<Duration> = Setting {
    key: "fail_timeout",
    default: secs(10),
    min: Duration::from_millis(10),
    max: secs(DAY),
    why: "as nginx: back soon after a restart, and few clients meet a dead server",
};

pub(in crate::config) const SLOW_START: Setting<Duration> = Setting {
    key: "slow_start",
    default: Duration::ZERO,
    min: Duration::ZERO,
    max: secs(DAY),
    why: "0s: its whole share at once; set it where caches must warm up",
};
