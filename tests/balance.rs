//! Whose turn it is, with real servers: strategies, shares, backups, limits and the queue.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringway_support::link::Address;
use ringway_support::peer::{ClosedPort, Service};
use ringway_support::tls::ClientTls;
use ringway_support::toml::listener;
use ringway_support::wait::pause;
use ringway_support::{Bystander, Ending, House, Link, Peer, Proxy, Record, ringway, until};

fn echoes(count: usize) -> Vec<Service> {
    (0..count).map(|_| Peer::plain().echo()).collect()
}

/// Group `back` with these lines; `servers` are elements of its array.
fn back(keys: &str, servers: &[String]) -> String {
    format!(
        "[upstream.back]\n{keys}\nservers = [{}]\n",
        servers.join(", ")
    )
}

fn with(address: &Address, keys: &str) -> String {
    format!("{{ address = \"{address}\", {keys} }}")
}

fn plainly(servers: &[Service]) -> Vec<String> {
    servers
        .iter()
        .map(|it| format!("\"{}\"", it.address()))
        .collect()
}

fn client(proxy: &Proxy) -> Link {
    Link::connect(proxy.address("front")).unwrap()
}

fn finish(proxy: &Proxy, mut link: Link) -> Record {
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    proxy.record_of(link.local())
}

fn visit(proxy: &Proxy) -> Record {
    let mut link = client(proxy);
    link.ping(b"hello");
    finish(proxy, link)
}

/// A client that is turned away: its record.
fn refused(proxy: &Proxy) -> Record {
    let mut link = client(proxy);
    let (bytes, ending) = link.receive_to_end();
    assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
    proxy.record_of(link.local())
}

fn accepted(servers: &[Service]) -> Vec<u64> {
    servers.iter().map(|it| it.counts().accepted()).collect()
}

#[test]
fn connections_that_stay_are_shared_by_weight_under_least_connections() {
    let servers = echoes(3);
    let mut elements = plainly(&servers);
    elements[1] = with(servers[1].address(), "weight = 2");
    let toml =
        listener("front", "back", "", "") + &back("balance = \"least-connections\"", &elements);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let mut held: Vec<Link> = (0..20).map(|_| client(&proxy)).collect();
    held.iter_mut().for_each(|link| link.ping(b"held"));
    assert_eq!(accepted(&servers), [5, 10, 5]);
    // Who has lost connections gets the next ones.
    let before = accepted(&servers);
    let mut freed: BTreeMap<String, u64> = BTreeMap::new();
    for link in held.drain(..9) {
        let record = finish(&proxy, link);
        *freed.entry(record.text("server").to_owned()).or_default() += 1;
    }
    let mut again: Vec<Link> = (0..9).map(|_| client(&proxy)).collect();
    again.iter_mut().for_each(|link| link.ping(b"again"));
    for (server, before) in servers.iter().zip(before) {
        let lost = freed.get(&server.address().to_string()).copied();
        assert_eq!(server.counts().accepted() - before, lost.unwrap_or(0));
    }
    drop((held, again));
    bystander.settled(&proxy);
}

#[test]
fn random_choices_leave_no_server_out_and_none_far_ahead() {
    let servers = echoes(4);
    let toml = listener("front", "back", "", "")
        + &back("balance = \"random-two-choices\"", &plainly(&servers));
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let mut held: Vec<Link> = (0..80).map(|_| client(&proxy)).collect();
    held.iter_mut().for_each(|link| link.ping(b"held"));
    let accepted = accepted(&servers);
    assert!(
        accepted.iter().all(|it| (12..=28).contains(it)),
        "{accepted:?}"
    );
    drop(held);
    bystander.settled(&proxy);
}

#[test]
fn an_address_meets_one_server_on_every_core_and_a_loss_moves_that_servers_clients_alone() {
    let mut servers: Vec<Option<Service>> = echoes(4).into_iter().map(Some).collect();
    let elements: Vec<String> = servers
        .iter()
        .flatten()
        .map(|it| format!("\"{}\"", it.address()))
        .collect();
    let toml = listener("front", "back", "", "") + &back("balance = \"hash-source\"", &elements);
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let visit_from = |last: u8| {
        let source = IpAddr::from([127, 0, 0, last]);
        let mut link = Link::connect_from(source, proxy.address("front")).unwrap();
        link.ping(b"hello");
        finish(&proxy, link).text("server").to_owned()
    };
    let sources: Vec<u8> = (10..40).collect();
    let before: Vec<String> = sources.iter().map(|it| visit_from(*it)).collect();
    for _ in 0..2 {
        let again: Vec<String> = sources.iter().map(|it| visit_from(*it)).collect();
        assert_eq!(again, before, "on whichever core");
    }
    let used: BTreeSet<&String> = before.iter().collect();
    assert!(used.len() >= 3, "{used:?}");
    let lost = before[0].clone();
    let gone = servers.iter_mut().find(|server| {
        let address = server.as_ref().map(|it| it.address().to_string());
        address.as_ref() == Some(&lost)
    });
    drop(gone.unwrap().take());
    for (source, before) in sources.iter().zip(&before) {
        let now = visit_from(*source);
        assert!(now == *before || *before == lost);
        assert_ne!(now, lost);
    }
    bystander.settled(&proxy);
}

#[test]
fn a_server_name_meets_one_server_and_without_one_the_address_does() {
    let house = House::new();
    let servers = echoes(4);
    let toml = listener("front", "back", "", &house.terminate())
        + &back("balance = \"hash-sni\"", &plainly(&servers));
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let config = ClientTls::trusting_anyone().config();
    let visit = |source: u8, name: &str| {
        let source = IpAddr::from([127, 0, 0, source]);
        let link = Link::connect_from(source, proxy.address("front")).unwrap();
        let mut link = link.start_tls(&config, name).unwrap();
        link.ping(b"hello");
        finish(&proxy, link).text("server").to_owned()
    };
    let names: Vec<String> = (0..16).map(|it| format!("app-{it}.example.org")).collect();
    let first: Vec<String> = names.iter().map(|it| visit(1, it)).collect();
    let elsewhere: Vec<String> = (2..)
        .zip(&names)
        .map(|(from, it)| visit(from, it))
        .collect();
    assert_eq!(elsewhere, first);
    assert!(
        first.iter().collect::<BTreeSet<_>>().len() >= 3,
        "{first:?}"
    );
    // An IP address is no server name (RFC 6066 3).
    let unnamed: Vec<String> = (10..30).map(|from| visit(from, "127.0.0.1")).collect();
    let again: Vec<String> = (10..30).map(|from| visit(from, "127.0.0.1")).collect();
    assert_eq!(unnamed, again);
    assert!(
        unnamed.iter().collect::<BTreeSet<_>>().len() >= 3,
        "{unnamed:?}"
    );
    bystander.settled(&proxy);
}

#[test]
fn a_backup_serves_while_no_other_can() {
    let closed = ClosedPort::new();
    let backup = Peer::plain().echo();
    let elements = [
        format!("\"{}\"", closed.address()),
        with(backup.address(), "backup = true"),
    ];
    let toml = listener("front", "back", "", "") + &back("fail_timeout = \"200ms\"", &elements);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let address = backup.address().to_string();
    for _ in 0..5 {
        visit(&proxy).expect(&[("server", &address), ("end", "finished")]);
    }
    let main = Peer::listen(&closed.address(), 16).echo();
    let main_address = main.address().to_string();
    until("the main server has all connections again", || {
        (visit(&proxy).text("server") == main_address).then_some(())
    });
    let before = backup.counts().accepted();
    for _ in 0..5 {
        visit(&proxy).expect(&[("server", &main_address)]);
    }
    assert_eq!(backup.counts().accepted(), before);
    bystander.settled(&proxy);
}

#[test]
fn a_server_that_is_down_has_no_connection_and_a_group_of_such_says_so() {
    let servers = echoes(2);
    let elements = [
        with(servers[0].address(), "down = true"),
        format!("\"{}\"", servers[1].address()),
    ];
    let toml = listener("front", "back", "", "") + &back("", &elements);
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    (0..6).for_each(|_| drop(visit(&proxy)));
    assert_eq!(accepted(&servers), [0, 6]);
    bystander.settled(&proxy);

    let toml = listener("front", "back", "", "") + &back("", &elements[..1]);
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let record = refused(&proxy);
    record.expect(&[
        ("end", "no_server"),
        ("phase", "connect"),
        ("ended_by", "ringway"),
    ]);
    record.expect_reason(&["all servers down"]);
    assert_eq!(record.count("tries"), 0);
    bystander.settled(&proxy);
}

#[test]
fn a_limit_of_connections_holds_over_all_workers_and_is_told_apart() {
    let servers = echoes(2);
    let toml = listener("front", "back", "", "") + &back("max_connections = 5", &plainly(&servers));
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(4), &toml);
    let mut held: Vec<Link> = (0..10).map(|_| client(&proxy)).collect();
    held.iter_mut().for_each(|link| link.ping(b"held"));
    assert_eq!(accepted(&servers), [5, 5]);
    for _ in 0..8 {
        let record = refused(&proxy);
        record.expect(&[
            ("end", "no_server"),
            ("phase", "connect"),
            ("ended_by", "ringway"),
        ]);
        record.expect_reason(&["is full: all servers have max_connections"]);
    }
    assert_eq!(accepted(&servers), [5, 5]);
    // Each that ends makes room for one, whichever core has it.
    for _ in 0..10 {
        let record = finish(&proxy, held.remove(0));
        record.expect(&[("end", "finished")]);
        let mut next = client(&proxy);
        next.ping(b"next");
        held.push(next);
    }
    drop(held);
    bystander.settled(&proxy);
}

#[test]
fn those_without_room_wait_their_turn_over_all_workers() {
    let server = echoes(1);
    let keys = "max_connections = 3\nqueue = 40\nqueue_timeout = \"60s\"";
    let toml = listener("front", "back", "", "") + &back(keys, &plainly(&server));
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(4), &toml);
    let mut held: Vec<Link> = (0..3).map(|_| client(&proxy)).collect();
    held.iter_mut().for_each(|link| link.ping(b"held"));
    let before = proxy.open_files().sockets;
    let mut waiting: Vec<Link> = (0..30).map(|_| client(&proxy)).collect();
    for link in &mut waiting {
        link.send(b"early").unwrap();
        link.finish().unwrap();
    }
    until("all of them are accepted, before there is room", || {
        (proxy.open_files().sockets >= before + 30).then_some(())
    });
    let begun = Instant::now();
    while let Some(link) = held.pop() {
        let _ = finish(&proxy, link);
    }
    // Whoever is served answers, and its end makes room for the next.
    for mut link in waiting {
        assert_eq!(link.receive_to_end(), (b"early".to_vec(), Ending::Clean));
        let record = proxy.record_of(link.local());
        record.expect(&[("end", "finished")]);
        assert!(record.number("queue_ms") > 0.0, "{record}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    let record = visit(&proxy);
    assert!(
        record.0.get("queue_ms").is_none(),
        "it did not wait: {record}"
    );
    bystander.settled(&proxy);
}

#[test]
fn the_queue_is_bounded_in_length_and_time_and_lets_go_of_clients_that_reset() {
    let server = echoes(1);
    let keys = "max_connections = 1\nqueue = 1\nqueue_timeout = \"2s\"";
    let toml = listener("front", "back", "", "") + &back(keys, &plainly(&server));
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let mut held = client(&proxy);
    held.ping(b"held");

    let mut waiting = client(&proxy);
    let over = refused(&proxy);
    over.expect(&[("end", "no_server"), ("phase", "connect")]);
    over.expect_reason(&["is full, and so is its queue"]);

    let (bytes, ending) = waiting.receive_to_end();
    assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
    let record = proxy.record_of(waiting.local());
    record.expect(&[
        ("end", "timeout"),
        ("phase", "connect"),
        ("ended_by", "ringway"),
    ]);
    record.expect_reason(&["queue_timeout"]);
    assert!(record.number("queue_ms") >= 1900.0, "{record}");

    let leaving = client(&proxy);
    let address = leaving.local();
    refused(&proxy).expect_reason(&["its queue"]);
    leaving.reset();
    let record = proxy.record_of(address);
    record.expect(&[
        ("end", "reset"),
        ("phase", "connect"),
        ("ended_by", "downstream"),
    ]);

    // And its place is free for another, who is served when there is room.
    let mut last = client(&proxy);
    last.send(b"last").unwrap();
    let _ = finish(&proxy, held);
    assert_eq!(last.receive(4), b"last");
    let _ = finish(&proxy, last);
    bystander.settled(&proxy);
}

#[test]
fn a_shutdown_ends_those_who_wait_at_once() {
    let server = echoes(1);
    let keys = "max_connections = 1\nqueue = 5\nqueue_timeout = \"10m\"";
    let toml = listener("front", "back", "", "") + &back(keys, &plainly(&server));
    let mut proxy = ringway!()
        .workers(1)
        .runtime("drain_timeout = \"200ms\"")
        .start(&toml);
    let mut held = client(&proxy);
    held.ping(b"held");
    let waiting = client(&proxy);
    let address = waiting.local();
    proxy.signal(libc::SIGTERM);
    let record = proxy.record_of(address);
    // The place of the one that was closed first may be its own for a moment.
    record.expect_end(&["shutdown"], &["connect", "relay"]);
    assert_eq!(record.count("bytes_up"), 0, "{record}");
    proxy.wait_exit().expect_code(0);
}

/// A core whose connections give places back would keep them, and another's wait in vain.
#[test]
fn no_core_keeps_the_places_to_itself_while_another_has_clients_that_wait() {
    let server = Peer::plain().serve(|mut link| {
        let _ = link.receive_to_end();
        pause(Duration::from_millis(20));
        let _ = link.finish();
    });
    let keys = "max_connections = 1\nqueue = 40\nqueue_timeout = \"60s\"";
    let toml =
        listener("front", "back", "", "") + &back(keys, &[format!("\"{}\"", server.address())]);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(2), &toml);
    let mut links: Vec<Link> = (0..60).map(|_| client(&proxy)).collect();
    links.iter_mut().for_each(|link| link.finish().unwrap());
    for link in &mut links {
        assert_eq!(link.expect_end(), Ending::Clean);
    }
    let records: Vec<Record> = links.iter().map(|it| proxy.record_of(it.local())).collect();
    let waits = |core| {
        let own = records.iter().filter(move |it| it.count("core") == core);
        own.map(|it| it.number("total_ms")).fold(0.0, f64::max)
    };
    // Each core's last had to wait for most of the others, of both cores.
    let (one, other) = (waits(0), waits(1));
    assert!(
        one > other / 3.0 && other > one / 3.0,
        "{one} ms and {other} ms"
    );
    bystander.settled(&proxy);
}
