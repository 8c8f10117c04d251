use crate::net::Expect;
use crate::types::Direction;

/// Receives in a row before other connections have their turn.
const MOVES_MAX: u32 = 16;

/// How a flow's next receive should go, learnt from the last ones.
pub(super) struct Receiving {
    pub expect: Expect,
    /// The last receive filled its buffer: take a large one.
    pub bulky: bool,
    last_filled_large: bool,
    moves: u32,
}

impl Receiving {
    /// When a relay begins, the client has mostly spoken already, and the server has not. A client
    /// of whom bytes are held (`early`) has most likely sent no more than those.
    pub(super) fn new(direction: Direction, early: bool) -> Self {
        let expect = match direction {
            Direction::Up if !early => Expect::Bytes,
            Direction::Up | Direction::Down => Expect::Nothing,
        };
        Self {
            expect,
            bulky: false,
            last_filled_large: false,
            moves: 0,
        }
    }

    /// A full buffer means that more is waiting. Every so often the flow goes through the ring
    /// all the same, so that other connections have their turn.
    pub(super) fn on_received(&mut self, filled: bool) {
        self.moves += 1;
        self.last_filled_large = filled && self.bulky;
        self.bulky = filled;
        self.expect = if filled && self.moves < MOVES_MAX {
            Expect::Bytes
        } else {
            Expect::Nothing
        };
        if self.expect == Expect::Nothing {
            self.moves = 0;
        }
    }

    /// True once after each receive that left nothing behind: wait for the source first.
    pub(super) fn must_wait(&mut self) -> bool {
        std::mem::replace(&mut self.expect, Expect::Bytes) == Expect::Nothing
    }

    /// A splice takes all there is. A thin one means that a copy would have been cheaper.
    pub(super) fn on_spliced(&mut self, worth: bool) {
        self.last_filled_large = worth;
        self.expect = Expect::Nothing;
    }

    /// Nothing was there although something was expected.
    pub(super) fn on_dry(&mut self) {
        self.moves = 0;
    }

    pub(super) fn overflowed_large(&self) -> bool {
        self.last_filled_large
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_fills_its_buffer_tries_again_at_once_but_not_for_ever() {
        let mut receiving = Receiving::new(Direction::Down, false);
        assert_eq!(receiving.expect, Expect::Nothing);
        assert_eq!(Receiving::new(Direction::Up, false).expect, Expect::Bytes);
        assert_eq!(Receiving::new(Direction::Up, true).expect, Expect::Nothing);
        for turn in 1..=2 * MOVES_MAX {
            receiving.on_received(true);
            let pauses = turn % MOVES_MAX == 0;
            assert_eq!(receiving.expect == Expect::Nothing, pauses, "turn {turn}");
            assert_eq!(receiving.overflowed_large(), turn > 1);
        }
        receiving.on_received(false);
        assert_eq!(
            (receiving.expect, receiving.bulky),
            (Expect::Nothing, false)
        );
        assert!(!receiving.overflowed_large());
    }
}
