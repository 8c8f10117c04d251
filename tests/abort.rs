//! Ends that are no clean ends: resets, truncation, garbage. What one side suffers, the other
//! must be told, and never as a clean end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::io::Read as _;
use std::time::Duration;

use ringway_support::bridge::{LEGS, Legs};
use ringway_support::hello::hello_of;
use ringway_support::openssl::{Dialogue, SClient};
use ringway_support::peer::Blackhole;
use ringway_support::tls::{ClientTls, TLS12};
use ringway_support::toml::{listener, upstream};
use ringway_support::{
    Bridge, Bystander, DEADLINE, Ending, House, Leg, Link, Peer, Proxy, Record, ringway,
};

/// 17 bytes that claim to be an encrypted record of application data, and decrypt to nothing.
const GARBAGE_RECORD: [u8; 22] = [
    23, 3, 3, 0, 17, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9,
];

/// A reset must arrive as an abort: on plain TCP that is RST, on TLS a missing close_notify too.
fn expect_abort(legs: Legs, leg: Leg, ending: &Ending) {
    let aborted = match ending {
        Ending::Reset => true,
        Ending::Cut | Ending::Broken(_) => leg.is_tls(),
        Ending::Clean | Ending::Silence => false,
    };
    assert!(
        aborted,
        "{legs:?}: expected an abort on the {leg:?} leg, got {ending:?}"
    );
}

/// Some bytes each way, so that both relay directions run.
fn warm_up(client: &mut Link, server: &mut Link) {
    client.send(b"up").unwrap();
    assert_eq!(server.receive(2), b"up");
    server.send(b"down").unwrap();
    assert_eq!(client.receive(4), b"down");
}

/// A send that meets a reset takes the error off the socket, and the next receive there reads an
/// end of stream that the server never sent.
#[test]
fn a_servers_reset_amid_an_upload_is_no_clean_end_for_the_client() {
    for legs in [
        (Leg::Tls13, Leg::Plain),
        (Leg::Plain, Leg::Plain),
        (Leg::Tls12, Leg::Plain),
    ] {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        for _ in 0..20 {
            let (mut client, mut server) = bridge.pair();
            warm_up(&mut client, &mut server);
            server.send(b"half an answer").unwrap();
            server.reset();
            let refused = (0..50).find_map(|_| client.send(&[7; 4096]).err());
            let address = client.local();
            let (_, ending) = client.receive_to_end();
            // Our own send may have met the proxy's reset, and then it took the error with it.
            let was_reset = |error: std::io::Error| error.raw_os_error() == Some(libc::ECONNRESET);
            if !refused.is_some_and(was_reset) {
                expect_abort(legs, legs.0, &ending);
            }
            // Else the proxy waits for the client to read its last words.
            drop(client);
            let record = bridge.proxy.record_of(address);
            record.expect(&[("end", "reset"), ("ended_by", "upstream")]);
        }
        bridge.settled(&mut witness);
    }
}

/// What came before the fault still arrives on a TLS leg, and is not called complete.
#[test]
fn a_server_that_answers_and_closes_amid_an_upload_is_heard() {
    let legs = (Leg::Tls13, Leg::Plain);
    let bridge = Bridge::start(ringway!(), legs, "");
    let mut witness = bridge.witness();
    for _ in 0..10 {
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        let answer = [5; 60_000];
        server.send(&answer).unwrap();
        server.finish().unwrap();
        assert_eq!(client.receive(answer.len()), answer);
        drop(server);
        for _ in 0..20 {
            if client.send(&[7; 4096]).is_err() {
                break;
            }
        }
        let (rest, ending) = client.receive_to_end();
        assert!(rest.is_empty() && ending != Ending::Silence, "{ending:?}");
    }
    bridge.settled(&mut witness);
}

#[test]
fn a_clients_reset_reaches_the_server_as_an_abort() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        let address = client.local();
        client.reset();
        expect_abort(legs, legs.1, &server.expect_end());
        let record = bridge.proxy.record_of(address);
        record.expect(&[
            ("end", "reset"),
            ("phase", "relay"),
            ("ended_by", "downstream"),
        ]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_servers_reset_reaches_the_client_as_an_abort() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        server.reset();
        expect_abort(legs, legs.0, &client.expect_end());
        let record = bridge.record(&client);
        record.expect(&[
            ("end", "reset"),
            ("phase", "relay"),
            ("ended_by", "upstream"),
        ]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_client_cut_off_without_close_notify_is_no_clean_end_for_the_server() {
    for legs in [
        (Leg::Tls13, Leg::Plain),
        (Leg::Tls13, Leg::Tls13),
        (Leg::Tls12, Leg::Plain),
    ] {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        client.cut().unwrap();
        expect_abort(legs, legs.1, &server.expect_end());
        let record = bridge.record(&client);
        record.expect(&[
            ("end", "truncated"),
            ("phase", "relay"),
            ("ended_by", "downstream"),
        ]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_server_cut_off_without_close_notify_is_no_clean_end_for_the_client() {
    for legs in [
        (Leg::Plain, Leg::Tls13),
        (Leg::Tls13, Leg::Tls13),
        (Leg::Plain, Leg::Tls12),
    ] {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        server.cut().unwrap();
        expect_abort(legs, legs.0, &client.expect_end());
        let record = bridge.record(&client);
        record.expect(&[
            ("end", "truncated"),
            ("phase", "relay"),
            ("ended_by", "upstream"),
        ]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_half_closed_connection_whose_other_half_is_cut_off_is_aborted() {
    let legs = (Leg::Tls13, Leg::Tls13);
    let bridge = Bridge::start(ringway!(), legs, "");
    let mut witness = bridge.witness();
    let (mut client, mut server) = bridge.pair();
    warm_up(&mut client, &mut server);
    client.finish().unwrap();
    assert_eq!(server.expect_end(), Ending::Clean);
    server.send(b"half an ans").unwrap();
    server.cut().unwrap();
    let (_, ending) = client.receive_to_end();
    expect_abort(legs, legs.0, &ending);
    let record = bridge.record(&client);
    record.expect(&[("end", "truncated"), ("ended_by", "upstream")]);
    bridge.settled(&mut witness);
}

#[test]
fn a_garbage_record_ends_the_connection_and_tells_both_sides() {
    for version in [Leg::Tls13, Leg::Tls12] {
        let legs = (version, Leg::Plain);
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        client.send_raw(&GARBAGE_RECORD).unwrap();
        expect_abort(legs, legs.1, &server.expect_end());
        let told = client.expect_end();
        assert!(
            matches!(&told, Ending::Broken(words) if words.contains("BadRecordMac")),
            "{legs:?}: expected the alert bad_record_mac, got {told:?}"
        );
        let record = bridge.record(&client);
        record.expect(&[
            ("end", "protocol_error"),
            ("phase", "relay"),
            ("ended_by", "downstream"),
        ]);
        bridge.settled(&mut witness);
    }
}

/// Read as a record's header it would announce 8 KiB, and those would never come.
#[test]
fn plain_text_amid_a_tls_stream_is_refused_at_once() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let mut witness = bridge.witness();
    let (mut client, mut server) = bridge.pair();
    warm_up(&mut client, &mut server);
    client.send_raw(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    expect_abort((Leg::Tls13, Leg::Plain), Leg::Plain, &server.expect_end());
    let record = bridge.record(&client);
    record.expect(&[
        ("end", "protocol_error"),
        ("phase", "relay"),
        ("ended_by", "downstream"),
        ("alert", "unexpected_message"),
    ]);
    drop((client, server));
    bridge.settled(&mut witness);
}

#[test]
fn a_garbage_record_of_a_client_that_does_not_read_ends_the_connection() {
    for upstream in [Leg::Plain, Leg::Tls13] {
        let legs = (Leg::Tls13, upstream);
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        // The proxy's alert meets a full buffer.
        server.send_until_full().unwrap();
        client.send_raw(&GARBAGE_RECORD).unwrap();
        expect_abort(legs, legs.1, &server.expect_end());
        let record = bridge.record(&client);
        record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_garbage_record_of_a_server_that_does_not_read_ends_the_connection() {
    for downstream in [Leg::Plain, Leg::Tls13] {
        let legs = (downstream, Leg::Tls13);
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        warm_up(&mut client, &mut server);
        client.send_until_full().unwrap();
        server.send_raw(&GARBAGE_RECORD).unwrap();
        expect_abort(legs, legs.0, &client.expect_end());
        let record = bridge.record(&client);
        record.expect(&[("end", "protocol_error"), ("ended_by", "upstream")]);
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_reset_while_the_other_side_does_not_read_ends_the_connection() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, server) = bridge.pair();
        client.send_until_full().unwrap();
        let address = client.local();
        client.reset();
        let record = bridge.proxy.record_of(address);
        record.expect(&[("end", "reset"), ("ended_by", "downstream")]);
        drop(server);
        bridge.settled(&mut witness);
    }
}

/// What a peer may do to end a phase before its time.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Fin,
    Reset,
}

const FAULTS: [Fault; 2] = [Fault::Fin, Fault::Reset];

impl Fault {
    fn happen(self, link: Link) {
        match self {
            Self::Fin => drop(link),
            Self::Reset => link.reset(),
        }
    }
}

/// What a fault of the client in a phase before the relay must leave in the log.
fn expect_client_fault(record: &Record, phase: &str) {
    record.expect_end(&["closed", "reset"], &[phase]);
    record.expect(&[("ended_by", "downstream")]);
}

#[test]
fn a_fault_of_the_client_before_and_within_its_hello_is_logged_in_that_phase() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let mut witness = bridge.witness();
    let config = ClientTls::trusting(&bridge.house.ca).config();
    let (_, hello) = hello_of(&config, "localhost");
    for fault in FAULTS {
        for part in [0, 3, hello.len() / 2] {
            let link = Link::connect(bridge.proxy.address("front")).unwrap();
            link.send_raw(&hello[..part]).unwrap();
            let address = link.local();
            fault.happen(link);
            expect_client_fault(&bridge.proxy.record_of(address), "client_hello");
        }
    }
    bridge.settled(&mut witness);
}

#[test]
fn a_fault_of_the_client_within_the_handshake_is_logged_in_that_phase() {
    for leg in [Leg::Tls13, Leg::Tls12] {
        let bridge = Bridge::start(ringway!(), (leg, Leg::Plain), "");
        let mut witness = bridge.witness();
        let config = ClientTls::trusting(&bridge.house.ca).config();
        let (_, hello) = hello_of(&config, "localhost");
        for fault in FAULTS {
            let link = Link::connect(bridge.proxy.address("front")).unwrap();
            link.send_raw(&hello).unwrap();
            let answered = link.socket().read(&mut [0; 1024]).unwrap();
            assert!(answered > 0, "the proxy answers the hello");
            let address = link.local();
            // A close with unread bytes is a reset; so read before the FIN.
            fault.happen(link);
            expect_client_fault(&bridge.proxy.record_of(address), "downstream_handshake");
        }
        let counted = bridge.peer.accept_within(std::time::Duration::ZERO);
        assert!(counted.is_none(), "no server is asked before the handshake");
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_fault_of_the_server_within_its_handshake_is_logged_in_that_phase() {
    for downstream in [Leg::Plain, Leg::Tls13] {
        let legs = (downstream, Leg::Tls13);
        let bridge = Bridge::start(ringway!(), legs, "next_upstream_tries = 1");
        let mut witness = bridge.witness();
        for (fault, reads_hello) in [
            (Fault::Fin, false),
            (Fault::Fin, true),
            (Fault::Reset, false),
            (Fault::Reset, true),
        ] {
            let mut client = bridge.client();
            let server = bridge.peer.accept_raw();
            if reads_hello {
                let read = server.socket().read(&mut [0; 16_384]).unwrap();
                assert!(read > 0, "the proxy sends its hello");
            }
            fault.happen(server);
            let (bytes, ending) = client.receive_to_end();
            assert!(
                bytes.is_empty() && ending != Ending::Silence,
                "{legs:?} {fault:?}: expected an end without bytes, got {ending:?}"
            );
            let record = bridge.record(&client);
            // A reset may overtake the connect's own completion.
            let phases: &[&str] = match (fault, reads_hello) {
                (Fault::Reset, false) => &["upstream_handshake", "connect"],
                _ => &["upstream_handshake"],
            };
            record.expect_end(&["closed", "reset", "no_server", "unreachable"], phases);
            assert!(
                record.reasons().trim().len() > "null".len(),
                "no reason in {record}"
            );
        }
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_server_that_accepts_and_resets_at_once_never_looks_like_a_clean_end() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let mut witness = bridge.witness();
    let mut client = bridge.client();
    bridge.peer.accept_raw().reset();
    let (bytes, ending) = client.receive_to_end();
    assert!(bytes.is_empty(), "no byte was sent");
    expect_abort(bridge.legs, Leg::Tls13, &ending);
    let record = bridge.record(&client);
    // A reset may overtake the connect's own completion.
    record.expect_end(&["reset", "unreachable"], &["relay", "connect"]);
    bridge.settled(&mut witness);
}

/// Nobody reads the client's socket meanwhile, and the server's part has most of a minute left.
#[test]
fn a_clients_reset_while_the_server_shakes_hands_ends_the_connection() {
    for leg in [Leg::Plain, Leg::Tls12, Leg::Tls13] {
        let limits = "upstream_handshake_timeout = \"50s\"\nnext_upstream_timeout = \"50s\"";
        let bridge = Bridge::start(ringway!(), (leg, Leg::Tls13), limits);
        let mut witness = bridge.witness();
        let mut client = bridge.client();
        client.send(b"too early to be read").unwrap();
        let address = client.local();
        let mut server = bridge.peer.accept_raw();
        client.reset();
        let record = bridge.proxy.record_of(address);
        record.expect(&[
            ("end", "reset"),
            ("phase", "upstream_handshake"),
            ("ended_by", "downstream"),
        ]);
        let (_, ending) = server.receive_to_end();
        assert!(
            ending != Ending::Silence,
            "the server is let go, got {ending:?}"
        );
        bridge.settled(&mut witness);
        expect_no_blame(&bridge.proxy, &record);
    }
}

/// That one fault of a server would have taken it out (`max_fails`, 1), and none did.
fn expect_no_blame(proxy: &Proxy, record: &Record) {
    assert_eq!(record.count("tries"), 1, "{record}");
    assert_eq!(proxy.stderr_lines("server down"), [""; 0]);
}

const LONG_CONNECT: &str = "connect_timeout = \"50s\"\nnext_upstream_timeout = \"50s\"";

#[test]
fn a_clients_reset_while_the_server_is_connected_ends_the_connection() {
    let house = House::new();
    for terminate in [String::new(), house.terminate()] {
        let nowhere = Blackhole::new();
        let toml = listener("front", "back", LONG_CONNECT, &terminate)
            + &upstream("back", &[nowhere.address()], "");
        let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
        let mut client = Link::connect(proxy.address("front")).unwrap();
        if !terminate.is_empty() {
            // Whose handshake ends with the proxy's word, so that the next phase has begun.
            let config = ClientTls::trusting(&house.ca).version(TLS12).config();
            client = client.start_tls(&config, "localhost").unwrap();
        }
        let address = client.local();
        client.reset();
        let record = proxy.record_of(address);
        record.expect(&[
            ("end", "reset"),
            ("phase", "connect"),
            ("ended_by", "downstream"),
        ]);
        bystander.settled(&proxy);
        expect_no_blame(&proxy, &record);
    }
}

/// Half an end is no end: the client may well wait for an answer.
#[test]
fn a_client_that_ends_its_stream_while_the_server_is_reached_is_served() {
    let bridge = Bridge::start(ringway!(), (Leg::Plain, Leg::Tls13), "");
    let mut witness = bridge.witness();
    let mut client = bridge.client();
    let raw = bridge.peer.accept_raw();
    client.send(b"question").unwrap();
    client.finish().unwrap();
    // Longer than the client goes unlooked at.
    client.limit(Duration::from_millis(1500)).unwrap();
    let early = client.receive_some(&mut [0; 1]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    client.limit(DEADLINE).unwrap();
    let mut server = bridge.peer.secure(raw).unwrap();
    assert_eq!(
        server.receive_to_end(),
        (b"question".to_vec(), Ending::Clean)
    );
    server.send(b"answer").unwrap();
    server.finish().unwrap();
    assert_eq!(client.receive_to_end(), (b"answer".to_vec(), Ending::Clean));
    let record = bridge.record(&client);
    record.expect(&[("end", "finished")]);
    bridge.settled(&mut witness);
}

#[test]
fn a_server_that_is_gone_is_a_refusal_in_the_connect_phase() {
    let bridge = Bridge::start(ringway!(), (Leg::Plain, Leg::Plain), "");
    let mut witness = bridge.witness();
    let Bridge { proxy, peer, .. } = bridge;
    let address = peer.address().clone();
    drop(peer);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    let (bytes, ending) = client.receive_to_end();
    assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
    let record = proxy.record_of(client.local());
    record.expect_end(&["unreachable", "no_server"], &["connect"]);
    record.expect_reason(&["refused"]);
    witness.is_alone(&proxy);

    let again = Peer::listen(&address, 16);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    let mut server = again.accept();
    warm_up(&mut client, &mut server);
    drop((client, server));
    witness.is_alone(&proxy);
}

/// Ends the proxy's socket towards `peer` as an administrator does, with `ss --kill`: the kernel
/// resets the connection and aborts the socket (ECONNABORTED). False: this kernel cannot.
fn kill_socket(peer: &Link) -> bool {
    let own = peer.socket().peer_addr().expect("a connection").as_socket();
    let sport = own.expect("an IP address").port().to_string();
    let dport = peer.local().port().to_string();
    let ss = |more: &[&str]| {
        let output = std::process::Command::new("ss")
            .args(["--tcp", "--numeric", "--no-header"])
            .args(more)
            .args(["sport", "=", &sport, "and", "dport", "=", &dport])
            .output()
            .expect("ss (Debian package iproute2)");
        String::from_utf8_lossy(&output.stdout).contains(&dport)
    };
    // Where the kernel has not got what ss asks, it looks into /proc, and kills nothing.
    ss(&["--kill"]) && !ss(&["state", "established"])
}

#[test]
fn a_socket_that_an_administrator_kills_ends_its_connection_alone_and_as_an_abort() {
    for legs in LEGS {
        for downstream in [true, false] {
            let bridge = Bridge::start(ringway!(), legs, "");
            let mut witness = bridge.witness();
            let (mut client, mut server) = bridge.pair();
            warm_up(&mut client, &mut server);
            let peer = if downstream { &client } else { &server };
            if !kill_socket(peer) {
                println!("SKIPPED: no CAP_NET_ADMIN, or a kernel without INET_DIAG_DESTROY");
                return;
            }
            expect_abort(legs, legs.0, &client.expect_end());
            expect_abort(legs, legs.1, &server.expect_end());
            let record = bridge.record(&client);
            let side = if downstream { "downstream" } else { "upstream" };
            record.expect(&[("end", "reset"), ("phase", "relay"), ("ended_by", side)]);
            record.expect_reason(&["connection abort"]);
            bridge.settled(&mut witness);
        }
    }
}

#[test]
fn a_client_that_is_killed_amid_its_connection_is_an_abort_for_the_server() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let mut witness = bridge.witness();
    let front = bridge.proxy.address("front");
    let mut client =
        Dialogue::client(&SClient::to(front).verify(&bridge.house.ca.file(), "localhost"));
    let mut server = bridge.peer.accept();
    client.type_line("hello");
    assert_eq!(server.receive(6), b"hello\n");
    // SIGKILL: the kernel closes its socket, and nobody says close_notify.
    drop(client);
    expect_abort(bridge.legs, Leg::Plain, &server.expect_end());
    let record = bridge.proxy.wait_record("the killed client", |record| {
        record.text("listener") == "front"
    });
    record.expect(&[("phase", "relay"), ("ended_by", "downstream")]);
    record.expect_end(&["truncated", "reset"], &["relay"]);
    bridge.settled(&mut witness);
}
