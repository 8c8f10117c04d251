//! Connections to servers that are ready before a client needs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::Duration;

use ringway_support::pki::{House, Leaf};
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::{listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{Ending, Link, Peer, Proxy, Record, ringway, until};

/// One core, so that its pool is the whole. `group`: lines of `[upstream.back]`.
fn before(peer: &Peer, group: &str) -> Proxy {
    let toml = listener("front", "back", "", "") + &upstream("back", &[peer.address()], group);
    ringway!().workers(1).start(&toml)
}

fn warm(connections: usize) -> String {
    format!("warm = {connections}\n")
}

fn connect(proxy: &Proxy) -> Link {
    Link::connect(proxy.address("front")).unwrap()
}

/// Request and answer on a ready connection that the test holds the other end of.
fn talk(client: &mut Link, server: &mut Link) {
    client.send(b"request").unwrap();
    assert_eq!(server.receive(7), b"request");
    server.send(b"answer").unwrap();
    assert_eq!(client.receive(6), b"answer");
}

fn end(client: &mut Link, server: &mut Link) {
    client.finish().unwrap();
    assert_eq!(server.expect_end(), Ending::Clean);
    server.finish().unwrap();
    assert!(client.expect_end().looks_complete());
}

fn is_warm(record: &Record) -> bool {
    record.expect(&[("end", "finished")]);
    // Nothing was connected for this client.
    let has = |field| record.0.get(field).is_some();
    assert_eq!(has("warm_ms"), !has("connect_ms"), "{record}");
    has("warm_ms")
}

#[test]
fn as_many_connections_as_are_wanted_wait_for_clients_and_are_replaced() {
    let peer = Peer::plain();
    let proxy = before(&peer, &warm(3));
    let mut ready: Vec<_> = (0..3).map(|_| peer.accept()).collect();
    assert!(peer.accept_within(Duration::from_millis(300)).is_none());
    for round in 0..3 {
        let mut client = connect(&proxy);
        // The newest is handed out.
        let mut server = ready.pop().unwrap();
        talk(&mut client, &mut server);
        end(&mut client, &mut server);
        assert!(is_warm(&proxy.record_of(client.local())), "round {round}");
        ready.push(peer.accept());
    }
    assert!(peer.accept_within(Duration::from_millis(300)).is_none());
}

#[test]
fn a_client_of_a_tls_server_gets_a_connection_whose_handshake_is_done() {
    let house = House::new();
    for version in [TLS13, TLS12] {
        let peer = Peer::tls(ServerTls::with(&house.backend).version(version).config());
        let proxy = before(&peer, &(warm(2) + &house.originate("back")));
        // The handshakes end before any client comes.
        let mut ready: Vec<_> = (0..2).map(|_| peer.accept()).collect();
        let mut client = connect(&proxy);
        let mut server = ready.pop().unwrap();
        talk(&mut client, &mut server);
        end(&mut client, &mut server);
        let record = proxy.record_of(client.local());
        assert!(is_warm(&record));
        assert_eq!(record.0.get("upstream_handshake_ms"), None, "{record}");
        record.expect(&[("upstream_sni", "backend.internal")]);
        assert!(record.flag("server_verified"), "{record}");
    }
}

#[test]
fn sessions_of_ready_connections_are_kept_and_resumed() {
    let house = House::new();
    let peer = Peer::tls(ServerTls::with(&house.backend).config());
    let _proxy = before(&peer, &(warm(1) + &house.originate("back") + "\n"));
    let mut first = peer.accept();
    // Tickets go out with what the server sends or when it reads; its end makes place for another.
    assert!(!first.resumed());
    pause(Duration::from_millis(1500));
    first.finish().unwrap();
    let second = peer.accept();
    assert!(second.resumed(), "by the ticket that came while it waited");
}

#[test]
fn a_connection_on_which_the_server_spoke_or_that_it_ended_is_thrown_away() {
    let peer = Peer::plain();
    let proxy = before(&peer, &warm(1));
    let mut spoken = peer.accept();
    spoken.send(b"unasked").unwrap();
    let ended = peer.accept();
    ended.cut().unwrap();
    let reset = peer.accept();
    reset.reset();
    // Each was replaced without a client.
    let mut server = peer.accept();
    let mut client = connect(&proxy);
    talk(&mut client, &mut server);
    end(&mut client, &mut server);
    assert!(is_warm(&proxy.record_of(client.local())));
    assert_eq!(spoken.expect_end(), Ending::Clean);
}

/// What a client gets is looked at when it is handed out, not only when the pool is.
#[test]
fn a_hand_out_that_is_dead_is_replaced_without_the_client_noticing() {
    for how in ["spoken", "ended", "reset"] {
        let peer = Peer::plain();
        let proxy = before(&peer, &warm(1));
        let mut client = connect(&proxy);
        let mut dead = peer.accept();
        proxy.while_stopped(|| {
            match how {
                "spoken" => dead.send(b"x").unwrap(),
                "ended" => dead.cut().unwrap(),
                _ => dead.reset(),
            }
            client.send(b"request").unwrap();
        });
        // Another connection has it: a new one, or one that was ready again.
        let mut server = (0..2)
            .map(|_| peer.accept())
            .find_map(|mut server| {
                server.limit(Duration::from_millis(300)).unwrap();
                let mut bytes = [0; 7];
                let came = server.receive_some(&mut bytes);
                came.is_ok_and(|count| count == 7).then_some(server)
            })
            .unwrap_or_else(|| panic!("{how}: the request reached no server"));
        server.limit(ringway_support::DEADLINE).unwrap();
        server.send(b"answer").unwrap();
        assert_eq!(client.receive(6), b"answer", "{how}");
        end(&mut client, &mut server);
        proxy
            .record_of(client.local())
            .expect(&[("end", "finished")]);
    }
}

#[test]
fn a_connection_that_nobody_needed_is_ended_cleanly_after_its_time() {
    let house = House::new();
    let peer = Peer::tls(ServerTls::with(&house.backend).config());
    let keys = format!("{}warm_idle = \"1s\"\n{}", warm(1), house.originate("back"));
    let _proxy = before(&peer, &keys);
    let mut first = peer.accept();
    assert_eq!(first.expect_end(), Ending::Clean, "with close_notify");
    drop(peer.accept());
}

#[test]
fn a_server_that_fails_is_asked_at_growing_distances() {
    let house = House::new();
    let failing = Peer::plain().serve(Link::reset);
    let keys = format!("{}max_fails = 0\n{}", warm(4), house.originate("back"));
    let toml = listener("front", "back", "", "") + &upstream("back", &[failing.address()], &keys);
    let _proxy = ringway!().workers(1).start(&toml);
    until("the first tries", || {
        (failing.counts().accepted() >= 4).then_some(())
    });
    pause(Duration::from_millis(2500));
    // At most four at a time: at once, and after 0.5 s, 1 s and 2 s more.
    let tried = failing.counts().accepted();
    assert!((5..=16).contains(&tried), "{tried} tries");
}

#[test]
fn a_connection_whose_server_certificate_has_expired_meanwhile_is_never_handed_out() {
    let house = House::new();
    let leaf = Leaf::server("backend.internal").ends_in(Duration::from_secs(4));
    let peer = Peer::tls(ServerTls::with(&house.ca.issue(&leaf)).config());
    let proxy = before(&peer, &(warm(1) + &house.originate("back")));
    let mut ready = peer.accept();
    // Long before `warm_idle`.
    assert_eq!(ready.expect_end(), Ending::Clean);
    let _server = peer.keep();
    // Its last second counts as good in a handshake (RFC 5280 4.1.2.5).
    pause(Duration::from_millis(1100));
    let mut client = connect(&proxy);
    client.send(b"request").unwrap();
    assert!(!client.expect_end().looks_complete());
    proxy
        .record_of(client.local())
        .expect(&[("end", "certificate_refused"), ("ended_by", "upstream")]);
}

/// A place is a place, whether a client has it or not.
#[test]
fn ready_connections_count_towards_max_connections_and_serve_when_all_are_full() {
    let peer = Peer::plain();
    let proxy = before(&peer, &(warm(2) + "max_connections = 2\n"));
    let mut ready: Vec<_> = (0..2).map(|_| peer.accept()).collect();
    let mut clients: Vec<_> = (0..2).map(|_| connect(&proxy)).collect();
    for client in &mut clients {
        talk(client, &mut ready.pop().unwrap());
    }
    let mut third = connect(&proxy);
    third.send(b"request").unwrap();
    assert!(!third.expect_end().looks_complete());
    proxy
        .record_of(third.local())
        .expect(&[("end", "no_server")]);
    assert!(peer.accept_within(Duration::from_millis(200)).is_none());
}

#[test]
fn a_drain_ends_what_is_ready() {
    let peer = Peer::plain();
    let mut proxy = before(&peer, &warm(2));
    let mut ready: Vec<_> = (0..2).map(|_| peer.accept()).collect();
    proxy.signal(libc::SIGTERM);
    for server in &mut ready {
        assert_eq!(server.expect_end(), Ending::Clean);
    }
    proxy.wait_exit().expect_code(0);
}

#[test]
fn a_client_that_agreed_on_a_protocol_gets_no_connection_that_speaks_none() {
    let house = House::new();
    let peer = Peer::tls(ServerTls::with(&house.backend).alpn(&["h2"]).config());
    let tls = house.terminate() + "alpn = \"h2\"\n";
    let keys = warm(1) + &house.originate("back");
    let toml = listener("front", "back", "", &tls) + &upstream("back", &[peer.address()], &keys);
    let proxy = ringway!().workers(1).start(&toml);
    let mut ready = peer.accept();
    let connect_as = |tls: ClientTls| {
        connect(&proxy)
            .start_tls(&tls.config(), "localhost")
            .unwrap()
    };
    let mut speaks_h2 = connect_as(ClientTls::trusting(&house.ca).alpn(&["h2"]));
    speaks_h2.send(b"request").unwrap();
    let mut server = peer.accept();
    assert_eq!(server.receive(7), b"request");
    end(&mut speaks_h2, &mut server);
    let record = proxy.record_of(speaks_h2.local());
    assert!(!is_warm(&record));
    record.expect(&[("upstream_alpn", "h2")]);
    let mut other = connect_as(ClientTls::trusting(&house.ca));
    talk(&mut other, &mut ready);
    end(&mut other, &mut ready);
    assert!(is_warm(&proxy.record_of(other.local())));
}
