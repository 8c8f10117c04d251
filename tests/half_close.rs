//! End of stream: one direction ends and the other goes on, on every pair of legs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use ringway_support::bridge::Legs;
use ringway_support::pattern::Pattern;
use ringway_support::{Bridge, Ending, Leg, Link, ringway};

/// More than one TLS record and one relay buffer, less than the kernel's socket buffers.
const LATE_BYTES: usize = 100_000;

/// `first` ends its direction, then `second` still sends, and ends its own.
fn close_in_order(legs: Legs, first: &mut Link, second: &mut Link) {
    first.send(b"first words").unwrap();
    first.finish().unwrap();
    assert_eq!(
        second.receive_to_end(),
        (b"first words".to_vec(), Ending::Clean),
        "{legs:?}: what the first to close sent, and its clean end"
    );

    let late = Pattern::new(3).take(LATE_BYTES);
    second.send(&late).unwrap();
    second.finish().unwrap();
    let (bytes, ending) = first.receive_to_end();
    assert!(
        bytes == late && ending == Ending::Clean,
        "{legs:?}: after the first close {} of {LATE_BYTES} late bytes came, then {ending:?}",
        bytes.len()
    );
}

fn expect_finished(bridge: &Bridge, client: &Link, up: usize, down: usize) {
    let record = bridge.record(client);
    record.expect(&[("end", "finished"), ("phase", "relay")]);
    assert_eq!(record.count("bytes_up"), up as u64, "bytes_up of {record}");
    assert_eq!(
        record.count("bytes_down"),
        down as u64,
        "bytes_down of {record}"
    );
}

fn each_side_first(legs: Legs) {
    let bridge = Bridge::start(ringway!(), legs, "");
    let mut witness = bridge.witness();
    let (mut client, mut server) = bridge.pair();
    close_in_order(legs, &mut client, &mut server);
    expect_finished(&bridge, &client, 11, LATE_BYTES);
    bridge.settled(&mut witness);

    let (mut client, mut server) = bridge.pair();
    close_in_order(legs, &mut server, &mut client);
    expect_finished(&bridge, &client, LATE_BYTES, 11);
    bridge.settled(&mut witness);
}

#[test]
fn plain_to_plain_either_side_closes_first_and_the_other_goes_on() {
    each_side_first((Leg::Plain, Leg::Plain));
}

#[test]
fn tls_to_plain_either_side_closes_first_and_the_other_goes_on() {
    each_side_first((Leg::Tls13, Leg::Plain));
    each_side_first((Leg::Tls12, Leg::Plain));
}

#[test]
fn plain_to_tls_either_side_closes_first_and_the_other_goes_on() {
    each_side_first((Leg::Plain, Leg::Tls13));
    each_side_first((Leg::Plain, Leg::Tls12));
}

#[test]
fn tls_to_tls_either_side_closes_first_and_the_other_goes_on() {
    each_side_first((Leg::Tls13, Leg::Tls13));
    each_side_first((Leg::Tls12, Leg::Tls13));
    each_side_first((Leg::Tls13, Leg::Tls12));
}

#[test]
fn a_connection_without_a_byte_ends_cleanly_on_every_pair_of_legs() {
    for legs in ringway_support::bridge::LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        let (mut client, mut server) = bridge.pair();
        client.finish().unwrap();
        assert_eq!(server.expect_end(), Ending::Clean, "{legs:?}");
        server.finish().unwrap();
        assert_eq!(client.expect_end(), Ending::Clean, "{legs:?}");
        expect_finished(&bridge, &client, 0, 0);
        bridge.settled(&mut witness);
    }
}

#[test]
fn both_sides_closing_at_once_lose_nothing() {
    for legs in ringway_support::bridge::LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        let mut witness = bridge.witness();
        for _ in 0..10 {
            let (mut client, mut server) = bridge.pair();
            client.send(b"up").unwrap();
            server.send(b"down").unwrap();
            client.finish().unwrap();
            server.finish().unwrap();
            let (up, down) = (server.receive_to_end(), client.receive_to_end());
            assert_eq!(up, (b"up".to_vec(), Ending::Clean), "{legs:?}");
            assert_eq!(down, (b"down".to_vec(), Ending::Clean), "{legs:?}");
            expect_finished(&bridge, &client, 2, 4);
        }
        bridge.settled(&mut witness);
    }
}

#[test]
fn a_client_that_sends_and_closes_before_the_server_is_connected_is_served() {
    for upstream in [Leg::Plain, Leg::Tls13] {
        let bridge = Bridge::start(ringway!(), (Leg::Plain, upstream), "");
        let mut witness = bridge.witness();
        let mut client = bridge.client();
        client.send(b"question").unwrap();
        client.finish().unwrap();
        let mut server = bridge.peer.accept();
        let question = server.receive_to_end();
        assert_eq!(question, (b"question".to_vec(), Ending::Clean));
        server.send(b"answer").unwrap();
        server.finish().unwrap();
        let answer = client.receive_to_end();
        assert_eq!(answer, (b"answer".to_vec(), Ending::Clean));
        bridge.settled(&mut witness);
    }
}
