//! `relay_path` where the kernel need not have TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::thread;

use ringway::sys::probe_ktls;
use ringway_support::bridge::Legs;
use ringway_support::exchange::{Exchange, Finish};
use ringway_support::{Bridge, Leg, Record, ringway};

/// Bytes up that are many receives, and bytes down that are one.
const BULKY: Exchange = Exchange {
    send: 6_000_001,
    send_seed: 1,
    receive: 100,
    receive_seed: 2,
    finish: Finish::First,
};

const TINY: Exchange = Exchange { send: 100, ..BULKY };

fn carry(legs: Legs, relay_path: &str, plan: Exchange) -> Record {
    let listener_keys = format!("relay_path = \"{relay_path}\"");
    let bridge = Bridge::start(ringway!(), legs, &listener_keys);
    let (mut client, mut server) = bridge.pair();
    let server_end = thread::spawn(move || server.exchange(&plan.mirrored()));
    let ends = (client.exchange(&plan), server_end.join().unwrap());
    assert_eq!(ends, (Ok(()), Ok(())));
    bridge.record(&client)
}

fn expect(record: &Record, up: &str, down: &str, fallback: Option<&str>) {
    record.expect(&[("end", "finished"), ("path_up", up), ("path_down", down)]);
    for field in ["fallback_up", "fallback_down"] {
        assert_eq!(record.find(field), fallback, "{record}");
    }
}

#[test]
fn user_keeps_plain_bulk_off_the_pipe() {
    let record = carry((Leg::Plain, Leg::Plain), "user", BULKY);
    expect(&record, "copy", "copy", None);
}

#[test]
fn splice_takes_plain_bytes_through_a_pipe_from_the_first_on() {
    let record = carry((Leg::Plain, Leg::Plain), "splice", TINY);
    expect(&record, "splice", "splice", None);
}

#[test]
fn auto_takes_plain_bytes_through_a_pipe_while_they_are_bulky() {
    let record = carry((Leg::Plain, Leg::Plain), "auto", BULKY);
    expect(&record, "splice", "copy", None);
}

#[test]
fn splice_with_tls_is_the_kernels_work_or_says_that_this_kernel_cannot() {
    for legs in [(Leg::Tls13, Leg::Plain), (Leg::Tls12, Leg::Plain)] {
        let record = carry(legs, "splice", BULKY);
        match probe_ktls() {
            Ok(_) => expect(&record, "kernel", "kernel", None),
            Err(_) => expect(&record, "user", "user", Some("no_kernel_tls")),
        }
    }
}

#[test]
fn user_with_tls_asks_nothing_of_the_kernel() {
    let record = carry((Leg::Tls13, Leg::Tls12), "user", BULKY);
    expect(&record, "user", "user", None);
}
