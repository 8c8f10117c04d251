//! A connection of a check: a socket on tokio's readiness, and rustls over it.

use std::io::{self, Read as _};

use rustls::ClientConnection;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::config::SocketOptions;
use crate::net::{Origin, PeerAddress, apply_first_options};
use crate::tls::{self, HandshakeError};
use crate::types::{Phase, Side};
use crate::upstream::is_ours;

/// Why a check came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the server did, in words.
    Server(String),
    /// What this process has not got.
    Ours(String),
}

impl Fault {
    pub(super) fn io(what: &str, error: &io::Error) -> Self {
        let words = format!("{what}: {error}");
        if is_ours(error) {
            return Self::Ours(words);
        }
        Self::Server(words)
    }
}

pub(super) enum Wire {
    Plain(Stream),
    Tls(Box<TlsStream>),
}

impl Wire {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = match self {
            Self::Plain(stream) => stream.send_all(bytes).await,
            Self::Tls(stream) => stream.send(bytes).await,
        };
        sent.map_err(|error| Fault::io("send", &error))
    }

    /// 0: the server has ended the stream, in whatever way.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        match self {
            Self::Plain(stream) => stream.receive(buffer).await,
            Self::Tls(stream) => stream.receive(buffer).await,
        }
    }

    /// As a peer that has no more to say, and waits for nothing: the check has passed.
    pub(super) fn finish(self) {
        if let Self::Tls(mut stream) = self {
            stream.tls.send_close_notify();
            let _ = stream.flight().and_then(|it| stream.stream.try_send(&it));
        }
    }
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) async fn connect(
        address: &PeerAddress,
        options: &SocketOptions,
        origin: Option<Origin>,
    ) -> Result<Self, Fault> {
        let connected = Self::dial(address, options, origin).await;
        connected.map_err(|error| Fault::io("connect", &error))
    }

    async fn dial(
        address: &PeerAddress,
        options: &SocketOptions,
        origin: Option<Origin>,
    ) -> io::Result<Self> {
        match address {
            PeerAddress::Ip(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                apply_first_options(&SockRef::from(&socket), options)?;
                if let Some(origin) = origin {
                    origin.bind(&socket)?;
                }
                let socket = TcpSocket::from_std_stream(socket.into());
                Ok(Self::Tcp(socket.connect(*address).await?))
            }
            PeerAddress::Unix(path) => Ok(Self::Unix(UnixStream::connect(path.as_path()).await?)),
        }
    }

    pub(super) async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.ready(Interest::WRITABLE).await?;
            match self.try_send(bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or(&[]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let received = async {
            loop {
                self.ready(Interest::READABLE).await?;
                let received = match self {
                    Self::Tcp(stream) => stream.try_read(buffer),
                    Self::Unix(stream) => stream.try_read(buffer),
                };
                match received {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => return received,
                }
            }
        };
        received.await.map_err(|error| Fault::io("receive", &error))
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
        .map(|_| ())
    }
}

/// What one receive of a TLS leg takes in.
const RECEIVE_BYTES: usize = 4096;

pub(super) struct TlsStream {
    stream: Stream,
    tls: ClientConnection,
    /// For what is received.
    buffer: Vec<u8>,
}

impl TlsStream {
    /// A whole handshake: the endpoint has no session to resume.
    pub(super) async fn shake(stream: Stream, endpoint: tls::Endpoint) -> Result<Self, Fault> {
        let tls = ClientConnection::new(endpoint.config, endpoint.name);
        let tls = tls.map_err(|error| Fault::Ours(tls::failure(&error).1))?;
        let buffer = vec![0; RECEIVE_BYTES];
        let mut shaken = Self {
            stream,
            tls,
            buffer,
        };
        loop {
            let flushed = shaken.flush().await;
            flushed.map_err(|error| Fault::io("TLS handshake", &error))?;
            if !shaken.tls.is_handshaking() {
                return Ok(shaken);
            }
            if shaken.take_in().await? == 0 {
                return Err(Fault::Server("it closed during the TLS handshake".into()));
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // rustls buffers 64 KiB by default, and `send` has 4 KiB at most.
        io::Write::write_all(&mut self.tls.writer(), bytes)?;
        self.flush().await
    }

    async fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
        loop {
            match self.tls.reader().read(bytes) {
                Ok(received) => return Ok(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Fault::io("receive", &error)),
            }
            if self.take_in().await? == 0 {
                return Ok(0);
            }
            // A key update is answered.
            let flushed = self.flush().await;
            flushed.map_err(|error| Fault::io("send", &error))?;
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let flight = self.flight()?;
        self.stream.send_all(&flight).await
    }

    /// All that rustls has to send.
    fn flight(&mut self) -> io::Result<Vec<u8>> {
        let mut flight = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut flight)?;
        }
        Ok(flight)
    }

    /// Receives once and has rustls look at it. Gives the bytes received.
    async fn take_in(&mut self) -> Result<usize, Fault> {
        let received = self.stream.receive(&mut self.buffer).await?;
        let bytes = self.buffer.get(..received).unwrap_or(&[]);
        if let Err(fault) = show(&mut self.tls, bytes) {
            // The alert that says why. The check has failed, whether it arrives or not.
            let _ = self.flush().await;
            return Err(fault);
        }
        Ok(received)
    }
}

/// Has rustls look at what came. It takes nothing behind a close_notify.
fn show(tls: &mut ClientConnection, bytes: &[u8]) -> Result<(), Fault> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match tls.read_tls(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(Fault::Server(format!("TLS: {error}"))),
        }
        if let Err(error) = tls.process_new_packets() {
            return Err(Fault::Server(in_words(error, bytes)));
        }
    }
    Ok(())
}

/// To be called before another handshake fails on this thread: rustls's errors do not say it all.
fn in_words(error: rustls::Error, first_bytes: &[u8]) -> String {
    let alert_sent = None;
    let end = HandshakeError::Tls { error, alert_sent }.end(
        Phase::UpstreamHandshake,
        Side::Upstream,
        first_bytes,
    );
    let detail = end.detail.unwrap_or_default();
    format!("TLS: {}: {detail}", end.cause.name())
}

#[cfg(test)]
mod tests {
    use ringway_support::House;
    use ringway_support::tls::{ClientTls, ServerTls};
    use rustls::ServerConnection;

    use super::*;

    /// Both ends of a handshake that is done.
    fn pair() -> (ClientConnection, ServerConnection) {
        let house = House::new();
        let config = ClientTls::trusting(&house.ca).config();
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        let config = ServerTls::with(&house.edge).config();
        let mut server = ServerConnection::new(config).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            let mut rest = flight.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            show(&mut client, &sent(&mut server)).unwrap();
        }
        (client, server)
    }

    fn sent(server: &mut ServerConnection) -> Vec<u8> {
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        flight
    }

    #[test]
    fn what_comes_behind_a_close_notify_is_neither_looked_at_nor_waited_for() {
        let (mut client, mut server) = pair();
        server.send_close_notify();
        let end = sent(&mut server);
        show(&mut client, &end).unwrap();
        show(&mut client, b"more").unwrap();
        let (mut client, mut server) = pair();
        server.send_close_notify();
        let end = [sent(&mut server), vec![b'x'; 3000]].concat();
        show(&mut client, &end).unwrap();
        assert_eq!(client.reader().read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn bytes_that_are_no_tls_are_told_in_words() {
        let house = House::new();
        let config = ClientTls::trusting(&house.ca).config();
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        match show(&mut client, b"220 ready\r\n") {
            Err(Fault::Server(words)) => {
                assert!(words.contains("plain SMTP or FTP, not TLS"), "{words}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_this_process_has_not_got_is_no_fault_of_the_server() {
        for (code, is_ours) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ENOMEM, true),
            (libc::ECONNREFUSED, false),
            (libc::EHOSTUNREACH, false),
            (libc::ECONNRESET, false),
        ] {
            let fault = Fault::io("connect", &io::Error::from_raw_os_error(code));
            assert_eq!(matches!(fault, Fault::Ours(_)), is_ours, "{fault:?}");
        }
    }
}
