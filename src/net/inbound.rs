use std::io;
use std::ops::Range;

use super::{Buffer, Buffers, LARGE_BYTES, SMALL_BYTES, Socket};

/// Received bytes that nobody has consumed yet. It holds a buffer only while it holds bytes or
/// receives.
#[derive(Debug, Default)]
pub struct Inbound {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

/// Why [`Inbound::receive`] received nothing.
#[derive(Debug)]
pub enum ReceiveError {
    /// The largest buffer is full: the peer sent more than any one message may have.
    Full,
    Io(io::Error),
}

/// How a receive begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Bytes are probably there: try before waiting.
    Bytes,
    /// Probably nothing is there: wait before trying.
    Nothing,
}

impl Inbound {
    /// As if `bytes` had been received.
    #[cfg(test)]
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut buffer = Buffers::default().large();
        buffer[..bytes.len()].copy_from_slice(bytes);
        Self {
            buffer: Some(buffer),
            start: 0,
            end: bytes.len(),
        }
    }

    /// What was received and not consumed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer
            .as_deref()
            .and_then(|buffer| buffer.get(self.start..self.end))
            .unwrap_or(&[])
    }

    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.end;
        self.buffer
            .as_deref_mut()
            .and_then(|buffer| buffer.get_mut(range))
            .unwrap_or(&mut [])
    }

    /// The whole buffer and where in it the bytes stand.
    #[must_use]
    pub fn whole(&mut self) -> (&mut [u8], Range<usize>) {
        let range = self.start..self.end;
        (self.buffer.as_deref_mut().unwrap_or(&mut []), range)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops `bytes` from the front. The buffer stays: what was consumed may still be in use.
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(
            bytes <= self.end - self.start,
            "consumed more than was received"
        );
        self.start = (self.start + bytes).min(self.end);
    }

    /// Gives the buffer back if no byte is left in it.
    pub fn release_if_empty(&mut self) {
        if self.is_empty() {
            self.buffer = None;
            (self.start, self.end) = (0, 0);
        }
    }

    /// Receives once, waiting for bytes without holding a buffer if none are held.
    /// `Ok(0)` is the end of the stream. A large buffer is taken when `bulky`, or when the small
    /// one is full.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub async fn receive(
        &mut self,
        socket: &Socket,
        buffers: &Buffers,
        expect: Expect,
        bulky: bool,
    ) -> Result<usize, ReceiveError> {
        if expect == Expect::Nothing {
            self.release_if_empty();
            socket.readable().await.map_err(ReceiveError::Io)?;
        }
        loop {
            match self.try_receive(socket, buffers, bulky) {
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release_if_empty();
                    socket.readable().await.map_err(ReceiveError::Io)?;
                }
                result => return result,
            }
        }
    }

    /// Receives once, without waiting.
    ///
    /// # Errors
    /// [`ReceiveError`]; `WouldBlock` when nothing is there.
    pub fn try_receive(
        &mut self,
        socket: &Socket,
        buffers: &Buffers,
        bulky: bool,
    ) -> Result<usize, ReceiveError> {
        self.try_receive_at_most(socket, buffers, bulky, usize::MAX)
    }

    /// The same, and not more than `bytes_max`.
    ///
    /// # Errors
    /// As [`try_receive`](Self::try_receive).
    pub fn try_receive_at_most(
        &mut self,
        socket: &Socket,
        buffers: &Buffers,
        bulky: bool,
        bytes_max: usize,
    ) -> Result<usize, ReceiveError> {
        self.make_room(buffers, bulky)?;
        let end = self.end;
        let Some(room) = self
            .buffer
            .as_deref_mut()
            .and_then(|buffer| buffer.get_mut(end..))
        else {
            return Err(ReceiveError::Full);
        };
        let room_max = room.len().min(bytes_max);
        let received = socket
            .try_recv(&mut room[..room_max])
            .map_err(ReceiveError::Io)?;
        self.end += received;
        Ok(received)
    }

    /// True when the last receive filled the buffer: more is probably waiting.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.buffer
            .as_ref()
            .is_some_and(|buffer| self.end == buffer.len())
    }

    fn make_room(&mut self, buffers: &Buffers, bulky: bool) -> Result<(), ReceiveError> {
        let Some(buffer) = &mut self.buffer else {
            self.buffer = Some(if bulky {
                buffers.large()
            } else {
                buffers.small()
            });
            return Ok(());
        };
        if self.start > 0 {
            buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end < buffer.len() && !(bulky && buffer.len() == SMALL_BYTES) {
            return Ok(());
        }
        if buffer.len() == LARGE_BYTES {
            return Err(ReceiveError::Full);
        }
        let mut large = buffers.large();
        large[..self.end].copy_from_slice(&buffer[..self.end]);
        self.buffer = Some(large);
        Ok(())
    }
}

/// Ranges of one buffer that go out together, in order.
#[derive(Debug, Default, Clone)]
pub struct Parts {
    ranges: [Range<usize>; PARTS_MAX],
    count: usize,
}

/// Records that one batch may hold: four of full size fill a large buffer, and small ones are
/// cheap enough that a system call for every eight no longer shows.
pub const PARTS_MAX: usize = 8;

impl Parts {
    #[must_use]
    pub fn one(range: Range<usize>) -> Self {
        let mut parts = Self::default();
        parts.push(range);
        parts
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == PARTS_MAX
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a range. Ignored when full: ask [`is_full`](Self::is_full).
    pub fn push(&mut self, range: Range<usize>) {
        debug_assert!(!self.is_full(), "a batch has no room for another part");
        if let Some(slot) = self.ranges.get_mut(self.count) {
            *slot = range;
            self.count += 1;
        }
    }

    #[must_use]
    pub fn ranges(&self) -> &[Range<usize>] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    #[must_use]
    pub fn ranges_mut(&mut self) -> &mut [Range<usize>] {
        self.ranges.get_mut(..self.count).unwrap_or(&mut [])
    }

    /// Bytes in all ranges together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ranges().iter().map(ExactSizeIterator::len).sum()
    }

    /// Drops the first `count` ranges.
    pub fn drop_first(&mut self, count: usize) {
        let count = count.min(self.count);
        self.ranges.rotate_left(count);
        self.count -= count;
    }

    /// Drops `bytes` from the front, and the ranges that this leaves empty there.
    pub fn advance(&mut self, mut bytes: usize) {
        let mut done = 0;
        for range in self.ranges_mut() {
            let step = bytes.min(range.len());
            range.start += step;
            bytes -= step;
            if range.start < range.end {
                break;
            }
            done += 1;
        }
        self.ranges_mut().rotate_left(done);
        self.count -= done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ranges: &[Range<usize>]) -> Parts {
        let mut parts = Parts::default();
        for range in ranges {
            parts.push(range.clone());
        }
        parts
    }

    #[test]
    fn parts_advance_within_to_and_over_the_ends_of_ranges() {
        let three = parts(&[0..4, 10..13, 20..25]);
        assert_eq!(three.bytes(), 12);
        let after = |bytes| {
            let mut left = three.clone();
            left.advance(bytes);
            assert_eq!(left.bytes(), 12 - bytes);
            left.ranges().to_vec()
        };
        assert_eq!(after(0), [0..4, 10..13, 20..25]);
        assert_eq!(after(3), [3..4, 10..13, 20..25]);
        assert_eq!(after(4), [10..13, 20..25]);
        assert_eq!(after(5), [11..13, 20..25]);
        assert_eq!(after(7).first(), Some(&(20..25)));
        assert_eq!(after(11).first(), Some(&(24..25)));
        assert!(after(12).is_empty());
    }

    #[test]
    fn parts_advance_in_any_steps_to_the_same_end() {
        let all: Vec<usize> = [0..4, 10..13, 20..25].into_iter().flatten().collect();
        for step in 1..=12 {
            let mut left = parts(&[0..4, 10..13, 20..25]);
            let mut seen = Vec::new();
            while !left.is_empty() {
                let bytes = step.min(left.bytes());
                seen.extend(left.ranges().iter().flat_map(Clone::clone).take(bytes));
                left.advance(bytes);
            }
            assert_eq!(seen, all, "in steps of {step}");
        }
    }

    #[test]
    fn an_empty_range_is_dropped_only_when_its_turn_has_come() {
        let mut left = parts(&[0..4, 7..7, 10..13]);
        left.advance(2);
        assert_eq!(left.ranges(), [2..4, 7..7, 10..13]);
        left.advance(3);
        assert_eq!(left.ranges().first(), Some(&(11..13)));
    }

    #[test]
    fn parts_hold_as_many_ranges_as_they_say() {
        let mut full = Parts::default();
        for at in 0..PARTS_MAX {
            assert!(!full.is_full());
            full.push(at..at + 1);
        }
        assert!(full.is_full());
        assert_eq!(full.ranges().len(), PARTS_MAX);
        full.advance(1);
        assert!(!full.is_full());
    }

    #[test]
    fn consumed_bytes_make_room_and_a_full_small_buffer_grows_once() {
        let buffers = Buffers::default();
        let mut inbound = Inbound::default();
        inbound.make_room(&buffers, false).unwrap();
        inbound.whole().0[..3].copy_from_slice(b"abc");
        inbound.end = SMALL_BYTES;
        inbound.consume(1);
        inbound.make_room(&buffers, false).unwrap();
        assert_eq!((inbound.start, inbound.end), (0, SMALL_BYTES - 1));
        assert_eq!(&inbound.bytes()[..2], b"bc");

        inbound.end = SMALL_BYTES;
        assert!(inbound.is_full());
        inbound.make_room(&buffers, false).unwrap();
        assert_eq!(inbound.whole().0.len(), LARGE_BYTES);
        assert_eq!(&inbound.bytes()[..2], b"bc");
        assert_eq!(inbound.bytes().len(), SMALL_BYTES);

        inbound.end = LARGE_BYTES;
        let full = inbound.make_room(&buffers, false);
        assert!(matches!(full, Err(ReceiveError::Full)));
        inbound.consume(LARGE_BYTES);
        assert!(inbound.make_room(&buffers, false).is_ok());
        inbound.release_if_empty();
        assert!(inbound.buffer.is_none());
    }

    #[test]
    fn a_bulky_flow_gets_a_large_buffer_whatever_it_held() {
        let buffers = Buffers::default();
        let mut inbound = Inbound::default();
        inbound.make_room(&buffers, true).unwrap();
        assert_eq!(inbound.whole().0.len(), LARGE_BYTES);
        let mut inbound = Inbound::default();
        inbound.make_room(&buffers, false).unwrap();
        inbound.end = 10;
        inbound.make_room(&buffers, true).unwrap();
        assert_eq!(inbound.whole().0.len(), LARGE_BYTES);
        assert_eq!(inbound.bytes().len(), 10);
    }
}
