//! One direction of a relay: a machine that moves bytes until it has to wait, and says for what.

use std::cell::Cell;
use std::io;

use super::leg::Tools;
use super::outgoing::Outgoing;
use super::receiving::Receiving;
use super::seen::Seen;
use crate::net::{Inbound, Parts, Pipe, Socket};
use crate::observe::RelayPath;
use crate::tls::{Exhausted, ReadError, Shared, TlsReader, TlsWriter};
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
    pub(super) seen: &'a Seen,
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
    /// Nothing: it has come to its clean end.
    Ended,
}

/// What a look at the source gave.
pub(super) enum Filled {
    /// Something to send.
    Outgoing,
    Nothing,
    EndOfStream,
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        direction: Direction,
        source: Source<'a>,
        sink: Sink<'a>,
        tools: &'a Tools,
        seen: &'a Seen,
    ) -> Self {
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
        }
    }

    /// Moves bytes until the source has ended cleanly and the sink was told so.
    ///
    /// Only the waiting is asynchronous, so that an idle flow is little more than its fields.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let path = match (&self.source.tls, &self.sink.tls) {
            (None, None) => RelayPath::Copy,
            _ => RelayPath::User,
        };
        self.seen.on_path(self.direction, path);
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
            match self.fill()? {
                Filled::Outgoing => self.batches += 1,
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
            self.outgoing = Some(Outgoing::control(shared.take_unsent()));
        }
    }

    fn fill(&mut self) -> Result<Filled, Failure> {
        match (&self.source.tls, &self.sink.tls) {
            (Some(_), _) => self.fill_from_tls(),
            (None, Some((writer, _))) => self.fill_spaced(writer.shape()),
            (None, None) => self.fill_plain(),
        }
    }

    /// close_notify where there is TLS; the FIN follows when it is sent. The other direction
    /// goes on.
    fn end(&mut self) -> Result<(), Failure> {
        self.ending = true;
        if let Some((writer, shared)) = &mut self.sink.tls {
            let record = writer.close_notify(shared);
            let record = record.map_err(|error| self.exhausted(error))?;
            self.outgoing = Some(Outgoing::control(record));
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

    fn failure(&self, fault: Fault, cause: Cause, detail: String) -> Failure {
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
