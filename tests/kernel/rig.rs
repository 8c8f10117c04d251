//! A proxy whose legs each have a cipher, a path and a hand-over of their own.

use std::fmt;
use std::sync::Arc;
use std::thread;

use ringway_support::exchange::{Exchange, Finish};
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::{House, Link, Peer, Proxy, Record, Ringway, ringway, toml};
use rustls::{CipherSuite, ClientConfig, ServerConfig, SupportedProtocolVersion};

pub(crate) const MIB: u64 = 1024 * 1024;

/// Every cipher of both versions; the test servers' keys are ECDSA.
pub(crate) const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

pub(crate) const AES13: CipherSuite = SUITES[0];
pub(crate) const AES12: CipherSuite = SUITES[3];
pub(crate) const BOTH_VERSIONS: [CipherSuite; 2] = [AES13, AES12];

pub(crate) fn version(suite: CipherSuite) -> &'static SupportedProtocolVersion {
    if SUITES[..3].contains(&suite) {
        TLS13
    } else {
        TLS12
    }
}

/// What a leg speaks, and the lines on its path in the configuration.
#[derive(Debug, Clone)]
pub(crate) struct LegPlan {
    pub suite: Option<CipherSuite>,
    pub lines: String,
    /// The longest record that the peer sends.
    pub record_bytes_max: Option<usize>,
}

impl LegPlan {
    fn new(suite: Option<CipherSuite>, lines: &str) -> Self {
        Self {
            suite,
            lines: format!("{lines}\n"),
            record_bytes_max: None,
        }
    }

    pub(crate) fn plain() -> Self {
        Self::new(None, "")
    }

    /// In the kernel from the first byte.
    pub(crate) fn kernel(suite: CipherSuite) -> Self {
        Self::new(Some(suite), "relay_path = \"splice\"")
    }

    pub(crate) fn user(suite: CipherSuite) -> Self {
        Self::new(Some(suite), "relay_path = \"user\"")
    }

    /// In the kernel when a direction has carried so much.
    pub(crate) fn after(suite: CipherSuite, ktls_after: &str) -> Self {
        Self::new(Some(suite), &format!("ktls_after = \"{ktls_after}\""))
    }

    pub(crate) fn with_records_of(mut self, bytes_max: usize) -> Self {
        self.record_bytes_max = Some(bytes_max);
        self
    }
}

/// Both legs, downstream first.
pub(crate) type Plan = (LegPlan, LegPlan);

/// Listeners to upstreams, one for each plan, and both ends in hand.
pub(crate) struct Rig {
    pub proxy: Proxy,
    pub house: House,
    pub peers: Vec<Peer>,
    pub plans: Vec<Plan>,
}

impl Rig {
    pub(crate) fn new(downstream: LegPlan, upstream: LegPlan) -> Self {
        Self::of(vec![(downstream, upstream)])
    }

    pub(crate) fn of(plans: Vec<Plan>) -> Self {
        Self::start(ringway!(), plans)
    }

    pub(crate) fn start(ringway: Ringway, plans: Vec<Plan>) -> Self {
        let house = House::new();
        let peers: Vec<_> = plans
            .iter()
            .map(|(_, upstream)| match server_config(&house, upstream) {
                Some(config) => Peer::tls(config),
                None => Peer::plain(),
            })
            .collect();
        let toml: String = plans
            .iter()
            .zip(&peers)
            .enumerate()
            .map(|(number, (plan, peer))| route(&house, number, plan, peer))
            .collect();
        Self {
            proxy: ringway.start(&toml),
            house,
            peers,
            plans,
        }
    }

    /// A client of the route, connected and not yet shaking hands.
    pub(crate) fn client_raw(&self, route: usize) -> Link {
        Link::connect(self.proxy.address(&format!("front{route}"))).expect("the proxy accepts")
    }

    pub(crate) fn secure_client(&self, route: usize, link: Link) -> Link {
        match client_config(&self.house, &self.plans[route].0) {
            Some(config) => link.start_tls(&config, "localhost").expect("a handshake"),
            None => link,
        }
    }

    /// Both ends of a proxied connection on the first route, after all handshakes.
    pub(crate) fn pair(&self) -> (Link, Link) {
        self.pair_on(0)
    }

    pub(crate) fn pair_on(&self, route: usize) -> (Link, Link) {
        let client = self.secure_client(route, self.client_raw(route));
        (client, self.peers[route].accept())
    }

    pub(crate) fn record(&self, client: &Link) -> Record {
        self.proxy.record_of(client.local())
    }

    /// Bulk both ways at once, checked at both ends, and its record.
    pub(crate) fn carry(&self, plan: &Exchange) -> Record {
        self.carry_on(0, plan)
    }

    pub(crate) fn carry_on(&self, route: usize, plan: &Exchange) -> Record {
        let (mut client, mut server) = self.pair_on(route);
        let mirrored = plan.mirrored();
        let server_end = thread::spawn(move || server.exchange(&mirrored));
        let ends = (client.exchange(plan), server_end.join().unwrap());
        assert_eq!(
            ends,
            (Ok(()), Ok(())),
            "client and server of {:?}, {plan:?}",
            self.plans[route]
        );
        let record = self.record(&client);
        record.expect(&[("end", "finished")]);
        assert_eq!(record.count("bytes_up"), plan.send, "{record}");
        assert_eq!(record.count("bytes_down"), plan.receive, "{record}");
        record
    }
}

fn route(house: &House, number: usize, plan: &Plan, peer: &Peer) -> String {
    let (front, back) = (format!("front{number}"), format!("back{number}"));
    let terminate = match plan.0.suite {
        Some(_) => house.terminate(),
        None => String::new(),
    };
    let originate = match plan.1.suite {
        Some(_) => house.originate(&back),
        None => String::new(),
    };
    toml::listener(&front, &back, &plan.0.lines, &terminate)
        + &toml::upstream(
            &back,
            &[peer.address()],
            &format!("{}{originate}", plan.1.lines),
        )
}

pub(crate) fn client_config(house: &House, plan: &LegPlan) -> Option<Arc<ClientConfig>> {
    let suite = plan.suite?;
    let tls = ClientTls::trusting(&house.ca)
        .version(version(suite))
        .suite(suite);
    let mut config = Arc::unwrap_or_clone(tls.config());
    config.max_fragment_size = plan.record_bytes_max;
    Some(config.into())
}

pub(crate) fn server_config(house: &House, plan: &LegPlan) -> Option<Arc<ServerConfig>> {
    let suite = plan.suite?;
    let tls = ServerTls::with(&house.backend)
        .version(version(suite))
        .suite(suite);
    let mut config = Arc::unwrap_or_clone(tls.config());
    config.max_fragment_size = plan.record_bytes_max;
    Some(config.into())
}

/// `up` and `down` bytes, no whole number of records, pages or buffers.
pub(crate) fn bulk(up: u64, down: u64) -> Exchange {
    Exchange {
        send: up + 4321,
        send_seed: 1,
        receive: down + 1234,
        receive_seed: 2,
        finish: Finish::WhenComplete,
    }
}

/// Some bytes each way, so that both directions run, and are in the kernel where they go there at once.
pub(crate) fn warm_up(client: &mut Link, server: &mut Link) {
    for _ in 0..2 {
        cross(client, server, b"up");
        cross(server, client, b"down");
    }
}

/// `bytes` from one end to the other.
pub(crate) fn cross(from: &mut Link, to: &mut Link, bytes: &[u8]) {
    from.send(bytes).expect("send");
    let came = to.receive(bytes.len());
    assert!(came == bytes, "other bytes came than were sent");
}

/// The words of both directions' paths in a record.
pub(crate) struct Paths<'a>(pub &'a str, pub &'a str);

impl Paths<'_> {
    pub(crate) fn expect(&self, record: &Record) {
        record.expect(&[("path_up", self.0), ("path_down", self.1)]);
        for field in ["fallback_up", "fallback_down"] {
            assert_eq!(record.find(field), None, "{self}: {record}");
        }
    }
}

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up {}, down {}", self.0, self.1)
    }
}
