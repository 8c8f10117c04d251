//! One end of a connection in a test's hand: plain or TLS, client or server.

#![expect(
    clippy::disallowed_types,
    reason = "a test's threads share which ports they had; no worker does"
)]

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind};
use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sys;
use crate::wait::{DEADLINE, until};

/// Buffers count as full when nothing was taken for this long.
const FULL_AFTER: Duration = Duration::from_millis(400);

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

    pub(crate) fn of(error: &io::Error) -> Self {
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
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Connection>,
    local: Option<SocketAddr>,
    /// The other side reset the connection while connect(2) was still about to return.
    reset_early: bool,
}

/// Addresses that links of this process have had.
static USED: LazyLock<Mutex<HashSet<SocketAddr>>> = LazyLock::new(Mutex::default);

/// How many ports are tried: a test of many thousands comes to each more than once.
const PORTS_MAX: usize = 16;

/// A socket with a port that no link has had: its address picks one record of the access log.
fn bound(from: IpAddr, domain: Domain) -> io::Result<(Socket, Option<SocketAddr>)> {
    // Kept until one is found, so that each is another.
    let mut tried = Vec::new();
    loop {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        let local = socket.local_addr()?.as_socket();
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        if local.is_none_or(|local| used.insert(local)) || tried.len() >= PORTS_MAX {
            return Ok((socket, local));
        }
        tried.push(socket);
    }
}

impl Link {
    /// A plain connection.
    ///
    /// # Errors
    /// What connect(2) says.
    pub fn connect(to: &Address) -> io::Result<Self> {
        match to {
            Address::Ip(SocketAddr::V4(_)) => Self::connect_from(Ipv4Addr::LOCALHOST.into(), to),
            Address::Ip(SocketAddr::V6(_)) => Self::connect_from(Ipv6Addr::LOCALHOST.into(), to),
            Address::Unix(_) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.connect(&to.sock_addr()?)?;
                Self::over(socket)
            }
        }
    }

    /// A plain connection from this address of ours.
    ///
    /// A connection that the other side took and reset at once counts as connected: the reset
    /// comes with the first read.
    ///
    /// # Errors
    /// What bind(2) and connect(2) say.
    pub fn connect_from(from: IpAddr, to: &Address) -> io::Result<Self> {
        // Bound first, so that the address is known even when the connection is gone at once.
        let (socket, local) = bound(from, to.domain())?;
        let reset_early = match socket.connect_timeout(&to.sock_addr()?, DEADLINE) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
            Err(error) => return Err(error),
        };
        Ok(Self {
            local,
            reset_early,
            ..Self::over(socket)?
        })
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
        let local = socket.local_addr()?.as_socket();
        let link = Self {
            socket,
            tls: None,
            local,
            reset_early: false,
        };
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
        self.local.expect("an IP address")
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

    /// Waits until the other side's kernel has all that was sent.
    ///
    /// # Panics
    /// When it does not take it in time.
    pub fn wait_delivered(&self) {
        until("all bytes are delivered", || {
            let left = sys::unacknowledged_bytes(self.socket.as_raw_fd());
            (left.expect("a TCP socket") == 0).then_some(())
        });
    }

    /// Sends bytes below TLS.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    /// Some bytes; 0 at a clean end (close_notify seen, where TLS).
    ///
    /// # Errors
    /// `UnexpectedEof` without close_notify, `WouldBlock` after the limit, and what else went wrong.
    pub fn receive_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.reset_early {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
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
    pub fn cut(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Sends until nothing more is taken, because nobody reads at the other end.
    ///
    /// # Errors
    /// What the socket says, but for the full buffers that are asked for.
    pub fn send_until_full(&mut self) -> io::Result<()> {
        self.socket.set_write_timeout(Some(FULL_AFTER))?;
        let bytes = vec![0x5A; 64 * 1024];
        let full = loop {
            match self.send(&bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.limit(DEADLINE)?;
        full
    }

    /// New keys for our direction, and a request for new ones of the other (RFC 8446 4.6.3).
    ///
    /// # Panics
    /// For a plain link, and below TLS 1.3.
    pub fn update_keys(&mut self) {
        let tls = self.tls.as_mut().expect("a TLS link");
        tls.refresh_traffic_keys().expect("TLS 1.3");
    }

    /// A fatal alert, bad_record_mac: rustls has one ready once it was shown a record of nobody's.
    ///
    /// # Panics
    /// For a plain link, and when the alert cannot be sent.
    pub fn send_alert(&mut self) {
        let tls = self.tls.as_mut().expect("a TLS link");
        let mut forged = vec![23, 3, 3, 0, 64];
        forged.extend([0; 64]);
        tls.read_tls(&mut forged.as_slice()).expect("room");
        assert!(tls.process_new_packets().is_err(), "a forged record opens");
        flush(tls, &self.socket).expect("the alert goes out");
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

    /// After close_notify there must be FIN.
    pub(crate) fn after_end(&self) -> Ending {
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
