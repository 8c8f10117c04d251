//! Addresses that leave the DNS, for connections that began under a plan before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::{Duration, Instant};

use ringway_support::dns::DnsServer;
use ringway_support::peer::Service;
use ringway_support::toml::listener;
use ringway_support::wait::pause;
use ringway_support::{Ending, Link, Peer, Proxy, ringway, until};

const HOST: &str = "db.example";
const OLD: &str = "127.0.0.1";
const NEW: &str = "127.0.0.2";

/// A name with servers of one port at both addresses, and a proxy in front of them.
struct Rig {
    dns: DnsServer,
    proxy: Proxy,
    port: u16,
    _servers: [Service; 2],
}

impl Rig {
    /// At first the name has the old address.
    fn start(drain: &str) -> Self {
        let echo_at = |address: &str| Peer::listen(&address.parse().unwrap(), 128).echo();
        let first = echo_at(&format!("{OLD}:0"));
        let port = first.address().port();
        let second = echo_at(&format!("{NEW}:{port}"));
        let dns = DnsServer::new();
        dns.set_addresses(HOST, &[OLD]);
        let proxy = ringway!()
            .workers(1)
            .runtime(&dns.toml())
            .start(&toml(port, drain, 1));
        Self {
            dns,
            proxy,
            port,
            _servers: [first, second],
        }
    }

    /// The group is another one afterwards, whose `queue_timeout` nobody feels.
    fn reload(&mut self, drain: &str, queue_secs: u32) {
        let toml = toml(self.port, drain, queue_secs);
        self.proxy.reload_with(&toml);
    }

    fn open(&self) -> Link {
        let mut link = Link::connect(self.proxy.address("front")).unwrap();
        link.ping(b"hello");
        link
    }

    /// The name leads elsewhere, and new connections go there.
    fn move_to(&self, address: &str) {
        self.dns.set_addresses(HOST, &[address]);
        let at = format!("{address}:{}", self.port);
        until(&format!("{at} serves"), || {
            let mut link = self.open();
            link.finish().unwrap();
            assert_eq!(link.expect_end(), Ending::Clean);
            let record = self.proxy.record_of(link.local());
            (record.text("server_address") == at).then_some(())
        });
    }

    fn expect_drained(&self, mut link: Link) {
        assert_eq!(link.expect_end(), Ending::Reset);
        self.proxy.record_of(link.local()).expect(&[
            ("end", "shutdown"),
            ("detail", "resolve_drain"),
            ("server_address", &format!("{OLD}:{}", self.port)),
        ]);
    }
}

fn toml(port: u16, drain: &str, queue_secs: u32) -> String {
    listener("front", "back", "", "")
        + &format!(
            "[upstream.back]\nservers = [\"{HOST}:{port}\"]\nresolve_ttl_min = \"1s\"\n\
             resolve_drain = \"{drain}\"\nqueue_timeout = \"{queue_secs}s\"\n"
        )
}

#[test]
fn connections_of_every_plan_before_end_when_their_address_leaves_after_the_reloads() {
    let mut rig = Rig::start("2s");
    let oldest = rig.open();
    rig.reload("2s", 2);
    let older = rig.open();
    rig.reload("2s", 3);
    let mut links = [oldest, older, rig.open()];
    rig.move_to(NEW);
    links.iter_mut().for_each(|it| it.ping(b"still there"));
    let mut staying = rig.open();
    for link in links {
        rig.expect_drained(link);
    }
    staying.ping(b"not concerned");
}

#[test]
fn the_time_of_an_address_that_left_goes_on_through_a_reload() {
    let mut rig = Rig::start("3s");
    let mut link = rig.open();
    rig.move_to(NEW);
    link.ping(b"still there");
    rig.reload("off", 2);
    rig.expect_drained(link);
}

#[test]
fn a_connection_has_the_resolve_drain_of_the_plan_that_it_began_with() {
    let mut rig = Rig::start("off");
    let mut lasting = rig.open();
    rig.reload("1s", 2);
    let brief = rig.open();
    rig.reload("off", 2);
    rig.move_to(NEW);
    rig.expect_drained(brief);
    lasting.ping(b"its plan lets it go on");
}

#[test]
fn a_connection_of_a_plan_before_stays_when_its_address_comes_back() {
    let mut rig = Rig::start("6s");
    let mut link = rig.open();
    rig.move_to(NEW);
    let left = Instant::now();
    rig.reload("6s", 2);
    rig.move_to(OLD);
    // Longer than its time would have been.
    while left.elapsed() < Duration::from_millis(6500) {
        link.ping(b"still there");
        pause(Duration::from_millis(100));
    }
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}
