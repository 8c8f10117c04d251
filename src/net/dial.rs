use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use socket2::{Domain, SockAddr, SockRef, Type};

use super::{Origin, Socket, apply_first_options};
use crate::config::SocketOptions;

/// An address that can be connected to: what a server's configured address resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    Ip(SocketAddr),
    Unix(Arc<PathBuf>),
}

impl PeerAddress {
    fn is_this_host(&self) -> bool {
        matches!(self, Self::Ip(address) if address.ip().is_loopback())
    }
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Opens a connection without blocking the core. The socket has the options that its first byte
/// needs; the others are [`Socket::last`]'s.
///
/// # Errors
/// What socket, connect or the handshake of TCP report: refused, unreachable, out of files.
pub async fn dial(address: &PeerAddress, options: &SocketOptions) -> io::Result<Socket> {
    dial_from(None, address, options).await
}

/// The same from an address of our choice.
///
/// # Errors
/// Also what bind reports: the address is gone from this host, its ports are used up.
pub async fn dial_from(
    origin: Option<Origin>,
    address: &PeerAddress,
    options: &SocketOptions,
) -> io::Result<Socket> {
    let (domain, target) = match address {
        PeerAddress::Ip(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        PeerAddress::Unix(path) => (Domain::UNIX, SockAddr::unix(path.as_path())?),
    };
    // socket2 sets SOCK_CLOEXEC and SOCK_NONBLOCK in the one call to socket(2).
    let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if domain != Domain::UNIX {
        apply_first_options(&SockRef::from(&socket), options)?;
    }
    if let Some(origin) = origin {
        origin.bind(&socket)?;
    }
    let mut pending = is_pending(socket.connect(&target))?;
    if pending && address.is_this_host() {
        // The kernel has shaken hands with itself before connect(2) was back, and says so when
        // asked again: no need to wait for the ring.
        pending = is_pending(socket.connect(&target))?;
    }
    let socket = Socket::new(socket.into())?;
    if pending {
        socket.writable().await?;
        socket.take_error()?;
    }
    Ok(socket)
}

/// Whether a non-blocking connect(2) goes on by itself.
fn is_pending(connected: io::Result<()>) -> io::Result<bool> {
    match connected {
        Ok(()) => Ok(false),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EALREADY) => Ok(true),
            _ => Err(error),
        },
    }
}
