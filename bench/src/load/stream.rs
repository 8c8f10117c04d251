//! A stream of either kind: the socket itself, or rustls over it.

use std::io::{self, Read, Write};

use rustls::{Connection, HandshakeKind, NamedGroup};

use super::socket::Socket;

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream>),
}

impl Stream {
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.patiently(|s| s.read(buffer)).await,
            Self::Tls(stream) => stream.read(buffer).await,
        }
    }

    /// Fills `buffer`; the end of the stream before that is an error.
    pub(crate) async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(())
    }

    /// Writes some of `bytes`, at least one.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.patiently(|s| s.write(bytes)).await,
            Self::Tls(stream) => stream.write(bytes).await,
        }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            written += self.write(&bytes[written..]).await?;
        }
        Ok(())
    }

    /// Ends the stream as a good client does: close_notify, FIN, then what the peer still says,
    /// session tickets included, until its own FIN.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        match &mut self {
            Self::Plain(socket) => {
                socket.finish_sending()?;
                let mut rest = [0_u8; 512];
                while socket.patiently(|s| s.read(&mut rest)).await? > 0 {}
            }
            Self::Tls(stream) => {
                stream.session.send_close_notify();
                stream.flush().await?;
                stream.socket.finish_sending()?;
                while stream.fill().await? > 0 {}
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct TlsStream {
    socket: Socket,
    session: Connection,
}

impl TlsStream {
    pub(crate) async fn handshake(
        socket: Socket,
        session: Connection,
        group: NamedGroup,
    ) -> io::Result<Self> {
        let mut stream = Self { socket, session };
        while stream.session.is_handshaking() {
            stream.flush().await?;
            if stream.session.is_handshaking() && stream.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        stream.flush().await?;
        stream.check_group(group)?;
        Ok(stream)
    }

    /// A dearer or cheaper group than everybody's would be another work. A resumed TLS 1.2
    /// handshake has none.
    fn check_group(&self, wanted: NamedGroup) -> io::Result<()> {
        match self
            .session
            .negotiated_key_exchange_group()
            .map(|group| group.name())
        {
            Some(group) if group != wanted => Err(io::Error::other(format!(
                "the group is {group:?}, not {wanted:?}"
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.session.handshake_kind()
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.fill().await?,
                done => return done,
            };
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.session.writer().write(bytes)?;
        self.flush().await?;
        Ok(written)
    }

    /// All records there are in one system call, as far as the socket takes them.
    async fn flush(&mut self) -> io::Result<()> {
        let Self { socket, session } = self;
        while session.wants_write() {
            socket.patiently(|s| session.write_tls(s)).await?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let Self { socket, session } = self;
        let read = socket.patiently(|s| session.read_tls(s)).await?;
        if let Err(error) = session.process_new_packets() {
            // The alert that explains it. The error itself matters more than a failure to send it.
            let _ = session.write_tls(socket);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(read)
    }
}
