//! How a flow gets what it sends: one receive, and no byte moved that need not be.

use std::io::{self, IoSliceMut};

use super::flow::{Failure, Filled, Flow};
use super::outgoing::{Carrier, Outgoing};
use super::path::{Received, Splice};
use super::slots::{SLOTS_MAX, copy_spaced, slots, spaced_parts, stride};
use crate::net::{Parts, ReceiveError};
use crate::observe::RelayPath;
use crate::tls::{Opened, Shape, TlsReader, seals_in_place};
use crate::types::TLS_PLAINTEXT_BYTES_MAX;

/// A splice that moves less than this is dearer than a copy would be (docs/benchmarks.md).
const SPLICE_BYTES_WORTH: usize = 16 * 1024;

impl Flow<'_> {
    /// Records are opened where they were received, and sealed there again for a TLS sink.
    pub(super) fn fill_from_tls(&mut self) -> Result<Filled, Failure> {
        while self.opened.is_empty() {
            let Some((reader, shared)) = &mut self.source.tls else {
                break;
            };
            match reader.open(self.source.inbound, &mut self.opened, shared) {
                Ok(Opened::Data) => {}
                Ok(Opened::NeedMore) if self.hand_over_source() => return Ok(Filled::Again),
                Ok(Opened::NeedMore) if self.receive_records()? => {}
                Ok(Opened::NeedMore) => return Ok(Filled::Nothing),
                Ok(Opened::Closed) => return Ok(Filled::EndOfStream),
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        self.send_opened()?;
        Ok(Filled::Outgoing)
    }

    /// False: nothing is there.
    fn receive_records(&mut self) -> Result<bool, Failure> {
        if self.receiving.must_wait() {
            self.source.inbound.release_if_empty();
            return Ok(false);
        }
        let bytes_max = self.bytes_before_hand_over()?;
        let bulky = self.receiving.bulky;
        let inbound = &mut *self.source.inbound;
        let buffers = &self.tools.buffers;
        match inbound.try_receive_at_most(self.source.socket, buffers, bulky, bytes_max) {
            Ok(0) => Err(self.truncated()),
            Ok(_) => {
                self.receiving.on_received(inbound.is_full());
                Ok(true)
            }
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                inbound.release_if_empty();
                Ok(false)
            }
            Err(ReceiveError::Io(error)) => Err(self.source_failed(&error)),
            // A record always fits into the large buffer, so it cannot be full without one.
            Err(ReceiveError::Full) => Err(self.truncated()),
        }
    }

    /// The kernel can take over between two records alone: before that, no byte behind the current
    /// record is received.
    fn bytes_before_hand_over(&self) -> Result<usize, Failure> {
        if !self.source_is_due() {
            return Ok(usize::MAX);
        }
        let lacking = TlsReader::bytes_lacking(self.source.inbound.bytes());
        lacking.map_err(|error| self.unreadable(error))
    }

    fn send_opened(&mut self) -> Result<(), Failure> {
        let from = self
            .source
            .tls
            .as_ref()
            .and_then(|(reader, _)| reader.shape());
        let to = self
            .sink
            .tls
            .as_ref()
            .and_then(|(writer, _)| writer.shape());
        match (from, to) {
            (Some(from), Some(to)) if !seals_in_place(from, to) => self.send_spaced(to),
            (_, Some(_)) => {
                let parts = std::mem::take(&mut self.opened);
                self.seal(Carrier::Source, parts)
            }
            (_, None) => {
                let parts = std::mem::take(&mut self.opened);
                self.outgoing = Some(Outgoing::plain(Carrier::Source, parts));
                Ok(())
            }
        }
    }

    /// Where the opened records leave too little room around them (TLS 1.3 in, 1.2 out).
    fn send_spaced(&mut self, shape: Shape) -> Result<(), Failure> {
        let mut buffer = self.tools.buffers.large();
        let from = self.source.inbound.whole().0;
        let spaced = copy_spaced(from, self.opened.ranges(), &mut buffer, shape);
        self.opened.drop_first(spaced.ranges().len());
        self.seal(Carrier::Own(buffer), spaced)
    }

    /// Plain to TLS: received into slots that leave `shape`'s room around each record.
    pub(super) fn fill_spaced(&mut self, shape: Shape) -> Result<Filled, Failure> {
        if !self.source.inbound.is_empty() {
            let mut buffer = self.tools.buffers.large();
            let parts = self.take_early(&mut buffer, shape);
            self.seal(Carrier::Own(buffer), parts)?;
            return Ok(Filled::Outgoing);
        }
        if self.receiving.must_wait() {
            return Ok(Filled::Nothing);
        }
        let mut buffer = self.tools.take_buffer(self.receiving.bulky);
        let slots = slots(buffer.len(), shape);
        match self.receive_slots(&mut buffer, shape, slots)? {
            Received::Bytes(bytes) => {
                self.receiving
                    .on_received(bytes == slots * TLS_PLAINTEXT_BYTES_MAX);
                self.seal(Carrier::Own(buffer), spaced_parts(bytes, shape))?;
                Ok(Filled::Outgoing)
            }
            other => Ok(self.nothing_filled(&other)),
        }
    }

    /// Plain to plain: by copy while messages are small, through a pipe once the flow is bulky.
    pub(super) fn fill_plain(&mut self) -> Result<Filled, Failure> {
        if !self.source.inbound.is_empty() {
            return Ok(self.pass_early());
        }
        if self.receiving.must_wait() {
            // An idle flow holds no pipe.
            self.pipe = None;
            return Ok(Filled::Nothing);
        }
        let wants_pipe = match self.path.splice {
            Splice::Never => false,
            Splice::Bulky => self.receiving.overflowed_large(),
            Splice::Always => true,
        };
        if self.pipe.is_none() && wants_pipe {
            // Without a pipe (descriptors have run out) the flow goes on by copying.
            self.pipe = self.tools.pipes.take().ok();
        }
        if self.pipe.is_some() {
            self.fill_pipe()
        } else {
            self.fill_copied()
        }
    }

    fn fill_pipe(&mut self) -> Result<Filled, Failure> {
        if self.source.tls.is_some() {
            return self.fill_pipe_from_kernel();
        }
        let Some(pipe) = &mut self.pipe else {
            return Ok(Filled::Nothing);
        };
        let batch_max = self.seen.batch_bytes_max(self.direction);
        match pipe.fill_from(self.source.socket.fd(), pipe.bytes_wanted().min(batch_max)) {
            Ok(0) => self.end_of_plain(),
            Ok(bytes) => {
                self.seen.on_path(self.direction, RelayPath::Splice);
                self.receiving.on_spliced(bytes >= SPLICE_BYTES_WORTH);
                Ok(Filled::Outgoing)
            }
            Err(error) => {
                self.pipe = None;
                self.nothing_or_failed(&error)
            }
        }
    }

    pub(super) fn fill_copied(&mut self) -> Result<Filled, Failure> {
        let mut buffer = self.tools.take_buffer(self.receiving.bulky);
        match self.receive(&mut [IoSliceMut::new(&mut buffer)])? {
            Received::Bytes(bytes) => {
                self.receiving.on_received(bytes == buffer.len());
                self.outgoing = Some(Outgoing::plain(Carrier::Own(buffer), Parts::one(0..bytes)));
                Ok(Filled::Outgoing)
            }
            other => Ok(self.nothing_filled(&other)),
        }
    }

    fn nothing_filled(&mut self, received: &Received) -> Filled {
        match received {
            Received::EndOfStream => Filled::EndOfStream,
            Received::Control => Filled::Again,
            Received::Nothing | Received::Bytes(_) => {
                self.receiving.on_dry();
                Filled::Nothing
            }
        }
    }

    fn nothing_or_failed(&mut self, error: &io::Error) -> Result<Filled, Failure> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.receiving.on_dry();
                Ok(Filled::Nothing)
            }
            _ => Err(self.source_failed(error)),
        }
    }

    fn receive_slots(
        &mut self,
        buffer: &mut [u8],
        shape: Shape,
        slots: usize,
    ) -> Result<Received, Failure> {
        let head = shape.head_bytes();
        let mut slices: [IoSliceMut<'_>; SLOTS_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let places = buffer.chunks_exact_mut(stride(shape)).take(slots);
        for (slice, place) in slices.iter_mut().zip(places) {
            *slice = IoSliceMut::new(&mut place[head..head + TLS_PLAINTEXT_BYTES_MAX]);
        }
        self.receive(&mut slices[..slots])
    }

    /// Bytes that came before the relay began, a ClientHello that was looked at, say.
    fn take_early(&mut self, buffer: &mut [u8], shape: Shape) -> Parts {
        let early = self.source.inbound.bytes();
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
        parts
    }

    fn pass_early(&mut self) -> Filled {
        let (_, held) = self.source.inbound.whole();
        self.source.inbound.consume(held.len());
        self.outgoing = Some(Outgoing::plain(Carrier::Source, Parts::one(held)));
        Filled::Outgoing
    }
}

impl super::Tools {
    fn take_buffer(&self, bulky: bool) -> crate::net::Buffer {
        if bulky {
            self.buffers.large()
        } else {
            self.buffers.small()
        }
    }
}
