//! When a name is asked for again. Pure: the chance comes in as an argument.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::config::ResolvePlan;

/// First and longest wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Waits are lengthened by up to this part, so that hosts started together, and names learnt
/// together, do not ask together for ever.
const JITTER_PART: u32 = 10;

/// How long an answer serves: its TTL within the plan's bounds, and up to a tenth longer.
/// `jitter` is a fraction, 0 to 1.
#[must_use]
pub fn schedule(ttl: Duration, limits: ResolvePlan, jitter: f64) -> Duration {
    // Where the bounds contradict each other the floor wins: it protects the DNS server.
    spread(ttl.min(limits.ttl_max).max(limits.ttl_min), jitter)
}

/// How long to wait after this many failures in a row.
#[must_use]
pub fn backoff(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = RETRY_FIRST.saturating_mul(1 << doublings);
    spread(wait.min(RETRY_MAX), jitter)
}

/// Lengthened by up to a tenth.
pub(in crate::control) fn spread(wait: Duration, jitter: f64) -> Duration {
    let part = (wait / JITTER_PART).as_secs_f64() * jitter.clamp(0.0, 1.0);
    wait.saturating_add(Duration::try_from_secs_f64(part).unwrap_or_default())
}

/// A fraction, 0 to 1, other each time and on each host: std seeds its hashers from the kernel.
#[must_use]
pub fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ResolvePlan = ResolvePlan {
        ttl_min: Duration::from_secs(5),
        ttl_max: Duration::from_secs(300),
    };

    fn seconds(ttl: u64) -> u64 {
        schedule(Duration::from_secs(ttl), LIMITS, 0.0).as_secs()
    }

    #[test]
    fn an_answer_serves_for_its_ttl_within_floor_and_ceiling() {
        assert_eq!([0, 5, 60, 300, 86_400].map(seconds), [5, 5, 60, 300, 300]);
        assert_eq!(seconds(u64::MAX), 300);
    }

    #[test]
    fn jitter_lengthens_by_a_tenth_at_most_and_never_shortens() {
        let ttl = Duration::from_secs(60);
        assert_eq!(schedule(ttl, LIMITS, 1.0), Duration::from_secs(66));
        assert_eq!(schedule(ttl, LIMITS, 0.5), Duration::from_secs(63));
        for broken in [-1.0, 7.0, f64::NAN, f64::INFINITY] {
            let wait = schedule(ttl, LIMITS, broken);
            assert!((ttl..=ttl * 11 / 10).contains(&wait), "{broken}: {wait:?}");
        }
    }

    #[test]
    fn a_floor_above_the_ceiling_wins() {
        let limits = ResolvePlan {
            ttl_min: Duration::from_secs(10),
            ttl_max: Duration::from_secs(1),
        };
        assert_eq!(schedule(Duration::from_secs(60), limits, 0.0).as_secs(), 10);
    }

    #[test]
    fn failures_are_retried_at_growing_intervals_with_a_ceiling() {
        let waits = [1, 2, 3, 7, 8, u32::MAX].map(|failures| backoff(failures, 0.0).as_millis());
        assert_eq!(waits, [500, 1_000, 2_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn chance_is_a_fraction_and_differs() {
        let draws: Vec<f64> = (0..64).map(|_| jitter()).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        assert!(draws.iter().any(|draw| *draw < 0.5) && draws.iter().any(|draw| *draw > 0.5));
    }
}
