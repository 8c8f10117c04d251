use super::mixed;

/// Two members drawn at random by weight, and of these the one with fewer connections for its
/// weight: nearly as even as looking at all, and cores that know nothing of each other do not
/// run to the same member.
#[derive(Debug)]
pub(super) struct RandomTwo {
    weights: Vec<u32>,
    active: Vec<u32>,
    /// Of each [`BLOCK`] weights.
    sums: Vec<u64>,
    total: u64,
}

/// A draw looks through the sums, then through one block: both in a row, which memory likes better
/// than a tree. For a thousand members both are as long.
const BLOCK: usize = 32;

/// A member, and the sum of the weights before it.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    member: usize,
    before: u64,
}

impl RandomTwo {
    /// `members`: weight and connections of each.
    pub(super) fn new(members: impl ExactSizeIterator<Item = (u32, u32)>) -> Self {
        let count = members.len();
        let mut all = Self {
            weights: vec![0; count],
            active: vec![0; count],
            sums: vec![0; count.div_ceil(BLOCK)],
            total: 0,
        };
        for (member, (weight, active)) in members.enumerate() {
            all.reweigh(member, weight);
            all.active[member] = active;
        }
        all
    }

    pub(super) fn pick(&mut self, draw: u64, tried: &[usize]) -> Option<usize> {
        if tried.is_empty() {
            return self.pick_of_all(draw);
        }
        let kept: Vec<u32> = tried.iter().map(|it| self.weights[*it]).collect();
        tried.iter().for_each(|member| self.reweigh(*member, 0));
        let picked = self.pick_of_all(draw);
        for (member, weight) in tried.iter().zip(kept) {
            // One that stands twice had no weight left the second time.
            self.reweigh(*member, self.weights[*member].max(weight));
        }
        picked
    }

    fn pick_of_all(&self, draw: u64) -> Option<usize> {
        let first = self.drawn(below(draw, self.total)?);
        let weight = u64::from(self.weights[first.member]);
        let Some(at) = below(mixed(draw), self.total - weight) else {
            return Some(first.member);
        };
        // The others stand as if the first were not there.
        let behind = if at >= first.before { weight } else { 0 };
        let second = self.drawn(at + behind);
        Some(self.less_loaded(first.member, second.member))
    }

    fn less_loaded(&self, one: usize, other: usize) -> usize {
        // Equal ones, such as two without any, are decided by the draw, which knows the weights.
        let load = |member: usize, against: usize| {
            u64::from(self.active[member]) * u64::from(self.weights[against])
        };
        if load(one, other) <= load(other, one) {
            one
        } else {
            other
        }
    }

    pub(super) fn reweigh(&mut self, member: usize, weight: u32) {
        let before = std::mem::replace(&mut self.weights[member], weight);
        // A sum holds the weight that it loses.
        let change = |sum: u64| sum - u64::from(before) + u64::from(weight);
        let block = &mut self.sums[member / BLOCK];
        *block = change(*block);
        self.total = change(self.total);
    }

    pub(super) fn load(&mut self, member: usize, active: u32) {
        self.active[member] = active;
    }

    /// Who has the unit of weight with this number, less than the total.
    fn drawn(&self, at: u64) -> Drawn {
        let (mut block, mut before) = (0, 0);
        while before + self.sums[block] <= at {
            before += self.sums[block];
            block += 1;
        }
        let mut member = block * BLOCK;
        while before + u64::from(self.weights[member]) <= at {
            before += u64::from(self.weights[member]);
            member += 1;
        }
        Drawn { member, before }
    }
}

/// A draw as a number below `limit`; `None`: there is none.
fn below(draw: u64, limit: u64) -> Option<u64> {
    if limit == 0 {
        return None;
    }
    let scaled = (u128::from(draw) * u128::from(limit)) >> 64;
    u64::try_from(scaled).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::Chance;

    fn of(weights: &[u32]) -> RandomTwo {
        RandomTwo::new(weights.iter().map(|weight| (*weight, 0)))
    }

    #[test]
    fn every_unit_of_weight_is_found() {
        let mut balance = of(&[3, 0, 1, 4, 0, 2]);
        let all = |balance: &RandomTwo| -> Vec<usize> {
            let units = 0..balance.total;
            units.map(|at| balance.drawn(at).member).collect()
        };
        assert_eq!(all(&balance), [0, 0, 0, 2, 3, 3, 3, 3, 5, 5]);
        balance.reweigh(3, 1);
        balance.reweigh(1, 1);
        assert_eq!(all(&balance), [0, 0, 0, 1, 2, 3, 5, 5]);
    }

    #[test]
    fn connections_that_stay_are_shared_by_weight() {
        let mut balance = of(&[1, 2, 1, 4]);
        let (mut chance, mut active) = (Chance::new(1), [0; 4]);
        for _ in 0..8000 {
            let member = balance.pick(chance.draw(), &[]).unwrap();
            active[member] += 1;
            balance.load(member, active[member]);
        }
        for (had, expected) in active.into_iter().zip([1000_u32, 2000, 1000, 4000]) {
            assert!(expected.abs_diff(had) < expected / 10, "{active:?}");
        }
    }

    #[test]
    fn of_two_the_less_loaded_is_chosen() {
        let mut balance = of(&[1, 1]);
        balance.load(0, 5);
        let mut chance = Chance::new(2);
        assert!((0..100).all(|_| balance.pick(chance.draw(), &[]) == Some(1)));
    }

    #[test]
    fn those_tried_and_those_without_weight_are_left_out() {
        let mut balance = of(&[1, 0, 1, 1]);
        let mut chance = Chance::new(3);
        for _ in 0..100 {
            assert_eq!(balance.pick(chance.draw(), &[0, 3, 0]), Some(2));
        }
        assert_eq!(balance.pick(9, &[0, 2, 3]), None);
        assert_eq!(balance.total, 3, "the weights are back");
        assert_eq!(of(&[]).pick(1, &[]), None);
        assert_eq!(of(&[0, 7]).pick(u64::MAX, &[]), Some(1));
    }
}
