//! Limits: what is over them is refused with a reason, and the rest goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::{Duration, Instant};

use ringway_support::bridge::Legs;
use ringway_support::hello::hello_of;
use ringway_support::sys::OpenFilesLimit;
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::wait::{DEADLINE, pause, within};
use ringway_support::{Bridge, Ending, House, Leg, Link, Peer, ringway, until};

/// A connection that is refused before any handshake.
/// `opening` is what the client says before it is refused.
fn expect_refusal(bridge: &Bridge, opening: &[u8]) {
    let mut refused = Link::connect(bridge.proxy.address("front")).unwrap();
    let _ = refused.send_raw(opening);
    let (bytes, ending) = refused.receive_to_end();
    assert!(
        bytes.is_empty() && ending != Ending::Silence,
        "{:?}: over the limit, got {ending:?}",
        bridge.legs
    );
    bridge.record(&refused).expect(&[("end", "limit")]);
}

#[test]
fn connections_over_max_connections_are_refused_until_one_ends() {
    for downstream in [Leg::Plain, Leg::Tls13] {
        let legs: Legs = (downstream, Leg::Plain);
        let bridge = Bridge::start(ringway!(), legs, "max_connections = 4");
        let mut held: Vec<_> = (0..4).map(|_| bridge.pair()).collect();
        for _ in 0..8 {
            expect_refusal(&bridge, b"");
        }
        for (client, server) in &mut held {
            client.send(b"up").unwrap();
            assert_eq!(server.receive(2), b"up", "held connections go on");
        }

        let (mut client, mut server) = held.pop().unwrap();
        client.finish().unwrap();
        server.finish().unwrap();
        let _ = client.receive_to_end();
        let _ = bridge.record(&client);
        let again = until("a connection is taken after one ended", || {
            let client = bridge.try_client().ok()?;
            let server = bridge.peer.accept_within(Duration::from_millis(300))?;
            Some((client, server))
        });
        drop(again);
    }
}

#[test]
fn handshakes_over_max_handshakes_are_refused_until_one_ends() {
    let ringway = ringway!().workers(1).runtime("max_handshakes = 2");
    let bridge = Bridge::start(ringway, (Leg::Tls13, Leg::Plain), "");
    let config = ClientTls::trusting(&bridge.house.ca).config();
    let (_, hello) = hello_of(&config, "localhost");
    let stalled: Vec<_> = (0..2)
        .map(|_| {
            let link = Link::connect(bridge.proxy.address("front")).unwrap();
            link.send_raw(&hello).unwrap();
            let mut byte = [0; 1];
            std::io::Read::read_exact(&mut link.socket(), &mut byte).unwrap();
            link
        })
        .collect();
    expect_refusal(&bridge, &hello);
    for link in stalled {
        let address = link.local();
        link.reset();
        let _ = bridge.proxy.record_of(address);
    }
    bridge.expect_service();
}

/// Who has said nothing costs no handshake: silent clients must not shut others out.
#[test]
fn silent_clients_do_not_count_as_handshakes() {
    let ringway = ringway!().workers(1).runtime("max_handshakes = 1");
    let bridge = Bridge::start(ringway, (Leg::Tls13, Leg::Plain), "");
    let silent = || Link::connect(bridge.proxy.address("front")).unwrap();
    let _silent: Vec<_> = (0..6).map(|_| silent()).collect();
    bridge.expect_service();
}

#[test]
fn established_connections_do_not_count_as_handshakes() {
    let ringway = ringway!().workers(1).runtime("max_handshakes = 1");
    let bridge = Bridge::start(ringway, (Leg::Tls13, Leg::Tls13), "");
    let _held: Vec<_> = (0..6).map(|_| bridge.pair()).collect();
    bridge.expect_service();
}

#[test]
fn running_out_of_file_descriptors_costs_neither_the_process_nor_its_cpu() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().workers(1).open_files(128);
    let mut proxy = ringway.start(&front_to_back("", "", echo.address()));
    let idle = proxy.open_files();
    // More than two files each can be had for: the rest waits in the kernel's queue or is let go.
    let clients: Vec<_> = (0..150)
        .filter_map(|_| Link::connect(proxy.address("front")).ok())
        .collect();
    proxy.wait_stderr(&["cannot accept"]);

    let before = proxy.cpu_time();
    pause(Duration::from_secs(1));
    let spent = proxy.cpu_time().saturating_sub(before);
    assert!(
        spent < Duration::from_millis(300),
        "out of files the proxy spins: {spent:?} CPU in a second"
    );
    let lines = proxy.stderr().lines().count();
    assert!(lines < 100, "{lines} lines on stderr: one is enough");
    proxy.expect_alive();

    drop(clients);
    let served = within(DEADLINE, || {
        let mut link = Link::connect(proxy.address("front")).ok()?;
        link.limit(Duration::from_millis(500)).ok()?;
        link.send(b"hello").ok()?;
        let mut buffer = [0; 5];
        (link.receive_some(&mut buffer).ok()? == 5).then_some(())
    });
    assert!(served.is_some(), "the proxy accepts again{}", proxy.story());
    proxy.wait_no_more_files(idle, 2 * 64);
}

/// Clients that say nothing take one file each and keep it: what they have taken is gone until
/// they leave.
#[test]
fn while_file_descriptors_are_out_one_line_says_so_and_connections_that_live_go_on() {
    let ringway = ringway!().workers(1).open_files(128);
    let keys = "client_hello_timeout = \"1m\"";
    let bridge = Bridge::start(ringway, (Leg::Tls13, Leg::Plain), keys);
    let (mut client, mut server) = bridge.pair();
    let silent: Vec<_> = (0..150)
        .map(|_| Link::connect(bridge.proxy.address("front")).unwrap())
        .collect();
    bridge.proxy.wait_stderr(&["cannot accept"]);

    let start = Instant::now();
    let mut exchanges = 0;
    // Several times the tenth of a second after which the proxy tries again.
    while start.elapsed() < Duration::from_millis(700) {
        client.send(b"still there?").unwrap();
        assert_eq!(server.receive(12), b"still there?");
        server.send(b"yes").unwrap();
        assert_eq!(client.receive(3), b"yes");
        exchanges += 1;
    }
    assert!(
        exchanges > 3,
        "{exchanges} exchanges in {:?}",
        start.elapsed()
    );
    let line = bridge.proxy.stderr_line("cannot accept");
    for words in [
        "ERROR",
        "listener=\"front\"",
        "LimitNOFILE=",
        "max_connections",
    ] {
        assert!(line.contains(words), "no {words:?} in: {line}");
    }
    assert!(bridge.proxy.stderr_lines("accepting again").is_empty());

    drop(silent);
    bridge.expect_service();
    let _ = bridge.proxy.stderr_line("accepting again");
    let _ = bridge.proxy.stderr_line("cannot accept");
    client.send(b"and on").unwrap();
    assert_eq!(server.receive(6), b"and on");
}

/// Twice 1,000 connections, two sockets that listen twice each, 512 pipe ends for each of two
/// workers, and 64.
const FILES_FOR_1000: u64 = 2 * 1000 + 2 * 2 + 2 * 512 + 64;

#[test]
fn the_limit_of_open_files_is_raised_to_what_the_configuration_needs() {
    let echo = Peer::plain().echo();
    let toml = front_to_back("max_connections = 1000", "", echo.address());
    let hard = FILES_FOR_1000 + 500;
    let limit = |soft| OpenFilesLimit { soft, hard };
    let proxy = ringway!().open_files_limit(limit(256)).start(&toml);
    assert_eq!(proxy.open_files_limit(), limit(FILES_FOR_1000));
    let line = proxy.stderr_line("open files");
    let words = format!("INFO open files: {FILES_FOR_1000} allowed, {FILES_FOR_1000} needed");
    assert!(line.ends_with(&words), "{line}");

    let proxy = ringway!().open_files_limit(limit(hard - 1)).start(&toml);
    assert_eq!(proxy.open_files_limit(), limit(hard - 1), "never lowered");
}

#[test]
fn a_lower_limit_of_open_files_than_configured_is_a_warning_at_the_start() {
    let echo = Peer::plain().echo();
    let toml = front_to_back("max_connections = 1000", "", echo.address());
    let (soft, hard) = (256, FILES_FOR_1000 - 1);
    let limit = OpenFilesLimit { soft, hard };
    let proxy = ringway!().open_files_limit(limit).start(&toml);
    assert_eq!(proxy.open_files_limit().soft, hard, "as far as it goes");
    let line = proxy.stderr_line("open files");
    let numbers = format!("{hard} open files allowed, the configured limits need {FILES_FOR_1000}");
    for words in ["WARN", &numbers, "LimitNOFILE=", "lower max_connections"] {
        assert!(line.contains(words), "no {words:?} in: {line}");
    }
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
}

#[test]
fn many_clients_in_the_handshake_leave_nothing_behind() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let proxy = ringway!().start(&front_to_back("", &house.terminate(), echo.address()));
    let config = ClientTls::trusting(&house.ca).config();
    let (_, hello) = hello_of(&config, "localhost");
    let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    link.ping(b"hello");
    let before = proxy.open_files();
    for _ in 0..200 {
        let half = Link::connect(proxy.address("front")).unwrap();
        half.send_raw(&hello).unwrap();
        half.reset();
    }
    proxy.wait_no_more_files(before, 2 * 2 * 64);
    link.ping(b"still here");
}
