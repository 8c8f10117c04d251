use super::heap::MemberHeap;

/// The member that has the fewest connections for its weight; of equal ones the one whose last
/// turn is longest ago.
#[derive(Debug)]
pub(super) struct LeastConnections {
    loads: MemberHeap<Load>,
    entries: Vec<Entry>,
    /// Turns so far.
    turn: u64,
}

/// Connections with one more, divided by the weight; then the number of the last turn.
type Load = (u64, u64);

#[derive(Debug, Clone, Copy)]
struct Entry {
    weight: u32,
    active: u32,
    last_turn: u64,
}

/// So that dividing by a weight below 2^23 leaves something to compare.
const SCALE: u64 = 1 << 28;

impl Entry {
    fn load(&self) -> Load {
        let load = (u64::from(self.active) + 1) * SCALE / u64::from(self.weight.max(1));
        (load, self.last_turn)
    }
}

impl LeastConnections {
    /// `members`: weight and connections of each. `offset`: the member that is first.
    pub(super) fn new(members: impl ExactSizeIterator<Item = (u32, u32)>, offset: usize) -> Self {
        let count = members.len();
        let place = |member: usize| (member + count - offset % count.max(1)) % count.max(1);
        let entries: Vec<Entry> = members
            .enumerate()
            .map(|(member, (weight, active))| Entry {
                weight,
                active,
                last_turn: place(member) as u64,
            })
            .collect();
        let mut all = Self {
            loads: MemberHeap::new(count),
            entries,
            turn: count as u64,
        };
        (0..count).for_each(|member| all.place(member));
        all
    }

    pub(super) fn pick(&mut self, tried: &[usize]) -> Option<usize> {
        let member = self.loads.first_but(tried)?;
        self.turn += 1;
        self.entries[member].last_turn = self.turn;
        self.place(member);
        Some(member)
    }

    pub(super) fn reweigh(&mut self, member: usize, weight: u32) {
        self.entries[member].weight = weight;
        self.place(member);
    }

    pub(super) fn load(&mut self, member: usize, active: u32) {
        self.entries[member].active = active;
        self.place(member);
    }

    fn place(&mut self, member: usize) {
        match self.entries[member] {
            Entry { weight: 0, .. } => self.loads.remove(member),
            entry => self.loads.set(member, entry.load()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[u32]) -> LeastConnections {
        LeastConnections::new(weights.iter().map(|weight| (*weight, 0)), 0)
    }

    /// Connections that come and stay.
    fn arrive(balance: &mut LeastConnections, active: &mut [u32], count: u32) {
        for _ in 0..count {
            let member = balance.pick(&[]).unwrap();
            active[member] += 1;
            balance.load(member, active[member]);
        }
    }

    #[test]
    fn connections_that_stay_are_shared_by_weight() {
        let mut balance = of(&[1, 2, 1]);
        let mut active = [0; 3];
        arrive(&mut balance, &mut active, 40);
        assert_eq!(active, [10, 20, 10]);
    }

    #[test]
    fn who_has_lost_connections_gets_the_next_ones() {
        let mut balance = of(&[1, 1, 1]);
        let mut active = [0; 3];
        arrive(&mut balance, &mut active, 30);
        active[1] = 2;
        balance.load(1, 2);
        arrive(&mut balance, &mut active, 8);
        assert_eq!(active, [10, 10, 10]);
    }

    #[test]
    fn members_without_connections_take_turns_and_cores_start_apart() {
        let mut balance = LeastConnections::new([(1, 0), (1, 0), (1, 0)].into_iter(), 1);
        let picks: Vec<_> = (0..6).map(|_| balance.pick(&[]).unwrap()).collect();
        assert_eq!(picks, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn those_tried_and_those_without_weight_are_left_out() {
        let mut balance = of(&[1, 0, 1]);
        assert_eq!(balance.pick(&[0]), Some(2));
        assert_eq!(balance.pick(&[0, 2]), None);
        balance.reweigh(1, 1);
        assert_eq!(balance.pick(&[0, 2]), Some(1));
        assert_eq!(of(&[]).pick(&[]), None);
    }
}
