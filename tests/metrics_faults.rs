//! The metrics of what seldom happens: lines that are lost, fallbacks, want of files; and of each
//! phase and wait that a connection has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;

use ringway_support::link::Address;
use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Ending, House, Link, Peer, Proxy, Ringway, Scrape, ringway, until};
use tempfile::TempDir;

/// A proxy and its admin server.
struct Watched {
    proxy: Proxy,
    admin: Address,
    folder: TempDir,
}

impl Watched {
    fn start(ringway: Ringway, toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, ringway, toml)
    }

    fn start_in(folder: TempDir, ringway: Ringway, toml: &str) -> Self {
        let admin = Address::Unix(folder.path().join("admin.sock"));
        let toml = format!("{toml}[admin]\nlisten = [\"{admin}\"]\n");
        Self {
            proxy: ringway.workers(1).start(&toml),
            admin,
            folder,
        }
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        whole(Scrape::of(&self.admin).sum(name, labels))
    }

    fn link(&self) -> Link {
        Link::connect(self.proxy.address("front")).unwrap()
    }

    fn visit(&self) {
        finish(self.link());
    }
}

/// Of a counter that is far from 2^53.
fn whole(value: f64) -> u64 {
    format!("{value:.0}").parse().unwrap()
}

fn finish(mut link: Link) {
    link.ping(b"hello");
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

const WRITTEN: &str = "ringway_log_lines_written_total";
const DROPPED: &str = "ringway_log_lines_dropped_total";
const ENDED: &str = "ringway_connections_ended_total";

#[test]
fn every_line_of_a_log_that_nobody_reads_is_written_or_waits_or_is_counted_as_lost() {
    const QUEUE: u64 = 16;
    const LINE_BYTES: usize = 4_000;
    const VISITS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("log");
    ringway_support::sys::make_fifo(&fifo).unwrap();
    let mut nobody = OpenOptions::new();
    let nobody = nobody.read(true).custom_flags(libc::O_NONBLOCK);
    let _nobody = nobody.open(&fifo).unwrap();
    let echo = Peer::plain().echo();
    let ringway = ringway!().access(fifo.to_str().unwrap()).log(&format!(
        "queue = {QUEUE}\nformat = \"$id {}\"",
        "x".repeat(LINE_BYTES)
    ));
    let toml = front_to_back("", "", echo.address());
    let watched = Watched::start_in(folder, ringway, &toml);
    (0..VISITS).for_each(|_| watched.visit());
    until("all have ended", || {
        (watched.sum(ENDED, &[]) == VISITS).then_some(())
    });
    let (written, dropped) = (watched.sum(WRITTEN, &[]), watched.sum(DROPPED, &[]));
    assert!(dropped > 0, "{written} written");
    let waiting = VISITS - written - dropped;
    // Those in the queue, and the 256 KiB that the writer has in hand.
    assert!(waiting <= QUEUE + 100, "{written} written, {dropped} lost");
    drop(watched.folder);
}

#[test]
fn a_log_that_cannot_be_written_is_counted_as_often_as_it_fails() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().access("/dev/full").log("queue = 4");
    let watched = Watched::start(ringway, &front_to_back("", "", echo.address()));
    (0..40).for_each(|_| watched.visit());
    until("it fails, and lines are lost", || {
        let failures = watched.sum("ringway_log_write_failures_total", &[]);
        (failures > 0 && watched.sum(DROPPED, &[]) > 0).then_some(())
    });
    assert_eq!(watched.sum(WRITTEN, &[]), 0);
}

#[test]
fn what_did_not_come_to_kernel_tls_is_counted_by_direction_and_reason_as_in_the_access_log() {
    let (house, echo) = (House::new(), Peer::plain().echo());
    let keys = "relay_path = \"splice\"";
    let toml = format!(
        "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n{keys}\n{}{}",
        house.terminate(),
        upstream("back", &[echo.address()], "")
    );
    let watched = Watched::start(ringway!(), &toml);
    let config = ClientTls::trusting(&house.ca).config();
    for _ in 0..3 {
        finish(watched.link().start_tls(&config, "localhost").unwrap());
    }
    let mut logged: BTreeMap<(String, String), u64> = BTreeMap::new();
    for record in watched.proxy.wait_records(3) {
        for direction in ["up", "down"] {
            if let Some(reason) = record.0[format!("fallback_{direction}")].as_str() {
                let place = (direction.to_owned(), reason.to_owned());
                *logged.entry(place).or_default() += 1;
            }
        }
    }
    if !watched
        .proxy
        .stderr_lines("kernel TLS (kTLS): no")
        .is_empty()
    {
        let of = |direction: &str| (direction.to_owned(), "no_kernel_tls".to_owned());
        assert_eq!(logged, BTreeMap::from([(of("up"), 3), (of("down"), 3)]));
    }
    const NAME: &str = "ringway_fallbacks_total";
    let counted: u64 = logged.values().sum();
    assert_eq!(watched.sum(NAME, &[]), counted, "{logged:?}");
    for ((direction, reason), count) in &logged {
        let labels = [("direction", direction.as_str()), ("reason", reason)];
        assert_eq!(watched.sum(NAME, &labels), *count, "{logged:?}");
    }
}

#[test]
fn accepting_that_rests_for_want_of_files_is_counted() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().open_files(128);
    let watched = Watched::start(ringway, &front_to_back("", "", echo.address()));
    assert_eq!(watched.sum("ringway_core_accept_pauses_total", &[]), 0);
    let address = watched.proxy.address("front");
    let clients: Vec<_> = (0..150)
        .filter_map(|_| Link::connect(address).ok())
        .collect();
    watched.proxy.wait_stderr(&["cannot accept"]);
    // The admin server needs a file, too.
    drop(clients);
    assert!(watched.sum("ringway_core_accept_pauses_total", &[("core", "0")]) > 0);
}

#[test]
fn each_wait_for_a_socket_is_an_operation_of_the_ring() {
    let echo = Peer::plain().echo();
    let watched = Watched::start(ringway!(), &front_to_back("", "", echo.address()));
    let waits = || watched.sum("ringway_core_ring_waits_total", &[("core", "0")]);
    let mut link = watched.link();
    link.ping(b"hello");
    let before = waits();
    assert!(before > 0);
    for _ in 0..100 {
        link.ping(b"once more");
    }
    // Each way waits once a round, unless what it waits for has come meanwhile.
    let more = waits() - before;
    assert!((100..=1_000).contains(&more), "{more} for 100 rounds");
    let before = waits();
    ringway_support::wait::pause(std::time::Duration::from_millis(300));
    assert_eq!(waits(), before, "who has nothing to do does not wait anew");
}

#[test]
fn every_phase_that_a_connection_passes_has_its_time_in_a_histogram() {
    let house = House::new();
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let keys = "proxy_protocol = \"required\"\nproxy_trusted = \"127.0.0.0/8\"";
    let group = "max_connections = 1\nqueue = 4\nqueue_timeout = \"60s\"\n";
    let toml = listener("front", "back", keys, &house.terminate())
        + &upstream(
            "back",
            &[server.address()],
            &(group.to_owned() + &house.originate("back")),
        );
    let watched = Watched::start(ringway!(), &toml);
    let config = ClientTls::trusting(&house.ca).config();
    let begin = || {
        let mut link = watched.link();
        link.send(b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n")
            .unwrap();
        link.start_tls(&config, "localhost").unwrap()
    };
    let mut first = begin();
    first.ping(b"takes the only place");
    let second = begin();
    until("it waits", || {
        (watched.sum("ringway_connections", &[("phase", "connect")]) == 1).then_some(())
    });
    finish(first);
    finish(second);
    let records = watched.proxy.wait_records(2);
    for (phase, field, count) in [
        ("proxy_header", "proxy_header_ms", 2),
        ("client_hello", "client_hello_ms", 2),
        ("downstream_handshake", "downstream_handshake_ms", 2),
        ("queue", "queue_ms", 1),
        ("connect", "connect_ms", 2),
        ("upstream_handshake", "upstream_handshake_ms", 2),
        ("first_byte", "first_byte_ms", 2),
    ] {
        let labels = [("listener", "front"), ("phase", phase)];
        assert_eq!(
            watched.sum("ringway_phase_seconds_count", &labels),
            count,
            "{phase}"
        );
        let all = [labels[0], labels[1], ("le", "+Inf")];
        assert_eq!(
            watched.sum("ringway_phase_seconds_bucket", &all),
            count,
            "{phase}"
        );
        let logged: f64 = records.iter().filter_map(|it| it.0[field].as_f64()).sum();
        let sum = Scrape::of(&watched.admin).sum("ringway_phase_seconds_sum", &labels);
        assert!(
            (sum - logged / 1000.0).abs() < 0.001,
            "{phase}: {sum} s, and {logged} ms by the log"
        );
    }
    let total = watched.sum("ringway_connection_seconds_count", &[]);
    assert_eq!(total, 2);
}
