//! One end of a connection in a test's hand: plain or TLS, client or server.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind};
use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::pattern::Pattern;
use crate::sys::{self, Ready};
use crate::wait::DEADLINE;

/// Where a peer or the proxy listens, written as in Ringway's configuration and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// # Panics
    /// For a unix address.
    #[must_use]
    pub fn ip(&self) -> SocketAddr {
        match self {
            Self::Ip(address) => *address,
            Self::Unix(path) => panic!("expected an IP address, not {}", path.display()),
        }
    }

    /// # Panics
    /// For a unix address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ip().port()
    }

    pub(crate) fn domain(&self) -> Domain {
        match self {
            Self::Ip(address) => Domain::for_address(*address),
            Self::Unix(_) => Domain::UNIX,
        }
    }

    pub(crate) fn sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            Self::Ip(address) => Ok((*address).into()),
            Self::Unix(path) => SockAddr::unix(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => Ok(Self::Ip(text.parse()?)),
        }
    }
}

/// How the other side ended its direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// FIN; on a TLS link close_notify and then FIN.
    Clean,
    /// FIN on a TLS link without close_notify.
    Cut,
    /// RST.
    Reset,
    /// A fatal alert, or bytes that are no TLS: the words of rustls.
    Broken(String),
    /// Nothing came before the deadline.
    Silence,
}

impl Ending {
    /// Whether the reader could take what came for all there was.
    #[must_use]
    pub fn looks_complete(&self) -> bool {
        *self == Self::Clean
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silence,
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// A connected stream, plain or TLS. Every call ends by [`DEADLINE`] unless [`Link::limit`] says
/// otherwise.
pub struct Link {
    socket: Socket,
    tls: Option<Connection>,
}

impl Link {
    /// A plain connection.
    ///
    /// # Errors
    /// What connect(2) says.
    pub fn connect(to: &Address) -> io::Result<Self> {
        let socket = Socket::new(to.domain(), Type::STREAM, None)?;
        socket.connect_timeout(&to.sock_addr()?, DEADLINE)?;
        Self::over(socket)
    }

    /// A plain connection from this address of ours.
    ///
    /// # Errors
    /// What bind(2) and connect(2) say.
    pub fn connect_from(from: IpAddr, to: &Address) -> io::Result<Self> {
        let socket = Socket::new(to.domain(), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.sock_addr()?, DEADLINE)?;
        Self::over(socket)
    }

    /// A TLS connection, after its handshake.
    ///
    /// # Errors
    /// What connect(2) says, and why the handshake failed.
    pub fn connect_tls(to: &Address, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        Self::connect(to)?.start_tls(config, name)
    }

    /// Takes over a connected socket.
    ///
    /// # Errors
    /// When the socket takes no options.
    pub fn over(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        // Fails on unix sockets, which have no Nagle to turn off.
        let _ = socket.set_tcp_nodelay(true);
        let link = Self { socket, tls: None };
        link.limit(DEADLINE)?;
        Ok(link)
    }

    /// The client's TLS handshake.
    ///
    /// # Errors
    /// Why the handshake failed.
    ///
    /// # Panics
    /// When `name` is no server name.
    pub fn start_tls(mut self, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        self.use_tls(client_connection(config, name).into());
        self.handshake()?;
        Ok(self)
    }

    /// The server's TLS handshake.
    ///
    /// # Errors
    /// Why the handshake failed.
    ///
    /// # Panics
    /// When rustls takes the configuration for none.
    pub fn accept_tls(mut self, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(Arc::clone(config)).expect("a server's configuration");
        self.use_tls(tls.into());
        self.handshake()?;
        Ok(self)
    }

    /// Goes on with a TLS connection whose first flight was perhaps sent by hand.
    pub fn use_tls(&mut self, tls: Connection) {
        self.tls = Some(tls);
    }

    /// Finishes the handshake of [`Self::use_tls`].
    ///
    /// # Errors
    /// Why the handshake failed.
    pub fn handshake(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut &self.socket)?;
        }
        Ok(())
    }

    /// How long each later read and write may take.
    ///
    /// # Errors
    /// When the socket takes no options.
    pub fn limit(&self, limit: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(limit))?;
        self.socket.set_write_timeout(Some(limit))
    }

    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Our end's address, as the proxy logs it.
    ///
    /// # Panics
    /// For a socket without an IP address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        let address = self.socket.local_addr().expect("a bound socket");
        address.as_socket().expect("an IP address")
    }

    /// # Panics
    /// For a plain link.
    #[must_use]
    pub fn tls(&self) -> &Connection {
        self.tls.as_ref().expect("a TLS link")
    }

    /// Whether the handshake resumed a session. False for a plain link.
    #[must_use]
    pub fn resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return (&self.socket).write_all(bytes);
        };
        while !bytes.is_empty() {
            let taken = tls.writer().write(bytes)?;
            bytes = &bytes[taken..];
            flush(tls, &self.socket)?;
        }
        Ok(())
    }

    /// Sends bytes below TLS.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    /// Some bytes; 0 at a clean end (close_notify seen, where TLS).
    ///
    /// # Errors
    /// `UnexpectedEof` without close_notify, `WouldBlock` after the limit, and what else went wrong.
    pub fn receive_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return (&self.socket).read(into);
        };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            tls.read_tls(&mut &self.socket)?;
            let processed = tls.process_new_packets();
            // An alert of ours, or an answer to a key update.
            let _ = flush(tls, &self.socket);
            processed.map_err(io::Error::other)?;
        }
    }

    /// Exactly `count` bytes.
    ///
    /// # Panics
    /// When the stream ends or nothing comes before.
    pub fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.receive_some(&mut bytes[filled..]) {
                Ok(0) => panic!("the stream ended after {filled} of {count} bytes expected"),
                Ok(some) => filled += some,
                Err(error) => panic!("after {filled} of {count} bytes expected: {error}"),
            }
        }
        bytes
    }

    /// All that still comes, and how it ends.
    pub fn receive_to_end(&mut self) -> (Vec<u8>, Ending) {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.receive_some(&mut buffer) {
                Ok(0) => return (bytes, self.after_end()),
                Ok(some) => bytes.extend_from_slice(&buffer[..some]),
                Err(error) => return (bytes, Ending::of(&error)),
            }
        }
    }

    /// How the other side ends, with no byte before.
    ///
    /// # Panics
    /// When bytes come.
    pub fn expect_end(&mut self) -> Ending {
        let (bytes, ending) = self.receive_to_end();
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        assert!(
            bytes.is_empty(),
            "expected no byte before the end, got {}: {text:?}, then {ending:?}",
            bytes.len()
        );
        ending
    }

    /// Ends our direction cleanly: close_notify where TLS, then FIN. The other one goes on.
    ///
    /// # Errors
    /// What the socket says.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            flush(tls, &self.socket)?;
        }
        self.socket.shutdown(Shutdown::Write)
    }

    /// FIN without close_notify: on a TLS link a truncation.
    ///
    /// # Errors
    /// What the socket says.
    pub fn cut(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// RST.
    ///
    /// # Panics
    /// When the socket takes no SO_LINGER.
    pub fn reset(self) {
        self.socket
            .set_linger(Some(Duration::ZERO))
            .expect("SO_LINGER");
    }

    /// Sends and expects the same back.
    ///
    /// # Panics
    /// When something else, or nothing, comes back.
    pub fn ping(&mut self, bytes: &[u8]) {
        self.send(bytes).expect("send to an echo");
        let back = self.receive(bytes.len());
        assert!(back == bytes, "the echo of {} bytes differs", bytes.len());
    }

    /// Carries a checked stream each way at the same time, to both ends.
    ///
    /// # Errors
    /// What differed, who ended early or how, or where it stalled, in words.
    pub fn exchange(&mut self, exchange: &Exchange) -> Result<(), String> {
        self.socket
            .set_nonblocking(true)
            .map_err(|e| e.to_string())?;
        let mut state = ExchangeState::new(exchange);
        let mut buffer = vec![0; 256 * 1024];
        let mut moved_at = Instant::now();
        while !(state.finished && state.ended) {
            let moved = self.exchange_out(&mut state)? | self.exchange_in(&mut state, &mut buffer)?;
            if moved {
                moved_at = Instant::now();
            } else if moved_at.elapsed() > DEADLINE {
                return Err(format!("stalled for {DEADLINE:?}: {state}"));
            } else {
                self.exchange_wait(&state)?;
            }
        }
        let ending = self.after_nonblocking_end();
        if ending == Ending::Clean {
            Ok(())
        } else {
            Err(format!("after all bytes the end was {ending:?}: {state}"))
        }
    }

    fn exchange_out(&mut self, state: &mut ExchangeState) -> Result<bool, String> {
        if state.finished {
            return Ok(false);
        }
        let mut moved = false;
        let blocked = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        if let Some(tls) = &mut self.tls {
            if !tls.wants_write() && !state.closing {
                let piece = state.outgoing.peek(state.left());
                let taken = tls.writer().write(piece).map_err(|e| e.to_string())?;
                state.outgoing.advance(taken);
            }
            if state.may_finish() && !state.closing {
                tls.send_close_notify();
                state.closing = true;
            }
            while tls.wants_write() {
                match tls.write_tls(&mut &self.socket) {
                    Ok(_) => moved = true,
                    Err(error) if blocked(&error) => return Ok(moved),
                    Err(error) => return Err(format!("sending: {error}: {state}")),
                }
            }
        } else if state.left() > 0 {
            match (&self.socket).write(state.outgoing.peek(state.left())) {
                Ok(sent) => {
                    state.outgoing.advance(sent);
                    moved = true;
                }
                Err(error) if blocked(&error) => return Ok(false),
                Err(error) => return Err(format!("sending: {error}: {state}")),
            }
        }
        if state.may_finish() {
            let closed = self.socket.shutdown(Shutdown::Write);
            closed.map_err(|e| format!("closing: {e}: {state}"))?;
            state.finished = true;
            moved = true;
        }
        Ok(moved)
    }

    fn exchange_in(&mut self, state: &mut ExchangeState, buffer: &mut [u8]) -> Result<bool, String> {
        if state.ended {
            return Ok(false);
        }
        match self.receive_some(buffer) {
            Ok(0) => {
                state.ended = true;
                match state.incoming.position() == state.plan.receive {
                    true => Ok(true),
                    false => Err(format!("the other side ended early: {state}")),
                }
            }
            Ok(some) => {
                state.incoming.check(&buffer[..some])?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("receiving: {error}: {state}")),
        }
    }

    fn exchange_wait(&self, state: &ExchangeState) -> Result<(), String> {
        let queued = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        let wanted = Ready {
            read: !state.ended,
            write: !state.finished && (queued || state.left() > 0),
        };
        sys::poll(self.socket.as_raw_fd(), wanted, Duration::from_secs(1))
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    fn after_nonblocking_end(&mut self) -> Ending {
        match self.socket.set_nonblocking(false) {
            Ok(()) => self.after_end(),
            Err(error) => Ending::of(&error),
        }
    }

    /// After close_notify there must be FIN.
    fn after_end(&mut self) -> Ending {
        let mut byte = [0; 1];
        match (&self.socket).read(&mut byte) {
            Ok(0) => Ending::Clean,
            Ok(_) => Ending::Broken("bytes after close_notify".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ending::Broken("close_notify, but no FIN after it".into())
            }
            Err(error) => Ending::of(&error),
        }
    }
}

/// A client's TLS connection without a socket.
///
/// # Panics
/// When `name` is no server name.
#[must_use]
pub fn client_connection(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    ClientConnection::new(Arc::clone(config), name).expect("a client's configuration")
}

fn flush(tls: &mut Connection, mut socket: &Socket) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    Ok(())
}

/// What one end of [`Link::exchange`] does.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Bytes to send, made from this seed.
    pub send: u64,
    pub send_seed: u64,
    /// Bytes to expect, made from this seed.
    pub receive: u64,
    pub receive_seed: u64,
    pub finish: Finish,
}

impl Exchange {
    /// The other end's part.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self {
            send: self.receive,
            send_seed: self.receive_seed,
            receive: self.send,
            receive_seed: self.send_seed,
            finish: match self.finish {
                Finish::First => Finish::AfterPeer,
                Finish::AfterPeer => Finish::First,
            },
        }
    }
}

/// Which end closes its direction first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// As soon as all is sent.
    First,
    /// When all is sent and the other end's end was seen.
    AfterPeer,
}

struct ExchangeState {
    plan: Exchange,
    outgoing: Pattern,
    incoming: Pattern,
    /// close_notify is on its way.
    closing: bool,
    /// Our direction was closed.
    finished: bool,
    /// The other direction's end was seen.
    ended: bool,
}

impl ExchangeState {
    fn new(plan: &Exchange) -> Self {
        Self {
            plan: *plan,
            outgoing: Pattern::new(plan.send_seed),
            incoming: Pattern::new(plan.receive_seed),
            closing: false,
            finished: false,
            ended: false,
        }
    }

    fn left(&self) -> u64 {
        self.plan.send - self.outgoing.position()
    }

    fn may_finish(&self) -> bool {
        self.left() == 0 && (self.plan.finish == Finish::First || self.ended)
    }
}

impl fmt::Display for ExchangeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} bytes sent, {} of {} received",
            self.outgoing.position(),
            self.plan.send,
            self.incoming.position(),
            self.plan.receive
        )
    }
}
