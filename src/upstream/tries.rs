//! How a try at a server fails, and how long it may take.

use std::io;
use std::time::{Duration, Instant};

use super::group::Endpoint;
use crate::config::{ListenerPlan, Setback};
use crate::net::PeerAddress;
use crate::types::{Cause, End, Phase, Side};

/// How long a try may take, and whether others follow.
#[derive(Debug, Clone, Copy)]
pub struct TryLimits<'a> {
    pub(super) connect_timeout: Duration,
    pub(super) handshake_timeout: Duration,
    /// All tries together.
    pub(super) total_timeout: Duration,
    pub(super) tries_max: u32,
    pub(super) next: &'a [Setback],
}

impl<'a> TryLimits<'a> {
    /// For a connection that no client waits for yet: one try, within what a server has by default.
    pub const WARM: Self = Self {
        connect_timeout: Duration::from_secs(5),
        handshake_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(10),
        tries_max: 1,
        next: &[],
    };

    #[must_use]
    pub fn of(listener: &'a ListenerPlan) -> Self {
        Self {
            connect_timeout: listener.connect_timeout,
            handshake_timeout: listener.upstream_handshake_timeout,
            total_timeout: listener.next_upstream_timeout,
            tries_max: listener.next_upstream_tries,
            next: &listener.next_upstream,
        }
    }
}

/// Why an attempt came to nothing.
pub(super) struct Refused {
    pub(super) end: End,
    /// `None`: with another server it would be the same.
    pub(super) setback: Option<Setback>,
    /// The server is at fault.
    pub(super) blamed: bool,
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        let setback = setback(&end);
        Self {
            end,
            blamed: setback.is_some(),
            setback,
        }
    }
}

/// How a server has failed; `None`: what went wrong is ours, or would go wrong with any other.
pub(super) fn setback(end: &End) -> Option<Setback> {
    match (end.phase, end.cause) {
        (Phase::Connect, Cause::Timeout) => Some(Setback::ConnectTimeout),
        (Phase::Connect, Cause::Unreachable | Cause::Reset) => Some(Setback::Refused),
        (Phase::UpstreamHandshake, Cause::Certificate | Cause::Identity) => {
            Some(Setback::Verification)
        }
        (
            Phase::UpstreamHandshake,
            Cause::Timeout
            | Cause::Protocol
            | Cause::Alert
            | Cause::Closed
            | Cause::Reset
            | Cause::Truncated,
        ) => Some(Setback::Handshake),
        _ => None,
    }
}

/// "connect: unreachable: 127.0.0.1:80: Connection refused"
pub(super) fn in_words(end: &End) -> String {
    let detail = end.detail.as_deref().unwrap_or_default();
    format!("{}: {}: {detail}", end.phase.name(), end.cause.name())
}

/// A limit of one step of an attempt, and the key that it has its length from.
pub(super) struct StepLimit {
    pub(super) length: Duration,
    key: &'static str,
}

impl StepLimit {
    pub(super) fn new(
        length: Duration,
        key: &'static str,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        let left = deadline.saturating_duration_since(now);
        if left < length {
            return Self {
                length: left,
                key: "next_upstream_timeout",
            };
        }
        Self { length, key }
    }

    /// A server that had less than its own time is not to blame.
    pub(super) fn passed(&self, phase: Phase, own: &'static str, address: &PeerAddress) -> Refused {
        let end = with_address(upstream_end(Cause::Timeout, phase, self.key), address);
        let setback = setback(&end).filter(|_| self.key == own);
        Refused {
            end,
            blamed: setback.is_some(),
            setback,
        }
    }
}

pub(super) const CONNECT_TIMEOUT: &str = "connect_timeout";
pub(super) const HANDSHAKE_TIMEOUT: &str = "upstream_handshake_timeout";

/// A reset tells of a connection that was made (one that was not is refused, RFC 9293 3.10.7):
/// the server left when it should have begun its part.
pub(super) fn dial_end(error: &io::Error, endpoint: &Endpoint) -> End {
    let (cause, phase) = match error.kind() {
        io::ErrorKind::ConnectionReset if endpoint.tls.is_some() => {
            (Cause::Reset, Phase::UpstreamHandshake)
        }
        io::ErrorKind::ConnectionReset => (Cause::Reset, Phase::Connect),
        _ if is_ours(error) => {
            return End::new(Cause::System, Phase::Connect, None).with_detail(error.to_string());
        }
        _ => (Cause::Unreachable, Phase::Connect),
    };
    upstream_end(cause, phase, error)
}

/// Out of files or memory: no server is to blame, and none would fare better.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    const OURS: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error
        .raw_os_error()
        .is_some_and(|code| OURS.contains(&code))
}

pub(super) fn upstream_end(cause: Cause, phase: Phase, detail: impl ToString) -> End {
    End::new(cause, phase, Some(Side::Upstream)).with_detail(detail.to_string())
}

pub(super) fn with_address(end: End, address: &PeerAddress) -> End {
    let detail = end.detail.as_deref().unwrap_or_default();
    let words = format!("{address}: {detail}");
    end.with_detail(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_done_wrong_is_told_from_what_is_ours() {
        let upstream = Some(Side::Upstream);
        let of = |phase, cause| setback(&End::new(cause, phase, upstream));
        let (connect, handshake) = (Phase::Connect, Phase::UpstreamHandshake);
        for (phase, cause, expected) in [
            (connect, Cause::Unreachable, Some(Setback::Refused)),
            (connect, Cause::Reset, Some(Setback::Refused)),
            (connect, Cause::Timeout, Some(Setback::ConnectTimeout)),
            (connect, Cause::System, None),
            (handshake, Cause::Timeout, Some(Setback::Handshake)),
            (handshake, Cause::Closed, Some(Setback::Handshake)),
            (handshake, Cause::Reset, Some(Setback::Handshake)),
            (handshake, Cause::Protocol, Some(Setback::Handshake)),
            (handshake, Cause::Alert, Some(Setback::Handshake)),
            (handshake, Cause::Certificate, Some(Setback::Verification)),
            (handshake, Cause::Identity, Some(Setback::Verification)),
            (handshake, Cause::Limit, None),
            (handshake, Cause::Internal, None),
            (Phase::Relay, Cause::Reset, None),
        ] {
            assert_eq!(of(phase, cause), expected, "{phase:?} {cause:?}");
        }
    }

    #[test]
    fn a_server_that_had_less_than_its_own_time_is_not_blamed() {
        let now = Instant::now();
        let (second, address) = (
            Duration::from_secs(1),
            PeerAddress::Unix(std::sync::Arc::new("/x".into())),
        );
        let of = |deadline| StepLimit::new(2 * second, CONNECT_TIMEOUT, now, deadline);
        let whole = of(now + 3 * second);
        assert_eq!((whole.length, whole.key), (2 * second, CONNECT_TIMEOUT));
        let refused = whole.passed(Phase::Connect, CONNECT_TIMEOUT, &address);
        assert_eq!(refused.setback, Some(Setback::ConnectTimeout));
        let cut = of(now + second);
        assert_eq!((cut.length, cut.key), (second, "next_upstream_timeout"));
        let refused = cut.passed(Phase::Connect, CONNECT_TIMEOUT, &address);
        assert_eq!((refused.setback, refused.end.cause), (None, Cause::Timeout));
        assert_eq!(of(now).length, Duration::ZERO);
    }
}
