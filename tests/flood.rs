//! Thousands of garbage connections a second, and what those who were there before notice.
//!
//! `RINGWAY_TEST_FLOOD` sets how many a second (1,000), `RINGWAY_TEST_FLOOD_SECONDS` for how long
//! (2). docs/benchmarks.md has what 20,000 did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway_support::link::Address;
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::wait::pause;
use ringway_support::{House, Link, Peer, Proxy, ringway};

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Threads that make the flood: a core can open some ten thousand connections a second.
const THREADS: u64 = 2;

/// A record of 32 KiB that never comes, from one of 127.0.0.2 to 127.0.0.251.
fn garbage(to: &Address, n: u64) {
    let last = u8::try_from(2 + n % 250).unwrap();
    if let Ok(link) = Link::connect_from(IpAddr::from([127, 0, 0, last]), to) {
        let _ = link.send_raw(&[0x16, 3, 1, 0xFF, last, 0x5A, 0x5A, 0x5A]);
    }
}

/// Opens connections at their due times, as far as the machine can, until it is told to stop.
fn flood(to: &Address, thread: u64, per_second: u64, stop: &AtomicBool, opened: &AtomicU64) {
    let begun = Instant::now();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let due = Duration::from_nanos(n * 1_000_000_000 / per_second.max(1));
        pause(due.saturating_sub(begun.elapsed()));
        garbage(to, n * THREADS + thread);
        opened.fetch_add(1, Ordering::Relaxed);
    }
}

/// What messages there and back took, a millisecond apart, in order of length.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn of(client: &mut Link, length: Duration) -> Self {
        let begun = Instant::now();
        let mut all = Vec::new();
        while begun.elapsed() < length {
            let sent = Instant::now();
            client.ping(b"sixteen bytes...");
            all.push(sent.elapsed());
            pause(Duration::from_millis(1));
        }
        all.sort_unstable();
        Self(all)
    }

    /// 1 to 1000.
    fn at(&self, per_mille: usize) -> Duration {
        let place = (self.0.len() * per_mille / 1000).min(self.0.len() - 1);
        self.0[place]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most, last] = [500, 990, 1000].map(|it| self.at(it));
        write!(
            f,
            "{half:?} half of them, {most:?} 99%, {last:?} the longest"
        )
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn start(keys: &str, house: &House, server: &Address) -> Proxy {
    let ringway = ringway!().with_exact_memory();
    ringway.start(&front_to_back(keys, &house.terminate(), server))
}

/// What was seen, in words.
fn established_clients_go_on(keys: &str) -> String {
    let per_second = from_environment("RINGWAY_TEST_FLOOD", 1000);
    let length = Duration::from_secs(from_environment("RINGWAY_TEST_FLOOD_SECONDS", 2));
    let house = House::new();
    let echo = Peer::plain().echo();
    let proxy = start(keys, &house, echo.address());
    let front = proxy.address("front");
    let tls = ClientTls::trusting(&house.ca).config();
    let connect = || Link::connect_tls(front, &tls, "localhost").unwrap();
    let mut others: Vec<_> = (0..50).map(|_| connect()).collect();
    let mut client = connect();
    // The machine's own share of what the client sees: the flood takes its cores, too.
    let mut direct = Link::connect(echo.address()).unwrap();
    // Pools, caches and the allocator's own are full after this.
    (0..2000).for_each(|n| garbage(front, n));
    let before = Latencies::of(&mut client, length);
    // A test's echo gives a silent client up after a while.
    others.iter_mut().for_each(|link| link.ping(b"there?"));
    let (memory, files) = (proxy.memory_bytes(), proxy.open_files());

    let (stop, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    let (during, beside, memory_during) = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (stop, opened) = (&stop, &opened);
            scope.spawn(move || flood(front, thread, per_second / THREADS, stop, opened));
        }
        let beside = scope.spawn(|| Latencies::of(&mut direct, length));
        let during = Latencies::of(&mut client, length);
        let memory = proxy.memory_bytes();
        stop.store(true, Ordering::Relaxed);
        (during, beside.join().unwrap(), memory)
    });
    let opened = opened.into_inner();
    proxy.wait_no_more_files(files, 2 * 2 * 64);
    let memory_after = proxy.memory_bytes();
    let seen = format!(
        "{keys:?}: {opened} garbage connections in {length:?}\n  before: {before}\n  during: {during}\n  \
         without the proxy: {beside}\n  \
         memory: {} before, {} during, {} after",
        mib(memory),
        mib(memory_during),
        mib(memory_after)
    );
    for link in &mut others {
        link.ping(b"still there?");
    }
    // Room for the queue of the access log, 8,192 records a core, which a flood may fill.
    let bound = memory + 32 * 1024 * 1024;
    assert!(
        memory_during.max(memory_after) <= bound,
        "memory grew by more than a flood's queues: {seen}"
    );
    seen
}

#[test]
fn under_a_flood_of_garbage_established_clients_go_on_and_memory_stays_bounded() {
    println!("{}", established_clients_go_on(""));
}

#[test]
fn a_flood_that_is_refused_by_rate_costs_established_clients_no_more() {
    let keys = "new_connections_per_source = { rate = 10, burst = 100 }";
    println!("{}", established_clients_go_on(keys));
}
