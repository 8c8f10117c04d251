//! How a client gets its stream through the proxy, and where it may fail on the way.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, NamedGroup};

use super::scene::Scene;
use super::socket::Socket;
use super::stream::{Stream, TlsStream};
use super::tally::record;
use super::tls;
use super::upstream::count;
use crate::pki::Pki;
use crate::work::Work;

/// Loopback addresses that the clients spread over: 28,000 source ports towards each.
const PROXY_ADDRESSES: u8 = 16;

/// A failure's class: the stage it came in, and what happened.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn at(stage: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self(format!("{stage}: {}", describe(&error)))
    }
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed early".to_owned(),
        io::ErrorKind::ConnectionReset => "reset".to_owned(),
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// One client: its place, its tickets, its turn among the proxy's addresses.
pub(crate) struct Client {
    port: u16,
    next_address: u8,
    tls: Option<ClientTls>,
    pub(crate) scene: Rc<Scene>,
}

struct ClientTls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    group: NamedGroup,
}

impl Client {
    pub(crate) fn new(
        work: &Work,
        pki: &Pki,
        port: u16,
        scene: &Rc<Scene>,
    ) -> anyhow::Result<Self> {
        let tls = match work.role.client_speaks_tls() {
            true => Some(ClientTls {
                name: ServerName::try_from(tls::asked_name(work.role))?,
                config: Arc::new(tls::client_config(work, pki)?),
                group: tls::named_group(work.group),
            }),
            false => None,
        };
        Ok(Self {
            port,
            next_address: 0,
            tls,
            scene: Rc::clone(scene),
        })
    }

    /// Connects, and completes the handshake where the proxy terminates TLS.
    pub(crate) async fn open(&mut self) -> Result<Stream, Failure> {
        let began = Instant::now();
        let address = self.address();
        let socket = Socket::connect(address, Rc::clone(&self.scene))
            .await
            .map_err(Failure::at("connect"))?;
        let connected = Instant::now();
        self.scene
            .note(|tally| record(&mut tally.latencies.connect, connected - began));
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(socket));
        };
        let session = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(|error| Failure(format!("handshake: {error}")))?;
        let stream = TlsStream::handshake(socket, session.into(), tls.group)
            .await
            .map_err(Failure::at("handshake"))?;
        let kind = stream.handshake_kind();
        self.scene.note(|tally| {
            record(&mut tally.latencies.handshake, connected.elapsed());
            count(&mut tally.client_handshakes, kind);
        });
        Ok(Stream::Tls(Box::new(stream)))
    }

    fn address(&mut self) -> SocketAddrV4 {
        self.next_address = (self.next_address + 1) % PROXY_ADDRESSES;
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, self.next_address + 1), self.port)
    }
}
