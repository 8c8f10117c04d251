//! What is on its way to the sink.

use std::io::{self, IoSlice};
use std::ops::Range;

use super::flow::{Failure, Flow};
use crate::net::{Buffer, PARTS_MAX, Parts, Socket};
use crate::tls::Control;

/// Bytes that were handed to a flow's sink and are not all sent.
pub(super) struct Outgoing {
    /// Records of ours that go first; mostly none.
    before: Vec<u8>,
    carrier: Carrier,
    parts: Parts,
    /// Application bytes in sealed parts; zero where the parts are what the peer reads.
    sealed_bytes: usize,
    /// A record of ours: nothing of it counts.
    control: bool,
}

/// Whose buffer the parts are ranges of.
pub(super) enum Carrier {
    Own(Buffer),
    /// The source's, where records are opened in place.
    Source,
    /// A message of ours that holds no application data.
    Control(Control),
}

impl Outgoing {
    /// Application data that goes out as it is.
    pub(super) fn plain(carrier: Carrier, parts: Parts) -> Self {
        Self {
            before: Vec::new(),
            carrier,
            parts,
            sealed_bytes: 0,
            control: false,
        }
    }

    pub(super) fn control(control: Control) -> Self {
        let parts = Parts::one(0..control.bytes());
        Self {
            before: Vec::new(),
            carrier: Carrier::Control(control),
            parts,
            sealed_bytes: 0,
            control: true,
        }
    }
}

impl Outgoing {
    fn is_for_kernel(&self) -> bool {
        matches!(self.carrier, Carrier::Control(Control::ForKernel(..)))
    }
}

impl Flow<'_> {
    /// Seals the parts where they stand, and makes them outgoing.
    pub(super) fn seal(&mut self, mut carrier: Carrier, mut parts: Parts) -> Result<(), Failure> {
        let bytes = parts.bytes();
        let mut before = Vec::new();
        if let Some((writer, shared)) = &mut self.sink.tls {
            let buffer: &mut [u8] = match &mut carrier {
                Carrier::Own(buffer) => buffer,
                Carrier::Source => self.source.inbound.whole().0,
                Carrier::Control(_) => &mut [],
            };
            let sealed = writer.before_data(shared).and_then(|records| {
                before = records;
                writer.seal(buffer, &mut parts)
            });
            sealed.map_err(|error| self.exhausted(error))?;
        }
        self.outgoing = Some(Outgoing {
            before,
            carrier,
            parts,
            sealed_bytes: bytes,
            control: false,
        });
        Ok(())
    }

    /// Sends what is outgoing as far as the sink takes it. True: all of it.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        let sent = match &self.outgoing {
            Some(outgoing) if outgoing.is_for_kernel() => return self.flush_for_kernel(),
            Some(_) => self.flush_outgoing(),
            None => self.flush_pipe(),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => {
                self.sink.on_send_failed(&error);
                Err(self.sink_failed(&error))
            }
        }
    }

    fn flush_for_kernel(&mut self) -> Result<bool, Failure> {
        let Some(outgoing) = self.outgoing.take() else {
            return Ok(true);
        };
        let sent = match &outgoing.carrier {
            Carrier::Control(control) => self.flush_control(control)?,
            Carrier::Own(_) | Carrier::Source => true,
        };
        if !sent {
            self.outgoing = Some(outgoing);
        }
        Ok(sent)
    }

    fn flush_outgoing(&mut self) -> io::Result<()> {
        let Some(outgoing) = &mut self.outgoing else {
            return Ok(());
        };
        *self.sink.mid_send = true;
        let socket = self.sink.socket;
        let buffer: &[u8] = match &outgoing.carrier {
            Carrier::Own(buffer) => buffer,
            Carrier::Source => self.source.inbound.whole().0,
            Carrier::Control(Control::Sealed(records)) => records,
            Carrier::Control(Control::ForKernel(..)) => &[],
        };
        while !outgoing.parts.is_empty() {
            let mut sent = match outgoing.parts.ranges() {
                [close_notify] if self.ending => {
                    socket.try_send_last(&buffer[close_notify.clone()])?
                }
                _ => try_send(socket, &outgoing.before, buffer, &outgoing.parts)?,
            };
            if !outgoing.before.is_empty() {
                let first = sent.min(outgoing.before.len());
                outgoing.before.drain(..first);
                sent -= first;
            }
            outgoing.parts.advance(sent);
            if let Some((writer, _)) = &mut self.sink.tls {
                writer.on_taken(sent);
            }
            // What is not sealed counts as it goes, a record's plaintext when the batch is out.
            let counts = outgoing.sealed_bytes == 0 && !outgoing.control;
            self.seen
                .on_sent(self.direction, if counts { sent } else { 0 });
        }
        self.on_flushed();
        Ok(())
    }

    fn on_flushed(&mut self) {
        *self.sink.mid_send = false;
        if let Some(outgoing) = self.outgoing.take() {
            self.seen.on_sent(self.direction, outgoing.sealed_bytes);
        }
        if self.opened.is_empty() {
            self.source.inbound.release_if_empty();
        }
    }

    fn flush_pipe(&mut self) -> io::Result<()> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            let sent = pipe.drain_to(self.sink.socket.fd())?;
            if let Some((writer, _)) = &mut self.sink.tls {
                writer.on_taken(sent);
            }
            self.seen.on_sent(self.direction, sent);
        }
        Ok(())
    }
}

/// One system call: send(2) for one part, writev(2) for several.
fn try_send(socket: &Socket, before: &[u8], buffer: &[u8], parts: &Parts) -> io::Result<usize> {
    let part = |range: &Range<usize>| buffer.get(range.clone()).unwrap_or(&[]);
    if let ([], [only]) = (before, parts.ranges()) {
        return socket.try_send(part(only));
    }
    let mut slices = [IoSlice::new(&[]); 1 + PARTS_MAX];
    slices[0] = IoSlice::new(before);
    for (slice, range) in slices[1..].iter_mut().zip(parts.ranges()) {
        *slice = IoSlice::new(part(range));
    }
    let first = usize::from(before.is_empty());
    let used = first..1 + parts.ranges().len();
    socket.try_send_vectored(slices.get(used).unwrap_or(&[]))
}
