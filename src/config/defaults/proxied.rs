use std::time::Duration;

use super::{Choice, Optional, Setting, secs};
use crate::config::plan::{ProxyDemand, ProxyVersion};

/// A header is believed, so that it is asked for by name.
pub(in crate::config) const PROXY_PROTOCOL: Choice<Option<ProxyDemand>> = Choice {
    key: "proxy_protocol",
    words: &[
        ("off", None),
        ("optional", Some(ProxyDemand::Optional)),
        ("required", Some(ProxyDemand::Required)),
    ],
    why: "clients come by themselves, and the socket says who they are",
};

pub(in crate::config) const PROXY_TRUSTED: Optional = Optional {
    key: "proxy_trusted",
    why: "nobody is believed who is not named",
};

pub(in crate::config) const PROXY_ALLOW_CN: Optional = Optional {
    key: "proxy_allow_cn",
    why: "every client of a trusted proxy may pass, whatever certificate it showed there",
};

/// "At least 3 seconds to cover a TCP retransmit" (section 2 of the PROXY protocol): a proxy sends
/// its header with the first bytes, from nearby. nginx waits 30 s.
pub(in crate::config) const PROXY_PROTOCOL_TIMEOUT: Setting<Duration> = Setting {
    key: "proxy_protocol_timeout",
    default: secs(3),
    min: Duration::from_millis(10),
    max: secs(600),
    why: "a lost packet comes again within it; a header is sent at once or not at all",
};

pub(in crate::config) const UPSTREAM_PROXY_PROTOCOL: Choice<Option<ProxyVersion>> = Choice {
    key: "proxy_protocol",
    words: &[
        ("off", None),
        ("v1", Some(ProxyVersion::V1)),
        ("v2", Some(ProxyVersion::V2)),
    ],
    why: "a server that does not expect the header takes it for the client's first bytes",
};
