use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::{PeerAddress, Socket, apply_options};
use crate::config::{BindAddress, SocketOptions};

/// Opens one member of a SO_REUSEPORT group (TCP), or the one socket of a path (unix).
///
/// Accepted connections inherit the options.
///
/// # Errors
/// What socket, bind and listen report.
pub fn bind(address: &BindAddress, options: &SocketOptions, backlog: u32) -> io::Result<OwnedFd> {
    let fd = reserve(address, options)?;
    SockRef::from(&fd).listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(fd)
}

/// [`bind`] without listening: no connection comes to the socket before listen(2), which
/// [`readjust`] calls.
///
/// # Errors
/// What socket and bind report.
pub fn reserve(address: &BindAddress, options: &SocketOptions) -> io::Result<OwnedFd> {
    let (domain, target) = match address {
        BindAddress::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        BindAddress::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if let BindAddress::Tcp(address) = address {
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // "[::]" and "0.0.0.0" are bound side by side, as the configuration says them.
            socket.set_only_v6(true)?;
        }
        apply_options(&SockRef::from(&socket), options)?;
    }
    socket.bind(&target)?;
    Ok(socket.into())
}

/// Gives a socket that listens other options and another backlog. Connections that are in its
/// queue keep theirs.
///
/// # Errors
/// What setsockopt and listen report.
pub fn readjust(fd: &OwnedFd, options: &SocketOptions, backlog: u32) -> io::Result<()> {
    let socket = SockRef::from(fd);
    if socket.local_addr()?.as_socket().is_some() {
        socket.set_tcp_nodelay(options.tcp_nodelay)?;
        socket.set_keepalive(options.keepalive.is_some())?;
        if options.user_timeout.is_none() {
            socket.set_tcp_user_timeout(None)?;
        }
        apply_options(&socket, options)?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// The address that a bound TCP socket has, its port resolved.
///
/// # Errors
/// What getsockname reports.
pub fn local_address(fd: &OwnedFd) -> io::Result<Option<SocketAddr>> {
    Ok(SockRef::from(fd).local_addr()?.as_socket())
}

/// A listening socket of one core.
#[derive(Debug)]
pub struct Listening {
    socket: Socket,
    local: PeerAddress,
}

/// A connection fresh from the kernel's queue.
#[derive(Debug)]
pub struct Accepted {
    pub socket: Socket,
    pub client: PeerAddress,
    pub local: PeerAddress,
}

impl Listening {
    /// # Errors
    /// As [`Socket::new`].
    pub fn new(fd: OwnedFd, local: PeerAddress) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::new(fd)?,
            local,
        })
    }

    /// The address that it was bound to.
    #[must_use]
    pub fn local(&self) -> &PeerAddress {
        &self.local
    }

    /// Waits until a connection is in the queue.
    ///
    /// # Errors
    /// As [`Socket::readable`].
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// One accept4(2): the descriptor is non-blocking and close-on-exec from the start.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is empty; EMFILE and ENFILE when descriptors have run out;
    /// ECONNABORTED and other network errors belong to the one connection.
    pub fn try_accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (fd, client) = acceptfrom_with(self.socket.fd(), flags)?;
        let client = client.map_or_else(unnamed, peer_address);
        let local = self.local_of(&fd);
        Ok(Accepted {
            socket: Socket::new(fd)?,
            client,
            local,
        })
    }

    /// Asks the kernel only where the bound address does not say it.
    fn local_of(&self, fd: &OwnedFd) -> PeerAddress {
        match &self.local {
            PeerAddress::Ip(bound) if bound.ip().is_unspecified() => SockRef::from(&fd.as_fd())
                .local_addr()
                .ok()
                .and_then(|address| address.as_socket())
                .map_or_else(|| self.local.clone(), PeerAddress::Ip),
            _ => self.local.clone(),
        }
    }
}

fn peer_address(address: SocketAddrAny) -> PeerAddress {
    SocketAddr::try_from(address).map_or_else(|_| unnamed(), PeerAddress::Ip)
}

/// A client of a unix socket has no name of its own as a rule.
fn unnamed() -> PeerAddress {
    thread_local! {
        static UNNAMED: Arc<PathBuf> = Arc::default();
    }
    UNNAMED.with(|path| PeerAddress::Unix(Arc::clone(path)))
}
