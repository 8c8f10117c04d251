//! The upstream servers that the harness starts itself.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use super::carousel::turn;
use super::scene::Scene;
use super::socket::{Listener, Socket};
use super::stream::{Stream, TlsStream};
use super::tally::{Handshakes, Tally};
use super::tls::named_group;
use crate::work::{Handshake, Mode, Toward, Work};

/// Servers in the group, as in the canonical configuration. Each address has its own 28,000 source
/// ports, so that a proxy that opens 20,000 connections a second does not run out while they are in
/// TIME_WAIT (the kernel lets a loopback port be used again after one second: tcp_tw_reuse = 2).
const SERVERS: u16 = 3;
/// All servers are one listening socket on loopback addresses that differ in their last byte.
const SERVERS_MAX: u16 = 254;

/// How many servers the group of this work has.
///
/// Where sessions are to be resumed towards them, twice as many as operations in flight: OpenSSL
/// takes a TLS 1.3 session away when the handshake that used it ends, and the next ticket comes
/// with the server's next flight. In between, a proxy that keeps one session a server (nginx) has
/// none. So each server must have come to rest before its next turn.
pub(crate) fn server_count(work: &Work, in_flight: u16) -> u16 {
    match work.mode {
        Mode::Connect(Handshake::Resumed) if work.role.originates() => {
            in_flight.saturating_mul(2).clamp(SERVERS, SERVERS_MAX)
        }
        Mode::Open(Handshake::Resumed) if work.role.originates() => SERVERS_MAX,
        _ => SERVERS,
    }
}

/// The servers' addresses.
pub(crate) fn server_addresses(count: u16) -> impl Iterator<Item = Ipv4Addr> {
    (1..=count)
        .map(|number| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 0)) + u32::from(number)))
}

/// What one write or read of a bulk stream carries at most.
pub(crate) const BULK_CHUNK: usize = 256 * 1024;

/// Bound before the proxy starts, so that its first look finds the servers there.
pub(crate) struct UpstreamSocket {
    listener: Listener,
}

impl UpstreamSocket {
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::bind(port)?,
        })
    }

    /// The same socket for another thread: either may accept.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            listener: self.listener.try_clone()?,
        })
    }
}

#[derive(Clone)]
struct Server {
    work: Work,
    tls: Option<Arc<ServerConfig>>,
    scene: Rc<Scene>,
}

/// Accepts and serves until the runtime goes.
pub(crate) async fn serve(
    socket: UpstreamSocket,
    work: Work,
    tls: Option<Arc<ServerConfig>>,
    scene: Rc<Scene>,
) {
    let server = Server { work, tls, scene };
    loop {
        match socket.listener.accept(&server.scene) {
            Ok(accepted) => {
                monoio::spawn(server.clone().connection(accepted));
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    server.scene.failed(format!("upstream accept: {error}"));
                }
                turn().await;
            }
        }
    }
}

impl Server {
    /// A failure here shows at the client, which counts it; the proxy may also close a connection
    /// that it opened for a client who has gone.
    async fn connection(self, socket: Socket) {
        if let Ok(stream) = self.greet(socket).await {
            let _ = self.converse(stream).await;
        }
    }

    async fn greet(&self, socket: Socket) -> io::Result<Stream> {
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(socket));
        };
        let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let stream =
            TlsStream::handshake(socket, session.into(), named_group(self.work.group)).await?;
        let kind = stream.handshake_kind();
        self.scene
            .note(|tally: &mut Tally| count(&mut tally.server_handshakes, kind));
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn converse(&self, stream: Stream) -> io::Result<()> {
        match self.work.mode {
            Mode::Bulk(Toward::Client) => pour(stream).await,
            Mode::Bulk(Toward::Server) => drink(stream, &self.scene).await,
            Mode::Connect(_) | Mode::Open(_) | Mode::Pingpong { .. } | Mode::Idle => {
                echo(stream, self.work.mode.message_bytes()).await
            }
        }
    }
}

pub(crate) fn count(handshakes: &mut Handshakes, kind: Option<HandshakeKind>) {
    match kind {
        Some(HandshakeKind::Resumed) => handshakes.resumed += 1,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {
            handshakes.full += 1;
        }
        None => {}
    }
}

/// Sends a message back when all of it is there, then ends as the other side does.
async fn echo(mut stream: Stream, message_bytes: usize) -> io::Result<()> {
    let mut message = vec![0_u8; message_bytes];
    while stream.read_exact(&mut message).await.is_ok() {
        stream.write_all(&message).await?;
    }
    stream.close().await
}

/// Sends for as long as the other side takes it.
pub(crate) async fn pour(mut stream: Stream) -> io::Result<()> {
    let chunk = vec![0x5a_u8; BULK_CHUNK];
    loop {
        stream.write(&chunk).await?;
    }
}

/// Reads to the end, counting.
pub(crate) async fn drink(mut stream: Stream, scene: &Scene) -> io::Result<()> {
    let mut chunk = vec![0_u8; BULK_CHUNK];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Ok(());
        }
        scene.completed(|tally| tally.bytes += read as u64);
    }
}
