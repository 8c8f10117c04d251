//! How many connections each source has, on all cores together, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sets::{Hash, Network, Sets};

/// The upper half of a slot names the source, the lower half counts. Zero is an empty slot.
///
/// Sequential consistency, because a limit holds over the sum of slots: of two cores that count one
/// source in two slots at the same moment, at least one sees both (below).
#[derive(Debug)]
pub(super) struct Counts {
    sets: Sets,
    max: u32,
}

/// Slots for each connection that the listener may have, each of which may be a source of its own:
/// with two sources in a set of eight on average, 1 of 4,000 finds its set full.
const SLOTS_EACH: usize = 4;
/// 32 MiB.
const SLOTS_MAX: usize = 1 << 22;

const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// What became of a wish to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// In this place, to be given back by [`Counts::leave`].
    At(usize),
    /// The source's set is full of others.
    Uncounted,
    /// The source has as many as it may.
    Full,
}

impl Counts {
    pub(super) fn new(max: u32, connections_max: usize) -> Self {
        let slots = connections_max.saturating_mul(SLOTS_EACH).min(SLOTS_MAX);
        Self {
            sets: Sets::new(slots),
            max,
        }
    }

    /// Counts one more, unless the source then had more than it may.
    ///
    /// It is counted first and looked at after: so the sum of those that were let in never exceeds
    /// the maximum, whatever other cores do. Two that come for the last place at the same moment may
    /// both be refused. A source may come to have two slots when two cores claim one for it at the
    /// same time; both count, and both are empty when its connections have ended.
    pub(super) fn enter(&self, network: Network) -> Counted {
        let hash = self.sets.hash(network);
        let Some(place) = self.add(hash) else {
            return Counted::Uncounted;
        };
        if self.sum(hash) > u64::from(self.max) {
            self.leave(place);
            return Counted::Full;
        }
        Counted::At(place)
    }

    pub(super) fn leave(&self, place: usize) {
        let less = |word: u64| match word & COUNT {
            0 => None,
            1 => Some(0),
            _ => Some(word - 1),
        };
        if let Some(slot) = self.sets.slot(place) {
            let left = slot.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            debug_assert!(left.is_ok(), "a place was given back twice");
        }
    }

    fn add(&self, hash: Hash) -> Option<usize> {
        let tag = tag(hash);
        let more = |word: u64| (word & !COUNT == tag && word & COUNT < COUNT).then(|| word + 1);
        let claim = |word: u64| (word == 0).then_some(tag | 1);
        self.change(hash, more).or_else(|| self.change(hash, claim))
    }

    /// The first slot of the set that `next` has a value for.
    fn change(&self, hash: Hash, next: impl Fn(u64) -> Option<u64> + Copy) -> Option<usize> {
        self.sets.places(hash).find(|place| {
            let changed = |slot: &AtomicU64| {
                slot.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
                    .is_ok()
            };
            self.sets.slot(*place).is_some_and(changed)
        })
    }

    fn sum(&self, hash: Hash) -> u64 {
        let tag = tag(hash);
        self.sets
            .places(hash)
            .filter_map(|place| self.sets.slot(place))
            .map(|slot| slot.load(Ordering::SeqCst))
            .filter(|word| word & !COUNT == tag)
            .map(|word| word & COUNT)
            .sum()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.sets.words().iter().all(|word| *word == 0)
    }
}

/// Never zero, so that no source looks like an empty slot. Two sources of one set that have the
/// same tag share their count: one pair in 2^31.
fn tag(hash: Hash) -> u64 {
    hash.0 & !COUNT | 1 << COUNT_BITS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn network(n: u32) -> Network {
        Network::source(std::net::Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn a_source_has_its_maximum_and_no_more_until_one_leaves() {
        let counts = Counts::new(2, 100);
        let first = counts.enter(network(1));
        assert!(matches!(counts.enter(network(1)), Counted::At(_)));
        assert_eq!(counts.enter(network(1)), Counted::Full);
        assert!(
            matches!(counts.enter(network(2)), Counted::At(_)),
            "another source"
        );
        let Counted::At(place) = first else {
            panic!("{first:?}");
        };
        counts.leave(place);
        assert_eq!(counts.enter(network(1)), Counted::At(place));
        assert_eq!(counts.enter(network(1)), Counted::Full);
    }

    #[test]
    fn a_set_that_is_full_of_others_lets_a_source_in_uncounted() {
        // One set of eight.
        let counts = Counts::new(1, 1);
        let places: Vec<_> = (0..8).map(|n| counts.enter(network(n))).collect();
        assert!(places.iter().all(|it| matches!(it, Counted::At(_))));
        assert_eq!(counts.enter(network(8)), Counted::Uncounted);
        assert_eq!(
            counts.enter(network(3)),
            Counted::Full,
            "who is counted stays so"
        );
        for place in places {
            let Counted::At(place) = place else {
                continue;
            };
            counts.leave(place);
        }
        assert!(counts.is_empty());
        assert!(matches!(counts.enter(network(8)), Counted::At(_)));
    }

    /// Few sources in few slots, so that threads meet in the same ones all the time.
    #[test]
    fn threads_never_let_in_more_than_the_maximum_and_leave_nothing_behind() {
        const SOURCES: usize = 5;
        const MAX: usize = 3;
        let counts = Counts::new(3, 4);
        let inside: [AtomicUsize; SOURCES] = Default::default();
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (counts, inside, most) = (&counts, &inside, &most);
                scope.spawn(move || {
                    for turn in 0..20_000 {
                        let source = (turn * 7 + thread * 3) % SOURCES;
                        let number = u32::try_from(source).unwrap();
                        if let Counted::At(place) = counts.enter(network(number)) {
                            let now = inside[source].fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            std::hint::spin_loop();
                            inside[source].fetch_sub(1, Ordering::SeqCst);
                            counts.leave(place);
                        }
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((1..=MAX).contains(&most), "{most} at once");
        assert!(counts.is_empty());
    }
}
