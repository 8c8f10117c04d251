//! Token buckets without a lock: one for a listener, one for each source.
//!
//! Each is a generic cell rate algorithm (ITU-T I.371): instead of a number of tokens it keeps the
//! moment at which the bucket is full again. It is in the past for a bucket that nobody has taken
//! from, so there is nothing to fill up and nothing to sweep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::sets::{Hash, Network, Sets};
use crate::config::Rate;

/// A listener's bucket. Times are nanoseconds since the table was made: 584 years of them.
#[derive(Debug)]
pub(super) struct Bucket {
    full_at: AtomicU64,
    pace: TokenPace,
}

/// In units of time.
#[derive(Debug, Clone, Copy)]
struct TokenPace {
    /// Between two tokens.
    each: u64,
    /// How far in the future a bucket may be full that still has a token.
    ahead_max: u64,
}

impl TokenPace {
    /// Rounded so that never more tokens come than `rate` says.
    fn new(rate: Rate, units_per_second: u64) -> Self {
        let each = units_per_second.div_ceil(rate.per_second.max(1).into());
        Self {
            each,
            ahead_max: each.saturating_mul(u64::from(rate.burst.max(1)) - 1),
        }
    }

    /// When the bucket is full again after a token was taken; `None`: it has none.
    fn take(self, full_at: u64, now: u64) -> Option<u64> {
        let full_at = full_at.max(now);
        (full_at - now <= self.ahead_max).then(|| full_at.saturating_add(self.each))
    }
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            full_at: AtomicU64::new(0),
            pace: TokenPace::new(rate, 1_000_000_000),
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let next = |full_at| self.pace.take(full_at, now);
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

/// A bucket for each source. Only buckets that are not full have a slot: who has waited long enough
/// is forgotten without loss.
#[derive(Debug)]
pub(super) struct SourceBuckets {
    sets: Sets,
    pace: TokenPace,
}

/// 512 KiB: so many sources may have taken tokens that have not come back yet.
const SLOTS: usize = 1 << 16;

/// The lower bits of a slot are a time, the upper ones name the source. In units of 8 us, 44 bits
/// are four and a half years.
const TIME_BITS: u32 = 44;
const TIME: u64 = (1 << TIME_BITS) - 1;
const UNIT_US: u64 = 8;

/// A slot that other cores keep changing is left alone after so many tries.
const TRIES_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Token,
    /// The source's set is full of others.
    Uncounted,
    Empty,
}

impl SourceBuckets {
    pub(super) fn new(rate: Rate) -> Self {
        Self::with_slots(rate, SLOTS)
    }

    fn with_slots(rate: Rate, slots: usize) -> Self {
        Self {
            sets: Sets::new(slots),
            pace: TokenPace::new(rate, 1_000_000 / UNIT_US),
        }
    }

    /// Takes a token of the source, if it has one. Cores that take for a new source at the same
    /// moment may each give it a bucket: it then has as many tokens more as there were such cores.
    pub(super) fn take(&self, network: Network, now: Duration) -> Taken {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX) / UNIT_US;
        let hash = self.sets.hash(network);
        for _ in 0..TRIES_MAX {
            if let Some(taken) = self.try_take(hash, now) {
                return taken;
            }
        }
        Taken::Uncounted
    }

    /// `None`: another core was faster.
    fn try_take(&self, hash: Hash, now: u64) -> Option<Taken> {
        let tag = hash.0 & !TIME;
        let mut free = None;
        for place in self.sets.places(hash) {
            let Some(slot) = self.sets.slot(place) else {
                continue;
            };
            let word = slot.load(Ordering::Relaxed);
            let full_at = word & TIME;
            if full_at <= now {
                free = free.or(Some((slot, word)));
            } else if word & !TIME == tag {
                let Some(next) = self.pace.take(full_at, now) else {
                    return Some(Taken::Empty);
                };
                return swapped(slot, word, tag, next);
            }
        }
        let Some((slot, word)) = free else {
            return Some(Taken::Uncounted);
        };
        swapped(slot, word, tag, now.saturating_add(self.pace.each))
    }
}

fn swapped(slot: &AtomicU64, word: u64, tag: u64, full_at: u64) -> Option<Taken> {
    if full_at > TIME {
        return Some(Taken::Uncounted);
    }
    slot.compare_exchange(word, tag | full_at, Ordering::Relaxed, Ordering::Relaxed)
        .ok()
        .map(|_| Taken::Token)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    fn network(n: u32) -> Network {
        Network::source(std::net::Ipv4Addr::from_bits(n).into())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many of `wishes` at the same moment are granted.
    fn granted(wishes: usize, take: impl Fn() -> bool) -> usize {
        (0..wishes).filter(|_| take()).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let bucket = Bucket::new(rate(100, 5));
        assert_eq!(granted(20, || bucket.take(ms(1000))), 5);
        assert_eq!(granted(20, || bucket.take(ms(1009))), 0);
        assert_eq!(granted(20, || bucket.take(ms(1010))), 1);
        assert_eq!(granted(20, || bucket.take(ms(1035))), 2);
        assert_eq!(
            granted(20, || bucket.take(ms(9000))),
            5,
            "never more than the burst"
        );
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let bucket = Bucket::new(rate(10, 1));
        assert!(bucket.take(ms(0)));
        assert_eq!(granted(1000, || bucket.take(ms(99))), 0);
        assert!(bucket.take(ms(100)));
    }

    #[test]
    fn a_second_holds_no_more_than_rate_and_burst_whatever_the_rate() {
        for per_second in [1, 3, 7, 999, 10_000] {
            let bucket = Bucket::new(rate(per_second, 1));
            let steps = u64::from(per_second) * 40;
            let given = (0..steps)
                .filter(|step| bucket.take(Duration::from_nanos(step * 1_000_000_000 / steps)));
            let given = given.count();
            assert!(given <= per_second as usize, "{given} of {per_second}");
            assert!(
                given * 10 >= per_second as usize * 9,
                "{given} of {per_second}"
            );
        }
    }

    #[test]
    fn each_source_has_a_bucket_of_its_own() {
        let buckets = SourceBuckets::new(rate(10, 3));
        for n in 0..50 {
            let take = || buckets.take(network(n), ms(5000)) == Taken::Token;
            assert_eq!(granted(10, take), 3, "source {n}");
        }
        let again = || buckets.take(network(7), ms(5100)) == Taken::Token;
        assert_eq!(granted(10, again), 1);
    }

    #[test]
    fn the_fastest_rate_of_a_source_is_kept_to_its_unit() {
        let buckets = SourceBuckets::new(rate(10_000, 1));
        let given = (0..10_000_u64).filter(|step| {
            let now = Duration::from_micros(1_000_000 + step * 100);
            buckets.take(network(1), now) == Taken::Token
        });
        let given = given.count();
        assert!((5_000..=10_000).contains(&given), "{given}");
    }

    #[test]
    fn who_has_waited_long_enough_makes_room_and_a_full_set_lets_others_in() {
        let buckets = SourceBuckets::with_slots(rate(1, 1), 8);
        for n in 0..8 {
            assert_eq!(buckets.take(network(n), ms(1000)), Taken::Token);
        }
        assert_eq!(buckets.take(network(8), ms(1000)), Taken::Uncounted);
        assert_eq!(buckets.take(network(3), ms(1900)), Taken::Empty);
        assert_eq!(buckets.take(network(8), ms(2100)), Taken::Token);
        assert_eq!(buckets.take(network(8), ms(2100)), Taken::Empty);
    }

    /// At one moment only bursts are given: one for each source, and one token more for each thread
    /// that made it a bucket at the same time.
    #[test]
    fn threads_take_no_more_than_the_burst_and_one_for_each_thread_beside() {
        const THREADS: usize = 4;
        let buckets = SourceBuckets::with_slots(rate(1, 100), 64);
        let listener = Bucket::new(rate(1, 1000));
        let (of_source, of_listener) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if buckets.take(network(1), ms(1)) == Taken::Token {
                            of_source.fetch_add(1, Ordering::Relaxed);
                        }
                        if listener.take(ms(1)) {
                            of_listener.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(of_listener.into_inner(), 1000);
        let of_source = of_source.into_inner();
        assert!((100..100 + THREADS).contains(&of_source), "{of_source}");
    }
}
