//! Connections on which nothing happens: what they cost.
//!
//! `RINGWAY_TEST_IDLE` sets how many (2,000); 8,000 need a limit of 20,000 open files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::sys::raise_open_files;
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::wait::pause;
use ringway_support::{House, Link, Peer, ringway, until};

/// The most memory of the process that one idle terminated connection may cost.
const MEMORY_EACH_MAX: u64 = 10 * 1024;

/// So many connections before the measurement fill pools and caches.
const WARM_UP: usize = 50;

fn count() -> usize {
    std::env::var("RINGWAY_TEST_IDLE").map_or(2000, |text| text.parse().expect("a number"))
}

fn open(address: &Address, tls: &ClientTls, connections: usize) -> Vec<Link> {
    let config = tls.config();
    let open = |_| {
        let mut link = Link::connect_tls(address, &config, "localhost").unwrap();
        // A byte, so that the relay has run and given back what it borrowed.
        link.send(b"x").unwrap();
        link
    };
    (0..connections).map(open).collect()
}

#[test]
fn idle_terminated_connections_cost_little_memory_and_no_cpu() {
    let files = raise_open_files();
    let idle = count();
    assert!(
        (2 * (idle + WARM_UP) + 200) as u64 <= files,
        "RINGWAY_TEST_IDLE={idle} needs more than the {files} files this process may open"
    );
    let house = House::new();
    let keeper = Peer::plain().keep();
    let keys = "idle_timeout = \"10m\"\nmax_connections = 20000";
    let mut proxy = ringway!().with_exact_memory().start(&front_to_back(
        keys,
        &house.terminate(),
        keeper.address(),
    ));
    let tls = ClientTls::trusting(&house.ca);
    let settled = |connections: usize| {
        until("all connections reach the server", || {
            (keeper.counts().accepted() >= connections as u64).then_some(())
        });
        // What a connection does when it is a second old, it does once.
        pause(Duration::from_millis(1500));
    };

    let warm = open(proxy.address("front"), &tls, WARM_UP);
    settled(WARM_UP);
    let memory_before = proxy.memory_bytes();
    let mut links = open(proxy.address("front"), &tls, idle);
    settled(WARM_UP + idle);
    let memory = proxy.memory_bytes().saturating_sub(memory_before);
    let each = memory / idle as u64;
    println!("{idle} idle terminated connections: {each} bytes of memory each");

    let cpu_before = proxy.cpu_time();
    pause(Duration::from_secs(1));
    let cpu = proxy.cpu_time().saturating_sub(cpu_before);
    println!("{idle} idle terminated connections: {cpu:?} CPU in a second");

    assert!(
        each <= MEMORY_EACH_MAX,
        "{each} bytes of memory for each of {idle} idle connections, {MEMORY_EACH_MAX} allowed"
    );
    // The clock of schedstat ticks in nanoseconds: a timer a worker would show here.
    assert!(
        cpu < Duration::from_millis(15),
        "{idle} idle connections took {cpu:?} CPU in a second"
    );
    links.last_mut().unwrap().send(b"awake").unwrap();
    drop((warm, links));
    proxy.expect_alive();
}

#[test]
fn memory_of_idle_connections_comes_back() {
    let house = House::new();
    let keeper = Peer::plain().echo();
    let proxy = ringway!().with_exact_memory().start(&front_to_back(
        "",
        &house.terminate(),
        keeper.address(),
    ));
    let tls = ClientTls::trusting(&house.ca);
    let round = || {
        let mut links = open(proxy.address("front"), &tls, 100);
        for link in &mut links {
            assert_eq!(link.receive(1), b"x");
            link.finish().unwrap();
            let _ = link.receive_to_end();
        }
        proxy.memory_bytes()
    };
    // Pools, caches and the allocator's own are full after some rounds.
    for _ in 0..4 {
        (round)();
    }
    let before = (round)();
    let mut after = before;
    for _ in 0..8 {
        after = (round)();
    }
    // The allocator takes another 2 MiB now and then; a leak of 6 KiB each would show.
    assert!(
        after <= before + 4 * 1024 * 1024,
        "memory after 500 connections {before}, after 1,300 {after} bytes"
    );
}
