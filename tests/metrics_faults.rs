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
use std::time::Duration;

use ringway_support::hello::hello_of;
use ringway_support::link::Address;
use ringway_support::pki::{Authority, Leaf, tester};
use ringway_support::tls::{ClientTls, ServerTls, TLS12};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::wait::pause;
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
fn a_pipe_that_cannot_be_had_is_counted_and_its_connection_goes_on() {
    let echo = Peer::plain().echo();
    let toml = front_to_back("relay_path = \"splice\"", "", echo.address());
    let ringway = ringway!().open_files(128).runtime("pipes = 0");
    let watched = Watched::start(ringway, &toml);
    let refused = |watched: &Watched| watched.sum("ringway_core_pipes_refused_total", &[]);
    let mut link = watched.link();
    until("its server is reached", || {
        (echo.counts().accepted() == 1).then_some(())
    });
    assert_eq!(refused(&watched), 0);
    // One after the other, so that at some time not two files are left: a pipe has two.
    let has_refused = || {
        let cannot_accept = watched.proxy.stderr_lines("cannot accept");
        !cannot_accept.is_empty() || !watched.proxy.records().is_empty()
    };
    let mut idle = Vec::new();
    while !has_refused() {
        let before = echo.counts().accepted();
        idle.push(watched.link());
        until("it is served or turned away", || {
            (echo.counts().accepted() > before || has_refused()).then_some(())
        });
    }
    link.ping(b"with a pipe or without");
    drop(idle);
    assert!(refused(&watched) > 0);
    finish(link);
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
    // How often depends on what has come meanwhile.
    let more = waits() - before;
    assert!((1..=1_000).contains(&more), "{more} for 100 rounds");
    until("who has nothing to do does not wait anew", || {
        let before = waits();
        pause(Duration::from_millis(200));
        (waits() == before).then_some(())
    });
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

/// `end` of the records in this phase, and how often: what the family has by reason.
fn expect_reasons(watched: &Watched, (family, phase): (&str, &str), causes: &[&str]) {
    let records = watched.proxy.wait_records(causes.len());
    let mut logged: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        record.expect(&[("phase", phase)]);
        *logged.entry(record.text("end").to_owned()).or_default() += 1;
    }
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for cause in causes {
        *wanted.entry((*cause).to_owned()).or_default() += 1;
    }
    assert_eq!(logged, wanted, "{records:?}");
    for (cause, count) in &wanted {
        assert_eq!(watched.sum(family, &[("reason", cause)]), *count, "{cause}");
    }
    assert_eq!(watched.sum(family, &[]), causes.len() as u64);
}

#[test]
fn handshakes_with_clients_fail_for_the_reason_that_the_access_log_has() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let tls = house.terminate_verified("required")
        + "allow_identities = [\"spiffe://example.org/tester\"]\nprotocols = \"TLSv1.3\"\n";
    let brief = listener("brief", "back", "handshake_timeout = \"300ms\"", &tls);
    let toml = front_to_back("handshake_timeout = \"1m\"", &tls, echo.address()) + &brief;
    let watched = Watched::start(ringway!(), &toml);
    let trusting = || ClientTls::trusting(&house.ca);
    let stranger = Authority::root("Another root").issue(&tester());
    let other = house.ca.issue(&Leaf::client("other"));
    for client in [
        trusting(),
        trusting().identity(&stranger),
        trusting().identity(&other),
        trusting().identity(&house.client).version(TLS12),
    ] {
        if let Ok(mut link) = watched.link().start_tls(&client.config(), "localhost") {
            // A TLS 1.3 client hears of its refusal after its handshake.
            let _ = link.expect_end();
        }
    }
    let distrusting = ClientTls::trusting(&Authority::root("Another root")).config();
    let refused = watched.link().start_tls(&distrusting, "localhost");
    assert!(refused.is_err());
    let begin = |listener: &str| {
        let (_, hello) = hello_of(&trusting().config(), "localhost");
        let mut link = Link::connect(watched.proxy.address(listener)).unwrap();
        link.send_raw(&hello).unwrap();
        // The server's flight has begun: it waits for the client now.
        assert!(link.receive_some(&mut [0; 64]).unwrap() > 0);
        link
    };
    let stalls = begin("brief");
    begin("front").reset();
    begin("front").finish().unwrap();
    let link = begin("front");
    link.send_raw(&[0x17, 3, 3, 0, 3, 1, 2, 3]).unwrap();
    expect_reasons(
        &watched,
        (
            "ringway_downstream_handshake_failures_total",
            "downstream_handshake",
        ),
        &[
            "certificate_refused",
            "certificate_refused",
            "identity_refused",
            "protocol_error",
            "alert",
            "timeout",
            "reset",
            "closed",
            "protocol_error",
        ],
    );
    drop((stalls, link));
}

#[test]
fn handshakes_with_servers_fail_for_the_reason_that_the_access_log_has() {
    let house = House::new();
    let foreign = Authority::root("Another root").issue(&Leaf::server("backend.internal"));
    let untrusted = Peer::tls(ServerTls::with(&foreign).config()).echo();
    let demanding = ServerTls::with(&house.backend).version(TLS12);
    let demanding = Peer::tls(demanding.require_client(&house.ca).config()).echo();
    let plain = Peer::plain().echo();
    let silent = Peer::plain().keep();
    let closing = Peer::plain().serve(|mut link| {
        let _ = link.receive_some(&mut [0; 1024]);
        let _ = link.finish();
    });
    let groups = [
        ("untrusted", untrusted.address()),
        ("demanding", demanding.address()),
        ("plain", plain.address()),
        ("silent", silent.address()),
        ("closing", closing.address()),
    ];
    let toml = groups.map(|(name, server)| {
        // On a busy machine the others take their time.
        let time = if name == "silent" { "300ms" } else { "1m" };
        let keys = format!("upstream_handshake_timeout = \"{time}\"");
        listener(name, name, &keys, "") + &upstream(name, &[server], &house.originate(name))
    });
    let watched = Watched::start(ringway!(), &toml.concat());
    for (name, _) in groups {
        let mut link = Link::connect(watched.proxy.address(name)).unwrap();
        let _ = link.send(b"hello");
        let _ = link.expect_end();
    }
    expect_reasons(
        &watched,
        (
            "ringway_upstream_handshake_failures_total",
            "upstream_handshake",
        ),
        &[
            "certificate_refused",
            "alert",
            "protocol_error",
            "timeout",
            "closed",
        ],
    );
}
