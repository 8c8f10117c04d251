//! A proxy with TLS on the legs that a test names, and both of its peers in hand.

use std::sync::Arc;

use ringway_support::bridge::Legs;
use ringway_support::exchange::{Exchange, Finish};
use ringway_support::pki::House;
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::{Leg, Link, Peer, Proxy, Record, ringway};
use rustls::{CipherSuite, ClientConfig, SupportedProtocolVersion};

pub(crate) const IN_KERNEL: &str = "relay_path = \"splice\"";

/// What differs from test to test.
pub(crate) struct Setting<'a> {
    pub(crate) legs: Legs,
    /// Of both legs; none: what both ends prefer.
    pub(crate) suite: Option<CipherSuite>,
    /// Lines of `[[listener]]`.
    pub(crate) listener: &'a str,
    /// Lines of `[upstream.back]`.
    pub(crate) upstream: &'a str,
}

impl Setting<'_> {
    /// Both legs in the kernel from the first byte on.
    pub(crate) fn in_kernel(legs: Legs) -> Self {
        Self {
            legs,
            suite: None,
            listener: IN_KERNEL,
            upstream: IN_KERNEL,
        }
    }
}

pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) peer: Peer,
    legs: Legs,
    client: Option<Arc<ClientConfig>>,
}

impl Scene {
    pub(crate) fn new(setting: &Setting<'_>) -> Self {
        let house = House::new();
        let legs = setting.legs;
        let peer = server(&house, setting);
        let mut toml = format!(
            "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n{}\n",
            setting.listener
        );
        if legs.0.is_tls() {
            toml += &house.terminate();
        }
        toml += &format!(
            "\n[upstream.back]\nservers = [\"{}\"]\n{}\n",
            peer.address(),
            setting.upstream
        );
        if legs.1.is_tls() {
            toml += &house.originate("back");
        }
        let client = version(legs.0).map(|version| {
            let tls = ClientTls::trusting(&house.ca).version(version);
            match setting.suite {
                Some(suite) => tls.suite(suite).config(),
                None => tls.config(),
            }
        });
        Self {
            // One worker: sessions with servers are kept by core.
            proxy: ringway!().workers(1).start(&toml),
            peer,
            legs,
            client,
        }
    }

    /// Both ends of one connection, after all handshakes.
    pub(crate) fn pair(&self) -> (Link, Link) {
        let link = Link::connect(self.proxy.address("front")).unwrap();
        let client = match &self.client {
            Some(config) => link.start_tls(config, "localhost"),
            None => Ok(link),
        };
        let client = client.unwrap_or_else(|error| panic!("{:?}: {error}", self.legs));
        (client, self.peer.accept())
    }

    pub(crate) fn record(&self, client: &Link) -> Record {
        self.proxy.record_of(client.local())
    }
}

fn server(house: &House, setting: &Setting<'_>) -> Peer {
    let Some(version) = version(setting.legs.1) else {
        return Peer::plain();
    };
    let tls = ServerTls::with(&house.backend).version(version);
    Peer::tls(match setting.suite {
        Some(suite) => tls.suite(suite).config(),
        None => tls.config(),
    })
}

fn version(leg: Leg) -> Option<&'static SupportedProtocolVersion> {
    match leg {
        Leg::Plain => None,
        Leg::Tls13 => Some(TLS13),
        Leg::Tls12 => Some(TLS12),
    }
}

/// So many bytes each way at once, each checked; the client closes first.
pub(crate) fn exchange(pair: (Link, Link), up: u64, down: u64) -> Link {
    carry(pair, up, down, Finish::First)
}

/// The same, and the client closes as `finish` says.
pub(crate) fn carry(pair: (Link, Link), up: u64, down: u64, finish: Finish) -> Link {
    let (mut client, mut server) = pair;
    let plan = Exchange {
        send: up,
        send_seed: 1,
        receive: down,
        receive_seed: 2,
        finish,
    };
    let server_end = std::thread::spawn(move || server.exchange(&plan.mirrored()));
    let client_end = client.exchange(&plan);
    let server_end = server_end.join().unwrap();
    assert!(
        client_end.is_ok() && server_end.is_ok(),
        "client {client_end:?}, server {server_end:?}"
    );
    client
}
