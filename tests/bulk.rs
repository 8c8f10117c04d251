//! Much data, and many short lives: byte-exact, and nothing left behind.
//!
//! `RINGWAY_TEST_BULK_MIB` sets the MiB of each direction (32), `RINGWAY_TEST_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use ringway_support::bridge::{LEGS, LEGS_ALL_VERSIONS, Legs};
use ringway_support::exchange::{Exchange, Finish};
use ringway_support::hello::{hello_of, oversized_hello};
use ringway_support::link::Address;
use ringway_support::pattern::Dice;
use ringway_support::peer::{Blackhole, ClosedPort, Service};
use ringway_support::process::SPARE_PIPE_ENDS_MAX;
use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{listener, tls_path, upstream};
use ringway_support::{Bridge, Bystander, Ending, House, Leg, Link, Peer, Proxy, ringway, until};
use rustls::ClientConfig;

const MIB: u64 = 1024 * 1024;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        Err(_) => default,
    }
}

/// Both directions at the same time, full of data; each end checks what it gets.
fn carry(bridge: &Bridge, finish: Finish) {
    let bytes = setting("RINGWAY_TEST_BULK_MIB", 32) * MIB;
    let plan = Exchange {
        // No whole number of records, pages or buffers.
        send: bytes + 4321,
        send_seed: 1,
        receive: bytes + 1234,
        receive_seed: 2,
        finish,
    };
    let (mut client, mut server) = bridge.pair();
    let server_end = thread::spawn(move || server.exchange(&plan.mirrored()));
    let client_end = client.exchange(&plan);
    let server_end = server_end.join().unwrap();
    assert!(
        client_end.is_ok() && server_end.is_ok(),
        "{:?}, client closes {finish:?}: client {client_end:?}, server {server_end:?}",
        bridge.legs
    );
    let record = bridge.record(&client);
    let path = match bridge.legs {
        (Leg::Plain, Leg::Plain) => "splice",
        _ => tls_path(),
    };
    record.expect(&[("end", "finished"), ("path_up", path), ("path_down", path)]);
    assert_eq!(record.count("bytes_up"), plan.send, "{record}");
    assert_eq!(record.count("bytes_down"), plan.receive, "{record}");
}

fn carry_in_both_closing_orders(legs: Legs) {
    let mut bridge = Bridge::start(ringway!(), legs, "");
    let before = bridge.proxy.open_files();
    carry(&bridge, Finish::First);
    carry(&bridge, Finish::AfterPeer);
    if legs == (Leg::Plain, Leg::Plain) {
        let pipes = bridge.proxy.open_files().pipes;
        assert!(
            pipes > before.pipes,
            "no pipe was made for a bulk of plain bytes"
        );
    }
    bridge.proxy.wait_no_more_files(before, SPARE_PIPE_ENDS_MAX);
    bridge.proxy.expect_alive();
}

#[test]
fn plain_to_plain_carries_bulk_both_ways_byte_exact() {
    carry_in_both_closing_orders((Leg::Plain, Leg::Plain));
}

#[test]
fn tls_to_plain_carries_bulk_both_ways_byte_exact() {
    carry_in_both_closing_orders((Leg::Tls13, Leg::Plain));
}

#[test]
fn plain_to_tls_carries_bulk_both_ways_byte_exact() {
    carry_in_both_closing_orders((Leg::Plain, Leg::Tls13));
}

#[test]
fn tls_to_tls_carries_bulk_both_ways_byte_exact() {
    carry_in_both_closing_orders((Leg::Tls13, Leg::Tls13));
}

#[test]
fn tls_1_2_on_both_legs_carries_bulk_both_ways_byte_exact() {
    carry_in_both_closing_orders((Leg::Tls12, Leg::Tls12));
}

#[test]
fn mixed_versions_of_tls_carry_bulk_both_ways_byte_exact() {
    for legs in [
        (Leg::Tls12, Leg::Plain),
        (Leg::Plain, Leg::Tls12),
        (Leg::Tls12, Leg::Tls13),
        (Leg::Tls13, Leg::Tls12),
    ] {
        carry_in_both_closing_orders(legs);
    }
}

#[test]
fn a_bulky_flow_is_spliced_and_a_tiny_one_beside_it_is_copied() {
    let bridge = Bridge::start(ringway!(), (Leg::Plain, Leg::Plain), "");
    for (send, receive, paths) in [
        (8 * MIB, 100, ["splice", "copy"]),
        (100, 8 * MIB, ["copy", "splice"]),
        (100, 100, ["copy", "copy"]),
    ] {
        let plan = Exchange {
            send,
            send_seed: 5,
            receive,
            receive_seed: 6,
            finish: Finish::First,
        };
        let (mut client, mut server) = bridge.pair();
        let server_end = thread::spawn(move || server.exchange(&plan.mirrored()));
        let ends = (client.exchange(&plan), server_end.join().unwrap());
        assert_eq!(ends, (Ok(()), Ok(())));
        let record = bridge.record(&client);
        record.expect(&[("path_up", paths[0]), ("path_down", paths[1])]);
    }
}

#[test]
fn one_direction_alone_carries_bulk() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        for (send, receive) in [(8 * MIB, 0), (0, 8 * MIB)] {
            let plan = Exchange {
                send,
                send_seed: 3,
                receive,
                receive_seed: 4,
                finish: Finish::First,
            };
            let (mut client, mut server) = bridge.pair();
            let server_end = thread::spawn(move || server.exchange(&plan.mirrored()));
            let client_end = client.exchange(&plan);
            let ends = (client_end, server_end.join().unwrap());
            assert_eq!(ends, (Ok(()), Ok(())), "{legs:?}");
        }
    }
}

/// The system calls that can send; the test sees by the sum that no byte went another way.
const SENDS: &str = "write,writev,pwritev2,sendto,sendmsg,sendmmsg";

/// Less than any batch of a burst: a byte that wakes another thread, a record without data.
const NO_BATCH_BYTES: u64 = 400;

/// What lies ready when the proxy looks, and how many sends may carry it on.
struct Burst {
    pieces: usize,
    piece_bytes: usize,
    sends_max: usize,
}

/// The first receive fills a small buffer (18 KiB), the second brings the rest.
const BURSTS: [Burst; 2] = [
    // Four records: one of full size, then the other three in one batch.
    Burst {
        pieces: 1,
        piece_bytes: 60_000,
        sends_max: 2,
    },
    // 64 small records from a TLS peer: eight in a batch, and one batch more for each receive.
    Burst {
        pieces: 64,
        piece_bytes: 500,
        sends_max: 64 / 8 + 2,
    },
];

impl Burst {
    fn cross(&self, proxy: &Proxy, from: &mut Link, to: &mut Link) {
        proxy.while_stopped(|| {
            for _ in 0..self.pieces {
                from.send(&vec![7; self.piece_bytes]).unwrap();
            }
            from.wait_delivered();
        });
        let bytes = self.pieces * self.piece_bytes;
        assert!(to.receive(bytes) == vec![7; bytes], "other bytes than sent");
    }

    fn expect_sends(&self, legs: Legs, sends: &[u64]) {
        let bytes = self.pieces * self.piece_bytes;
        assert!(
            sends.iter().sum::<u64>() >= bytes as u64 && sends.len() <= self.sends_max,
            "{legs:?}: {bytes} bytes with at most {} sends, got {sends:?}",
            self.sends_max
        );
    }
}

/// The batches that were sent so far. The proxy stands still meanwhile, so that no call is done
/// whose line is not written yet.
fn batches(proxy: &Proxy) -> Vec<u64> {
    let calls = proxy.while_stopped(|| proxy.traced_calls());
    let batches = calls.into_iter().filter(|bytes| *bytes >= NO_BATCH_BYTES);
    batches.collect()
}

#[test]
fn records_that_came_together_go_on_with_one_send_a_batch() {
    let with_tls = LEGS_ALL_VERSIONS.into_iter().skip(1);
    for legs in with_tls.chain([(Leg::Tls13, Leg::Tls12)]) {
        let bridge = Bridge::start(ringway!().traced(SENDS), legs, "");
        let (mut client, mut server) = bridge.pair();
        for burst in &BURSTS {
            let before = batches(&bridge.proxy).len();
            burst.cross(&bridge.proxy, &mut client, &mut server);
            let up = batches(&bridge.proxy);
            burst.expect_sends(legs, &up[before..]);
            burst.cross(&bridge.proxy, &mut server, &mut client);
            burst.expect_sends(legs, &batches(&bridge.proxy)[up.len()..]);
        }
    }
}

#[test]
fn key_updates_in_the_stream_lose_nothing() {
    for legs in [
        (Leg::Tls13, Leg::Plain),
        (Leg::Plain, Leg::Tls13),
        (Leg::Tls13, Leg::Tls13),
    ] {
        let bridge = Bridge::start(ringway!(), legs, "");
        let (mut client, mut server) = bridge.pair();
        for round in 0..20_u8 {
            if legs.0.is_tls() {
                client.update_keys();
            }
            if legs.1.is_tls() {
                server.update_keys();
            }
            client.send(&[round; 5000]).unwrap();
            assert_eq!(server.receive(5000), [round; 5000], "{legs:?}");
            server.send(&[round; 7000]).unwrap();
            assert_eq!(client.receive(7000), [round; 7000], "{legs:?}");
        }
    }
}

/// A server that answers as the dice say: well, not at all, or half.
fn moody(peer: Peer) -> Service {
    let number = std::sync::atomic::AtomicU64::new(1);
    peer.serve(move |mut link: Link| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut buffer = [0; 4096];
        match Dice::new(number).roll(6) {
            0 => {}
            1 => link.reset(),
            2 => drop(link.receive_some(&mut buffer)),
            3 => {
                let _ = link.send(b"half an ans");
                let _ = link.cut();
                let _ = link.limit(Duration::from_millis(500));
                let _ = link.receive_to_end();
            }
            _ => {
                while let Ok(some) = link.receive_some(&mut buffer) {
                    if some == 0 || link.send(&buffer[..some]).is_err() {
                        break;
                    }
                }
                let _ = link.finish();
            }
        }
    })
}

/// A client that leaves in a phase the dice choose, in a way they choose.
fn live_shortly(address: &Address, tls: Option<&ClientTls>, dice: &mut Dice) {
    let Ok(mut link) = Link::connect(address) else {
        return;
    };
    let _ = link.limit(Duration::from_millis(800));
    if let Some(tls) = tls {
        let (connection, hello) = hello_of(&tls.config(), "localhost");
        let stop_at = dice.roll(hello.len() as u64 * 3);
        let stop_at = usize::try_from(stop_at).unwrap();
        if link.send_raw(&hello[..stop_at.min(hello.len())]).is_err() {
            return;
        }
        // A third of the clients leaves within its hello. Without TLS of its own: a close_notify
        // could pass for the last bytes of the hello, and the answer to that does not decrypt.
        if stop_at < hello.len() {
            return leave(link, dice);
        }
        link.use_tls(connection.into());
        if dice.roll(6) == 0 || link.handshake().is_err() {
            return leave(link, dice);
        }
    }
    if dice.roll(4) > 0 {
        let length = usize::try_from(dice.roll(40_000)).unwrap();
        let _ = link.send(&vec![7; length]);
        let _ = link.receive_some(&mut [0; 4096]);
    }
    leave(link, dice);
}

fn leave(mut link: Link, dice: &mut Dice) {
    match dice.roll(4) {
        0 => link.reset(),
        1 => drop(link.cut()),
        2 => {
            let _ = link.finish();
            let _ = link.receive_to_end();
        }
        _ => {}
    }
}

const LIVES: u64 = 2000;
const THREADS: u64 = 4;

#[test]
fn two_thousand_connections_that_end_in_random_phases_leave_nothing_behind() {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let seed = setting("RINGWAY_TEST_SEED", u64::from(since_1970.subsec_nanos()));
    println!("RINGWAY_TEST_SEED={seed} repeats this run");

    let house = House::new();
    let plain = moody(Peer::plain());
    let tls = moody(Peer::tls(ServerTls::with(&house.backend).config()));
    let toml = listener("plain-plain", "plain", "", "")
        + &listener("plain-tls", "tls", "", "")
        + &listener("tls-plain", "plain", "", &house.terminate())
        + &listener("tls-tls", "tls", "", &house.terminate())
        + &upstream("plain", &[plain.address()], "")
        + &upstream("tls", &[tls.address()], &house.originate("tls"));
    let mut proxy = ringway!().with_exact_memory().start(&toml);
    let before = proxy.open_files();

    let half = LIVES / 2;
    run_lives(&proxy, &house, seed, half);
    proxy.wait_no_more_files(before, SPARE_PIPE_ENDS_MAX);
    let memory_half = proxy.memory_bytes();
    run_lives(&proxy, &house, seed.wrapping_add(99), half);
    proxy.wait_no_more_files(before, SPARE_PIPE_ENDS_MAX);
    let memory_full = proxy.memory_bytes();
    proxy.expect_alive();

    assert!(
        memory_full < memory_half + 4 * MIB,
        "seed {seed}: memory grew from {memory_half} to {memory_full} bytes in the second half"
    );
    let records = proxy.records();
    let ids: BTreeSet<_> = records.iter().map(|r| r.0["id"].to_string()).collect();
    assert_eq!(ids.len(), records.len(), "seed {seed}: ids are unique");
    assert!(
        records.len() as u64 <= LIVES,
        "seed {seed}: more lines than connections"
    );
    for record in &records {
        assert_ne!(
            record.text("end"),
            "internal_error",
            "seed {seed}: {record}"
        );
    }
}

fn run_lives(proxy: &Proxy, house: &House, seed: u64, lives: u64) {
    let client = ClientTls::trusting(&house.ca);
    let fronts = [
        (proxy.address("plain-plain").clone(), false),
        (proxy.address("plain-tls").clone(), false),
        (proxy.address("tls-plain").clone(), true),
        (proxy.address("tls-tls").clone(), true),
    ];
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (client, fronts) = (&client, &fronts);
            scope.spawn(move || {
                let mut dice = Dice::new(seed.wrapping_mul(31).wrapping_add(number));
                for _ in 0..lives / THREADS {
                    let front = usize::try_from(dice.roll(4)).unwrap();
                    let (address, tls) = &fronts[front];
                    live_shortly(address, tls.then_some(client), &mut dice);
                }
            });
        }
    });
}

/// Times that each fault happens before memory is measured, and then again. What pools, caches and
/// the allocator do differs by 0.3 MiB from round to round; 1 MiB is 5 KiB for each of one kind.
const FAULTS: usize = 200;
/// So many at a time, for those that end by a time limit.
const FAULTS_AT_ONCE: usize = 100;

/// What may go wrong with one connection, and the words for it in the log.
struct Fault<'a> {
    ends: &'a [&'a str],
    phase: &'a str,
    /// Makes it begin; a link that is returned sees how it ends.
    happen: Box<dyn Fn() -> Option<Link> + 'a>,
}

impl<'a> Fault<'a> {
    fn new(ends: &'a [&'a str], phase: &'a str, happen: impl Fn() -> Option<Link> + 'a) -> Self {
        let happen = Box::new(happen);
        Self {
            ends,
            phase,
            happen,
        }
    }

    /// [`FAULTS`] times, with a line in the log for each.
    fn happen(&self, proxy: &Proxy) {
        let logged = || {
            let log = proxy.access_log();
            // What the bystander leaves comes when it comes.
            let lines = log.lines().filter(|line| !line.contains("\"witness\""));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = logged().len();
        for _ in 0..FAULTS / FAULTS_AT_ONCE {
            let open: Vec<_> = (0..FAULTS_AT_ONCE).map(|_| (self.happen)()).collect();
            for mut link in open.into_iter().flatten() {
                let (_, ending) = link.receive_to_end();
                assert_ne!(ending, Ending::Silence, "{self}");
            }
        }
        let lines = until("a line for each fault", || {
            Some(logged()).filter(|lines| lines.len() == before + FAULTS)
        });
        for line in &lines[before..] {
            let has = |key: &str, word: &str| line.contains(&format!("\"{key}\":\"{word}\""));
            let known = self.ends.iter().any(|end| has("end", end)) && has("phase", self.phase);
            assert!(known, "{self}: {line}");
        }
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.ends.join(" or "), self.phase)
    }
}

/// The servers behind the listeners of [`Self::toml`], most of them bad.
struct Servers {
    echo: Service,
    resetting: Service,
    cutting: Service,
    unknown: Service,
    silent: Service,
    plain: Service,
    leaving: Service,
    closed: ClosedPort,
    lost: Blackhole,
}

impl Servers {
    fn new(house: &House) -> Self {
        let stranger = House::new().backend;
        Self {
            echo: Peer::plain().echo(),
            resetting: Peer::plain().serve(|mut link| {
                let _ = link.receive_some(&mut [0; 16]);
                link.reset();
            }),
            cutting: Peer::tls(ServerTls::with(&house.backend).config()).serve(|mut link| {
                let _ = link.receive_some(&mut [0; 16]);
                let _ = link.cut();
                let _ = link.receive_to_end();
            }),
            unknown: Peer::tls(ServerTls::with(&stranger).config()).echo(),
            silent: Peer::plain().serve(|mut link| drop(link.receive_to_end())),
            plain: Peer::plain().serve(|mut link| {
                let _ = link.send(b"220 ready");
                let _ = link.receive_to_end();
            }),
            leaving: Peer::plain().serve(|mut link| {
                let _ = link.receive_some(&mut [0; 16_384]);
            }),
            closed: ClosedPort::new(),
            lost: Blackhole::new(),
        }
    }

    fn toml(&self, house: &House) -> String {
        let hasty = "client_hello_timeout = \"500ms\"\nhandshake_timeout = \"500ms\"\n\
                     idle_timeout = \"500ms\"\nupstream_handshake_timeout = \"500ms\"";
        let patient = "connect_timeout = \"50s\"\nnext_upstream_timeout = \"50s\"";
        let tls = house.terminate();
        listener("edge", "echo", "", &tls)
            + &listener("hasty", "echo", hasty, &tls)
            + &listener("guarded", "echo", "", &house.terminate_verified("required"))
            + &listener("resetting", "resetting", "", &tls)
            + &listener("cutting", "cutting", "", &tls)
            + &listener("unknown", "unknown", "", "")
            + &listener("silent", "silent", hasty, "")
            + &listener("plain", "plain", "", "")
            + &listener("leaving", "leaving", "", "")
            + &listener("closed", "closed", "", "")
            + &listener("lost", "lost", patient, "")
            + &upstream("echo", &[self.echo.address()], "")
            + &upstream("resetting", &[self.resetting.address()], "")
            + &upstream(
                "cutting",
                &[self.cutting.address()],
                &house.originate("cutting"),
            )
            + &upstream(
                "unknown",
                &[self.unknown.address()],
                &house.originate("unknown"),
            )
            + &upstream(
                "silent",
                &[self.silent.address()],
                &house.originate("silent"),
            )
            + &upstream("plain", &[self.plain.address()], &house.originate("plain"))
            + &upstream(
                "leaving",
                &[self.leaving.address()],
                &house.originate("leaving"),
            )
            + &upstream("closed", &[&self.closed.address()], "")
            + &upstream("lost", &[self.lost.address()], "")
    }
}

/// Clients of the listeners of [`Servers::toml`].
struct Clients<'a> {
    proxy: &'a Proxy,
    known: Arc<ClientConfig>,
    /// With a certificate that nobody here vouches for.
    stranger: Arc<ClientConfig>,
    /// Which does not take the proxy's certificate.
    wary: Arc<ClientConfig>,
    hello: Vec<u8>,
}

impl<'a> Clients<'a> {
    fn new(proxy: &'a Proxy, house: &House) -> Self {
        let known = ClientTls::trusting(&house.ca);
        let stranger = known.clone().identity(&House::new().client).config();
        let known = known.config();
        Self {
            proxy,
            hello: hello_of(&known, "localhost").1,
            known,
            stranger,
            wary: ClientTls::trusting(&House::new().ca).config(),
        }
    }

    fn plain(&self, front: &str, bytes: &[u8]) -> Link {
        let link = Link::connect(self.proxy.address(front)).unwrap();
        // The proxy may refuse before it has read all.
        let _ = link.send_raw(bytes);
        link
    }

    fn shake(&self, front: &str, config: &Arc<ClientConfig>) -> io::Result<Link> {
        Link::connect_tls(self.proxy.address(front), config, "localhost")
    }

    fn spoken(&self, front: &str) -> Link {
        let mut link = self.shake(front, &self.known).unwrap();
        link.send(b"hello").unwrap();
        link
    }

    fn echoed(&self, front: &str) -> Link {
        let mut link = self.spoken(front);
        assert_eq!(link.receive(5), b"hello");
        link
    }
}

fn faults_before_the_relay<'a>(clients: &'a Clients<'_>) -> Vec<Fault<'a>> {
    vec![
        Fault::new(&["closed"], "client_hello", || {
            let link = clients.plain("edge", &clients.hello[..50]);
            link.cut().unwrap();
            Some(link)
        }),
        Fault::new(&["protocol_error"], "client_hello", || {
            Some(clients.plain("edge", b"GET / HTTP/1.1\r\n\r\n"))
        }),
        Fault::new(&["timeout"], "client_hello", || {
            Some(clients.plain("hasty", b""))
        }),
        Fault::new(&["timeout"], "downstream_handshake", || {
            Some(clients.plain("hasty", &clients.hello))
        }),
        Fault::new(&["certificate_refused"], "downstream_handshake", || {
            clients.shake("guarded", &clients.known).ok()
        }),
        Fault::new(&["certificate_refused"], "downstream_handshake", || {
            clients.shake("guarded", &clients.stranger).ok()
        }),
        Fault::new(&["protocol_error", "limit"], "client_hello", || {
            Some(clients.plain("edge", &oversized_hello()))
        }),
        Fault::new(&["alert"], "downstream_handshake", || {
            clients.shake("edge", &clients.wary).ok()
        }),
        Fault::new(&["unreachable", "no_server"], "connect", || {
            Some(clients.plain("closed", b""))
        }),
        Fault::new(&["reset"], "connect", || {
            clients.plain("lost", b"").reset();
            None
        }),
        Fault::new(
            &["protocol_error", "no_server"],
            "upstream_handshake",
            || Some(clients.plain("plain", b"hello")),
        ),
        Fault::new(&["closed", "no_server"], "upstream_handshake", || {
            Some(clients.plain("leaving", b"hello"))
        }),
        Fault::new(
            &["certificate_refused", "no_server"],
            "upstream_handshake",
            || Some(clients.plain("unknown", b"hello")),
        ),
        Fault::new(&["timeout", "no_server"], "upstream_handshake", || {
            Some(clients.plain("silent", b"hello"))
        }),
    ]
}

fn faults_in_the_relay<'a>(clients: &'a Clients<'_>) -> Vec<Fault<'a>> {
    vec![
        Fault::new(&["reset"], "relay", || {
            clients.echoed("edge").reset();
            None
        }),
        Fault::new(&["truncated"], "relay", || {
            let link = clients.echoed("edge");
            link.cut().unwrap();
            Some(link)
        }),
        Fault::new(&["protocol_error"], "relay", || {
            let link = clients.echoed("edge");
            link.send_raw(&[[23, 3, 3, 0, 17].as_slice(), &[9; 17]].concat())
                .unwrap();
            Some(link)
        }),
        Fault::new(&["reset"], "relay", || Some(clients.spoken("resetting"))),
        Fault::new(&["truncated"], "relay", || Some(clients.spoken("cutting"))),
        Fault::new(&["timeout"], "relay", || Some(clients.echoed("hasty"))),
    ]
}

#[test]
fn two_hundred_of_each_fault_cost_neither_memory_nor_files() {
    let house = House::new();
    let servers = Servers::new(&house);
    let ringway = ringway!().with_exact_memory();
    let (proxy, mut bystander) = Bystander::beside(ringway, &servers.toml(&house));
    let clients = Clients::new(&proxy, &house);
    let mut faults = faults_before_the_relay(&clients);
    faults.extend(faults_in_the_relay(&clients));

    let mut memory_after_a_round = || {
        for fault in &faults {
            fault.happen(&proxy);
            bystander.settled(&proxy);
        }
        proxy.memory_bytes()
    };
    let mut memory = vec![memory_after_a_round()];
    // The allocator may take its time; what leaks grows in each round.
    let grows = (0..3).all(|_| {
        memory.push(memory_after_a_round());
        memory.is_sorted_by(|before, after| *after > before + MIB)
    });
    println!("memory after each round of {FAULTS} of each fault: {memory:?} bytes");
    assert!(!grows, "memory after each round: {memory:?} bytes");
}
