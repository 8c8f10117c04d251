use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::time::{Duration, Instant};

use monoio::time::timeout;

use crate::net::{Buffers, CoarseInstant, Inbound, PARTS_MAX, Parts, Pipes, Socket};
use crate::observe::RelayPath;
use crate::tls::{Exhausted, ReadError, Renewal, TlsLeg, TlsReader, TlsWriter};
use crate::types::{Cause, Direction, Side};

/// One side of a relayed connection, its handshake done.
pub struct Leg {
    pub socket: Socket,
    /// Received behind the handshake or the ClientHello, not yet relayed.
    pub inbound: Inbound,
    pub tls: Option<TlsLeg>,
    /// A send was cut short: nothing but the rest of it may follow.
    pub mid_send: bool,
}

impl Leg {
    #[must_use]
    pub fn new(socket: Socket, inbound: Inbound, tls: Option<TlsLeg>) -> Self {
        Self {
            socket,
            inbound,
            tls,
            mid_send: false,
        }
    }

    /// Throws away what has arrived: unread bytes would turn the coming close into a reset, which
    /// could overtake what the peer has not read yet.
    pub fn discard_received(&mut self) {
        let mut scrap = [0; 4096];
        for _ in 0..DISCARDS_MAX {
            if !matches!(self.socket.try_recv(&mut scrap), Ok(1..)) {
                break;
            }
        }
    }

    /// Ends the leg so that the peer cannot take it for a clean end. `alert` goes out first where
    /// there is TLS and no record is half sent.
    pub async fn abort(&mut self, alert: Option<u8>) {
        let sealed = match (&mut self.tls, alert) {
            (Some(tls), Some(alert)) if !self.mid_send => tls.writer.fatal_alert(alert).ok(),
            _ => None,
        };
        match sealed {
            // A reset could overtake the alert; the alert already says that this is no clean end.
            Some(record) if self.socket.try_send(&record).is_ok() => self.socket.farewell().await,
            _ => self.socket.abort_on_close(),
        }
    }
}

const DISCARDS_MAX: usize = 64;

/// A core's pools, as a relay needs them.
pub struct Tools {
    pub buffers: Buffers,
    pub pipes: Pipes,
}

/// What a relay did so far, for the record and the idle time limit.
pub struct Seen {
    pub bytes_up: Cell<u64>,
    pub bytes_down: Cell<u64>,
    pub path_up: Cell<RelayPath>,
    pub path_down: Cell<RelayPath>,
    /// When the first byte had been sent to the client.
    pub first_byte: Cell<Option<Instant>>,
    pub last_active: Cell<CoarseInstant>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            path_up: Cell::default(),
            path_down: Cell::default(),
            first_byte: Cell::new(None),
            last_active: Cell::new(CoarseInstant::now()),
        }
    }
}

impl Seen {
    pub(super) fn on_sent(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::Up => &self.bytes_up,
            Direction::Down => &self.bytes_down,
        };
        count.set(count.get() + bytes as u64);
        if direction == Direction::Down && self.first_byte.get().is_none() {
            self.first_byte.set(Some(Instant::now()));
        }
        self.last_active.set(CoarseInstant::now());
    }

    pub(super) fn on_path(&self, direction: Direction, path: RelayPath) {
        let place = match direction {
            Direction::Up => &self.path_up,
            Direction::Down => &self.path_down,
        };
        // A flow that has spliced may copy its last few bytes: it is a splice all the same.
        if place.get() != RelayPath::Splice {
            place.set(path);
        }
    }
}

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
    /// AlertDescription that the failing side should be told.
    pub alert: Option<u8>,
}

/// What a flow reads from.
pub(super) struct Source<'a> {
    pub socket: &'a Socket,
    pub inbound: &'a mut Inbound,
    pub tls: Option<(&'a mut TlsReader, &'a Renewal)>,
}

/// What a flow writes to.
pub(super) struct Sink<'a> {
    pub socket: &'a Socket,
    pub tls: Option<(&'a mut TlsWriter, &'a Renewal)>,
    pub mid_send: &'a mut bool,
}

/// One direction of a relay.
pub(super) struct Flow<'a> {
    pub direction: Direction,
    pub source: Source<'a>,
    pub sink: Sink<'a>,
    pub tools: &'a Tools,
    pub seen: &'a Seen,
}

/// How often a flow that cannot write looks whether its source was reset.
const STUCK_LOOK: Duration = Duration::from_secs(1);

/// Batches that one flow may move before other connections have their turn.
pub(super) const MOVES_MAX: u32 = 16;

impl Flow<'_> {
    /// Moves bytes until the source has ended cleanly and the sink was told so.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        if self.source.tls.is_none() && self.sink.tls.is_none() {
            self.run_plain().await?;
        } else {
            self.run_user().await?;
        }
        self.finish().await
    }

    /// close_notify where there is TLS, then FIN: the other direction goes on.
    async fn finish(&mut self) -> Result<(), Failure> {
        if let Some((writer, _)) = &mut self.sink.tls {
            let record = writer
                .close_notify()
                .map_err(|error| self.exhausted(error))?;
            *self.sink.mid_send = true;
            let sent = self.sink.socket.send_all(&record).await;
            sent.map_err(|error| self.sink_failed(&error))?;
            *self.sink.mid_send = false;
        }
        // ENOTCONN: the peer is gone already. It has all that we had for it.
        let _ = self.sink.socket.shutdown_write();
        Ok(())
    }

    /// Sends all parts of `buffer`.
    pub(super) async fn send(&mut self, buffer: &[u8], mut parts: Parts) -> Result<(), Failure> {
        *self.sink.mid_send = true;
        while !parts.is_empty() {
            match try_send(self.sink.socket, buffer, &parts) {
                Ok(sent) => parts.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sink_writable().await?;
                }
                Err(error) => return Err(self.sink_failed(&error)),
            }
        }
        *self.sink.mid_send = false;
        Ok(())
    }

    /// Waits for room. Nobody reads the source meanwhile, so a reset there would go unseen as
    /// long as the sink is stuck: it is looked for now and then.
    pub(super) async fn sink_writable(&self) -> Result<(), Failure> {
        let mut writable = pin!(self.sink.socket.writable());
        loop {
            match timeout(STUCK_LOOK, writable.as_mut()).await {
                Ok(ready) => return ready.map_err(|error| self.sink_failed(&error)),
                Err(_) if self.source.socket.is_reset() => {
                    return Err(self.source_failed(&io::ErrorKind::ConnectionReset.into()));
                }
                Err(_) => {}
            }
        }
    }

    pub(super) fn source_failed(&self, error: &io::Error) -> Failure {
        self.failure(Fault::Source, Cause::Reset, error.to_string())
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
            ReadError::Alert(code) => (Cause::Alert, alert_words(code), None),
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

fn alert_words(code: u8) -> String {
    let name = rustls::AlertDescription::from(code);
    format!("the peer sent the alert {name:?} ({code})")
}

/// One system call: send(2) for one part, writev(2) for several.
fn try_send(socket: &Socket, buffer: &[u8], parts: &Parts) -> io::Result<usize> {
    let part = |range: &std::ops::Range<usize>| buffer.get(range.clone()).unwrap_or(&[]);
    if let [only] = parts.ranges() {
        return socket.try_send(part(only));
    }
    let mut slices = [IoSlice::new(&[]); PARTS_MAX];
    for (slice, range) in slices.iter_mut().zip(parts.ranges()) {
        *slice = IoSlice::new(part(range));
    }
    socket.try_send_vectored(slices.get(..parts.ranges().len()).unwrap_or(&[]))
}
