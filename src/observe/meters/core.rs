use super::Count;
use crate::observe::{Fallback, Record};
use crate::types::Direction;

/// What one core counts of itself.
#[derive(Debug)]
#[repr(align(128))]
pub struct CoreMeters {
    pub live: Count,
    /// Generations that are held: the one for new connections, and those that others began with.
    pub generations: Count,
    /// Waits for a socket, each one operation of the core's ring.
    pub ring_waits: Count,
    /// Descriptors or memory had run out, and accepting rested.
    pub accept_pauses: Count,
    /// Pipes that the kernel made smaller than they were asked for.
    pub pipes_small: Count,
    /// Pipes that could not be had.
    pub pipes_refused: Count,
    fallbacks: [[Count; Fallback::ALL.len()]; 2],
}

impl Default for CoreMeters {
    fn default() -> Self {
        Self {
            live: Count::new(),
            generations: Count::new(),
            ring_waits: Count::new(),
            accept_pauses: Count::new(),
            pipes_small: Count::new(),
            pipes_refused: Count::new(),
            fallbacks: [const { [const { Count::new() }; _] }; _],
        }
    }
}

impl CoreMeters {
    /// A connection has ended.
    pub fn end(&self, record: &Record) {
        let directions = [
            (Direction::Up, record.fallback_up),
            (Direction::Down, record.fallback_down),
        ];
        for (direction, fallback) in directions {
            if let Some(fallback) = fallback {
                self.fallback(direction, fallback).add(1);
            }
        }
    }

    #[must_use]
    pub fn fallback(&self, direction: Direction, fallback: Fallback) -> &Count {
        &self.fallbacks[direction as usize][fallback as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fallback_has_a_place_of_its_own() {
        for (place, fallback) in Fallback::ALL.into_iter().enumerate() {
            assert_eq!(fallback as usize, place);
        }
    }
}
