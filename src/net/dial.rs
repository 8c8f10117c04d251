use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use socket2::{Domain, SockAddr, SockRef, Type};

use super::{Socket, apply_options};
use crate::config::SocketOptions;

/// An address that can be connected to: what a server's configured address resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    Ip(SocketAddr),
    Unix(Arc<PathBuf>),
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Opens a connection without blocking the core.
///
/// # Errors
/// What socket, connect or the handshake of TCP report: refused, unreachable, out of files.
pub async fn dial(address: &PeerAddress, options: &SocketOptions) -> io::Result<Socket> {
    let (domain, target) = match address {
        PeerAddress::Ip(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        PeerAddress::Unix(path) => (Domain::UNIX, SockAddr::unix(path.as_path())?),
    };
    // socket2 sets SOCK_CLOEXEC and SOCK_NONBLOCK in the one call to socket(2).
    let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if domain != Domain::UNIX {
        apply_options(&SockRef::from(&socket), options)?;
    }
    let pending = match socket.connect(&target) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
        Err(error) => return Err(error),
    };
    let socket = Socket::new(socket.into())?;
    if pending {
        socket.writable().await?;
        socket.take_error()?;
    }
    Ok(socket)
}
