//! Who may connect, how many, how fast and for how long: what is refused is counted and logged, and
//! nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ringway_support::bridge::{LEGS, Legs};
use ringway_support::link::Address;
use ringway_support::tls::{ClientTls, TLS12, TLS13};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Bridge, DEADLINE, Ending, House, Leg, Link, Peer, Proxy, ringway, until};

fn from(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// A connection that goes through to an echo, or `None` if it is refused.
fn try_ping(source: IpAddr, to: &Address) -> Option<Link> {
    let mut link = Link::connect_from(source, to).ok()?;
    link.send(b"ping").ok()?;
    let mut answer = [0; 4];
    let received = link.receive_some(&mut answer);
    received.is_ok_and(|bytes| bytes > 0).then_some(link)
}

/// How many connections the access log says were refused so, each line for all that it stands for.
fn refused(proxy: &Proxy, end: &str, detail: &str) -> u64 {
    let records = proxy
        .records()
        .into_iter()
        .filter(|record| record.find("end") == Some(end) && record.find("detail") == Some(detail));
    records
        .map(|record| 1 + record.0["left_out"].as_u64().unwrap_or(0))
        .sum()
}

fn expect_refused(proxy: &Proxy, count: u64, end: &str, detail: &str) {
    until("every refusal is counted", || {
        (refused(proxy, end, detail) >= count).then_some(())
    });
    assert_eq!(refused(proxy, end, detail), count, "{end} {detail}");
}

#[test]
fn deny_wins_over_allow_and_who_is_in_neither_is_refused() {
    let echo = Peer::plain().echo();
    let keys = "allow = [\"127.0.0.0/29\", \"127.0.0.64\"]\ndeny = \"127.0.0.4/31\"";
    let proxy = ringway!().start(&front_to_back(keys, "", echo.address()));
    let front = proxy.address("front");
    for (last, detail) in [
        (1, None),
        (3, None),
        (4, Some("deny")),
        (5, Some("deny")),
        (6, None),
        (8, Some("allow")),
        (64, None),
        (65, Some("allow")),
    ] {
        let served = try_ping(from(last), front);
        assert_eq!(served.is_none(), detail.is_some(), "127.0.0.{last}");
    }
    expect_refused(&proxy, 2, "denied", "deny");
    expect_refused(&proxy, 2, "denied", "allow");
    let record = proxy.wait_record("a refusal", |record| record.find("end") == Some("denied"));
    record.expect(&[("phase", "accept"), ("ended_by", "ringway")]);
}

#[test]
fn a_refused_client_is_reset_before_a_byte_is_read() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let keys = "deny = \"127.0.0.0/8\"";
    let proxy = ringway!().start(&front_to_back(keys, &house.terminate(), echo.address()));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    let (bytes, ending) = link.receive_to_end();
    assert!(bytes.is_empty());
    assert_eq!(ending, Ending::Reset);
}

/// The kernel spreads the connections over four cores, which count together.
#[test]
fn a_source_has_its_connections_and_no_more_however_many_cores_serve_it() {
    let echo = Peer::plain().echo();
    let keys = "max_connections_per_source = 5";
    let proxy = ringway!()
        .workers(4)
        .start(&front_to_back(keys, "", echo.address()));
    let front = proxy.address("front");
    for source in [2, 3] {
        let open = |_| try_ping(from(source), front);
        let mut held: Vec<_> = (0..25).filter_map(open).collect();
        assert_eq!(held.len(), 5, "127.0.0.{source}");
        held.pop().unwrap().reset();
        let again = until("a place is free again", || try_ping(from(source), front));
        assert!(try_ping(from(source), front).is_none());
        drop((held, again));
        until("all places are free again", || {
            let all: Vec<_> = (0..5).filter_map(open).collect();
            (all.len() == 5).then_some(())
        });
    }
    let detail = "max_connections_per_source is reached";
    until("every refusal is counted", || {
        (refused(&proxy, "limit", detail) >= 2 * 21).then_some(())
    });
}

#[test]
fn a_network_has_its_connections_and_no_more_whichever_of_its_addresses_they_come_from() {
    let echo = Peer::plain().echo();
    let keys = "max_connections_per_prefix = 6\nsource_prefix_ipv4 = 29";
    let proxy = ringway!()
        .workers(4)
        .start(&front_to_back(keys, "", echo.address()));
    let front = proxy.address("front");
    let held: Vec<_> = (0..24)
        .filter_map(|n| try_ping(from(8 + n % 8), front))
        .collect();
    assert_eq!(held.len(), 6);
    assert!(try_ping(from(16), front).is_some(), "the next network");
    expect_refused(&proxy, 18, "limit", "max_connections_per_prefix is reached");
}

/// As many as the burst, and what the rate has given meanwhile.
#[test]
fn new_connections_come_at_their_rate_after_a_burst() {
    let echo = Peer::plain().echo();
    for (key, sources) in [("new_connections", 4), ("new_connections_per_source", 1)] {
        let keys = format!("{key} = {{ rate = 2, burst = 8 }}");
        let proxy = ringway!().start(&front_to_back(&keys, "", echo.address()));
        let front = proxy.address("front");
        let begun = Instant::now();
        let served = (0..60).filter(|n| try_ping(from(2 + n % sources), front).is_some());
        let served = served.count();
        let given = usize::try_from(begun.elapsed().as_millis() / 500).unwrap() + 1;
        assert!((8..=8 + given).contains(&served), "{key}: {served}");
        let refused = u64::try_from(60 - served).unwrap();
        expect_refused(&proxy, refused, "limit", &format!("{key} is exceeded"));
        if key == "new_connections_per_source" {
            assert!(try_ping(from(77), front).is_some(), "another source");
        }
        until("the rate gives more", || try_ping(from(2), front));
    }
}

/// A client that resumes is served while full handshakes are over their rate; a ticket that does
/// not open (here of a listener with other keys) buys nothing.
#[test]
fn full_handshakes_are_shed_while_resumed_ones_are_served_and_forged_offers_are_charged() {
    for (version, ids_only) in [(TLS13, false), (TLS12, false), (TLS12, true)] {
        for key in ["full_handshakes", "full_handshakes_per_source"] {
            let house = House::new();
            let echo = Peer::plain().echo();
            // One core: a cache of session IDs belongs to one.
            let keys = format!("{key} = {{ rate = 1, burst = 3 }}");
            let toml = listener("front", "back", &keys, &house.terminate())
                + &listener("other", "back", "", &house.terminate())
                + &upstream("back", &[echo.address()], "");
            let proxy = ringway!().workers(1).start(&toml);
            let config = || {
                let tls = ClientTls::trusting(&house.ca).version(version);
                if ids_only {
                    tls.session_ids_only()
                } else {
                    tls
                }
                .config()
            };
            let ping = |listener: &str, config: &std::sync::Arc<rustls::ClientConfig>| {
                let link = Link::connect_tls(proxy.address(listener), config, "localhost");
                link.map(|mut link| {
                    link.ping(b"hello");
                    let _ = link.finish();
                    link.receive_to_end();
                    link.resumed()
                })
            };
            let friend = config();
            assert!(!ping("front", &friend).unwrap());

            let begun = Instant::now();
            let mut full = 1;
            for _ in 0..20 {
                let stranger = config();
                full += usize::from(ping("front", &stranger).is_ok());
                let forger = config();
                assert!(!ping("other", &forger).unwrap());
                full += usize::from(ping("front", &forger).is_ok());
                let resumed = ping("front", &friend);
                assert!(resumed.unwrap(), "who resumes is served at once");
            }
            let given = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
            assert!((3..=3 + given).contains(&full), "{key}: {full} were full");
            let refused = u64::try_from(41 - full).unwrap();
            expect_refused(&proxy, refused, "limit", &format!("{key} is exceeded"));
            let record =
                proxy.wait_record("a refusal", |record| record.find("end") == Some("limit"));
            record.expect(&[("phase", "downstream_handshake"), ("ended_by", "ringway")]);
        }
    }
}

#[test]
fn under_a_flood_of_refused_connections_few_lines_count_them_all_and_others_go_on() {
    const FLOOD: u64 = 3000;
    let echo = Peer::plain().echo();
    let keys = "deny = \"127.0.0.66\"";
    let ringway = ringway!().log("refused = 5");
    let mut proxy = ringway.start(&front_to_back(keys, "", echo.address()));
    let front = proxy.address("front").clone();
    let mut witness = Link::connect(&front).unwrap();
    witness.ping(b"before");
    let files = proxy.open_files();
    let begun = Instant::now();
    for n in 0..FLOOD {
        let _ = Link::connect_from(from(66), &front);
        if n % 100 == 0 {
            witness.ping(b"meanwhile");
            assert!(try_ping(from(2), &front).is_some(), "a new one");
        }
    }
    expect_refused(&proxy, FLOOD, "denied", "deny");
    let lines = proxy.records().into_iter();
    let lines = lines
        .filter(|line| line.find("end") == Some("denied"))
        .count();
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    assert!(lines <= 2 * 6 * seconds, "{lines} lines in {seconds} s");
    proxy.wait_no_more_files(files, 2 * 2 * 64);
    witness.ping(b"after");
    proxy.expect_alive();
}

#[test]
fn refusals_that_wait_for_their_line_are_written_when_the_proxy_ends() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().log("refused = 1");
    let keys = "deny = \"127.0.0.66\"";
    let mut proxy = ringway.start(&front_to_back(keys, "", echo.address()));
    for _ in 0..50 {
        let link = Link::connect_from(from(66), proxy.address("front"));
        let _ = link.map(|mut link| link.receive_to_end());
    }
    proxy.signal(libc::SIGTERM);
    proxy.wait_exit().expect_code(0);
    assert_eq!(refused(&proxy, "denied", "deny"), 50);
}

/// Garbage instead of TLS, from many addresses, with no limit that would refuse it.
#[test]
fn garbage_leaves_neither_memory_nor_files_behind_and_established_clients_go_on() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let ringway = ringway!().with_exact_memory();
    let proxy = ringway.start(&front_to_back("", &house.terminate(), echo.address()));
    let tls = ClientTls::trusting(&house.ca).config();
    let front = proxy.address("front");
    let mut clients: Vec<_> = (0..4)
        .map(|_| Link::connect_tls(front, &tls, "localhost").unwrap())
        .collect();
    let mut flood = |connections: u8, rounds: usize| {
        for round in 0..rounds {
            for n in 0..connections {
                let Ok(link) = Link::connect_from(from(100 + n), front) else {
                    continue;
                };
                let _ = link.send_raw(&[0x16, 3, 1, 0xFF, n, 0x5A, 0x5A, 0x5A]);
            }
            let next = round % clients.len();
            clients[next].ping(b"still there?");
        }
    };
    // Pools, caches and the allocator's own are full after this.
    flood(100, 10);
    let (memory, files) = (proxy.memory_bytes(), proxy.open_files());
    flood(100, 30);
    proxy.wait_no_more_files(files, 2 * 2 * 64);
    let after = proxy.memory_bytes();
    assert!(
        after <= memory + 2 * 1024 * 1024,
        "{memory} bytes after 1,000 connections, {after} after 4,000"
    );
    let records = until("every connection has its line", || {
        Some(proxy.records()).filter(|records| records.len() >= 4000)
    });
    let garbage = records
        .iter()
        .filter(|it| it.find("end") == Some("protocol_error"));
    assert!(garbage.count() > 3900);
}

#[test]
fn a_connection_ends_after_max_session_however_busy_it_is() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "max_session = \"600ms\"");
        let begun = Instant::now();
        let (mut client, mut server) = bridge.pair();
        // Bytes go on until the end comes.
        let (mut exchanges, mut told) = (0, false);
        while begun.elapsed() < DEADLINE {
            let mut bytes = [0; 4];
            told = client.send(b"busy").is_err();
            if told || !server.receive_some(&mut bytes).is_ok_and(|count| count > 0) {
                break;
            }
            exchanges += 1;
        }
        assert!(exchanges > 0, "{legs:?}");
        let lived = begun.elapsed();
        assert!(lived >= Duration::from_millis(550), "{legs:?}: {lived:?}");
        let record = bridge.record(&client);
        record.expect(&[
            ("end", "expired"),
            ("phase", "relay"),
            ("detail", "max_session"),
            ("ended_by", "ringway"),
        ]);
        // A send that has met the reset leaves nothing of it to be read.
        let ending = client.receive_to_end().1;
        assert!(told || !ending.looks_complete(), "{legs:?}: {ending:?}");
    }
}

#[test]
fn an_idle_connection_ends_after_max_session_too() {
    let bridge = Bridge::start(
        ringway!(),
        (Leg::Plain, Leg::Plain),
        "max_session = \"300ms\"",
    );
    let (mut client, _server) = bridge.pair();
    assert_eq!(client.expect_end(), Ending::Reset);
    bridge.record(&client).expect(&[("end", "expired")]);
}

const RATE: usize = 256 * 1024;
const BULK: usize = 2 * RATE;

/// Less what may go ahead: a tenth of a second's worth and one batch of at most 68 KiB.
const BULK_AT_LEAST: Duration = Duration::from_millis(1500);

/// How long it takes until all of `BULK` has come from `source` at `sink`.
fn carry(source: &mut Link, sink: &mut Link) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| source.send(&vec![0x5A; BULK]).unwrap());
        let mut received = 0;
        let mut bytes = vec![0; 64 * 1024];
        while received < BULK {
            received += sink.receive_some(&mut bytes).unwrap();
        }
    });
    begun.elapsed()
}

fn rates_hold(legs: Legs, relay_path: &str) {
    for limited in ["max_upload_rate", "max_download_rate"] {
        // An idle limit that would end a connection which rests for its rate.
        let keys = format!("{limited} = \"256KiB\"\nidle_timeout = \"200ms\"\n{relay_path}");
        let bridge = Bridge::start(ringway!(), legs, &keys);
        let (mut client, mut server) = bridge.pair();
        let took = if limited == "max_upload_rate" {
            carry(&mut client, &mut server)
        } else {
            carry(&mut server, &mut client)
        };
        assert!(
            took >= BULK_AT_LEAST,
            "{limited} {legs:?}: {BULK} bytes in {took:?}"
        );
        // The other direction of another connection: no limit, no wait for the rate.
        let (mut client, mut server) = bridge.pair();
        client.send(b"short").unwrap();
        assert_eq!(server.receive(5), b"short");
        server.send(b"answer").unwrap();
        assert_eq!(client.receive(6), b"answer");
    }
}

#[test]
fn plain_bytes_go_no_faster_than_their_rate() {
    rates_hold((Leg::Plain, Leg::Plain), "");
}

#[test]
fn spliced_bytes_go_no_faster_than_their_rate() {
    if std::env::var_os(ringway_support::toml::RELAY_PATH).is_none() {
        rates_hold((Leg::Plain, Leg::Plain), "relay_path = \"splice\"");
    }
}

#[test]
fn bytes_of_tls_go_no_faster_than_their_rate() {
    rates_hold((Leg::Tls13, Leg::Tls13), "");
}

#[test]
fn bytes_from_and_to_tls_go_no_faster_than_their_rate() {
    rates_hold((Leg::Tls13, Leg::Plain), "");
    rates_hold((Leg::Plain, Leg::Tls12), "");
}

fn seen_by_server(keys: &str, client: IpAddr) -> IpAddr {
    let server = Peer::plain();
    let toml = listener("front", "back", "", "")
        + &upstream("back", &[server.address()], "").replace("\n\n", &format!("\n{keys}\n"));
    let proxy = ringway!().start(&toml);
    let _client = Link::connect_from(client, proxy.address("front")).unwrap();
    let link = server.accept();
    let peer = link.socket().peer_addr().unwrap().as_socket().unwrap();
    peer.ip()
}

#[test]
fn servers_see_the_source_address() {
    assert_eq!(seen_by_server("", from(7)), from(1));
    assert_eq!(
        seen_by_server("source_address = \"127.0.0.9\"", from(7)),
        from(9)
    );
}

/// CAP_NET_ADMIN or CAP_NET_RAW (capabilities(7)).
fn may_be_transparent() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = u64::from_str_radix(effective.unwrap().trim(), 16).unwrap();
    bits & (1 << 12 | 1 << 13) != 0
}

/// That the socket option is what lets it bind another host's address, `net::local` tests.
#[test]
fn servers_see_the_client_of_a_transparent_upstream() {
    if !may_be_transparent() {
        println!("SKIPPED: neither CAP_NET_RAW nor CAP_NET_ADMIN here");
        return;
    }
    assert_eq!(seen_by_server("transparent = true", from(7)), from(7));
}

/// `ringway check` of an upstream with these keys, without the rights.
fn checked(keys: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringway.toml");
    let toml = format!(
        "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
         [upstream.b]\nservers = [\"127.0.0.1:1\"]\n{keys}\n"
    );
    std::fs::write(&file, toml).unwrap();
    let mut command = if may_be_transparent() {
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set=-net_admin,-net_raw",
            "--inh-caps=-net_admin,-net_raw",
        ]);
        command.arg(env!("CARGO_BIN_EXE_ringway"));
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_ringway"))
    };
    let output = command.arg("check").arg(&file).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), words)
}

#[test]
fn an_address_that_no_interface_has_is_refused_with_its_place_and_the_cure() {
    // 192.0.2.0/24 is for documents (RFC 5737).
    let (code, words) = checked("source_address = [\"192.0.2.1\"]");
    assert_eq!(code, Some(64), "{words}");
    for expected in [
        ":7:19: error: `192.0.2.1` cannot be bound",
        "ip address add",
    ] {
        assert!(words.contains(expected), "no {expected:?} in {words}");
    }
    assert_eq!(checked("source_address = \"127.0.0.9\"").0, Some(0));
}

#[test]
fn transparent_without_the_right_is_refused_with_its_place_and_the_cure() {
    let (code, words) = checked("transparent = true");
    assert_eq!(code, Some(64), "{words}");
    for expected in [
        ":7:15: error: `transparent` is not permitted",
        "CAP_NET_RAW",
    ] {
        assert!(words.contains(expected), "no {expected:?} in {words}");
    }
}
