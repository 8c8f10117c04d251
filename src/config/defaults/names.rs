//! Servers that are found by DNS.

use std::time::Duration;

use super::{DAY, Optional, Setting, secs};

/// Both families, search domains and time-outs are the host's business; nginx, which never reads
/// that file, has `resolver`.
pub(in crate::config) const RESOLVER: Optional = Optional {
    key: "resolver",
    why: "the name servers of /etc/resolv.conf, as for the rest of this host",
};

/// Connections of a database go on for days, and who moves a server can drain it there.
pub(in crate::config) const RESOLVE_DRAIN: Optional = Optional {
    key: "resolve_drain",
    why: "an answer may be wrong, and a live connection proves that its server is there",
};

/// As that of `drain_timeout`.
pub(in crate::config) const RESOLVE_DRAIN_MAX: Duration = secs(DAY);

/// The Connection Attempt Delay that RFC 8305 section 5 recommends, with its bounds of section 8:
/// longer than a round trip to nearly any server, so that a second attempt is rare.
pub(in crate::config) const HAPPY_EYEBALLS_DELAY: Setting<Duration> = Setting {
    key: "happy_eyeballs_delay",
    default: Duration::from_millis(250),
    min: Duration::from_millis(10),
    max: secs(2),
    why: "as RFC 8305: longer than a round trip to nearly any server, hardly felt by a client",
};
