//! The member with the least key, found at once; any member's key may change at any time.

const ABSENT: usize = usize::MAX;

/// A binary heap that knows where each member stands in it. Members that are out have no place.
#[derive(Debug)]
pub(super) struct MemberHeap<K> {
    /// Keys and members, the least first.
    heap: Vec<(K, usize)>,
    /// Each member's index in `heap`.
    places: Vec<usize>,
}

impl<K: Ord + Copy> MemberHeap<K> {
    pub(super) fn new(members: usize) -> Self {
        Self {
            heap: Vec::with_capacity(members),
            places: vec![ABSENT; members],
        }
    }

    /// Puts a member in, or moves it to where its new key belongs.
    pub(super) fn set(&mut self, member: usize, key: K) {
        let place = match self.places[member] {
            ABSENT => {
                self.heap.push((key, member));
                self.heap.len() - 1
            }
            place => {
                self.heap[place].0 = key;
                place
            }
        };
        self.places[member] = place;
        let place = self.rise(place);
        self.sink(place);
    }

    pub(super) fn remove(&mut self, member: usize) {
        let place = std::mem::replace(&mut self.places[member], ABSENT);
        if place == ABSENT {
            return;
        }
        self.heap.swap_remove(place);
        if let Some((_, moved)) = self.heap.get(place) {
            self.places[*moved] = place;
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// The member with the least key that is not among `tried`.
    pub(super) fn first_but(&mut self, tried: &[usize]) -> Option<usize> {
        let (_, first) = *self.heap.first()?;
        if !tried.contains(&first) {
            return Some(first);
        }
        self.first_behind(tried)
    }

    /// Takes the tried ones out that stand in the way, and puts them back: there are as many as a
    /// connection has tries at most.
    fn first_behind(&mut self, tried: &[usize]) -> Option<usize> {
        let mut aside = Vec::with_capacity(tried.len());
        let found = loop {
            let Some((key, first)) = self.heap.first().copied() else {
                break None;
            };
            if !tried.contains(&first) {
                break Some(first);
            }
            aside.push((key, first));
            self.remove(first);
        };
        for (key, member) in aside {
            self.set(member, key);
        }
        found
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.swap(parent, place);
            place = parent;
        }
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut least = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.swap(least, place);
            place = least;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.places[self.heap[one].1] = one;
        self.places[self.heap[other].1] = other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::Chance;

    #[test]
    fn the_first_is_the_least_whatever_changes() {
        const MEMBERS: usize = 37;
        let mut chance = Chance::new(7);
        let mut heap = MemberHeap::new(MEMBERS);
        let mut keys = [None; MEMBERS];
        for _ in 0..20_000 {
            let member = usize::try_from(chance.draw() % MEMBERS as u64).unwrap();
            if chance.draw().is_multiple_of(3) {
                keys[member] = None;
                heap.remove(member);
            } else {
                let key = chance.draw() % 50;
                keys[member] = Some(key);
                heap.set(member, key);
            }
            let mut known: Vec<(u64, usize)> = (0..MEMBERS)
                .filter_map(|member| Some((keys[member]?, member)))
                .collect();
            known.sort_unstable();
            let least = |place: usize| known.get(place).map(|(_, member)| *member);
            assert_eq!(heap.first_but(&[]), least(0));
            let tried: Vec<usize> = known.iter().take(2).map(|(_, member)| *member).collect();
            assert_eq!(heap.first_but(&tried), least(2));
            assert_eq!(heap.first_but(&[]), least(0), "those tried are back");
        }
    }
}
