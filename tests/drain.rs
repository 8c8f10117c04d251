//! Signals and exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::{Duration, Instant};

use ringway_support::bridge::LEGS;
use ringway_support::link::Address;
use ringway_support::peer::Blackhole;
use ringway_support::proxy::until_refused;
use ringway_support::toml::front_to_back;
use ringway_support::{Bridge, Ending, Leg, Link, Peer, ringway, until};

const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;
const SIGUSR1: i32 = 10;

/// The draining proxy's last connection comes to its clean end, and with it the proxy.
fn finish_the_last(bridge: &mut Bridge, client: &mut Link, server: &mut Link) {
    client.finish().unwrap();
    assert_eq!(server.expect_end(), Ending::Clean);
    server.finish().unwrap();
    assert_eq!(client.expect_end(), Ending::Clean);
    bridge.proxy.wait_exit().expect_code(0);
    bridge.record(client).expect(&[("end", "finished")]);
}

#[test]
fn an_idle_proxy_ends_at_once_with_either_signal() {
    for signal in [SIGTERM, SIGINT] {
        let mut bridge = Bridge::start(ringway!(), (Leg::Plain, Leg::Plain), "");
        let start = Instant::now();
        bridge.proxy.signal(signal);
        let exit = bridge.proxy.wait_exit();
        exit.expect_code(0);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "nothing to drain, yet it took {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn the_first_signal_refuses_new_connections_and_lets_others_finish() {
    for signal in [SIGTERM, SIGINT] {
        for legs in [LEGS[0], LEGS[3]] {
            let mut bridge = Bridge::start(ringway!(), legs, "");
            let (mut client, mut server) = bridge.pair();
            bridge.proxy.signal(signal);
            until_refused(bridge.proxy.address("front"));

            client.send(b"last words").unwrap();
            assert_eq!(server.receive(10), b"last words", "{legs:?}");
            server.send(b"heard").unwrap();
            assert_eq!(client.receive(5), b"heard", "{legs:?}");
            bridge.proxy.expect_alive();

            finish_the_last(&mut bridge, &mut client, &mut server);
        }
    }
}

#[test]
fn connections_left_at_the_end_of_the_drain_are_cut_and_logged() {
    for legs in LEGS {
        let ringway = ringway!().runtime("drain_timeout = \"600ms\"");
        let mut bridge = Bridge::start(ringway, legs, "");
        let (mut client, mut server) = bridge.pair();
        let start = Instant::now();
        bridge.proxy.signal(SIGTERM);
        let exit = bridge.proxy.wait_exit();
        exit.expect_code(0);
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(500) && took < Duration::from_secs(8),
            "drained for {took:?} with drain_timeout = 600ms"
        );
        assert_ne!(client.expect_end(), Ending::Silence, "{legs:?}");
        assert_ne!(server.expect_end(), Ending::Silence, "{legs:?}");
        let record = bridge.record(&client);
        record.expect(&[
            ("end", "shutdown"),
            ("phase", "relay"),
            ("ended_by", "ringway"),
        ]);
    }
}

#[test]
fn a_connection_cut_by_the_shutdown_never_looks_complete_on_tls() {
    let ringway = ringway!().runtime("drain_timeout = \"200ms\"");
    let mut bridge = Bridge::start(ringway, (Leg::Tls13, Leg::Tls13), "");
    let (mut client, mut server) = bridge.pair();
    server.send(b"half an ans").unwrap();
    assert_eq!(client.receive(11), b"half an ans");
    bridge.proxy.signal(SIGTERM);
    assert!(!client.expect_end().looks_complete());
    assert!(!server.expect_end().looks_complete());
    bridge.proxy.wait_exit().expect_code(0);
}

#[test]
fn the_access_log_is_opened_anew_while_the_proxy_drains() {
    let mut bridge = Bridge::start(ringway!(), (Leg::Plain, Leg::Plain), "");
    let (mut client, mut server) = bridge.pair();
    bridge.proxy.signal(SIGTERM);
    until_refused(bridge.proxy.address("front"));

    let log = bridge.proxy.access_log_path().to_owned();
    let moved = log.with_extension("1");
    std::fs::rename(&log, &moved).unwrap();
    bridge.proxy.signal(SIGUSR1);
    until("the access log is opened anew", || {
        log.exists().then_some(())
    });

    finish_the_last(&mut bridge, &mut client, &mut server);
    let client = client.local().to_string();
    let before = std::fs::read_to_string(moved).unwrap();
    assert!(!before.contains(&client), "written to the file moved away");
}

#[test]
fn the_second_signal_closes_at_once() {
    for signals in [[SIGTERM, SIGTERM], [SIGINT, SIGINT], [SIGTERM, SIGINT]] {
        let mut bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
        let (mut client, _server) = bridge.pair();
        let start = Instant::now();
        bridge.proxy.signal(signals[0]);
        until_refused(bridge.proxy.address("front"));
        bridge.proxy.signal(signals[1]);
        let exit = bridge.proxy.wait_exit();
        exit.expect_code(0);
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "it took {:?}",
            start.elapsed()
        );
        assert_ne!(client.expect_end(), Ending::Silence);
        bridge.record(&client).expect(&[("end", "shutdown")]);
    }
}

#[test]
fn connections_before_the_relay_are_drained_as_well() {
    let ringway = ringway!().runtime("drain_timeout = \"400ms\"");
    let mut bridge = Bridge::start(ringway, (Leg::Tls13, Leg::Tls13), "");
    let silent = ringway_support::Link::connect(bridge.proxy.address("front")).unwrap();
    let waiting = bridge.client();
    let _server = bridge.peer.accept_raw();
    bridge.proxy.signal(SIGTERM);
    bridge.proxy.wait_exit().expect_code(0);
    bridge.record(&silent).expect(&[("end", "shutdown")]);
    bridge.record(&waiting).expect(&[("end", "shutdown")]);
}

#[test]
fn a_configuration_that_is_refused_exits_with_64() {
    let exit = ringway!().run_to_end("[[listener]]\nnmae = \"front\"\n");
    exit.expect_code(64);
    exit.expect_words(&["nmae"]).expect_words(&["name"]);
}

#[test]
fn an_address_in_use_exits_with_71_and_names_it() {
    let taken = Peer::plain();
    let echo = Peer::plain().echo();
    let toml =
        front_to_back("", "", echo.address()).replace("127.0.0.1:0", &taken.address().to_string());
    let exit = ringway!().run_to_end(&toml);
    exit.expect_code(71);
    exit.expect_words(&[&taken.address().to_string()])
        .expect_words(&["in use"]);
}

#[test]
fn a_file_that_is_not_there_exits_with_64_and_names_it() {
    for command in ["run", "check", "explain"] {
        let exit = ringway!().command(&[command.as_ref(), "/no/such/ringway.toml".as_ref()]);
        exit.expect_code(64);
        exit.expect_words(&["/no/such/ringway.toml"]);
    }
}

#[test]
fn a_unix_sockets_file_is_removed_at_the_end_and_a_left_one_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address())
        .replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let killed = ringway!().start(&toml);
    // SIGKILL, when dropped: the file stays behind.
    drop(killed);
    assert!(path.exists(), "a killed process removes nothing");
    let mut proxy = ringway!().start(&toml);
    proxy.signal(SIGTERM);
    proxy.wait_exit().expect_code(0);
    assert!(!path.exists(), "the socket's file is removed at the end");
}

/// A blocking connect would wait here for as long as the other process likes.
#[test]
fn a_unix_socket_whose_queue_is_full_is_in_use_and_does_not_hold_up_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let _busy = Blackhole::listen(&Address::Unix(path.clone()));
    let echo = Peer::plain().echo();
    let unix = format!("unix:{}", path.display());
    let toml = front_to_back("", "", echo.address()).replace("127.0.0.1:0", &unix);
    let exit = ringway!().run_to_end(&toml);
    exit.expect_code(71);
    exit.expect_words(&[&unix]).expect_words(&["in use"]);
    assert!(path.exists(), "the socket of another process is left alone");
}
