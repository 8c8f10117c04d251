//! A proxy with one listener and one server, each leg plain or TLS, and both ends in hand.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::link::Link;
use crate::peer::Peer;
use crate::pki::House;
use crate::proxy::{Proxy, Ringway};
use crate::record::Record;
use crate::tls::{ClientTls, ServerTls, TLS12, TLS13};
use crate::toml;
use crate::witness::{WITNESS, Witness};

/// What one leg speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    Plain,
    Tls13,
    Tls12,
}

impl Leg {
    #[must_use]
    pub fn is_tls(self) -> bool {
        self != Self::Plain
    }
}

/// Both legs, downstream first.
pub type Legs = (Leg, Leg);

/// Each combination of plain and TLS.
pub const LEGS: [Legs; 4] = [
    (Leg::Plain, Leg::Plain),
    (Leg::Tls13, Leg::Plain),
    (Leg::Plain, Leg::Tls13),
    (Leg::Tls13, Leg::Tls13),
];

/// Those, and TLS 1.2 on each leg, whose end of stream is another one.
pub const LEGS_ALL_VERSIONS: [Legs; 7] = [
    LEGS[0],
    LEGS[1],
    LEGS[2],
    LEGS[3],
    (Leg::Tls12, Leg::Plain),
    (Leg::Plain, Leg::Tls12),
    (Leg::Tls12, Leg::Tls12),
];

/// Listener `front` to upstream `back`, with one server that the test drives.
///
/// A second listener, without the keys of the first, is there for [`Bridge::witness`].
pub struct Bridge {
    pub proxy: Proxy,
    pub peer: Peer,
    pub house: House,
    pub legs: Legs,
    client: Option<Arc<ClientConfig>>,
}

impl Bridge {
    /// `listener_keys` are lines for `[[listener]]`.
    ///
    /// # Panics
    /// When the proxy does not become ready.
    #[must_use]
    pub fn start(ringway: Ringway, legs: Legs, listener_keys: &str) -> Self {
        let house = House::new();
        let peer = server(&house, legs.1);
        let proxy = ringway.start(&configuration(&house, legs, &peer, listener_keys));
        let client =
            version(legs.0).map(|version| ClientTls::trusting(&house.ca).version(version).config());
        Self {
            proxy,
            peer,
            house,
            legs,
            client,
        }
    }

    /// A client, after its handshake with the proxy.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn try_client(&self) -> io::Result<Link> {
        self.connect("front")
    }

    fn connect(&self, listener: &str) -> io::Result<Link> {
        let link = Link::connect(self.proxy.address(listener))?;
        match &self.client {
            Some(config) => link.start_tls(config, "localhost"),
            None => Ok(link),
        }
    }

    /// A client, after its handshake with the proxy.
    ///
    /// # Panics
    /// When there is no connection.
    #[must_use]
    pub fn client(&self) -> Link {
        match self.try_client() {
            Ok(link) => link,
            Err(error) => panic!("{:?}: a client of the proxy: {error}", self.legs),
        }
    }

    /// Both ends of one proxied connection, after all handshakes.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn pair(&self) -> (Link, Link) {
        let client = self.client();
        let server = self.peer.accept();
        (client, server)
    }

    /// The record of this client's connection.
    #[must_use]
    pub fn record(&self, client: &Link) -> Record {
        self.proxy.record_of(client.local())
    }

    /// A connection on the same legs, for [`Self::settled`], before any other.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn witness(&self) -> Witness {
        let client = self.connect(WITNESS).expect("the witness connects");
        Witness::new(&self.proxy, client, Some(self.peer.accept()))
    }

    /// After a connection has ended: nothing of it is left, and others go on.
    ///
    /// # Panics
    /// When something is left in time, or a connection does not work.
    pub fn settled(&self, witness: &mut Witness) {
        witness.is_alone(&self.proxy);
        self.expect_service();
    }

    /// That a new connection still works from end to end.
    ///
    /// # Panics
    /// When it does not.
    pub fn expect_service(&self) {
        let (mut client, mut server) = self.pair();
        client.send(b"still there?").expect("send");
        assert_eq!(server.receive(12), b"still there?");
        server.send(b"yes").expect("send");
        assert_eq!(client.receive(3), b"yes");
        client.finish().expect("close");
        assert!(server.expect_end().looks_complete());
        server.finish().expect("close");
        assert!(client.expect_end().looks_complete());
    }
}

/// A server that speaks what this leg says.
fn server(house: &House, leg: Leg) -> Peer {
    match version(leg) {
        Some(version) => Peer::tls(ServerTls::with(&house.backend).version(version).config()),
        None => Peer::plain(),
    }
}

fn version(leg: Leg) -> Option<&'static rustls::SupportedProtocolVersion> {
    match leg {
        Leg::Plain => None,
        Leg::Tls13 => Some(TLS13),
        Leg::Tls12 => Some(TLS12),
    }
}

fn configuration(house: &House, legs: Legs, peer: &Peer, listener_keys: &str) -> String {
    let terminate = if legs.0.is_tls() {
        house.terminate()
    } else {
        String::new()
    };
    let originate = if legs.1.is_tls() {
        house.originate("back")
    } else {
        String::new()
    };
    toml::listener("front", "back", listener_keys, &terminate)
        + &toml::listener(WITNESS, "back", "", &terminate)
        + &toml::upstream("back", &[peer.address()], &originate)
}
