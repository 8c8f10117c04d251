//! Drives one rustls handshake over a socket, server's or client's part alike.
//!
//! rustls is given one record at a time, so that when the handshake is over every byte behind it
//! is still sealed in our buffer: the record layer goes on from exactly there. What rustls wants
//! to send is gathered and goes out in one send per flight.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConfig, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{CommonState, ExtractedSecrets, ProtocolVersion};

use super::bound::{PeerBound, with_peer_bound};
use super::connector::Endpoint;
use super::flight::Outbound;
use super::gate::{FullHandshakeGate, with_gate};
use super::handoff::Secrets;
use super::reason::{alert_sent, failure, foreign_protocol};
use super::record::{HEADER_BYTES, Opener, Sealer, record_bytes};
use super::stream::{Kernel, Shared, TlsLeg, TlsReader};
use super::writer::TlsWriter;
use crate::net::{Buffers, Expect, Inbound, ReceiveError, SMALL_BYTES, Socket};
use crate::proto::proxy::{V2_BODY_BYTES_MAX, V2_FIXED_BYTES};
use crate::types::{Alert, Cause, End, Phase, Side};

/// Why a handshake did not come to its end.
#[derive(Debug)]
pub enum HandshakeError {
    /// rustls refuses the peer, or the peer sent an alert.
    Tls {
        error: rustls::Error,
        alert_sent: Option<Alert>,
    },
    /// The peer ended the stream.
    Closed,
    Io(io::Error),
    /// The peer's flight is longer than any honest one.
    TooLong,
    /// It would be a full handshake, and there are too many. The words name the limit.
    Refused(&'static str),
}

impl HandshakeError {
    /// For the record. `first_bytes`: what the peer sent and rustls did not take, which tells a
    /// peer that speaks something else from one that breaks TLS.
    #[must_use]
    pub fn end(&self, phase: Phase, side: Side, first_bytes: &[u8]) -> End {
        let (cause, words) = self.cause_and_words(first_bytes);
        End::new(cause, phase, Some(side))
            .with_alert(self.alert())
            .with_detail(words)
    }

    /// Received from the peer, or else sent to it.
    fn alert(&self) -> Option<Alert> {
        match self {
            Self::Tls {
                error: rustls::Error::AlertReceived(alert),
                ..
            } => Some(Alert((*alert).into())),
            Self::Tls { alert_sent, .. } => *alert_sent,
            Self::Closed | Self::Io(_) | Self::TooLong | Self::Refused(_) => None,
        }
    }

    fn cause_and_words(&self, first_bytes: &[u8]) -> (Cause, String) {
        match self {
            Self::Tls { error, .. } => {
                let (cause, words) = failure(error);
                match foreign_protocol(first_bytes) {
                    Some(foreign) if cause == Cause::Protocol => {
                        (cause, format!("the peer speaks {foreign}, not TLS"))
                    }
                    _ => (cause, words),
                }
            }
            Self::Closed => (Cause::Closed, "the peer closed during the handshake".into()),
            Self::Io(error) => (Cause::Reset, error.to_string()),
            Self::TooLong => (
                Cause::Protocol,
                "a handshake flight of more than 64 KiB".into(),
            ),
            Self::Refused(words) => (Cause::Limit, (*words).into()),
        }
    }
}

/// One end of a handshake: what differs between server and client.
pub trait Engine {
    type Data;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn common(&self) -> &CommonState;

    /// Why the handshake may not be a full one, if it was about to be.
    fn refusal(&self) -> Option<&'static str> {
        None
    }

    /// Whether the peer cannot go on before it has our last flight.
    fn peer_waits(&self) -> bool;

    /// What the connection's sessions are bound to, as far as the handshake has come.
    fn bound(&self) -> PeerBound;

    /// # Errors
    /// What rustls reports: none is known for a finished handshake.
    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error>;
}

/// The server's end.
pub struct ServerEngine {
    connection: UnbufferedServerConnection,
    bound: PeerBound,
    gate: Option<FullHandshakeGate>,
}

impl ServerEngine {
    /// # Errors
    /// What rustls reports: none is known for a configuration that was built.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self {
            connection,
            bound: PeerBound::default(),
            gate: None,
        })
    }

    /// Without a gate the handshake may be a full one.
    #[must_use]
    pub fn behind(self, gate: Option<FullHandshakeGate>) -> Self {
        Self { gate, ..self }
    }
}

impl Engine for ServerEngine {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        let (connection, gate) = (&mut self.connection, &mut self.gate);
        with_peer_bound(&mut self.bound, || {
            with_gate(gate, || connection.process_tls_records(bytes))
        })
    }

    fn refusal(&self) -> Option<&'static str> {
        self.gate.as_ref()?.refusal()
    }

    fn common(&self) -> &CommonState {
        &self.connection
    }

    /// A client of TLS 1.2 waits for our Finished (RFC 5246 7.3); one of TLS 1.3 has it already,
    /// and what is left are tickets.
    fn peer_waits(&self) -> bool {
        self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3)
    }

    fn bound(&self) -> PeerBound {
        self.bound
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        let (secrets, kernel) = self.connection.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Server(Box::new(kernel))))
    }
}

/// The client's end.
pub struct ClientEngine {
    connection: UnbufferedClientConnection,
    bound: PeerBound,
}

impl ClientEngine {
    /// Takes a session from the configuration's store, if one is there.
    ///
    /// # Errors
    /// What rustls reports: none is known for a configuration that was built.
    pub fn new(endpoint: Endpoint, alpn: Vec<Vec<u8>>) -> Result<Self, rustls::Error> {
        let mut bound = PeerBound::default();
        let connection = with_peer_bound(&mut bound, || {
            UnbufferedClientConnection::new_with_alpn(endpoint.config, endpoint.name, alpn)
        })?;
        Ok(Self { connection, bound })
    }
}

impl Engine for ClientEngine {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        let connection = &mut self.connection;
        with_peer_bound(&mut self.bound, || connection.process_tls_records(bytes))
    }

    fn common(&self) -> &CommonState {
        &self.connection
    }

    /// A server does, but no longer than until our first data, which goes with it.
    fn peer_waits(&self) -> bool {
        false
    }

    fn bound(&self) -> PeerBound {
        self.bound
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        let (secrets, kernel) = self.connection.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Client(Box::new(kernel))))
    }
}

/// A handshake in progress: the engine, and both directions' bytes.
pub struct Handshake<'a, E> {
    engine: &'a mut E,
    socket: &'a Socket,
    buffers: &'a Buffers,
    inbound: &'a mut Inbound,
    outbound: Outbound,
    /// Bytes at the front of `inbound` that the engine has been shown.
    shown: usize,
}

/// What the engine wants next.
enum Step {
    Again,
    NeedMore,
    Complete,
    Closed,
    Failed(rustls::Error),
}

impl<'a, E: Engine> Handshake<'a, E> {
    /// `inbound` may already hold the beginning of the peer's first flight, and holds what came
    /// after its last one when the handshake is over.
    pub fn new(
        engine: &'a mut E,
        socket: &'a Socket,
        buffers: &'a Buffers,
        inbound: &'a mut Inbound,
    ) -> Self {
        Self {
            engine,
            socket,
            buffers,
            inbound,
            outbound: Outbound::default(),
            shown: 0,
        }
    }

    /// Sends `bytes`, a PROXY header, in front of the first flight and in the same send.
    #[must_use]
    pub fn behind(mut self, bytes: &[u8]) -> Self {
        const { assert!(V2_FIXED_BYTES + V2_BODY_BYTES_MAX <= SMALL_BYTES) };
        self.outbound.put(bytes, self.buffers);
        self
    }

    /// Runs to the end. The engine is then ready for [`establish`], with what is left to send.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn run(&mut self) -> Result<Unsent, HandshakeError> {
        loop {
            match self.step()? {
                Step::Again => {}
                Step::NeedMore => self.show_another_record().await?,
                Step::Complete => {
                    if self.engine.peer_waits() {
                        self.flush().await?;
                    }
                    return Ok(self.unsent());
                }
                Step::Closed => return Err(HandshakeError::Closed),
                Step::Failed(error) => {
                    if let Some(words) = self.engine.refusal() {
                        return Err(HandshakeError::Refused(words));
                    }
                    let alert_sent = self.send_alert(&error);
                    return Err(HandshakeError::Tls { error, alert_sent });
                }
            }
        }
    }

    fn step(&mut self) -> Result<Step, HandshakeError> {
        let shown = self
            .inbound
            .bytes_mut()
            .get_mut(..self.shown)
            .unwrap_or(&mut []);
        let UnbufferedStatus { discard, state } = self.engine.process(shown);
        let step = match state {
            Err(error) => Step::Failed(error),
            Ok(ConnectionState::EncodeTlsData(data)) => {
                self.outbound.encode(data, self.buffers)?;
                Step::Again
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Step::Again
            }
            Ok(ConnectionState::BlockedHandshake) => Step::NeedMore,
            Ok(ConnectionState::WriteTraffic(_)) => Step::Complete,
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::Closed,
            // Early data is never accepted, and traffic is never shown to the engine.
            Ok(_) => Step::Failed(rustls::Error::General(
                "traffic within the handshake".into(),
            )),
        };
        self.inbound.consume(discard);
        self.shown -= discard;
        // A server may write before it has read the client's Finished; we do not.
        let early = matches!(step, Step::Complete) && self.engine.common().is_handshaking();
        Ok(if early { Step::NeedMore } else { step })
    }

    fn unsent(&mut self) -> Unsent {
        let flight = self.outbound.take();
        Unsent(flight.map_or_else(Vec::new, |flight| flight.bytes().to_vec()))
    }

    async fn flush(&mut self) -> Result<(), HandshakeError> {
        if let Some(flight) = self.outbound.take() {
            self.socket
                .send_all(flight.bytes())
                .await
                .map_err(HandshakeError::Io)?;
        }
        Ok(())
    }

    async fn show_another_record(&mut self) -> Result<(), HandshakeError> {
        loop {
            if let Some(bytes) = self.next_record() {
                self.shown += bytes;
                return Ok(());
            }
            // The peer may be waiting for us only when nothing of its flight is left.
            self.flush().await?;
            let received = self
                .inbound
                .receive(self.socket, self.buffers, Expect::Nothing, false)
                .await;
            match received {
                Ok(0) => return Err(HandshakeError::Closed),
                Ok(_) => {}
                Err(ReceiveError::Full) => return Err(HandshakeError::TooLong),
                Err(ReceiveError::Io(error)) => return Err(HandshakeError::Io(error)),
            }
        }
    }

    /// Bytes of the next whole record. What cannot be a record is shown as it is: rustls then
    /// says what is wrong with it, and makes the alert.
    fn next_record(&self) -> Option<usize> {
        let bytes = self.inbound.bytes().get(self.shown..).unwrap_or(&[]);
        match record_bytes(bytes) {
            Ok(whole) => whole.filter(|whole| *whole <= bytes.len()),
            Err(_) => (bytes.len() >= HEADER_BYTES).then_some(bytes.len()),
        }
    }

    /// The alert that rustls has ready, sent as far as the socket takes it at once.
    ///
    /// rustls is asked only while it has something to send: it may still hold ranges of the bytes
    /// it refused, and panics when it looks for them again (0.23.46, `buffers.rs`).
    fn send_alert(&mut self, error: &rustls::Error) -> Option<Alert> {
        while self.engine.common().wants_write() {
            let UnbufferedStatus { state, .. } = self.engine.process(&mut []);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else {
                break;
            };
            if self.outbound.encode(data, self.buffers).is_err() {
                break;
            }
        }
        let flight = self.outbound.take()?;
        // The handshake has failed: that the alert may not arrive changes nothing.
        self.socket.try_send(flight.bytes()).ok()?;
        alert_sent(error, flight.bytes())
    }
}

/// The end of our last flight, if no peer waits for it: it may go out with the first data.
#[must_use]
#[derive(Debug, Default)]
pub struct Unsent(pub Vec<u8>);

/// Turns a finished handshake into a leg with our record layer. `keep_secrets`: so that its
/// directions can be handed to kernel TLS later.
///
/// # Errors
/// What rustls reports; a cipher that the record layer has not got.
pub fn establish<E: Engine>(
    engine: E,
    unsent: Unsent,
    keep_secrets: bool,
) -> Result<TlsLeg, rustls::Error> {
    let tls13 = engine.common().protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let bound = engine.bound();
    let (secrets, kernel) = engine.into_kernel()?;
    let unknown = |_| rustls::Error::General("a cipher without a record layer".into());
    let opener = Opener::new(&secrets.rx.1, secrets.rx.0, tls13).map_err(unknown)?;
    let sealer = Sealer::new(&secrets.tx.1, secrets.tx.0, tls13).map_err(unknown)?;
    let mut shared = Shared::new(kernel, bound, tls13, unsent.0);
    if keep_secrets {
        shared = shared.with_secrets(Secrets {
            transmit: Some(secrets.tx.1),
            receive: Some(secrets.rx.1),
        });
    }
    Ok(TlsLeg {
        reader: TlsReader::new(opener),
        writer: TlsWriter::new(sealer),
        shared,
    })
}
