//! One direction of a relay: a machine that moves bytes until it has to wait, and says for what.

use std::cell::Cell;
use std::io;

use super::leg::Tools;
use super::outgoing::Outgoing;
use super::path::{End, Path, may_have_drained, missing};
use super::receiving::Receiving;
use super::seen::Seen;
use super::throttle::rest;
use crate::config::Carriage;
use crate::net::{Inbound, Parts, Pipe, Socket};
use crate::tls::{Control, Exhausted, ReadError, Shared, TlsReader, TlsWriter};
use crate::types::{Alert, Cause, Direction, Side};

/// Where in a flow a failure came up: it decides what the other flow may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing more can be read.
    Source,
    /// Nothing more can be written; what the same peer sent before may still be read.
    Sink,
}

/// Why a flow could not come to its clean end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    pub side: Side,
    pub cause: Cause,
    pub detail: String,
    /// What the failing side should be told; with the cause `Alert`, what it told us.
    pub alert: Option<Alert>,
}

/// What a flow reads from.
pub(super) struct Source<'a> {
    pub socket: &'a Socket,
    pub inbound: &'a mut Inbound,
    pub tls: Option<(&'a mut TlsReader, &'a Shared)>,
    pub was_reset: &'a Cell<bool>,
}

/// What a flow writes to.
pub(super) struct Sink<'a> {
    pub socket: &'a Socket,
    pub tls: Option<(&'a mut TlsWriter, &'a Shared)>,
    pub mid_send: &'a mut bool,
    pub was_reset: &'a Cell<bool>,
}

impl Sink<'_> {
    /// A send that meets a reset takes the socket's error with it, and a receive then reads an end
    /// of stream that the peer never sent. EPIPE: the peer had ended its stream before.
    pub(super) fn on_send_failed(&self, error: &io::Error) {
        if error.raw_os_error() != Some(libc::EPIPE) {
            self.was_reset.set(true);
        }
    }
}

/// One direction of a relay.
pub(super) struct Flow<'a> {
    pub(super) direction: Direction,
    pub(super) source: Source<'a>,
    pub(super) sink: Sink<'a>,
    pub(super) tools: &'a Tools,
    pub(super) seen: &'a Seen<'a>,
    pub(super) receiving: Receiving,
    /// Application data that was opened in the source's buffer and is not on its way yet.
    pub(super) opened: Parts,
    pub(super) outgoing: Option<Outgoing>,
    /// Held while the flow splices and is bulky.
    pub(super) pipe: Option<Pipe>,
    /// The source has ended: what is outgoing now is the last.
    pub(super) ending: bool,
    /// Batches since the flow last waited.
    batches: u32,
    pub(super) path: Path,
}

/// Batches that a flow may send before other connections have their turn, however many of them
/// one receive brought.
const BATCHES_MAX: u32 = 64;

/// What a flow has to wait for.
enum Wait {
    Source,
    Sink,
    /// The other connections' turn; its own comes as soon as they had it.
    Turn,
    /// The direction's rate.
    Rest,
    /// Kernel TLS, which has more than TCP has room for.
    Drain,
    /// Nothing: it has come to its clean end.
    Ended,
}

/// What a look at the source gave.
pub(super) enum Filled {
    /// Something to send.
    Outgoing,
    Nothing,
    /// Neither: look again.
    Again,
    EndOfStream,
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        direction: Direction,
        source: Source<'a>,
        sink: Sink<'a>,
        tools: &'a Tools,
        seen: &'a Seen<'a>,
        carriage: [&Carriage; 2],
    ) -> Self {
        let [from, to] = carriage;
        let from = End {
            carriage: *from,
            tls: source.tls.is_some(),
        };
        let to = End {
            carriage: *to,
            tls: sink.tls.is_some(),
        };
        if let Some(fallback) = missing([from, to], tools.kernel_tls) {
            seen.on_fallback(direction, fallback);
        }
        let early = !source.inbound.is_empty();
        Self {
            direction,
            source,
            sink,
            tools,
            seen,
            receiving: Receiving::new(direction, early),
            opened: Parts::default(),
            outgoing: None,
            pipe: None,
            ending: false,
            batches: 0,
            path: Path::new(from, to, tools.kernel_tls),
        }
    }

    /// Moves bytes until the source has ended cleanly and the sink was told so.
    ///
    /// Only the waiting is asynchronous, so that an idle flow is little more than its fields.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        self.mark_path();
        loop {
            match self.step()? {
                Wait::Source => {
                    let ready = self.source.socket.readable().await;
                    ready.map_err(|error| self.source_failed(&error))?;
                }
                Wait::Sink => {
                    self.seen.on_stuck(self.direction, true);
                    let ready = self.sink.socket.writable().await;
                    self.seen.on_stuck(self.direction, false);
                    ready.map_err(|error| self.sink_failed(&error))?;
                }
                // A writable sink answers at once, but by way of the ring.
                Wait::Turn => {
                    let ready = self.sink.socket.writable().await;
                    ready.map_err(|error| self.sink_failed(&error))?;
                }
                Wait::Drain => {
                    self.seen.on_stuck(self.direction, true);
                    // Rare, and its timer would make every flow larger.
                    let ready = Box::pin(may_have_drained(self.sink.socket)).await;
                    self.seen.on_stuck(self.direction, false);
                    ready.map_err(|error| self.sink_failed(&error))?;
                }
                // As rare, and its timer as large.
                Wait::Rest => Box::pin(rest(self.seen, self.direction)).await,
                Wait::Ended => return Ok(()),
            }
        }
    }

    fn step(&mut self) -> Result<Wait, Failure> {
        loop {
            if !self.flush()? {
                return Ok(Wait::Sink);
            }
            if self.ending {
                if !self.sink_is_drained()? {
                    return Ok(Wait::Drain);
                }
                // After the other direction, the close that comes next sends the FIN.
                if !self.seen.on_ended() {
                    // ENOTCONN: the peer is gone already. It has all that we had for it.
                    let _ = self.sink.socket.shutdown_write();
                }
                // The other direction may live long: hold nothing for this one.
                self.pipe = None;
                *self.source.inbound = Inbound::default();
                return Ok(Wait::Ended);
            }
            if self.batches >= BATCHES_MAX {
                self.batches = 0;
                return Ok(Wait::Turn);
            }
            if self.seen.must_rest(self.direction) {
                self.batches = 0;
                return Ok(Wait::Rest);
            }
            self.hand_over_sink();
            if let Some(update) = self.key_update()? {
                self.outgoing = Some(Outgoing::control(update));
                continue;
            }
            match self.fill()? {
                Filled::Outgoing | Filled::Again => self.batches += 1,
                Filled::Nothing if self.must_send_flight() => self.send_flight(),
                Filled::Nothing => {
                    self.batches = 0;
                    return Ok(Wait::Source);
                }
                Filled::EndOfStream => self.end()?,
            }
        }
    }

    /// The end of our handshake waits for data to go with only where an answer is on its way:
    /// where the other direction has carried something. (`pair` sees that it does not wait long.)
    fn must_send_flight(&self) -> bool {
        let owes = |(_, shared): &(&mut TlsWriter, &Shared)| shared.owes_flight();
        self.sink.tls.as_ref().is_some_and(owes) && self.seen.bytes(self.direction.other()) == 0
    }

    fn send_flight(&mut self) {
        if let Some((_, shared)) = &self.sink.tls {
            let flight = Control::Sealed(shared.take_unsent());
            self.outgoing = Some(Outgoing::control(flight));
        }
    }

    fn fill(&mut self) -> Result<Filled, Failure> {
        let opens = |(reader, _): &(&mut TlsReader, _)| !reader.is_in_kernel();
        if self.source.tls.as_ref().is_some_and(opens) {
            return self.fill_from_tls();
        }
        let seals = |(writer, _): &(&mut TlsWriter, _)| writer.shape();
        match self.sink.tls.as_ref().and_then(seals) {
            Some(shape) => self.fill_spaced(shape),
            None => self.fill_plain(),
        }
    }

    /// close_notify where there is TLS; the FIN follows when it is sent. The other direction
    /// goes on.
    fn end(&mut self) -> Result<(), Failure> {
        self.ending = true;
        if let Some((writer, shared)) = &mut self.sink.tls {
            let close_notify = writer.close_notify(shared);
            let close_notify = close_notify.map_err(|error| self.exhausted(error))?;
            self.outgoing = Some(Outgoing::control(close_notify));
        }
        Ok(())
    }

    pub(super) fn source_failed(&self, error: &io::Error) -> Failure {
        self.failure(Fault::Source, Cause::Reset, error.to_string())
    }

    /// A plain source that reads nothing more: its clean end, unless a send on the same socket
    /// has met a reset before.
    pub(super) fn end_of_plain(&self) -> Result<Filled, Failure> {
        if self.source.was_reset.get() {
            return Err(self.source_failed(&io::ErrorKind::ConnectionReset.into()));
        }
        Ok(Filled::EndOfStream)
    }

    pub(super) fn sink_failed(&self, error: &io::Error) -> Failure {
        self.failure(Fault::Sink, Cause::Reset, error.to_string())
    }

    pub(super) fn truncated(&self) -> Failure {
        let detail = "the stream ended without close_notify: data may be missing";
        self.failure(Fault::Source, Cause::Truncated, detail.into())
    }

    pub(super) fn unreadable(&self, error: ReadError) -> Failure {
        let (cause, detail, alert) = match error {
            ReadError::Record(error) => (
                Cause::Protocol,
                error.words().to_owned(),
                Some(error.alert()),
            ),
            ReadError::Alert(alert) => {
                (Cause::Alert, format!("alert {alert} received"), Some(alert))
            }
            ReadError::Unexpected(words, alert) => (Cause::Protocol, words.into(), Some(alert)),
            ReadError::Kernel(words) => (Cause::System, words.into(), Some(Alert::INTERNAL_ERROR)),
        };
        Failure {
            alert,
            ..self.failure(Fault::Source, cause, detail)
        }
    }

    pub(super) fn exhausted(&self, Exhausted: Exhausted) -> Failure {
        let detail = "the key has protected as many records as AES-GCM allows (RFC 8446 5.5)";
        self.failure(Fault::Sink, Cause::Limit, detail.into())
    }

    pub(super) fn failure(&self, fault: Fault, cause: Cause, detail: String) -> Failure {
        let side = match fault {
            Fault::Source => self.direction.source(),
            Fault::Sink => self.direction.sink(),
        };
        Failure {
            fault,
            side,
            cause,
            detail,
            alert: None,
        }
    }
}
