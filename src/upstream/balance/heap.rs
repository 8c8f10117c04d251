//! The member with the least key, found at once; any member's key may change at any time.

const ABSENT: u16 = u16::MAX;

/// Children of a node: four make half as many levels as two, and stand side by side in memory,
/// of which a large group that is seldom asked finds nothing in a cache.
const CHILDREN: usize = 4;

/// A heap that knows where each member stands in it. Members that are out have no place.
#[derive(Debug)]
pub(super) struct MemberHeap<K> {
    /// Keys and members, the least first.
    heap: Vec<(K, u16)>,
    /// Each member's index in `heap`.
    places: Vec<u16>,
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
                self.heap.push((key, short(member)));
                self.heap.len() - 1
            }
            place => usize::from(place),
        };
        self.settle(place, (key, short(member)));
    }

    pub(super) fn remove(&mut self, member: usize) {
        let place = std::mem::replace(&mut self.places[member], ABSENT);
        if place == ABSENT {
            return;
        }
        let place = usize::from(place);
        self.heap.swap_remove(place);
        if let Some(moved) = self.heap.get(place).copied() {
            self.settle(place, moved);
        }
    }

    /// The member with the least key that is not among `tried`.
    pub(super) fn first_but(&mut self, tried: &[usize]) -> Option<usize> {
        let first = usize::from(self.heap.first()?.1);
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
            let first = usize::from(first);
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

    /// Finds the entry's place from the gap at `place` on, and moves the others out of the way.
    fn settle(&mut self, place: usize, entry: (K, u16)) {
        let mut gap = place;
        while gap > 0 && entry < self.heap[(gap - 1) / CHILDREN] {
            let parent = (gap - 1) / CHILDREN;
            self.put(gap, self.heap[parent]);
            gap = parent;
        }
        while let Some(least) = self.least_child(gap)
            && self.heap[least] < entry
        {
            self.put(gap, self.heap[least]);
            gap = least;
        }
        self.put(gap, entry);
    }

    fn least_child(&self, place: usize) -> Option<usize> {
        let first = CHILDREN * place + 1;
        let children = first..(first + CHILDREN).min(self.heap.len());
        children.min_by_key(|child| self.heap[*child])
    }

    fn put(&mut self, place: usize, entry: (K, u16)) {
        self.heap[place] = entry;
        self.places[usize::from(entry.1)] = short(place);
    }
}

/// Members are at most [`MEMBERS_MAX`](super::MEMBERS_MAX), one less than numbers of 16 bits.
fn short(number: usize) -> u16 {
    debug_assert!(number < super::MEMBERS_MAX);
    u16::try_from(number).unwrap_or(ABSENT)
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
