//! A TLS leg after its handshake: what is read, what is written, and the keys' shared.

use std::cell::{Cell, RefCell};

use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::bound::{PeerBound, with_peer_bound};
use super::handoff::Secrets;
use super::recheck::Shown;
use super::record::{
    ContentType, Exhausted, HEADER_BYTES, Opener, RecordError, Sealer, Shape, UnknownCipher,
    record_bytes,
};
use super::writer::TlsWriter;
use crate::net::{CoarseInstant, Inbound, Parts};
use crate::sys::KtlsSuite;
use crate::types::{Alert, UnixSeconds};

/// Both halves of an established leg and what they share.
pub struct TlsLeg {
    pub reader: TlsReader,
    pub writer: TlsWriter,
    pub shared: Shared,
}

/// What rustls keeps for us: the secrets from which the next keys come, and the session store.
pub enum Kernel {
    Server(Box<KernelConnection<ServerConnectionData>>),
    Client(Box<KernelConnection<ClientConnectionData>>),
}

/// What concerns both directions of a leg: its key updates (RFC 8446 4.6.3), and what is still to
/// be sent of its handshake.
pub struct Shared {
    kernel: RefCell<Kernel>,
    /// None where no direction can be handed to kernel TLS.
    secrets: Cell<Option<Box<Secrets>>>,
    /// What the leg's sessions are bound to: an upstream's tickets end with its certificate.
    bound: Cell<PeerBound>,
    pub(super) tls13: bool,
    /// The peer asked for an update of ours, due before our next application data.
    pub(super) requested: Cell<bool>,
    /// The end of our last flight: it goes before anything else that we send.
    unsent: RefCell<Vec<u8>>,
    /// For who judges it again.
    shown: Cell<Option<Box<Shown>>>,
}

impl TlsLeg {
    /// The same, keeping what the peer has shown.
    #[must_use]
    pub fn showing(self, shown: Option<Shown>) -> Self {
        self.shared.shown.set(shown.map(Box::new));
        self
    }

    /// What [`showing`](Self::showing) kept, once.
    pub fn take_shown(&self) -> Option<Box<Shown>> {
        self.shared.shown.take()
    }
}

/// What ended a leg's reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    Record(RecordError),
    /// The peer sent it.
    Alert(Alert),
    /// Words for what has no place here, and the alert to answer with.
    Unexpected(&'static str, Alert),
    /// What kernel TLS cannot do, which is not the peer's fault.
    Kernel(&'static str),
}

impl ReadError {
    pub(super) const INTERRUPTED: Self = Self::Unexpected(
        "a handshake message is interrupted",
        Alert::UNEXPECTED_MESSAGE,
    );
}

/// What one look at the received bytes gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// At least one part holds application data.
    Data,
    /// No whole record is left.
    NeedMore,
    /// close_notify: nothing comes after it.
    Closed,
}

pub(super) const ALERT_LEVEL_WARNING: u8 = 1;

const HANDSHAKE_HELLO_REQUEST: u8 = 0;
const HANDSHAKE_NEW_SESSION_TICKET: u8 = 4;
pub(super) const HANDSHAKE_KEY_UPDATE: u8 = 24;
const HANDSHAKE_HEADER_BYTES: usize = 4;
/// A NewSessionTicket is at most this (RFC 8446 4.6.1: ticket 2^16, extensions 2^16).
const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;
/// Records without application data in a row: a peer that sends more only burns our CPU.
const IDLE_RECORDS_MAX: u32 = 64;

impl Shared {
    #[must_use]
    pub fn new(kernel: Kernel, bound: PeerBound, tls13: bool, unsent: Vec<u8>) -> Self {
        let (kernel, bound) = (RefCell::new(kernel), Cell::new(bound));
        Self {
            kernel,
            secrets: Cell::default(),
            bound,
            tls13,
            requested: Cell::new(false),
            unsent: RefCell::new(unsent),
            shown: Cell::new(None),
        }
    }

    /// Keeps the secrets of both directions, to hand them over later.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = Cell::new(Some(Box::new(secrets)));
        self
    }

    /// What `run` makes of the secrets that were kept. `None`: none were.
    pub(super) fn with_secrets_kept<R>(&self, run: impl FnOnce(&mut Secrets) -> R) -> Option<R> {
        let mut kept = self.secrets.take()?;
        let result = run(&mut kept);
        self.secrets.set(Some(kept));
        Some(result)
    }

    /// When the peer's certificate ends. `None`: it showed none.
    #[must_use]
    pub fn peer_ends_at(&self) -> Option<UnixSeconds> {
        self.bound.get().not_after()
    }

    /// Whether the end of our handshake is still to be sent.
    #[must_use]
    pub fn owes_flight(&self) -> bool {
        !self.unsent.borrow().is_empty()
    }

    /// What is to be sent first; the caller sends it, or puts the rest back.
    #[must_use]
    pub fn take_unsent(&self) -> Vec<u8> {
        self.unsent.take()
    }

    /// The rest of what was taken.
    pub fn put_back(&self, rest: Vec<u8>) {
        self.unsent.replace(rest);
    }

    /// The peer's next traffic secrets, and the sequence number that they begin with.
    pub(super) fn next_receive(&self) -> Result<(u64, ConnectionTrafficSecrets), ReadError> {
        let secrets = match &mut *self.kernel.borrow_mut() {
            Kernel::Server(kernel) => kernel.update_rx_secret(),
            Kernel::Client(kernel) => kernel.update_rx_secret(),
        };
        secrets.map_err(|_| INTERNAL)
    }

    /// Our own next traffic secrets.
    pub(super) fn next_transmit(&self) -> Result<(u64, ConnectionTrafficSecrets), Exhausted> {
        let secrets = match &mut *self.kernel.borrow_mut() {
            Kernel::Server(kernel) => kernel.update_tx_secret(),
            Kernel::Client(kernel) => kernel.update_tx_secret(),
        };
        secrets.map_err(|_| Exhausted)
    }

    fn next_opener(&self) -> Result<Opener, ReadError> {
        let (sequence, secrets) = self.next_receive()?;
        let opener = Opener::new(&secrets, sequence, self.tls13);
        self.with_secrets_kept(|kept| kept.receive = Some(secrets));
        opener.map_err(|UnknownCipher| INTERNAL)
    }

    pub(super) fn next_sealer(&self) -> Result<Sealer, Exhausted> {
        let (sequence, secrets) = self.next_transmit()?;
        let sealer = Sealer::new(&secrets, sequence, self.tls13);
        self.with_secrets_kept(|kept| kept.transmit = Some(secrets));
        sealer.map_err(|UnknownCipher| Exhausted)
    }

    /// Puts the ticket into the upstream's session store. One that rustls refuses is only lost.
    fn keep_ticket(&self, body: &[u8]) {
        match &mut *self.kernel.borrow_mut() {
            Kernel::Client(kernel) => {
                let mut bound = self.bound.get();
                let kept = with_peer_bound(&mut bound, || kernel.handle_new_session_ticket(body));
                if let Err(error) = kept {
                    tracing::debug!(%error, "a session ticket of an upstream server is unusable");
                }
            }
            // Not admitted.
            Kernel::Server(_) => {}
        }
    }

    fn is_client(&self) -> bool {
        matches!(&*self.kernel.borrow(), Kernel::Client(_))
    }
}

const INTERNAL: ReadError =
    ReadError::Unexpected("keys could not be renewed", Alert::INTERNAL_ERROR);

/// Opens what the peer sends.
pub struct TlsReader {
    pub(super) opening: Opening,
    /// Bytes of a handshake message that has not come whole. Almost always empty.
    pub(super) message: Vec<u8>,
    pub(super) idle_records: u32,
    /// None before the first.
    key_updates: Option<Box<KeyUpdates>>,
    /// The kernel opens with keys that the peer has left.
    pub(super) renewal_due: bool,
    /// How the stream ended, while data that came before it is still on its way.
    pub(super) ended: Option<Result<(), ReadError>>,
}

/// Who opens what comes.
pub(super) enum Opening {
    User(Opener),
    Kernel(KtlsSuite),
}

impl TlsReader {
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self {
            opening: Opening::User(opener),
            message: Vec::new(),
            idle_records: 0,
            key_updates: None,
            renewal_due: false,
            ended: None,
        }
    }

    /// Of the records that are opened here; none are once the kernel opens them.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        match &self.opening {
            Opening::User(opener) => Some(opener.shape()),
            Opening::Kernel(_) => None,
        }
    }

    /// Bytes that the record at the front of `received` lacks, as far as they are known: of its
    /// header first.
    ///
    /// # Errors
    /// [`ReadError`], where it cannot be a record.
    pub fn bytes_lacking(received: &[u8]) -> Result<usize, ReadError> {
        let whole = record_bytes(received).map_err(ReadError::Record)?;
        Ok(whole.unwrap_or(HEADER_BYTES).saturating_sub(received.len()))
    }

    /// Opens whole records in place until `parts` is full or no whole record is left. The parts
    /// are ranges of `inbound`'s whole buffer, and stay valid until it receives again.
    ///
    /// # Errors
    /// [`ReadError`]: the leg cannot go on. It comes after all data that was opened before it.
    pub fn open(
        &mut self,
        inbound: &mut Inbound,
        parts: &mut Parts,
        shared: &Shared,
    ) -> Result<Opened, ReadError> {
        while self.ended.is_none() && !parts.is_full() {
            match self.open_record(inbound, parts, shared) {
                Ok(Opened::Data) => {}
                Ok(Opened::NeedMore) => break,
                Ok(Opened::Closed) => self.ended = Some(Ok(())),
                Err(error) => self.ended = Some(Err(error)),
            }
        }
        match self.ended {
            _ if !parts.is_empty() => Ok(Opened::Data),
            None => Ok(Opened::NeedMore),
            Some(Ok(())) => Ok(Opened::Closed),
            Some(Err(error)) => Err(error),
        }
    }

    /// `Data`: a record was consumed, whatever it held.
    fn open_record(
        &mut self,
        inbound: &mut Inbound,
        parts: &mut Parts,
        shared: &Shared,
    ) -> Result<Opened, ReadError> {
        let whole = record_bytes(inbound.bytes()).map_err(ReadError::Record)?;
        let Some(bytes) = whole.filter(|bytes| *bytes <= inbound.bytes().len()) else {
            return Ok(Opened::NeedMore);
        };
        let Opening::User(opener) = &mut self.opening else {
            return Err(INTERNAL);
        };
        let (buffer, held) = inbound.whole();
        let record = &mut buffer[held.start..held.start + bytes];
        let (content_type, content) = opener.open(record).map_err(ReadError::Record)?;
        if !self.message.is_empty() && content_type != ContentType::Handshake {
            return Err(ReadError::INTERRUPTED);
        }
        if content_type == ContentType::ApplicationData && !content.is_empty() {
            self.idle_records = 0;
            parts.push(held.start + content.start..held.start + content.end);
            inbound.consume(bytes);
            return Ok(Opened::Data);
        }
        let closed = self.on_control(content_type, &record[content], shared)?;
        inbound.consume(bytes);
        Ok(if closed { Opened::Closed } else { Opened::Data })
    }

    /// A record that holds no application data. True: close_notify.
    pub(super) fn on_control(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        shared: &Shared,
    ) -> Result<bool, ReadError> {
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            let words = "too many records without application data";
            return Err(ReadError::Unexpected(words, Alert::UNEXPECTED_MESSAGE));
        }
        match content_type {
            ContentType::ApplicationData => Ok(false),
            // RFC 8446 5.4, RFC 5246 6.2.1.
            _ if content.is_empty() => Err(ReadError::Unexpected(
                "a handshake or alert record without content",
                Alert::UNEXPECTED_MESSAGE,
            )),
            ContentType::Alert => on_alert(content, shared.tls13),
            ContentType::Handshake => self.on_handshake(content, shared).map(|()| false),
        }
    }

    fn on_handshake(&mut self, content: &[u8], shared: &Shared) -> Result<(), ReadError> {
        self.message.extend_from_slice(content);
        if self.message.len() > HANDSHAKE_BYTES_MAX {
            let words = "a handshake message is too long";
            return Err(ReadError::Unexpected(words, Alert::UNEXPECTED_MESSAGE));
        }
        let mut messages = std::mem::take(&mut self.message);
        let mut rest = messages.as_slice();
        while let Some(kind) = rest.first() {
            // Before it has come whole: what has no place here is not worth the memory.
            admit(*kind, shared)?;
            let Some((body, after)) = split_message(rest) else {
                break;
            };
            self.on_message(*kind, body, after.is_empty(), shared)?;
            rest = after;
        }
        let consumed = messages.len() - rest.len();
        messages.drain(..consumed);
        if !messages.is_empty() {
            self.message = messages;
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        kind: u8,
        body: &[u8],
        is_last: bool,
        shared: &Shared,
    ) -> Result<(), ReadError> {
        match kind {
            HANDSHAKE_KEY_UPDATE => self.on_key_update(body, is_last, shared),
            HANDSHAKE_NEW_SESSION_TICKET => {
                shared.keep_ticket(body);
                Ok(())
            }
            // A hello request (RFC 5246 7.4.1.1): a client may ignore it. We never renegotiate.
            _ => Ok(()),
        }
    }

    /// RFC 8446 4.6.3 and 5.1: the message ends its record, since the next one has new keys.
    fn on_key_update(
        &mut self,
        body: &[u8],
        is_last: bool,
        shared: &Shared,
    ) -> Result<(), ReadError> {
        let requested = match body {
            [0] => false,
            [1] => true,
            _ => {
                return Err(ReadError::Unexpected(
                    "a malformed key update",
                    Alert::ILLEGAL_PARAMETER,
                ));
            }
        };
        if !self.key_updates.get_or_insert_default().admit() {
            let words = "too many key updates";
            return Err(ReadError::Unexpected(words, Alert::UNEXPECTED_MESSAGE));
        }
        if !is_last {
            let words = "a key update is not the last message of its record";
            return Err(ReadError::Unexpected(words, Alert::UNEXPECTED_MESSAGE));
        }
        match &mut self.opening {
            Opening::User(opener) => *opener = shared.next_opener()?,
            Opening::Kernel(_) => self.renewal_due = true,
        }
        if requested {
            shared.requested.set(true);
        }
        Ok(())
    }
}

/// A peer's key updates. Each costs us a derivation, and an answer if it asks for one: more than a
/// few dozen in a row, and then one a second, only burn our CPU.
struct KeyUpdates {
    count: u64,
    first: CoarseInstant,
}

const KEY_UPDATES_AT_ONCE_MAX: u64 = 32;

impl Default for KeyUpdates {
    fn default() -> Self {
        Self {
            count: 0,
            first: CoarseInstant::now(),
        }
    }
}

impl KeyUpdates {
    fn admit(&mut self) -> bool {
        let age = CoarseInstant::now().saturating_since(self.first);
        self.count += 1;
        self.count <= KEY_UPDATES_AT_ONCE_MAX + age.as_secs()
    }
}

/// Whether a handshake message may come after the handshake.
fn admit(kind: u8, shared: &Shared) -> Result<(), ReadError> {
    match (shared.tls13, kind) {
        (true, HANDSHAKE_KEY_UPDATE) => Ok(()),
        (true, HANDSHAKE_NEW_SESSION_TICKET) if shared.is_client() => Ok(()),
        (false, HANDSHAKE_HELLO_REQUEST) if shared.is_client() => Ok(()),
        (false, _) => Err(ReadError::Unexpected(
            "renegotiation is not done (RFC 5246 7.2.2)",
            Alert::NO_RENEGOTIATION,
        )),
        (true, _) => Err(ReadError::Unexpected(
            "a handshake message that has no place after the handshake",
            Alert::UNEXPECTED_MESSAGE,
        )),
    }
}

/// The body of the first message, and what comes after it.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HANDSHAKE_HEADER_BYTES>()?;
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]);
    rest.split_at_checked(usize::try_from(length).ok()?)
}

fn on_alert(content: &[u8], tls13: bool) -> Result<bool, ReadError> {
    match *content {
        [_, code] if Alert(code) == Alert::CLOSE_NOTIFY => Ok(true),
        [_, code] if Alert(code) == Alert::USER_CANCELED => Ok(false),
        // TLS 1.3 has no warnings but these two (RFC 8446 6).
        [ALERT_LEVEL_WARNING, _] if !tls13 => Ok(false),
        [_, code] => Err(ReadError::Alert(Alert(code))),
        _ => Err(ReadError::Unexpected(
            "a malformed alert",
            Alert::DECODE_ERROR,
        )),
    }
}

const _: () = assert!(Shape::Tls13.head_bytes() == HEADER_BYTES);

#[cfg(test)]
mod tests;
