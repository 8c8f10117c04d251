//! Servers found by DNS: answers that change, SRV, both families, addresses that leave.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::{Duration, Instant};

use ringway_support::dns::{DnsServer, Reply, Target};
use ringway_support::link::Address;
use ringway_support::peer::{Blackhole, Service};
use ringway_support::pki::Leaf;
use ringway_support::tls::ServerTls;
use ringway_support::toml::listener;
use ringway_support::wait::pause;
use ringway_support::{Ending, House, Link, Peer, Proxy, Record, Ringway, ringway, until};

const HOST: &str = "db.example";
const SERVICE: &str = "_pg._tcp.example";

/// A group of this server, asked for again every second.
fn back(server: &str, keys: &str) -> String {
    listener("front", "back", "", "")
        + &format!("[upstream.back]\nservers = [\"{server}\"]\nresolve_ttl_min = \"1s\"\n{keys}\n")
}

/// One core, so that one's view is the view.
fn asking(dns: &DnsServer) -> Ringway {
    ringway!().workers(1).runtime(&dns.toml())
}

fn open(proxy: &Proxy) -> Link {
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    link
}

fn visit(proxy: &Proxy) -> Record {
    let mut link = open(proxy);
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    proxy.record_of(link.local())
}

/// The record of a connection that nobody serves; `None`: it is served.
fn refused(proxy: &Proxy) -> Option<Record> {
    let mut link = Link::connect(proxy.address("front")).unwrap();
    // It may be over before we have said anything.
    let _ = link.send(b"x").and_then(|()| link.finish());
    let (_, ending) = link.receive_to_end();
    (ending != Ending::Clean).then(|| proxy.record_of(link.local()))
}

/// Visits until one is served at `address`.
fn until_at(proxy: &Proxy, address: &str) {
    until(&format!("{address} serves"), || {
        (visit(proxy).text("server_address") == address).then_some(())
    });
}

fn echo_at(address: &str) -> Service {
    Peer::listen(&address.parse().unwrap(), 128).echo()
}

/// Servers on 127.0.0.1 and 127.0.0.2 with one port.
fn two_of_one_port() -> (Service, Service, u16) {
    let first = echo_at("127.0.0.1:0");
    let port = first.address().port();
    let second = echo_at(&format!("127.0.0.2:{port}"));
    (first, second, port)
}

fn target(priority: u16, weight: u16, server: &Address, host: &'static str) -> Target {
    Target {
        priority,
        weight,
        port: server.port(),
        host,
    }
}

#[test]
fn answers_that_change_under_load_cost_no_client_an_error() {
    let dns = DnsServer::new();
    let (first, second, port) = two_of_one_port();
    dns.set_addresses(HOST, &["127.0.0.1"]);
    let proxy = ringway!()
        .workers(2)
        .runtime(&dns.toml())
        .start(&back(&format!("{HOST}:{port}"), ""));
    let begun = Instant::now();
    let mut turn = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        let addresses: &[&str] = match turn / 20 % 3 {
            0 => &["127.0.0.1"],
            1 => &["127.0.0.2"],
            _ => &["127.0.0.1", "127.0.0.2"],
        };
        dns.set_addresses(HOST, addresses);
        let record = visit(&proxy);
        record.expect(&[("end", "finished")]);
        assert_eq!(record.count("tries"), 1, "{record}");
        turn += 1;
        pause(Duration::from_millis(10));
    }
    let accepted = [&first, &second].map(|server| server.counts().accepted());
    assert!(accepted.iter().all(|it| *it > 0), "{accepted:?}");
}

#[test]
fn while_the_dns_fails_the_last_answer_serves() {
    let dns = DnsServer::new();
    let (_first, _second, port) = two_of_one_port();
    dns.set_addresses(HOST, &["127.0.0.2"]);
    let proxy = asking(&dns).start(&back(&format!("{HOST}:{port}"), ""));
    let at = format!("127.0.0.2:{port}");
    visit(&proxy).expect(&[("server_address", &at)]);
    dns.set(HOST, Reply::Failure);
    proxy.wait_stderr(&["cannot be resolved"]);
    visit(&proxy).expect(&[("server_address", &at)]);
    dns.set_addresses(HOST, &["127.0.0.1"]);
    until_at(&proxy, &format!("127.0.0.1:{port}"));
}

#[test]
fn a_service_has_the_ports_and_weights_of_its_records() {
    let dns = DnsServer::new();
    let servers = [echo_at("127.0.0.1:0"), echo_at("127.0.0.1:0")];
    let [light, heavy] = servers.each_ref().map(Service::address);
    let records = vec![
        target(10, 1, light, "a.example"),
        target(10, 3, heavy, "a.example"),
    ];
    dns.set(SERVICE, Reply::Service(records));
    dns.set_addresses("a.example", &["127.0.0.1"]);
    let proxy = asking(&dns).start(&back(&format!("srv:{SERVICE}"), ""));
    for _ in 0..12 {
        let record = visit(&proxy);
        record.expect(&[("server", &format!("srv:{SERVICE}"))]);
    }
    let accepted = servers.each_ref().map(|it| it.counts().accepted());
    assert_eq!(accepted, [3, 9]);
}

#[test]
fn a_higher_priority_number_serves_when_the_lower_cannot() {
    let dns = DnsServer::new();
    let spare = echo_at("127.0.0.4:0");
    let main = echo_at("127.0.0.1:0");
    let records = vec![
        target(20, 9, spare.address(), "spare.example"),
        target(10, 1, main.address(), "main.example"),
    ];
    dns.set(SERVICE, Reply::Service(records.clone()));
    dns.set_addresses("main.example", &["127.0.0.1"]);
    dns.set_addresses("spare.example", &["127.0.0.4"]);
    let proxy = asking(&dns).start(&back(&format!("srv:{SERVICE}"), "fail_timeout = \"1s\""));
    let (at_main, at_spare) = (main.address().to_string(), spare.address().to_string());
    for _ in 0..5 {
        visit(&proxy).expect(&[("server_address", &at_main)]);
    }
    drop(main);
    for _ in 0..3 {
        visit(&proxy).expect(&[("end", "finished"), ("server_address", &at_spare)]);
    }
    let _main = echo_at(&at_main);
    until_at(&proxy, &at_main);
    // The DNS turns them round.
    let mut turned = records;
    turned[0].priority = 5;
    dns.set(SERVICE, Reply::Service(turned));
    until_at(&proxy, &at_spare);
    for _ in 0..3 {
        visit(&proxy).expect(&[("server_address", &at_spare)]);
    }
}

#[test]
fn a_service_that_is_not_there_refuses_until_it_is_back() {
    let dns = DnsServer::new();
    let server = echo_at("127.0.0.1:0");
    let there = Reply::Service(vec![target(10, 1, server.address(), "main.example")]);
    dns.set(SERVICE, there.clone());
    dns.set_addresses("main.example", &["127.0.0.1"]);
    let proxy = asking(&dns).start(&back(&format!("srv:{SERVICE}"), ""));
    let _ = visit(&proxy);
    let away = target(0, 0, server.address(), "");
    dns.set(SERVICE, Reply::Service(vec![away]));
    proxy.wait_stderr(&["is not there, says the dns"]);
    let record = until("nobody serves", || refused(&proxy));
    record.expect_end(&["no_server"], &["connect"]);
    dns.set(SERVICE, there);
    until("it serves again", || {
        refused(&proxy).is_none().then_some(())
    });
}

#[test]
fn tls_to_a_service_verifies_the_configured_name_and_not_the_one_of_the_dns() {
    let house = House::new();
    let forged = house.ca.issue(&Leaf::server("forged.example"));
    let dns = DnsServer::new();
    let good = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let other = Peer::tls(ServerTls::with(&forged).config()).echo();
    dns.set_addresses("forged.example", &["127.0.0.1"]);
    let records = |server: &Service| vec![target(1, 1, server.address(), "forged.example")];
    dns.set(SERVICE, Reply::Service(records(&good)));
    let toml = back(&format!("srv:{SERVICE}"), "") + &house.originate("back");
    let proxy = asking(&dns).start(&toml);
    assert!(visit(&proxy).flag("server_verified"));
    dns.set(SERVICE, Reply::Service(records(&other)));
    let record = until("the forged host's certificate is seen", || refused(&proxy));
    record.expect_end(&["certificate_refused"], &["upstream_handshake"]);
}

/// Where nothing else of the tests is, so that each port is free.
const V4: &str = "127.0.0.77";

/// A host of both families that nobody answers for on ::1.
fn half_dead() -> (DnsServer, Blackhole, u16) {
    let dns = DnsServer::new();
    dns.set_addresses(HOST, &[V4, "::1"]);
    let hole = Blackhole::listen(&"[::1]:0".parse().unwrap());
    let port = hole.address().port();
    (dns, hole, port)
}

/// The same with another limit for each connect.
fn back_within(connect_timeout: &str, server: &str, keys: &str) -> String {
    let line = format!("upstream = \"back\"\nconnect_timeout = \"{connect_timeout}\"\n");
    back(server, keys).replace("upstream = \"back\"\n", &line)
}

#[test]
fn a_family_that_does_not_answer_delays_a_client_by_the_delay_alone() {
    let (dns, _hole, port) = half_dead();
    let _echo = echo_at(&format!("{V4}:{port}"));
    let keys = "happy_eyeballs_delay = \"500ms\"";
    let proxy = asking(&dns).start(&back(&format!("{HOST}:{port}"), keys));
    let mut delayed = 0;
    for _ in 0..6 {
        let begun = Instant::now();
        let record = visit(&proxy);
        // Without it each second client would wait for the connect_timeout of 5 s.
        assert!(begun.elapsed() < Duration::from_secs(4), "{record}");
        record.expect(&[
            ("end", "finished"),
            ("server_address", &format!("{V4}:{port}")),
        ]);
        assert_eq!(record.count("tries"), 1, "{record}");
        delayed += usize::from(record.number("connect_ms") >= 450.0);
    }
    assert_eq!(delayed, 3, "the other family has had its turns");
    assert!(
        proxy.stderr_lines("server down").is_empty(),
        "slow is no failure"
    );
}

#[test]
fn tls_is_spoken_with_the_sessions_of_the_address_that_won() {
    let house = House::new();
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let port = server.address().port();
    let _hole = Blackhole::listen(&format!("[::1]:{port}").parse().unwrap());
    let dns = DnsServer::new();
    dns.set_addresses(HOST, &["127.0.0.1", "::1"]);
    let keys = "happy_eyeballs_delay = \"100ms\"";
    let toml = back(&format!("{HOST}:{port}"), keys) + &house.originate("back");
    let proxy = asking(&dns).start(&toml);
    for _ in 0..4 {
        let record = visit(&proxy);
        assert!(record.flag("server_verified"), "{record}");
        record.expect(&[("server_address", &server.address().to_string())]);
    }
    assert_eq!(server.counts().resumed(), 3, "one address, one store");
}

#[test]
fn happy_eyeballs_can_be_turned_off() {
    let (dns, _hole, port) = half_dead();
    let _echo = echo_at(&format!("{V4}:{port}"));
    let keys = "happy_eyeballs_delay = \"off\"";
    let toml = back_within("500ms", &format!("{HOST}:{port}"), keys);
    let proxy = asking(&dns).start(&toml);
    let records = [visit(&proxy), visit(&proxy)];
    let tries = records.each_ref().map(|record| record.count("tries"));
    assert_eq!(tries.iter().sum::<u64>(), 3, "{records:?}");
}

#[test]
fn two_families_that_fail_are_one_try_with_both_reasons() {
    let (dns, _hole, port) = half_dead();
    let _other = Blackhole::listen(&format!("{V4}:{port}").parse().unwrap());
    let keys = "happy_eyeballs_delay = \"100ms\"";
    let toml = back_within("1s", &format!("{HOST}:{port}"), keys);
    let proxy = asking(&dns).start(&toml);
    let record = refused(&proxy).unwrap();
    record.expect_end(&["timeout"], &["connect"]);
    assert_eq!(record.count("tries"), 1, "{record}");
    for address in [format!("[::1]:{port}"), format!("{V4}:{port}")] {
        assert!(record.reasons().contains(&address), "{record}");
    }
}

#[test]
fn connections_to_an_address_that_left_the_dns_end_after_resolve_drain() {
    let dns = DnsServer::new();
    let (_first, _second, port) = two_of_one_port();
    dns.set_addresses(HOST, &["127.0.0.1"]);
    let keys = "resolve_drain = \"2s\"";
    let proxy = asking(&dns).start(&back(&format!("{HOST}:{port}"), keys));
    let mut leaving = open(&proxy);
    dns.set_addresses(HOST, &["127.0.0.2"]);
    until_at(&proxy, &format!("127.0.0.2:{port}"));
    leaving.ping(b"still there");
    let mut staying = open(&proxy);
    assert_eq!(leaving.expect_end(), Ending::Reset);
    let record = proxy.record_of(leaving.local());
    record.expect(&[
        ("end", "shutdown"),
        ("detail", "resolve_drain"),
        ("phase", "relay"),
        ("ended_by", "ringway"),
        ("server_address", &format!("127.0.0.1:{port}")),
    ]);
    staying.ping(b"not concerned");
}

#[test]
fn connections_stay_when_their_address_comes_back_or_nothing_drains() {
    let dns = DnsServer::new();
    let (_first, _second, port) = two_of_one_port();
    let cases = [("resolve_drain = \"4s\"", true), ("", false)];
    for (keys, comes_back) in cases {
        dns.set_addresses(HOST, &["127.0.0.1"]);
        let proxy = asking(&dns).start(&back(&format!("{HOST}:{port}"), keys));
        let mut link = open(&proxy);
        dns.set_addresses(HOST, &["127.0.0.2"]);
        until_at(&proxy, &format!("127.0.0.2:{port}"));
        if comes_back {
            dns.set_addresses(HOST, &["127.0.0.1"]);
            until_at(&proxy, &format!("127.0.0.1:{port}"));
        }
        // Longer than any drain of this test.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(4500) {
            link.ping(b"still there");
            pause(Duration::from_millis(100));
        }
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
    }
}
