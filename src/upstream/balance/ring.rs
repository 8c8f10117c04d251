use super::{Seed, mixed};

/// A consistent hash: each member has points on a ring of hashes, as many as its weight asks for,
/// and a key belongs to the next point. A member that is lost leaves its keys to the members
/// behind its points, and no other key moves.
#[derive(Debug)]
pub(super) struct Ring {
    /// In order. Six bytes a point, in two lists.
    hashes: Vec<u32>,
    owners: Vec<u16>,
    shares: Vec<Share>,
    /// Members that have a share.
    open: usize,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    full: u32,
    /// Points whose own hash is at most this are in: all of them, or a part of a member that
    /// begins slowly.
    limit: u32,
    open: bool,
}

/// Points of a member of average weight: shares are even within a tenth or so.
const POINTS_EACH: u64 = 128;

/// Points that stand in one cache line.
const NEAR: usize = 16;

/// Points of a ring, 384 KiB: from 512 members on each has fewer.
pub(super) const POINTS_MAX: u64 = 65_536;

impl Ring {
    pub(super) fn new(seeds: &[Seed]) -> Self {
        let total: u64 = seeds.iter().map(|seed| u64::from(seed.weight)).sum();
        let members = seeds.iter().filter(|seed| seed.weight > 0).count() as u64;
        let budget = (members * POINTS_EACH).min(POINTS_MAX);
        let mut points: Vec<(u32, u16)> = Vec::new();
        for (owner, seed) in (0..=u16::MAX)
            .zip(seeds)
            .filter(|(_, seed)| seed.weight > 0)
        {
            let own = (u64::from(seed.weight) * budget / total).max(1);
            points.extend((0..own).map(|point| (point_of(seed.identity, point), owner)));
        }
        points.sort_unstable();
        let share = |seed: &Seed| Share {
            full: seed.weight,
            limit: u32::MAX,
            open: seed.weight > 0,
        };
        let (hashes, owners) = points.into_iter().unzip();
        Self {
            hashes,
            owners,
            shares: seeds.iter().map(share).collect(),
            open: usize::try_from(members).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn pick(&self, key: u64, tried: &[usize]) -> Option<usize> {
        if self.open == 0 {
            return None;
        }
        let key = high(mixed(key));
        let begin = self.next_point(key);
        let is_tried = |owner: usize| !tried.is_empty() && tried.contains(&owner);
        let points = || (begin..self.owners.len()).chain(0..begin);
        let in_share = |point: &usize| {
            let owner = usize::from(self.owners[*point]);
            let Share { limit, open, .. } = self.shares[owner];
            open && (limit == u32::MAX || scrambled(self.hashes[*point]) <= limit)
                && !is_tried(owner)
        };
        let found = points().find(in_share);
        // Who begins slowly may be the only one, with none of its points in yet.
        let found = found.or_else(|| {
            points().find(|point| {
                let owner = usize::from(self.owners[*point]);
                self.shares[owner].open && !is_tried(owner)
            })
        });
        found.map(|point| usize::from(self.owners[point]))
    }

    /// The first point whose hash is not below `key`. Hashes are spread evenly, so it is near where
    /// the key's own size says: that finds it in a cache line or two where halving takes sixteen.
    fn next_point(&self, key: u32) -> usize {
        let count = self.hashes.len();
        let guess = (u64::from(key) * count as u64) >> 32;
        let guess = usize::try_from(guess).unwrap_or(0).min(count);
        let (mut low, mut high, mut step) = (guess, guess, NEAR);
        while low > 0 && self.hashes[low - 1] >= key {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = NEAR;
        while high < count && self.hashes[high] < key {
            high = (high + step).min(count);
            step *= 2;
        }
        low + self.hashes[low..high].partition_point(|hash| *hash < key)
    }

    /// A part of the weight that the ring was made with: that part of the points.
    pub(super) fn reweigh(&mut self, member: usize, weight: u32) {
        let share = &mut self.shares[member];
        let was_open = std::mem::replace(&mut share.open, weight > 0 && share.full > 0);
        let part = u64::from(u32::MAX) * u64::from(weight) / u64::from(share.full.max(1));
        share.limit = u32::try_from(part).unwrap_or(u32::MAX);
        self.open = self.open + usize::from(share.open) - usize::from(was_open);
    }
}

fn point_of(identity: u64, point: u64) -> u32 {
    high(mixed(identity.wrapping_add(mixed(point))))
}

fn scrambled(hash: u32) -> u32 {
    high(mixed(u64::from(hash)))
}

fn high(bits: u64) -> u32 {
    u32::try_from(bits >> 32).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::{Chance, identity};

    const KEYS: u64 = 40_000;

    fn seeds(weights: &[u32]) -> Vec<Seed> {
        let seed = |(member, weight): (usize, &u32)| Seed {
            weight: *weight,
            active: 0,
            identity: identity(format!("10.0.0.{member}:80").as_bytes()),
        };
        weights.iter().enumerate().map(seed).collect()
    }

    fn owners(ring: &Ring, tried: &[usize]) -> Vec<Option<usize>> {
        (0..KEYS).map(|key| ring.pick(key, tried)).collect()
    }

    fn counts(owners: &[Option<usize>], members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        for owner in owners.iter().flatten() {
            counts[*owner] += 1;
        }
        counts
    }

    #[test]
    fn keys_are_shared_by_weight() {
        let owners = owners(&Ring::new(&seeds(&[1, 1, 2, 4])), &[]);
        let counts = counts(&owners, 4);
        for (count, expected) in counts.iter().zip([5_000, 5_000, 10_000, 20_000_usize]) {
            let off = expected.abs_diff(*count);
            assert!(off < expected / 4, "{counts:?}");
        }
    }

    #[test]
    fn a_members_loss_moves_its_keys_alone_and_its_return_brings_them_back() {
        let mut ring = Ring::new(&seeds(&[1; 10]));
        let before = owners(&ring, &[]);
        ring.reweigh(3, 0);
        let without = owners(&ring, &[]);
        for (before, after) in before.iter().zip(&without) {
            assert!(before == after || *before == Some(3));
            assert_ne!(*after, Some(3));
        }
        let heirs = counts(&without, 10).iter().filter(|it| **it > 0).count();
        assert_eq!(heirs, 9);
        ring.reweigh(3, 1);
        assert_eq!(owners(&ring, &[]), before);
        assert_eq!(owners(&ring, &[3]), without, "as if it were lost");
    }

    #[test]
    fn a_member_that_is_new_in_the_list_takes_its_share_and_moves_no_other_key() {
        let nine = owners(&Ring::new(&seeds(&[1; 9])), &[]);
        let ten = owners(&Ring::new(&seeds(&[1; 10])), &[]);
        let moved = |(nine, ten): &(&Option<usize>, &Option<usize>)| nine != ten;
        let moved: Vec<_> = nine.iter().zip(&ten).filter(moved).collect();
        assert!(moved.iter().all(|(_, after)| **after == Some(9)));
        assert!((2_500..6_000).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn a_part_of_the_weight_is_a_part_of_the_keys_and_more_of_it_takes_none_away() {
        let mut ring = Ring::new(&seeds(&[64; 4]));
        let mut own: Vec<u64> = Vec::new();
        for weight in [1, 16, 32, 64] {
            ring.reweigh(2, weight);
            let now: Vec<u64> = (0..KEYS)
                .filter(|key| ring.pick(*key, &[]) == Some(2))
                .collect();
            assert!(own.iter().all(|key| now.binary_search(key).is_ok()));
            let expected = 10_000 * u64::from(weight) / 64;
            assert!(expected.abs_diff(now.len() as u64) < 2_500, "{weight}");
            own = now;
        }
    }

    #[test]
    fn who_is_alone_has_every_key_however_slowly_it_begins() {
        let mut ring = Ring::new(&seeds(&[64, 64]));
        ring.reweigh(0, 0);
        ring.reweigh(1, 1);
        assert!(owners(&ring, &[]).iter().all(|owner| *owner == Some(1)));
        ring.reweigh(1, 0);
        assert_eq!(ring.pick(7, &[]), None);
        assert_eq!(Ring::new(&[]).pick(7, &[]), None);
    }

    #[test]
    fn every_key_finds_the_next_point() {
        for members in [1, 3, 100] {
            let ring = Ring::new(&seeds(&vec![1; members]));
            let mut chance = Chance::new(9);
            let hashes = ring
                .hashes
                .iter()
                .flat_map(|it| [*it, it.saturating_sub(1)]);
            let random = (0..10_000).map(|_| high(chance.draw()));
            for key in hashes.chain(random).chain([0, u32::MAX]) {
                let expected = ring.hashes.partition_point(|hash| *hash < key);
                assert_eq!(ring.next_point(key), expected, "{key}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_everyone_has_a_point() {
        let mut weights = vec![1; 1000];
        weights[0] = 65_535;
        let ring = Ring::new(&seeds(&weights));
        assert!(ring.hashes.len() as u64 <= POINTS_MAX + 1000);
        let has_point = |member: u16| ring.owners.contains(&member);
        assert!((0..1000).all(has_point));
    }
}
