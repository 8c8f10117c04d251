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

    fn try_receive(
        &mut self,
        socket: &Socket,
        buffers: &Buffers,
        bulky: bool,
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
        let received = socket.try_recv(room).map_err(ReceiveError::Io)?;
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

    /// Drops `bytes` from the front.
    pub fn advance(&mut self, mut bytes: usize) {
        let mut done = 0;
        for range in self.ranges.iter_mut().take(self.count) {
            let step = bytes.min(range.len());
            range.start += step;
            bytes -= step;
            done += usize::from(range.start == range.end);
        }
        self.ranges
            .get_mut(..self.count)
            .unwrap_or(&mut [])
            .rotate_left(done);
        self.count -= done;
    }
}
