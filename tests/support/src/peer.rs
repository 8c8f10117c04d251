//! Servers: one that the test drives by hand, and services that answer by themselves.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Socket, Type};

use crate::link::{Address, Link};
use crate::sys::{self, Ready};
use crate::wait::{DEADLINE, until};

/// How often a service looks whether it shall stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// A listening socket whose connections the test accepts and drives itself.
pub struct Peer {
    socket: Socket,
    address: Address,
    tls: Option<Arc<ServerConfig>>,
}

impl Peer {
    /// On 127.0.0.1, plain.
    #[must_use]
    pub fn plain() -> Self {
        Self::listen(&"127.0.0.1:0".parse().expect("an address"), 1024)
    }

    /// On 127.0.0.1, TLS.
    #[must_use]
    pub fn tls(config: Arc<ServerConfig>) -> Self {
        Self {
            tls: Some(config),
            ..Self::plain()
        }
    }

    /// The same, speaking TLS.
    #[must_use]
    pub fn with_tls(self, config: Arc<ServerConfig>) -> Self {
        Self {
            tls: Some(config),
            ..self
        }
    }

    /// On a unix socket, plain.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Self::listen(&Address::Unix(path.to_owned()), 1024)
    }

    /// On `address` with this length of the queue of connections not yet accepted.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn listen(address: &Address, backlog: i32) -> Self {
        let listen = || -> io::Result<Self> {
            let socket = Socket::new(address.domain(), Type::STREAM, None)?;
            // A server that comes back finds connections of its former life in TIME_WAIT.
            socket.set_reuse_address(true)?;
            socket.bind(&address.sock_addr()?)?;
            socket.listen(backlog)?;
            let address = match socket.local_addr()?.as_socket() {
                Some(bound) => Address::Ip(bound),
                None => address.clone(),
            };
            Ok(Self {
                socket,
                address,
                tls: None,
            })
        };
        // A port that a peer gave up a moment ago may be lent to somebody's outgoing connection.
        let lent = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let listening = until("an address to listen on", || {
            Some(listen()).filter(|listening| !listening.as_ref().is_err_and(lent))
        });
        listening.unwrap_or_else(|error| panic!("listen on {address}: {error}"))
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection, after its TLS handshake where this peer speaks TLS.
    ///
    /// # Panics
    /// When none comes in time or its handshake fails.
    #[must_use]
    pub fn accept(&self) -> Link {
        let link = self.accept_raw();
        match self.secure(link) {
            Ok(link) => link,
            Err(error) => panic!("TLS handshake of the proxy with {}: {error}", self.address),
        }
    }

    /// The next connection, with nothing read or sent.
    ///
    /// # Panics
    /// When none comes in time.
    #[must_use]
    pub fn accept_raw(&self) -> Link {
        match self.accept_within(DEADLINE) {
            Some(link) => link,
            None => panic!(
                "the proxy did not connect to {} in {DEADLINE:?}",
                self.address
            ),
        }
    }

    /// The next connection, if one comes in time.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn accept_within(&self, limit: Duration) -> Option<Link> {
        let wanted = Ready {
            read: true,
            write: false,
        };
        let ready = sys::poll(self.socket.as_raw_fd(), wanted, limit).expect("poll");
        ready.read.then(|| {
            let (socket, _) = self.socket.accept().expect("accept");
            Link::over(socket).expect("a socket that takes options")
        })
    }

    /// The server's handshake, where this peer speaks TLS.
    ///
    /// # Errors
    /// Why the handshake failed.
    pub fn secure(&self, link: Link) -> io::Result<Link> {
        match &self.tls {
            Some(config) => link.accept_tls(config),
            None => Ok(link),
        }
    }

    /// Answers every connection on a thread of its own.
    #[must_use]
    pub fn serve(self, answer: impl Fn(Link) + Send + Sync + 'static) -> Service {
        Service::start(self, Arc::new(answer))
    }

    /// Answers with what it is sent, and ends when the client does.
    #[must_use]
    pub fn echo(self) -> Service {
        self.serve(|mut link| {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match link.receive_some(&mut buffer) {
                    Ok(0) => return drop(link.finish()),
                    Ok(some) if link.send(&buffer[..some]).is_ok() => {}
                    _ => return,
                }
            }
        })
    }

    /// Takes every connection and keeps it, without a thread for each and without reading.
    #[must_use]
    pub fn keep(self) -> Service {
        Service::keep(self)
    }
}

/// What a service has seen.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Full TLS handshakes.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::SeqCst)
    }

    /// Resumed TLS handshakes.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::SeqCst)
    }

    /// TLS handshakes that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

/// A server that answers by itself until it is dropped.
pub struct Service {
    address: Address,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn start(peer: Peer, answer: Arc<dyn Fn(Link) + Send + Sync>) -> Self {
        let peer = Arc::new(peer);
        Self::run(Arc::clone(&peer), move |link, counts| {
            let (peer, answer, counts) = (peer.clone(), answer.clone(), Arc::clone(counts));
            thread::spawn(move || match peer.secure(link) {
                Ok(link) => {
                    count_handshake(&link, peer.tls.is_some(), &counts);
                    answer(link);
                }
                Err(_) => {
                    counts.failed.fetch_add(1, Ordering::SeqCst);
                }
            });
        })
    }

    fn keep(peer: Peer) -> Self {
        let peer = Arc::new(peer);
        let mut kept = Vec::new();
        Self::run(Arc::clone(&peer), move |link, counts| {
            match peer.secure(link) {
                Ok(link) => {
                    count_handshake(&link, peer.tls.is_some(), counts);
                    kept.push(link);
                }
                Err(_) => {
                    counts.failed.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
    }

    fn run(peer: Arc<Peer>, mut on_link: impl FnMut(Link, &Arc<Counts>) + Send + 'static) -> Self {
        let address = peer.address.clone();
        let counts = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (thread_counts, thread_stop) = (Arc::clone(&counts), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !thread_stop.load(Ordering::SeqCst) {
                if let Some(link) = peer.accept_within(STOP_POLL) {
                    thread_counts.accepted.fetch_add(1, Ordering::SeqCst);
                    on_link(link, &thread_counts);
                }
            }
        });
        Self {
            address,
            counts,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn count_handshake(link: &Link, is_tls: bool, counts: &Counts) {
    let counter = match (is_tls, link.resumed()) {
        (false, _) => return,
        (true, true) => &counts.resumed,
        (true, false) => &counts.full,
    };
    counter.fetch_add(1, Ordering::SeqCst);
}

/// A port of 127.0.0.1 that nothing listens on, held so that no one else takes it.
pub struct ClosedPort {
    socket: Socket,
}

impl ClosedPort {
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a port is no default")]
    pub fn new() -> Self {
        let address: Address = "127.0.0.1:0".parse().expect("an address");
        let socket = Socket::new(address.domain(), Type::STREAM, None).expect("a socket");
        // So that a program that must be told its port may bind it beside us.
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        let bound = address.sock_addr().and_then(|a| socket.bind(&a));
        bound.expect("a free port");
        Self { socket }
    }

    /// # Panics
    /// Never: the socket is bound.
    #[must_use]
    pub fn address(&self) -> Address {
        let address = self.socket.local_addr().expect("a bound socket");
        Address::Ip(address.as_socket().expect("an IP address"))
    }
}

/// A server that takes no connection: its queue is full and nobody accepts. A TCP handshake with
/// it never completes; on a unix socket connect(2) waits, or says EAGAIN.
pub struct Blackhole {
    peer: Peer,
    _waiting: Vec<Socket>,
}

impl Blackhole {
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "sockets are no default")]
    pub fn new() -> Self {
        Self::listen(&"127.0.0.1:0".parse().expect("an address"))
    }

    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn listen(address: &Address) -> Self {
        let peer = Peer::listen(address, 0);
        let mut waiting = Vec::new();
        // A queue of length 0 still takes one or two.
        for _ in 0..4 {
            let socket = Socket::new(peer.address.domain(), Type::STREAM, None).expect("a socket");
            let to = peer.address.sock_addr().expect("an address");
            let connected = socket.connect_timeout(&to, Duration::from_millis(150));
            waiting.push(socket);
            if connected.is_err() {
                break;
            }
        }
        Self {
            peer,
            _waiting: waiting,
        }
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        self.peer.address()
    }
}
