//! How long what a connection leaves behind may be used.
//!
//! rustls does not tell a ticketer or a session store whose session it holds, and takes the peer's
//! certificate out of a resumed session without checking it again. So the verifiers write here
//! when the certificate ends, the stores keep it with the session and hand it on at a resumption.

use std::cell::Cell;

use super::gate;
use crate::types::UnixSeconds;

/// Sessions descended from one full handshake end after this long, renewals included: the bound
/// of RFC 8446 4.6.1 on a ticket, applied to the whole line of tickets.
pub(super) const SESSION_SECS_MAX: u64 = 7 * 24 * 3600;

/// A ticket may come from a host whose clock is ahead by this much.
const CLOCK_SKEW_SECS_MAX: u64 = 300;

thread_local! {
    static CURRENT: Cell<Option<PeerBound>> = const { Cell::new(None) };
}

/// What one connection has proved about its peer; lives as long as the connection's TLS.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PeerBound {
    not_after: Option<UnixSeconds>,
    authenticated_at: Option<UnixSeconds>,
    verified: bool,
}

impl PeerBound {
    /// When the peer's certificate ends. `None`: it showed none.
    #[must_use]
    pub fn not_after(&self) -> Option<UnixSeconds> {
        self.not_after
    }

    /// Whether the peer's certificate came from a known issuer, in this handshake or in the one
    /// that this session descends from.
    #[must_use]
    pub fn verified(&self) -> bool {
        self.verified
    }
}

/// Runs a call into rustls for the connection that `bound` belongs to.
///
/// Needed around everything that may verify a certificate, or read or write a session: making the
/// connection, every `process_tls_records`, and a NewSessionTicket that arrives after the
/// handshake. Outside of it sessions of authenticated peers are neither kept nor issued.
pub fn with_peer_bound<R>(bound: &mut PeerBound, run: impl FnOnce() -> R) -> R {
    let scope = Scope {
        outer: CURRENT.replace(Some(*bound)),
    };
    let result = run();
    if let Some(reached) = CURRENT.get() {
        *bound = reached;
    }
    drop(scope);
    result
}

/// Restores the outer scope, also when the call unwinds.
struct Scope {
    outer: Option<PeerBound>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

/// A verifier accepted the peer's certificate in a full handshake.
pub(super) fn on_peer_accepted(not_after: UnixSeconds, verified: bool, now: UnixSeconds) {
    if CURRENT.get().is_some() {
        CURRENT.set(Some(PeerBound {
            not_after: Some(not_after),
            authenticated_at: Some(now),
            verified,
        }));
    }
}

/// What goes with a session into a ticket or a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    issued_at: UnixSeconds,
    authenticated_at: UnixSeconds,
    /// `u64::MAX`: the peer has no certificate.
    not_after: UnixSeconds,
    verified: bool,
}

impl Grant {
    pub(super) const BYTES: usize = 25;

    /// For a session of the current connection. `None` outside of a scope: nothing is known about
    /// the peer then.
    pub(super) fn issue(now: UnixSeconds) -> Option<Self> {
        CURRENT.get().map(|bound| Self {
            issued_at: now,
            authenticated_at: bound.authenticated_at.unwrap_or(now),
            not_after: bound.not_after.unwrap_or(UnixSeconds::MAX),
            verified: bound.verified,
        })
    }

    /// For a session whose peer is never authenticated.
    pub(super) fn anonymous(now: UnixSeconds) -> Self {
        Self {
            issued_at: now,
            authenticated_at: now,
            not_after: UnixSeconds::MAX,
            verified: false,
        }
    }

    /// The last second at which the session may be resumed.
    pub(super) fn ends_at(&self, lifetime_secs: u64) -> UnixSeconds {
        self.issued_at
            .saturating_add(lifetime_secs)
            .min(self.authenticated_at.saturating_add(SESSION_SECS_MAX))
            .min(self.not_after)
    }

    pub(super) fn is_usable(&self, now: UnixSeconds, lifetime_secs: u64) -> bool {
        now <= self.ends_at(lifetime_secs)
            && self.issued_at <= now.saturating_add(CLOCK_SKEW_SECS_MAX)
    }

    /// The current connection resumes this session: what it leaves behind is bound as this was.
    pub(super) fn carry_on(&self) {
        gate::on_session_opened();
        if CURRENT.get().is_some() {
            CURRENT.set(Some(PeerBound {
                not_after: (self.not_after != UnixSeconds::MAX).then_some(self.not_after),
                authenticated_at: Some(self.authenticated_at),
                verified: self.verified,
            }));
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.issued_at.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.authenticated_at.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.not_after.to_be_bytes());
        bytes[24] = u8::from(self.verified);
        bytes
    }

    /// Splits what [`Grant::encode`] wrote from what follows it.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (issued_at, rest) = bytes.split_first_chunk()?;
        let (authenticated_at, rest) = rest.split_first_chunk()?;
        let (not_after, rest) = rest.split_first_chunk()?;
        let (verified, rest) = rest.split_first()?;
        let grant = Self {
            issued_at: u64::from_be_bytes(*issued_at),
            authenticated_at: u64::from_be_bytes(*authenticated_at),
            not_after: u64::from_be_bytes(*not_after),
            verified: *verified == 1,
        };
        Some((grant, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_survives_its_encoding() {
        let grant = Grant {
            issued_at: 7,
            authenticated_at: 5,
            not_after: 99,
            verified: true,
        };
        let mut bytes = grant.encode().to_vec();
        bytes.extend_from_slice(b"rest");
        assert_eq!(Grant::decode(&bytes), Some((grant, &b"rest"[..])));
        assert_eq!(Grant::decode(&bytes[..Grant::BYTES - 1]), None);
    }

    #[test]
    fn the_earliest_of_lifetime_certificate_and_first_handshake_ends_a_session() {
        let grant = Grant {
            issued_at: 1_000_000,
            authenticated_at: 1_000_000,
            not_after: 1_000_050,
            verified: true,
        };
        assert!(grant.is_usable(1_000_050, 3600));
        assert!(!grant.is_usable(1_000_051, 3600));
        assert!(!grant.is_usable(1_000_011, 10));
        let renewed = Grant {
            authenticated_at: 1_000_000 - SESSION_SECS_MAX,
            ..grant
        };
        assert!(renewed.is_usable(1_000_000, 3600));
        assert!(!renewed.is_usable(1_000_001, 3600));
    }

    #[test]
    fn nothing_is_known_outside_of_a_scope_and_scopes_nest() {
        on_peer_accepted(10, true, 1);
        assert_eq!(Grant::issue(1), None);
        let (mut outer, mut inner) = (PeerBound::default(), PeerBound::default());
        with_peer_bound(&mut outer, || {
            on_peer_accepted(10, true, 1);
            with_peer_bound(&mut inner, || on_peer_accepted(20, false, 2));
            assert_eq!(Grant::issue(3).map(|grant| grant.not_after), Some(10));
        });
        assert!(outer.verified());
        assert_eq!(inner.not_after, Some(20));
        assert!(CURRENT.get().is_none());
    }

    #[test]
    fn a_panic_inside_a_scope_does_not_leak_its_peer_into_the_next_connection() {
        let mut bound = PeerBound::default();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            with_peer_bound(&mut bound, || {
                on_peer_accepted(10, true, 1);
                panic!("on purpose");
            });
        }));
        assert!(unwound.is_err());
        assert!(CURRENT.get().is_none());
    }
}
