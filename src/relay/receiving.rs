use std::io;
use std::num::NonZero;

use crate::net::{Expect, LARGE_BYTES};
use crate::types::Direction;

/// Receives in a row before other connections have their turn.
const MOVES_MAX: u8 = 16;

/// How a flow's next receive should go, learnt from the last ones.
pub(super) struct Receiving {
    pub expect: Expect,
    /// The last receive filled its buffer: take a large one.
    pub bulky: bool,
    last_filled_large: bool,
    moves: u8,
    /// Wait only when a receive has found nothing.
    until_dry: bool,
    /// What the last splice met behind the bytes that it took: a socket tells it once.
    met: Option<NonZero<u16>>,
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
            until_dry: false,
            met: None,
        }
    }

    /// The kernel opens the records now. Behind what a receive gave it may hold a KeyUpdate that it
    /// has opened already, and of which poll(2) says nothing until the next keys are set: so the
    /// source is waited for only when a receive has found nothing.
    pub(super) fn read_until_dry(&mut self) {
        self.until_dry = true;
    }

    /// Keeps a splice's error for the next look, since bytes that came before it go first.
    pub(super) fn keep_error(&mut self, error: &io::Error) {
        let code = error
            .raw_os_error()
            .and_then(|code| u16::try_from(code).ok());
        self.met = code.and_then(NonZero::new);
    }

    /// The error that was kept.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        let code = self.met.take()?;
        Some(io::Error::from_raw_os_error(code.get().into()))
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
        let expected = std::mem::replace(&mut self.expect, Expect::Bytes);
        expected == Expect::Nothing && !self.until_dry
    }

    /// A splice takes all there is. A thin one means that a copy would have been cheaper.
    pub(super) fn on_spliced(&mut self, worth: bool) {
        self.last_filled_large = worth;
        self.expect = Expect::Nothing;
    }

    /// Records that the kernel opened.
    pub(super) fn on_spliced_records(&mut self, bytes: usize) {
        self.last_filled_large = bytes >= LARGE_BYTES;
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

    #[test]
    fn a_flow_from_the_kernel_never_waits_before_it_has_found_nothing() {
        let mut receiving = Receiving::new(Direction::Down, false);
        assert!(receiving.must_wait());
        receiving.on_received(false);
        receiving.read_until_dry();
        for _ in 0..2 * MOVES_MAX {
            assert!(!receiving.must_wait());
            receiving.on_received(false);
        }
    }
}
