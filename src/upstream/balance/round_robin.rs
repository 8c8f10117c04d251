use super::heap::MemberHeap;

/// Weighted round robin by earliest deadline: a member of weight w has w deadlines in each span of
/// virtual time, evenly spaced, and whoever's is next has its turn. Over any run as long as the sum
/// of the weights each member is chosen as often as its weight says, and no member's turns bunch
/// together. A turn costs the logarithm of the members.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// By deadline.
    turns: MemberHeap<u64>,
    entries: Vec<Entry>,
    /// Virtual time: the deadline of the last turn.
    now: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// 0: has no turns.
    weight: u32,
    /// Deadlines are `first + taken * SPAN / weight`: no rounding adds up.
    first: u64,
    /// Turns since `first`, less than the weight.
    taken: u32,
}

/// Virtual time in which a member of weight w has w turns. Weights are below 2^23.
const SPAN: u64 = 1 << 40;

/// Virtual time starts anew long before it would overflow.
const NOW_MAX: u64 = 1 << 62;

impl Entry {
    fn deadline(&self) -> u64 {
        self.first + u64::from(self.taken) * SPAN / u64::from(self.weight.max(1))
    }
}

impl RoundRobin {
    /// `offset`: where a core starts, so that the first connections of all cores do not meet at
    /// one server.
    pub(super) fn new(weights: &[u32], offset: usize) -> Self {
        let mut rotation = Self {
            turns: MemberHeap::new(weights.len()),
            entries: vec![Entry::default(); weights.len()],
            now: 0,
        };
        for (member, weight) in weights.iter().enumerate() {
            rotation.reweigh(member, *weight);
        }
        for _ in 0..offset.checked_rem(weights.len()).unwrap_or(0) {
            let _ = rotation.pick(&[]);
        }
        rotation
    }

    pub(super) fn pick(&mut self, tried: &[usize]) -> Option<usize> {
        let member = self.turns.first_but(tried)?;
        let entry = &mut self.entries[member];
        self.now = self.now.max(entry.deadline());
        entry.taken += 1;
        if entry.taken >= entry.weight {
            entry.first += SPAN;
            entry.taken = 0;
        }
        self.turns.set(member, entry.deadline());
        if self.now >= NOW_MAX {
            self.start_anew();
        }
        Some(member)
    }

    /// A member that changes keeps the part of its wait that is left; one that is new is placed
    /// by its number, so that members of one weight are spread evenly.
    pub(super) fn reweigh(&mut self, member: usize, weight: u32) {
        let members = self.entries.len() as u64;
        let entry = &mut self.entries[member];
        let before = std::mem::replace(entry, Entry { weight, ..*entry });
        if weight == 0 {
            self.turns.remove(member);
            return;
        }
        let wait = match before.weight {
            0 => place(member as u64, members, weight),
            old => {
                let left = before.deadline().saturating_sub(self.now);
                scaled(left, old, weight)
            }
        };
        entry.first = self.now + wait;
        entry.taken = 0;
        self.turns.set(member, entry.deadline());
    }

    /// Once in a thousand million turns, or more.
    fn start_anew(&mut self) {
        let passed = std::mem::take(&mut self.now);
        for (member, entry) in self.entries.iter_mut().enumerate() {
            let deadline = entry.deadline().saturating_sub(passed);
            *entry = Entry {
                first: deadline,
                taken: 0,
                ..*entry
            };
            if entry.weight > 0 {
                self.turns.set(member, entry.deadline());
            }
        }
    }
}

/// `(2 member + 1) / (2 members)` of the time between two turns.
fn place(member: u64, members: u64, weight: u32) -> u64 {
    let part = u128::from(SPAN) * u128::from(2 * member + 1);
    let whole = u128::from(2 * members) * u128::from(weight);
    u64::try_from(part / whole.max(1)).unwrap_or(SPAN)
}

fn scaled(wait: u64, old: u32, new: u32) -> u64 {
    let wait = u128::from(wait) * u128::from(old) / u128::from(new);
    u64::try_from(wait).unwrap_or(SPAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(rotation: &mut RoundRobin, count: usize) -> Vec<usize> {
        (0..count).map(|_| rotation.pick(&[]).unwrap()).collect()
    }

    fn of(weights: &[u32]) -> RoundRobin {
        RoundRobin::new(weights, 0)
    }

    fn share(turns: &[usize], member: usize) -> usize {
        turns.iter().filter(|it| **it == member).count()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(turns(&mut of(&[1, 1, 1]), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_heavy_member_is_chosen_as_often_as_its_weight_and_never_in_one_run() {
        let turns = turns(&mut of(&[5, 1, 1]), 70);
        for run in turns.windows(7) {
            assert_eq!([0, 1, 2].map(|it| share(run, it)), [5, 1, 1], "{run:?}");
        }
        let in_one_run = turns.windows(5).any(|run| share(run, 0) == 5);
        assert!(!in_one_run, "{turns:?}");
    }

    #[test]
    fn shares_are_exact_over_any_run_as_long_as_the_sum_of_weights() {
        for weights in [
            &[3, 2, 2][..],
            &[64, 192, 64],
            &[7, 1, 4, 9, 1],
            &[65_535, 1],
        ] {
            let sum: u32 = weights.iter().sum();
            let turns = turns(&mut of(weights), 3 * sum as usize);
            for begin in [0, 1, sum as usize / 2, sum as usize] {
                let run = &turns[begin..begin + sum as usize];
                for (member, weight) in weights.iter().enumerate() {
                    let share = share(run, member).abs_diff(*weight as usize);
                    assert!(share <= 1, "{weights:?} member {member} is {share} off");
                }
            }
        }
    }

    #[test]
    fn a_member_that_was_tried_is_not_chosen_again() {
        let mut rotation = of(&[1, 1]);
        let first = rotation.pick(&[]).unwrap();
        let second = rotation.pick(&[first]).unwrap();
        assert_ne!(first, second);
        assert_eq!(rotation.pick(&[0, 1]), None);
    }

    #[test]
    fn a_member_without_weight_has_no_turn_and_makes_up_for_none_when_it_is_back() {
        let mut rotation = of(&[1, 1, 1]);
        rotation.reweigh(1, 0);
        assert_eq!(share(&turns(&mut rotation, 100), 1), 0);
        rotation.reweigh(1, 1);
        let after = turns(&mut rotation, 9);
        assert_eq!(
            [0, 1, 2].map(|it| share(&after, it)),
            [3, 3, 3],
            "{after:?}"
        );
    }

    #[test]
    fn a_weight_that_grows_at_every_turn_does_not_starve_its_member() {
        let mut rotation = of(&[64, 64]);
        let mut turns = Vec::new();
        for step in 1..=64 {
            rotation.reweigh(0, step);
            turns.push(rotation.pick(&[]).unwrap());
        }
        // Half of the area below a rising line, and that beside a full one.
        assert!((12..=26).contains(&share(&turns, 0)), "{turns:?}");
    }

    #[test]
    fn cores_start_at_different_members() {
        let mut rotation = RoundRobin::new(&[1, 1, 1], 1);
        assert_eq!(rotation.pick(&[]), Some(1));
        assert_eq!(RoundRobin::new(&[], 5).pick(&[]), None);
    }

    #[test]
    fn turns_go_on_where_virtual_time_starts_anew() {
        let mut rotation = of(&[2, 1]);
        for entry in &mut rotation.entries {
            entry.first += NOW_MAX - SPAN;
        }
        for member in [0, 1] {
            rotation
                .turns
                .set(member, rotation.entries[member].deadline());
        }
        rotation.now = NOW_MAX - SPAN;
        let turns = turns(&mut rotation, 30);
        assert!(rotation.now < NOW_MAX / 2, "it has started anew");
        assert_eq!([0, 1].map(|it| share(&turns, it)), [20, 10], "{turns:?}");
    }
}
