//! Time limits: each ends its phase, and the log says which one it was.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway_support::bridge::LEGS;
use ringway_support::hello::hello_of;
use ringway_support::peer::Blackhole;
use ringway_support::process::keepalive_due;
use ringway_support::tls::ClientTls;
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{Bridge, Bystander, Ending, Leg, Link, Peer, ringway, until};

/// Not sooner than the limit, and not much later: timers may be coarse, the machine busy.
fn expect_about(limit: Duration, since: Instant) {
    let took = since.elapsed();
    assert!(
        took >= limit.mul_f64(0.9) && took < limit + Duration::from_secs(4),
        "expected the end after about {limit:?}, it came after {took:?}"
    );
}

#[test]
fn a_silent_client_is_let_go_after_the_client_hello_timeout() {
    let legs = (Leg::Tls13, Leg::Plain);
    let bridge = Bridge::start(ringway!(), legs, "client_hello_timeout = \"400ms\"");
    let mut witness = bridge.witness();
    let config = ClientTls::trusting(&bridge.house.ca).config();
    let (_, hello) = hello_of(&config, "localhost");
    for part in [0, hello.len() / 2] {
        let start = Instant::now();
        let mut link = Link::connect(bridge.proxy.address("front")).unwrap();
        link.send_raw(&hello[..part]).unwrap();
        let (_, ending) = link.receive_to_end();
        assert_ne!(ending, Ending::Silence);
        expect_about(Duration::from_millis(400), start);
        let record = bridge.record(&link);
        record.expect(&[("end", "timeout"), ("phase", "client_hello")]);
    }
    bridge.settled(&mut witness);
}

#[test]
fn dripping_a_hello_does_not_stretch_the_client_hello_timeout() {
    let legs = (Leg::Tls13, Leg::Plain);
    let bridge = Bridge::start(ringway!(), legs, "client_hello_timeout = \"600ms\"");
    let mut witness = bridge.witness();
    let config = ClientTls::trusting(&bridge.house.ca).config();
    let (_, hello) = hello_of(&config, "localhost");
    let link = Link::connect(bridge.proxy.address("front")).unwrap();
    for byte in hello.iter().take(120) {
        if link.send_raw(&[*byte]).is_err() {
            break;
        }
        pause(Duration::from_millis(50));
    }
    let record = bridge.record(&link);
    record.expect(&[("end", "timeout"), ("phase", "client_hello")]);
    assert!(record.number("total_ms") < 4_000.0, "{record}");
    bridge.settled(&mut witness);
}

#[test]
fn a_client_that_stalls_in_the_handshake_is_let_go_after_the_handshake_timeout() {
    for leg in [Leg::Tls13, Leg::Tls12] {
        let bridge = Bridge::start(
            ringway!(),
            (leg, Leg::Plain),
            "handshake_timeout = \"400ms\"",
        );
        let mut witness = bridge.witness();
        let config = ClientTls::trusting(&bridge.house.ca).config();
        let (_, hello) = hello_of(&config, "localhost");
        let start = Instant::now();
        let mut link = Link::connect(bridge.proxy.address("front")).unwrap();
        link.send_raw(&hello).unwrap();
        let (bytes, ending) = link.receive_to_end();
        assert!(!bytes.is_empty(), "the proxy answers the hello");
        assert_ne!(ending, Ending::Silence);
        expect_about(Duration::from_millis(400), start);
        let record = bridge.record(&link);
        record.expect(&[("end", "timeout"), ("phase", "downstream_handshake")]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_server_that_cannot_be_reached_costs_the_connect_timeout() {
    let hole = Blackhole::new();
    let keys = "connect_timeout = \"500ms\"\nnext_upstream_tries = 1";
    let toml = front_to_back(keys, "", hole.address());
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let start = Instant::now();
    let mut client = Link::connect(proxy.address("front")).unwrap();
    let (bytes, ending) = client.receive_to_end();
    assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
    expect_about(Duration::from_millis(500), start);
    let record = proxy.record_of(client.local());
    record.expect_end(&["timeout", "no_server"], &["connect"]);
    record.expect_reason(&["timeout", "timed out", "time", "connect_timeout"]);
    bystander.settled(&proxy);
}

#[test]
fn a_server_that_accepts_and_says_nothing_costs_the_upstream_handshake_timeout() {
    let keys = "upstream_handshake_timeout = \"500ms\"\nnext_upstream_tries = 1";
    for downstream in [Leg::Plain, Leg::Tls13] {
        let bridge = Bridge::start(ringway!(), (downstream, Leg::Tls13), keys);
        let mut witness = bridge.witness();
        let start = Instant::now();
        let mut client = bridge.client();
        let mut server = bridge.peer.accept_raw();
        let (bytes, ending) = client.receive_to_end();
        assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
        expect_about(Duration::from_millis(500), start);
        let record = bridge.record(&client);
        record.expect_end(&["timeout"], &["upstream_handshake"]);
        record.expect_reason(&["upstream_handshake_timeout"]);
        let (_, ending) = server.receive_to_end();
        assert_ne!(ending, Ending::Silence, "the server is let go");
        bridge.settled(&mut witness);
    }
}

#[test]
fn an_idle_connection_ends_on_both_sides_after_the_idle_timeout() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "idle_timeout = \"500ms\"");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        let start = Instant::now();
        client.send(b"up").unwrap();
        assert_eq!(server.receive(2), b"up");
        let (bytes, ending) = client.receive_to_end();
        assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
        expect_about(Duration::from_millis(500), start);
        let (_, ending) = server.receive_to_end();
        assert_ne!(ending, Ending::Silence, "{legs:?}: the server is let go");
        let record = bridge.record(&client);
        record.expect(&[("end", "timeout"), ("phase", "relay")]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn traffic_in_one_direction_alone_keeps_a_connection() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "idle_timeout = \"1500ms\"");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(3500) {
            server.send(b"tick").unwrap();
            assert_eq!(client.receive(4), b"tick", "{legs:?}");
            pause(Duration::from_millis(100));
        }
        client.send(b"up").unwrap();
        assert_eq!(server.receive(2), b"up", "{legs:?}");
        drop((client, server));
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_half_closed_connection_is_not_kept_beyond_the_idle_timeout() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "idle_timeout = \"500ms\"");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        client.finish().unwrap();
        assert_eq!(server.expect_end(), Ending::Clean);
        let record = bridge.record(&client);
        record.expect(&[("end", "timeout"), ("phase", "relay")]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_side_that_never_reads_ends_by_the_idle_timeout() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "idle_timeout = \"1500ms\"");
        let mut witness = bridge.witness();
        let (mut client, server) = bridge.pair();
        // Fails when the limit is over before our own buffers are full.
        let _ = client.send_until_full();
        let record = bridge.record(&client);
        record.expect(&[("end", "timeout"), ("phase", "relay")]);
        assert!(record.count("bytes_up") > 0, "{record}");
        drop(server);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_slow_reader_is_not_idle() {
    let legs = (Leg::Tls13, Leg::Plain);
    let bridge = Bridge::start(ringway!(), legs, "idle_timeout = \"3s\"");
    let mut witness = bridge.witness();
    let (mut client, mut server) = bridge.pair();
    std::thread::scope(|scope| {
        // A sender of its own: buffers that fill slowly, on a busy machine, are no silence.
        scope.spawn(move || while client.send(&[0x5A; 64 * 1024]).is_ok() {});
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) {
            // The kernel calls the proxy's socket writable when a third of its buffer is free: a
            // piece of several MiB always moves something.
            let _ = server.receive(3 * 1024 * 1024);
            pause(Duration::from_millis(400));
        }
        drop(server);
    });
    bridge.settled(&mut witness);
}

/// The sockets of one proxied connection, the accepted one first: when the kernel will probe them.
fn probes_due(listener_keys: &str, upstream_keys: &str) -> [Option<Duration>; 2] {
    let peer = Peer::plain();
    let toml = listener("front", "back", listener_keys, "")
        + &upstream("back", &[peer.address()], upstream_keys);
    let proxy = ringway!().start(&toml);
    let client = Link::connect(proxy.address("front")).unwrap();
    let server = peer.accept();
    let dialled_from = server.socket().peer_addr().unwrap().as_socket().unwrap();
    let ends = [
        (proxy.address("front").ip(), client.local()),
        (dialled_from, peer.address().ip()),
    ];
    let due = |(local, remote): &(SocketAddr, SocketAddr)| match (local, remote) {
        (SocketAddr::V4(local), SocketAddr::V4(remote)) => keepalive_due(*local, *remote),
        _ => panic!("IPv4 was asked for, not {local} and {remote}"),
    };
    // The dialled one has its options when the connection is a second old.
    if upstream_keys.contains("false") {
        pause(Duration::from_millis(1500));
    } else {
        until("the keepalive of the dialled socket", || due(&ends[1]));
    }
    ends.map(|ends| due(&ends))
}

#[test]
fn each_side_is_probed_after_the_keepalive_idle_time_of_its_own_table() {
    let about = |due: Option<Duration>, limit: u64| {
        let limit = Duration::from_secs(limit);
        let due = due.expect("keepalive is on");
        let late = limit.saturating_sub(due);
        assert!(
            due <= limit && late < Duration::from_secs(30),
            "{due:?} of {limit:?} are left"
        );
    };
    let [accepted, dialled] = probes_due("", "");
    about(accepted, 60);
    about(dialled, 60);
    let [accepted, dialled] = probes_due(
        "keepalive = { idle = \"500s\" }",
        "keepalive = { idle = \"900s\" }",
    );
    about(accepted, 500);
    about(dialled, 900);
    let [accepted, dialled] = probes_due("keepalive = false", "");
    assert_eq!(accepted, None);
    about(dialled, 60);
    let [accepted, dialled] = probes_due("", "keepalive = false");
    about(accepted, 60);
    assert_eq!(dialled, None);
}
