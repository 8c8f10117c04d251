//! How a flow gets what it sends: one receive, and no byte moved that need not be.

use std::io::{self, IoSliceMut};

use super::flow::{Failure, Filled, Flow};
use super::outgoing::{Carrier, Outgoing};
use super::slots::{SLOTS_MAX, copy_spaced, slots, spaced_parts, stride};
use crate::net::{Parts, ReceiveError};
use crate::observe::RelayPath;
use crate::tls::{Opened, Shape, seals_in_place};
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
        let bulky = self.receiving.bulky;
        let inbound = &mut *self.source.inbound;
        match inbound.try_receive(self.source.socket, &self.tools.buffers, bulky) {
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

    fn send_opened(&mut self) -> Result<(), Failure> {
        let from = self.source.tls.as_ref().map(|(reader, _)| reader.shape());
        let to = self.sink.tls.as_ref().map(|(writer, _)| writer.shape());
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
        match self.try_receive_slots(&mut buffer, shape, slots) {
            Ok(0) => self.end_of_plain(),
            Ok(bytes) => {
                self.receiving
                    .on_received(bytes == slots * TLS_PLAINTEXT_BYTES_MAX);
                self.seal(Carrier::Own(buffer), spaced_parts(bytes, shape))?;
                Ok(Filled::Outgoing)
            }
            Err(error) => self.nothing_or_failed(&error),
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
        if self.pipe.is_none() && self.receiving.overflowed_large() {
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
        let Some(pipe) = &mut self.pipe else {
            return Ok(Filled::Nothing);
        };
        match pipe.fill_from(self.source.socket.fd(), pipe.bytes_wanted()) {
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

    fn fill_copied(&mut self) -> Result<Filled, Failure> {
        let mut buffer = self.tools.take_buffer(self.receiving.bulky);
        match self.source.socket.try_recv(&mut buffer) {
            Ok(0) => self.end_of_plain(),
            Ok(bytes) => {
                self.receiving.on_received(bytes == buffer.len());
                self.outgoing = Some(Outgoing::plain(Carrier::Own(buffer), Parts::one(0..bytes)));
                Ok(Filled::Outgoing)
            }
            Err(error) => self.nothing_or_failed(&error),
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
