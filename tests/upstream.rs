//! The choice of a server: turns, passing over, bounds, kinds of address.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeMap;

use ringway_support::openssl::SServer;
use ringway_support::peer::{ClosedPort, Service};
use ringway_support::pki::Leaf;
use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Bridge, Bystander, Ending, House, Link, Peer, ringway};

fn echoes(count: usize) -> Vec<Service> {
    (0..count).map(|_| Peer::plain().echo()).collect()
}

#[test]
fn one_core_gives_each_server_its_turn() {
    let servers = echoes(3);
    let addresses: Vec<_> = servers.iter().map(Service::address).collect();
    let toml = listener("front", "back", "", "") + &upstream("back", &addresses, "");
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let mut logged: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..30 {
        let record = proxy.visit();
        *logged.entry(record.text("server").to_owned()).or_default() += 1;
        assert_eq!(record.count("tries"), 1, "{record}");
        record.expect(&[("upstream", "back")]);
    }
    for server in &servers {
        let address = server.address().to_string();
        assert_eq!(server.counts().accepted(), 10, "connections of {address}");
        assert_eq!(logged.get(&address), Some(&10), "records of {address}");
    }
    bystander.settled(&proxy);
}

#[test]
fn two_cores_together_share_the_connections_evenly() {
    let servers = echoes(3);
    let addresses: Vec<_> = servers.iter().map(Service::address).collect();
    let toml = listener("front", "back", "", "") + &upstream("back", &addresses, "");
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(2), &toml);
    for _ in 0..60 {
        let _ = proxy.visit();
    }
    for server in &servers {
        // Each core goes round by itself, and may be one ahead at each server.
        let accepted = server.counts().accepted();
        assert!(
            (18..=22).contains(&accepted),
            "{accepted} of 60 connections at {}",
            server.address()
        );
    }
    bystander.settled(&proxy);
}

#[test]
fn a_weight_is_a_share_of_the_connections() {
    let servers = echoes(3);
    let toml = listener("front", "back", "", "")
        + &format!(
            "[upstream.back]\nbalance = \"round-robin\"\nservers = [{{ address = \"{}\", weight = 2 \
             }}, \"{}\", \"{}\"]\n",
            servers[0].address(),
            servers[1].address(),
            servers[2].address()
        );
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    for _ in 0..40 {
        let _ = proxy.visit();
    }
    let accepted: Vec<_> = servers.iter().map(|s| s.counts().accepted()).collect();
    assert_eq!(accepted, [20, 10, 10]);
    bystander.settled(&proxy);
}

#[test]
fn a_server_that_refuses_is_passed_over_and_named_in_the_log() {
    let closed = ClosedPort::new();
    let echo = Peer::plain().echo();
    let toml = listener("front", "back", "", "")
        + &upstream("back", &[&closed.address(), echo.address()], "");
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let mut passed_over = 0;
    for _ in 0..6 {
        let record = proxy.visit();
        record.expect(&[
            ("end", "finished"),
            ("server", &echo.address().to_string()),
            ("server_address", &echo.address().to_string()),
        ]);
        if record.count("tries") == 2 {
            passed_over += 1;
            record.expect_reason(&["refused"]);
        }
    }
    assert_eq!(echo.counts().accepted(), 6);
    assert!(passed_over >= 1, "the refusing server had no turn");
    bystander.settled(&proxy);
}

#[test]
fn a_server_whose_handshake_fails_is_passed_over() {
    let house = House::new();
    let wrong = house.ca.issue(&Leaf::server("other.internal"));
    let plain = Peer::plain().serve(|mut link| {
        let _ = link.send(b"220 I speak plain text\r\n");
        let _ = link.receive_to_end();
    });
    let unnamed = Peer::tls(ServerTls::with(&wrong).config()).echo();
    let good = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let servers = [plain.address(), unnamed.address(), good.address()];
    let toml = listener("front", "back", "next_upstream_tries = 3", "")
        + &upstream("back", &servers, &house.originate("back"));
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let mut tries = Vec::new();
    for _ in 0..6 {
        let record = proxy.visit();
        record.expect(&[("end", "finished"), ("server", &good.address().to_string())]);
        assert!(record.flag("server_verified"), "{record}");
        tries.push(record.count("tries"));
    }
    assert!(
        tries.contains(&3),
        "the failing servers had no turn: {tries:?}"
    );
    assert_eq!(unnamed.counts().full(), 0, "a wrong name is no handshake");
    bystander.settled(&proxy);
}

#[test]
fn next_upstream_tries_bounds_the_servers_tried() {
    let closed: Vec<_> = (0..3).map(|_| ClosedPort::new()).collect();
    let addresses: Vec<_> = closed.iter().map(ClosedPort::address).collect();
    let servers: Vec<_> = addresses.iter().collect();
    for (tries, expected) in [(1, 1), (2, 2), (3, 3), (9, 3)] {
        let keys = format!("next_upstream_tries = {tries}");
        let toml = listener("front", "back", &keys, "") + &upstream("back", &servers, "");
        let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
        let record = proxy.visit_in_vain();
        assert_eq!(record.count("tries"), expected, "{record}");
        record.expect_end(&["unreachable", "no_server"], &["connect"]);
        record.expect_reason(&["refused"]);
        bystander.settled(&proxy);
    }
}

#[test]
fn a_server_may_be_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let echo = Peer::unix(&directory.path().join("app.sock")).echo();
    let (proxy, mut bystander) =
        Bystander::beside(ringway!(), &front_to_back("", "", echo.address()));
    let record = proxy.visit();
    let address = echo.address().to_string();
    record.expect(&[("server", &address), ("server_address", &address)]);
    bystander.settled(&proxy);
}

#[test]
fn a_missing_unix_socket_is_a_server_that_cannot_be_reached() {
    let directory = tempfile::tempdir().unwrap();
    let gone = format!("unix:{}/gone.sock", directory.path().display());
    let (proxy, mut bystander) =
        Bystander::beside(ringway!(), &front_to_back("", "", &gone.parse().unwrap()));
    let record = proxy.visit_in_vain();
    record.expect_end(&["unreachable", "no_server"], &["connect"]);
    bystander.settled(&proxy);
}

#[test]
fn a_listener_may_be_a_unix_socket() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let directory = tempfile::tempdir().unwrap();
    for tls in [false, true] {
        let path = directory.path().join(format!("front-{tls}.sock"));
        let terminate = if tls {
            house.terminate()
        } else {
            String::new()
        };
        let toml = format!(
            "[[listener]]\nname = \"front\"\nbind = \"unix:{}\"\nupstream = \"back\"\n{terminate}{}",
            path.display(),
            upstream("back", &[echo.address()], "")
        );
        let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
        let mut link = Link::connect(proxy.address("front")).unwrap();
        if tls {
            let config = ClientTls::trusting(&house.ca).config();
            link = link.start_tls(&config, "localhost").unwrap();
        }
        link.ping(b"hello");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        let record = proxy.wait_record("the connection", |_| true);
        record.expect(&[("end", "finished"), ("listener", "front")]);
        bystander.settled(&proxy);
    }
}

#[test]
fn a_listener_binds_several_addresses_of_both_families() {
    let echo = Peer::plain().echo();
    let toml = format!(
        "[[listener]]\nname = \"front\"\nbind = [\"127.0.0.1:0\", \"127.0.0.2:0\", \
         \"[::1]:0\"]\nupstream = \"back\"\n{}",
        upstream("back", &[echo.address()], "")
    );
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let addresses = proxy.addresses("front");
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    for address in addresses {
        let mut link = Link::connect(address).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        let record = proxy.record_of(link.local());
        record.expect(&[("local", &address.to_string())]);
    }
    bystander.settled(&proxy);
}

#[test]
fn a_servers_name_is_resolved() {
    let echo = Peer::plain().echo();
    let toml = listener("front", "back", "", "")
        + &format!(
            "[upstream.back]\nservers = [\"localhost:{}\"]\n",
            echo.address().port()
        );
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let record = proxy.visit();
    record.expect(&[
        ("server", &format!("localhost:{}", echo.address().port())),
        ("server_address", &echo.address().to_string()),
    ]);
    bystander.settled(&proxy);
}

#[test]
fn a_name_that_nobody_knows_is_a_server_that_cannot_be_reached() {
    let toml = listener("front", "back", "connect_timeout = \"2s\"", "")
        + "[upstream.back]\nservers = [\"no-such-host.invalid:7\"]\n";
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let record = proxy.visit_in_vain();
    record.expect_end(&["unreachable", "no_server", "timeout"], &["connect"]);
    bystander.settled(&proxy);
}

#[test]
fn a_server_that_speaks_first_is_heard_on_every_pair_of_legs() {
    for legs in ringway_support::bridge::LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        server.send(b"220 ready\r\n").unwrap();
        assert_eq!(client.receive(11), b"220 ready\r\n", "{legs:?}");
        client.send(b"quit").unwrap();
        assert_eq!(server.receive(4), b"quit", "{legs:?}");
        drop((client, server));
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_server_that_speaks_plain_text_to_our_tls_is_a_protocol_error() {
    let house = House::new();
    let plain = Peer::plain().serve(|mut link| {
        let _ = link.send(b"220 I speak plain text\r\n");
        let _ = link.receive_to_end();
    });
    let toml = listener("front", "back", "next_upstream_tries = 1", "")
        + &upstream("back", &[plain.address()], &house.originate("back"));
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let record = proxy.visit_in_vain();
    record.expect_end(&["protocol_error", "no_server"], &["upstream_handshake"]);
    bystander.settled(&proxy);
}

#[test]
fn openssl_servers_answer_in_turns() {
    let house = House::new();
    let servers: Vec<_> = (0..3)
        .map(|_| SServer::requiring(&house.backend, &house.ca.file(), 2))
        .collect();
    let addresses: Vec<_> = servers.iter().map(SServer::address).collect();
    let originate = format!("{}{}", house.originate("back"), house.client.toml());
    let toml = listener("front", "back", "", "") + &upstream("back", &addresses, &originate);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    for round in 0..6 {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.send(b"abc\n").unwrap();
        assert_eq!(link.receive(4), b"cba\n", "round {round}");
        link.finish().unwrap();
        let (_, ending) = link.receive_to_end();
        assert_ne!(ending, Ending::Silence);
        let record = proxy.record_of(link.local());
        assert!(record.flag("server_verified"), "{record}");
        assert_eq!(record.flag("upstream_resumed"), round >= 3, "{record}");
    }
    bystander.settled(&proxy);
}
