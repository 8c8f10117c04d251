//! TLS in user space on at least one leg. Records are opened and sealed where recv(2) put them;
//! plain bytes are received with the room around them that their record needs.

use std::io::{self, IoSliceMut};
use std::ops::Range;

use super::flow::{Failure, Flow, MOVES_MAX};
use crate::net::{Buffer, Expect, LARGE_BYTES, Parts, ReceiveError, SMALL_BYTES};
use crate::observe::RelayPath;
use crate::tls::{Opened, Shape, seals_in_place};
use crate::types::{Direction, TLS_PLAINTEXT_BYTES_MAX};

/// How a flow's next receive should go, learnt from the last ones.
pub(super) struct Receiving {
    pub expect: Expect,
    /// The last receive filled its buffer: take a large one.
    pub bulky: bool,
    last_filled_large: bool,
    moves: u32,
}

impl Receiving {
    /// When a relay begins, the client has mostly spoken already, and the server has not.
    pub(super) fn new(direction: Direction) -> Self {
        let expect = match direction {
            Direction::Up => Expect::Bytes,
            Direction::Down => Expect::Nothing,
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

    pub(super) fn overflowed_large(&self) -> bool {
        self.last_filled_large
    }
}

/// Records of full size that a large buffer takes, whatever their version.
const SLOTS_MAX: usize = 4;
const _: () = assert!(
    SLOTS_MAX
        * (Shape::Tls12Gcm.head_bytes() + TLS_PLAINTEXT_BYTES_MAX + Shape::Tls13.tail_bytes())
        <= LARGE_BYTES,
    "a large buffer holds four sealed records"
);
const _: () = assert!(
    Shape::Tls12Gcm.head_bytes() + TLS_PLAINTEXT_BYTES_MAX + Shape::Tls13.tail_bytes()
        <= SMALL_BYTES,
    "a small buffer holds one sealed record"
);

impl Flow<'_> {
    pub(super) async fn run_user(&mut self) -> Result<(), Failure> {
        self.seen.on_path(self.direction, RelayPath::User);
        let mut receiving = Receiving::new(self.direction);
        if self.source.tls.is_some() {
            while self.relay_opened(&mut receiving).await? {}
        } else {
            while self.relay_received(&mut receiving).await? {}
        }
        Ok(())
    }

    /// Plain to TLS: one receive, sealed in place, one send. False: the end of the stream.
    async fn relay_received(&mut self, receiving: &mut Receiving) -> Result<bool, Failure> {
        let Some(shape) = self.sink.tls.as_ref().map(|(writer, _)| writer.shape()) else {
            return Ok(false);
        };
        let Some((mut buffer, parts)) = self.receive_spaced(receiving, shape).await? else {
            return Ok(false);
        };
        self.seal_and_send(&mut buffer, parts).await?;
        Ok(true)
    }

    /// TLS to plain or TLS. False: close_notify.
    async fn relay_opened(&mut self, receiving: &mut Receiving) -> Result<bool, Failure> {
        let mut parts = Parts::default();
        let Some((reader, renewal)) = &mut self.source.tls else {
            return Ok(false);
        };
        match reader.open(self.source.inbound, &mut parts, renewal) {
            Ok(Opened::Data) => self.send_opened(parts).await?,
            Ok(Opened::NeedMore) => self.receive_records(receiving).await?,
            Ok(Opened::Closed) => return Ok(false),
            Err(error) => return Err(self.unreadable(error)),
        }
        Ok(true)
    }

    async fn receive_records(&mut self, receiving: &mut Receiving) -> Result<(), Failure> {
        let socket = self.source.socket;
        let (expect, bulky) = (receiving.expect, receiving.bulky);
        let inbound = &mut *self.source.inbound;
        match inbound
            .receive(socket, &self.tools.buffers, expect, bulky)
            .await
        {
            Ok(0) => Err(self.truncated()),
            Ok(_) => {
                receiving.on_received(self.source.inbound.is_full());
                Ok(())
            }
            Err(ReceiveError::Io(error)) => Err(self.source_failed(&error)),
            // A record always fits into the large buffer, so it cannot be full without one.
            Err(ReceiveError::Full) => Err(self.truncated()),
        }
    }

    /// The parts stand in the source's buffer, which is taken for the time of sending.
    async fn send_opened(&mut self, parts: Parts) -> Result<(), Failure> {
        let from = self.source.tls.as_ref().map(|(reader, _)| reader.shape());
        let to = self.sink.tls.as_ref().map(|(writer, _)| writer.shape());
        let mut inbound = std::mem::take(self.source.inbound);
        let sent = match (from, to) {
            (Some(from), Some(to)) if !seals_in_place(from, to) => {
                // Rare, and its state would make every connection's future larger.
                Box::pin(self.send_spaced(inbound.whole().0, &parts, to)).await
            }
            (_, Some(_)) => self.seal_and_send(inbound.whole().0, parts).await,
            (_, None) => {
                let bytes = parts.bytes();
                let sent = self.send(inbound.whole().0, parts).await;
                if sent.is_ok() {
                    self.seen.on_sent(self.direction, bytes);
                }
                sent
            }
        };
        inbound.release_if_empty();
        *self.source.inbound = inbound;
        sent
    }

    async fn seal_and_send(&mut self, buffer: &mut [u8], mut parts: Parts) -> Result<(), Failure> {
        let bytes = parts.bytes();
        if let Some((writer, renewal)) = &mut self.sink.tls {
            let update = writer
                .key_update(renewal)
                .map_err(|error| self.exhausted(error))?;
            if let Some(record) = update {
                self.send(&record, Parts::one(0..record.len())).await?;
            }
        }
        if let Some((writer, _)) = &mut self.sink.tls {
            writer
                .seal(buffer, &mut parts)
                .map_err(|error| self.exhausted(error))?;
        }
        self.send(buffer, parts).await?;
        self.seen.on_sent(self.direction, bytes);
        Ok(())
    }

    /// Where the opened records leave too little room around them (TLS 1.3 in, 1.2 out).
    async fn send_spaced(
        &mut self,
        from: &[u8],
        parts: &Parts,
        shape: Shape,
    ) -> Result<(), Failure> {
        let mut rest = parts.ranges();
        while !rest.is_empty() {
            let mut buffer = self.tools.buffers.large();
            let spaced = copy_spaced(from, rest, &mut buffer, shape);
            rest = rest.get(spaced.ranges().len()..).unwrap_or(&[]);
            self.seal_and_send(&mut buffer, spaced).await?;
        }
        Ok(())
    }

    /// Receives into slots that leave `shape`'s room around each record's plaintext.
    async fn receive_spaced(
        &mut self,
        receiving: &mut Receiving,
        shape: Shape,
    ) -> Result<Option<(Buffer, Parts)>, Failure> {
        if !self.source.inbound.is_empty() {
            return Ok(Some(self.take_early(shape)));
        }
        if receiving.expect == Expect::Nothing {
            self.source_ready().await?;
        }
        loop {
            let mut buffer = self.tools.take_buffer(receiving.bulky);
            let slots = slots(buffer.len(), shape);
            match self.try_receive_slots(&mut buffer, shape, slots) {
                Ok(0) => return Ok(None),
                Ok(bytes) => {
                    receiving.on_received(bytes == slots * TLS_PLAINTEXT_BYTES_MAX);
                    return Ok(Some((buffer, spaced_parts(bytes, shape))));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(buffer);
                    self.source_ready().await?;
                }
                Err(error) => return Err(self.source_failed(&error)),
            }
        }
    }

    /// Receives into the whole buffer.
    pub(super) async fn receive_contiguous(
        &mut self,
        receiving: &mut Receiving,
    ) -> Result<Option<(Buffer, usize)>, Failure> {
        if !self.source.inbound.is_empty() {
            let mut buffer = self.tools.buffers.large();
            let bytes = self.take_early_into(&mut buffer);
            return Ok(Some((buffer, bytes)));
        }
        if receiving.expect == Expect::Nothing {
            self.source_ready().await?;
        }
        loop {
            let mut buffer = self.tools.take_buffer(receiving.bulky);
            match self.source.socket.try_recv(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(bytes) => {
                    receiving.on_received(bytes == buffer.len());
                    return Ok(Some((buffer, bytes)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(buffer);
                    self.source_ready().await?;
                }
                Err(error) => return Err(self.source_failed(&error)),
            }
        }
    }

    async fn source_ready(&self) -> Result<(), Failure> {
        self.source
            .socket
            .readable()
            .await
            .map_err(|error| self.source_failed(&error))
    }

    fn try_receive_slots(
        &self,
        buffer: &mut [u8],
        shape: Shape,
        slots: usize,
    ) -> io::Result<usize> {
        let head = shape.head_bytes();
        if slots == 1 {
            let slot = &mut buffer[head..head + TLS_PLAINTEXT_BYTES_MAX];
            return self.source.socket.try_recv(slot);
        }
        let mut slices: [IoSliceMut<'_>; SLOTS_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let places = buffer.chunks_exact_mut(stride(shape)).take(slots);
        for (slice, place) in slices.iter_mut().zip(places) {
            *slice = IoSliceMut::new(&mut place[head..head + TLS_PLAINTEXT_BYTES_MAX]);
        }
        self.source.socket.try_recv_vectored(&mut slices[..slots])
    }

    /// Bytes that came before the relay began, a ClientHello that was looked at, say.
    fn take_early(&mut self, shape: Shape) -> (Buffer, Parts) {
        let early = self.source.inbound.bytes();
        let mut buffer = self.tools.buffers.large();
        let bytes = early
            .len()
            .min(slots(buffer.len(), shape) * TLS_PLAINTEXT_BYTES_MAX);
        let parts = spaced_parts(bytes, shape);
        for (range, chunk) in parts
            .ranges()
            .iter()
            .zip(early.chunks(TLS_PLAINTEXT_BYTES_MAX))
        {
            buffer[range.clone()].copy_from_slice(&chunk[..range.len()]);
        }
        self.source.inbound.consume(bytes);
        self.source.inbound.release_if_empty();
        (buffer, parts)
    }

    fn take_early_into(&mut self, buffer: &mut [u8]) -> usize {
        let early = self.source.inbound.bytes();
        let bytes = early.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&early[..bytes]);
        self.source.inbound.consume(bytes);
        self.source.inbound.release_if_empty();
        bytes
    }
}

impl super::Tools {
    fn take_buffer(&self, bulky: bool) -> Buffer {
        if bulky {
            self.buffers.large()
        } else {
            self.buffers.small()
        }
    }
}

/// From one record's beginning to the next one's: sealed, they stand without a gap.
fn stride(shape: Shape) -> usize {
    shape.head_bytes() + TLS_PLAINTEXT_BYTES_MAX + shape.tail_bytes()
}

fn slots(buffer_bytes: usize, shape: Shape) -> usize {
    (buffer_bytes / stride(shape)).min(SLOTS_MAX)
}

/// Where `bytes` of plaintext stand after they were received into slots.
fn spaced_parts(bytes: usize, shape: Shape) -> Parts {
    let mut parts = Parts::default();
    for slot in 0..bytes.div_ceil(TLS_PLAINTEXT_BYTES_MAX) {
        let start = slot * stride(shape) + shape.head_bytes();
        let left = bytes - slot * TLS_PLAINTEXT_BYTES_MAX;
        parts.push(start..start + left.min(TLS_PLAINTEXT_BYTES_MAX));
    }
    parts
}

/// Copies the first of `ranges` with `shape`'s room around each, as many as `to` takes: a full
/// buffer of records with little around them is longer than one with more. A large buffer takes
/// one at least.
fn copy_spaced(from: &[u8], ranges: &[Range<usize>], to: &mut [u8], shape: Shape) -> Parts {
    let mut spaced = Parts::default();
    let mut place = 0;
    for range in ranges {
        let start = place + shape.head_bytes();
        let end = start + range.len();
        if end + shape.tail_bytes() > to.len() {
            break;
        }
        to[start..end].copy_from_slice(&from[range.clone()]);
        spaced.push(start..end);
        place = end + shape.tail_bytes();
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 3] = [Shape::Tls13, Shape::Tls12Gcm, Shape::Tls12Chacha];

    /// Whether the records that the parts will become stand within the buffer and apart.
    fn stand_apart(parts: &Parts, shape: Shape, buffer_bytes: usize) -> bool {
        let mut free_from = 0;
        parts.ranges().iter().all(|range| {
            let apart = range.start >= free_from + shape.head_bytes();
            free_from = range.end + shape.tail_bytes();
            apart && free_from <= buffer_bytes
        })
    }

    #[test]
    fn a_small_buffer_has_one_slot_and_a_large_one_four() {
        for shape in SHAPES {
            assert_eq!(slots(SMALL_BYTES, shape), 1, "{shape:?}");
            assert_eq!(slots(LARGE_BYTES, shape), SLOTS_MAX, "{shape:?}");
        }
    }

    #[test]
    fn parts_are_where_the_slots_are_and_hold_every_byte_once() {
        let full = TLS_PLAINTEXT_BYTES_MAX;
        for shape in SHAPES {
            for bytes in [
                1,
                full - 1,
                full,
                full + 1,
                3 * full,
                4 * full - 1,
                4 * full,
            ] {
                let parts = spaced_parts(bytes, shape);
                assert_eq!(parts.bytes(), bytes);
                assert_eq!(parts.ranges().len(), bytes.div_ceil(full));
                for (slot, range) in parts.ranges().iter().enumerate() {
                    assert_eq!(range.start, slot * stride(shape) + shape.head_bytes());
                    assert!(range.len() == full || slot == parts.ranges().len() - 1);
                }
                assert!(stand_apart(&parts, shape, LARGE_BYTES), "{shape:?} {bytes}");
            }
            assert!(spaced_parts(0, shape).is_empty());
        }
    }

    #[test]
    fn records_that_fill_a_buffer_are_copied_in_as_many_turns_as_they_need() {
        for (from_shape, shape) in SHAPES.iter().flat_map(|a| SHAPES.map(|b| (*a, b))) {
            for count in 5..=8 {
                let from: Vec<u8> = (0..=250).cycle().take(LARGE_BYTES).collect();
                let (head, tail) = (from_shape.head_bytes(), from_shape.tail_bytes());
                let stride = LARGE_BYTES / count;
                let range = |at: usize| at * stride + head..(at + 1) * stride - tail;
                let ranges: Vec<_> = (0..count).map(range).collect();
                let (mut rest, mut copied) = (&ranges[..], Vec::new());
                while !rest.is_empty() {
                    let mut to = vec![0; LARGE_BYTES];
                    let spaced = copy_spaced(&from, rest, &mut to, shape);
                    assert!(!spaced.is_empty());
                    assert!(stand_apart(&spaced, shape, LARGE_BYTES));
                    let parts = spaced
                        .ranges()
                        .iter()
                        .map(|range| to[range.clone()].to_vec());
                    copied.extend(parts);
                    rest = &rest[spaced.ranges().len()..];
                }
                let sent: Vec<_> = ranges
                    .iter()
                    .map(|range| from[range.clone()].to_vec())
                    .collect();
                assert!(copied == sent, "{from_shape:?} to {shape:?}");
            }
        }
    }

    #[test]
    fn a_flow_that_fills_its_buffer_tries_again_at_once_but_not_for_ever() {
        let mut receiving = Receiving::new(Direction::Down);
        assert_eq!(receiving.expect, Expect::Nothing);
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
