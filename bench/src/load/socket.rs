//! A non-blocking TCP socket whose waiting is asking again.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, bind, connect, getpeername,
    listen, shutdown, socket_with, sockopt,
};

use super::carousel::turn;
use super::scene::Scene;

/// An operation that takes longer has failed; loopback and a busy proxy stay far below.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Turns between two looks at the clock while waiting.
const TURNS_PER_LOOK: u32 = 256;
const BACKLOG: i32 = 4096;

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    scene: Rc<Scene>,
}

impl Socket {
    pub(crate) async fn connect(to: SocketAddrV4, scene: Rc<Scene>) -> io::Result<Self> {
        let mut socket = Self {
            fd: stream_fd()?,
            scene,
        };
        sockopt::set_tcp_nodelay(&socket.fd, true)?;
        match connect(&socket.fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        socket.patiently(Self::established).await?;
        Ok(socket)
    }

    /// On loopback the first look usually finds the connection made.
    fn established(&mut self) -> io::Result<()> {
        match getpeername(&self.fd) {
            Ok(_) => Ok(()),
            Err(Errno::NOTCONN) => match sockopt::socket_error(&self.fd)? {
                Ok(()) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Repeats `step` once a turn until it has something to say.
    pub(crate) async fn patiently<T>(
        &mut self,
        mut step: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut turns = 0_u32;
        let mut began = None;
        loop {
            match step(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_PER_LOOK)
                && began.get_or_insert_with(Instant::now).elapsed() > PATIENCE
            {
                return Err(io::ErrorKind::TimedOut.into());
            }
            turn().await;
        }
    }

    pub(crate) fn finish_sending(&self) -> io::Result<()> {
        Ok(shutdown(&self.fd, Shutdown::Write)?)
    }

    fn moved<T>(&self, result: rustix::io::Result<T>) -> io::Result<T> {
        let value = result?;
        self.scene.progressed();
        Ok(value)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.moved(rustix::io::read(&self.fd, buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.moved(rustix::io::write(&self.fd, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.moved(rustix::io::writev(&self.fd, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
}

impl Listener {
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let fd = stream_fd()?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        bind(&fd, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        listen(&fd, BACKLOG)?;
        Ok(Self { fd })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
        })
    }

    pub(crate) fn accept(&self, scene: &Rc<Scene>) -> io::Result<Socket> {
        let fd = accept_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        scene.progressed();
        Ok(Socket {
            fd,
            scene: Rc::clone(scene),
        })
    }
}

fn stream_fd() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        None,
    )?)
}
