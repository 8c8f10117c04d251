//! Whose turn it is. Pure: no clock, no socket.

/// Smooth weighted round robin: over any run as long as the sum of the weights, each member is
/// chosen as often as its weight says, and no member's turns bunch together.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    credits: Vec<i64>,
}

impl RoundRobin {
    /// The next of the members with these weights that `open` lets through, or `None`.
    pub(super) fn next(&mut self, weights: &[u32], open: impl Fn(usize) -> bool) -> Option<usize> {
        self.credits.resize(weights.len(), 0);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (member, weight) in weights
            .iter()
            .enumerate()
            .filter(|(member, _)| open(*member))
        {
            total += i64::from(*weight);
            self.credits[member] += i64::from(*weight);
            if best.is_none_or(|best| self.credits[member] > self.credits[best]) {
                best = Some(member);
            }
        }
        let chosen = best?;
        self.credits[chosen] -= total;
        Some(chosen)
    }

    /// Forgets all turns: the members have changed. A core starts at its own place, so that the
    /// first connections of all cores do not meet at one server.
    pub(super) fn restart(&mut self, weights: &[u32], offset: usize) {
        self.credits.clear();
        for _ in 0..offset.checked_rem(weights.len()).unwrap_or(0) {
            self.next(weights, |_| true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(rotation: &mut RoundRobin, weights: &[u32], count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| rotation.next(weights, |_| true).unwrap())
            .collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(
            turns(&mut RoundRobin::default(), &[1, 1, 1], 6),
            [0, 1, 2, 0, 1, 2]
        );
    }

    #[test]
    fn a_heavy_member_is_chosen_as_often_as_its_weight_and_never_in_one_run() {
        let turns = turns(&mut RoundRobin::default(), &[5, 1, 1], 7);
        assert_eq!(turns.iter().filter(|member| **member == 0).count(), 5);
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_member_that_was_tried_is_not_chosen_again() {
        let mut rotation = RoundRobin::default();
        let first = rotation.next(&[1, 1], |_| true).unwrap();
        let second = rotation.next(&[1, 1], |member| member != first).unwrap();
        assert_ne!(first, second);
        assert_eq!(rotation.next(&[1, 1], |_| false), None);
    }

    #[test]
    fn cores_start_at_different_members() {
        let mut rotation = RoundRobin::default();
        rotation.restart(&[1, 1, 1], 1);
        assert_eq!(rotation.next(&[1, 1, 1], |_| true), Some(1));
        rotation.restart(&[], 5);
        assert_eq!(rotation.next(&[], |_| true), None);
    }
}
