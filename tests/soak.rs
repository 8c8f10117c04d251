//! Everything at once, for long: clients of all kinds, vandals, servers that die and stall, reloads
//! with new certificates and broken ones, log rotation. What must hold: no client suffers from
//! anything but its server's end, every connection's reason is one that somebody gave, memory and
//! descriptors stay where they are.
//!
//! `RINGWAY_TEST_SOAK_SECONDS` sets for how long (10); `tests/soak` does twenty minutes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway_support::exchange::{Exchange, Finish};
use ringway_support::hello::hello_of;
use ringway_support::pattern::Dice;
use ringway_support::peer::Service;
use ringway_support::pki::Leaf;
use ringway_support::server::Server;
use ringway_support::tls::ClientTls;
use ringway_support::toml::listener;
use ringway_support::wait::pause;
use ringway_support::{Ending, House, Link, Peer, Proxy, Record, ringway, until};

/// Each kind of client has an address of its own, by which its records are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Short, full handshakes.
    Visitor = 11,
    /// Short, with sessions resumed.
    Regular = 12,
    /// Megabytes each way.
    Mover = 13,
    /// The same without TLS.
    PlainMover = 14,
    /// What no client should do.
    Vandal = 15,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Visitor,
        Self::Regular,
        Self::Mover,
        Self::PlainMover,
        Self::Vandal,
    ];

    fn address(self) -> IpAddr {
        IpAddr::from([127, 0, 0, self as u8])
    }

    fn of(record: &Record) -> Option<Self> {
        let (client, _) = record.find("client")?.rsplit_once(':')?;
        Self::ALL
            .into_iter()
            .find(|kind| kind.address().to_string() == client)
    }

    fn listener(self) -> &'static str {
        match self {
            Self::PlainMover => "plain",
            _ => "front",
        }
    }
}

struct Scene {
    house: House,
    proxy: Proxy,
    stop: AtomicBool,
    served: AtomicU64,
}

impl Scene {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn connect(&self, kind: Kind) -> Result<Link, String> {
        Link::connect_from(kind.address(), self.proxy.address(kind.listener())).map_err(words)
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Serves as many clients as it can, one after the other. Returns what went wrong.
fn work(scene: &Scene, kind: Kind, seed: u64) -> Vec<String> {
    let tls = ClientTls::trusting(&scene.house.ca);
    let known = tls.config();
    let mut dice = Dice::new(seed);
    let mut errors = Vec::new();
    while scene.goes_on() {
        let done = scene.connect(kind).and_then(|link| match kind {
            Kind::Visitor => visit(link, &tls.config()),
            Kind::Regular => visit(link, &known),
            Kind::Mover => {
                let link = link.start_tls(&known, "localhost").map_err(words)?;
                carry(link, &mut dice)
            }
            Kind::PlainMover => carry(link, &mut dice),
            Kind::Vandal => {
                break_something(link, &known, &mut dice);
                Ok(())
            }
        });
        match done {
            Ok(()) => drop(scene.served.fetch_add(1, Ordering::Relaxed)),
            Err(error) => errors.push(format!("{kind:?}: {error}")),
        }
    }
    errors
}

fn visit(link: Link, tls: &Arc<rustls::ClientConfig>) -> Result<(), String> {
    let mut link = link.start_tls(tls, "localhost").map_err(words)?;
    link.send(b"hello").map_err(words)?;
    link.finish().map_err(words)?;
    match link.receive_to_end() {
        (bytes, Ending::Clean) if bytes == b"hello" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn carry(mut link: Link, dice: &mut Dice) -> Result<(), String> {
    let (bytes, seed) = (dice.roll(4 << 20), dice.roll(1 << 32));
    link.exchange(&Exchange {
        send: bytes,
        send_seed: seed,
        receive: bytes,
        receive_seed: seed,
        finish: Finish::First,
    })
}

/// Nothing of it can fail: whatever the proxy answers is right.
fn break_something(link: Link, tls: &Arc<rustls::ClientConfig>, dice: &mut Dice) {
    let (_, hello) = hello_of(tls, "localhost");
    match dice.roll(7) {
        0 => drop(link),
        1 => drop(link.send_raw(b"GET / HTTP/1.1\r\n\r\n")),
        2 => drop(link.send_raw(&hello[..hello.len() / 2])),
        3 => {
            // Until its time is up.
            let _ = link.send_raw(&hello[..3]);
            pause(Duration::from_millis(1300));
        }
        4 => {
            let _ = link.send_raw(&hello);
            link.reset();
        }
        way => {
            let Ok(mut link) = link.start_tls(tls, "localhost") else {
                return;
            };
            let _ = link.send(&[7; 100_000]);
            if way == 5 {
                link.reset()
            } else {
                drop(link.cut())
            }
        }
    }
}

/// Who ended a connection of this kind, and how, where nothing is wrong with the proxy.
fn is_explained(kind: Option<Kind>, record: &Record) -> bool {
    let end = record.text("end");
    let by = record.find("ended_by");
    if end == "finished" {
        return true;
    }
    // A server that was killed or stalled while it served.
    let server_lost = by == Some("upstream")
        && matches!(
            end,
            "reset" | "truncated" | "closed" | "unreachable" | "timeout"
        );
    let vandalism = by == Some("downstream")
        && matches!(
            end,
            "protocol_error" | "closed" | "reset" | "truncated" | "timeout" | "alert"
        );
    match kind {
        None => false,
        Some(Kind::Vandal) => server_lost || vandalism,
        Some(_) => server_lost,
    }
}

/// What the operator and bad luck do, in turn.
struct Operator<'a> {
    scene: &'a Scene,
    echo: &'a Service,
    servers: Vec<Server>,
    /// How often each end was seen.
    ends: BTreeMap<String, u64>,
    unexplained: Vec<String>,
    turns: usize,
}

impl Operator<'_> {
    fn take_turn(&mut self) {
        let which = self.turns / 5 % self.servers.len();
        match self.turns % 5 {
            0 => self.renew_certificate(),
            1 => self.lose_server(which),
            2 => self.stall_server(which),
            3 => self.break_certificate(),
            _ => self.rotate_log(),
        }
        self.turns += 1;
    }

    fn reload(&self, says: &str) {
        let before = self.scene.proxy.stderr_lines(says).len();
        self.scene.proxy.signal(libc::SIGHUP);
        until(says, || {
            (self.scene.proxy.stderr_lines(says).len() > before).then_some(())
        });
    }

    fn renew_certificate(&self) {
        let House { ca, edge, .. } = &self.scene.house;
        let renewed = ca.issue(&Leaf::server("localhost"));
        replace(&renewed.certificate, &edge.certificate);
        replace(&renewed.private_key, &edge.private_key);
        self.reload(RELOADED);
    }

    /// A key that does not fit its certificate: everything stays as it was.
    fn break_certificate(&self) {
        let House { edge, backend, .. } = &self.scene.house;
        let kept = fs::read(&edge.private_key).unwrap();
        replace(&backend.private_key, &edge.private_key);
        self.reload(NOT_RELOADED);
        fs::write(&edge.private_key, kept).unwrap();
    }

    fn lose_server(&mut self, which: usize) {
        self.servers[which].kill();
        pause(Duration::from_millis(500));
        let again = self.servers[which].again(ringway!(), &self.scene.house.backend, self.echo);
        self.servers[which] = again;
    }

    fn stall_server(&self, which: usize) {
        self.servers[which].process.signal(libc::SIGSTOP);
        pause(Duration::from_millis(1500));
        self.servers[which].process.signal(libc::SIGCONT);
    }

    fn rotate_log(&mut self) {
        let proxy = &self.scene.proxy;
        let log = proxy.access_log_path();
        let before = log.with_extension("1");
        fs::rename(log, &before).unwrap();
        proxy.signal(libc::SIGUSR1);
        until("the log has a new file", || log.exists().then_some(()));
        // A batch may still be on its way into the old one.
        pause(Duration::from_millis(100));
        self.count(&fs::read_to_string(&before).unwrap());
        fs::remove_file(before).unwrap();
    }

    fn count(&mut self, log: &str) {
        for line in log.lines() {
            let record = Record(serde_json::from_str(line).expect("a whole line"));
            let kind = Kind::of(&record);
            if !is_explained(kind, &record) {
                self.unexplained.push(line.to_owned());
            }
            let by = record.find("ended_by").unwrap_or("nobody");
            let end = format!(
                "{kind:?}: {} in {} by {by}",
                record.text("end"),
                record.text("phase")
            );
            *self.ends.entry(end).or_default() += 1;
        }
    }
}

const RELOADED: &str = "reloaded";
const NOT_RELOADED: &str = "not reloaded";

fn replace(from: &PathBuf, to: &PathBuf) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).unwrap();
    fs::rename(beside, to).unwrap();
}

/// Resident memory, once a second.
fn watch(scene: &Scene) -> Vec<u64> {
    let mut samples = Vec::new();
    while scene.goes_on() {
        samples.push(scene.proxy.memory_bytes());
        pause(Duration::from_secs(1));
    }
    samples
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// By how much memory may differ at two times under the same load: pools, and the allocator's own.
const NOISE_BYTES: u64 = 4 << 20;

/// Returns what was seen, in words.
fn expect_flat(samples: &[u64]) -> String {
    let tenth = (samples.len() / 10).max(1);
    let early = median(&samples[tenth..(3 * tenth).min(samples.len())]);
    let late = median(&samples[samples.len() - tenth..]);
    assert!(late < early + early / 10 + NOISE_BYTES, "{samples:?}");
    format!("memory: {early} bytes early on, {late} at the end")
}

fn start(house: &House, servers: &[Server], echo: &Service) -> Proxy {
    let addresses: Vec<String> = servers
        .iter()
        .map(|it| format!("\"{}\"", it.address))
        .collect();
    let keys = "client_hello_timeout = \"1s\"\nupstream_handshake_timeout = \"1s\"\n\
                next_upstream_tries = 4";
    let toml = listener("front", "back", keys, &house.terminate())
        + &listener("plain", "echo", "", "")
        + &format!(
            "[upstream.back]\nfail_timeout = \"1s\"\nservers = [{}]\n{}\
             [upstream.echo]\nservers = [\"{}\"]\n",
            addresses.join(", "),
            house.originate("back"),
            echo.address()
        );
    ringway!().with_exact_memory().start(&toml)
}

/// What went wrong for clients, and the proxy's memory.
fn run(scene: &Scene, operator: &mut Operator<'_>, length: Duration) -> (Vec<String>, Vec<u64>) {
    thread::scope(|scope| {
        let watch = scope.spawn(move || watch(scene));
        let workers: Vec<_> = (0..)
            .zip(Kind::ALL)
            .map(|(seed, kind)| scope.spawn(move || work(scene, kind, seed)))
            .collect();
        let begun = Instant::now();
        while begun.elapsed() < length {
            operator.take_turn();
            pause(Duration::from_millis(500));
        }
        scene.stop.store(true, Ordering::Relaxed);
        let errors = workers.into_iter().flat_map(|it| it.join().unwrap());
        (errors.collect(), watch.join().unwrap())
    })
}

#[test]
fn under_load_and_faults_memory_stays_flat_and_every_end_is_explained() {
    let seconds = std::env::var("RINGWAY_TEST_SOAK_SECONDS");
    let seconds: u64 = seconds.map_or(10, |text| text.parse().expect("a number"));
    let house = House::new();
    let echo = Peer::plain().echo();
    let server = |last: u8| {
        Server::start(
            ringway!(),
            &format!("127.9.1.{last}:0"),
            &house.backend,
            &echo,
        )
    };
    let servers: Vec<Server> = (1..=3).map(server).collect();
    let proxy = start(&house, &servers, &echo);
    let files = proxy.open_files();
    let scene = Scene {
        house,
        proxy,
        stop: AtomicBool::new(false),
        served: AtomicU64::new(0),
    };
    let mut operator = Operator {
        scene: &scene,
        echo: &echo,
        servers,
        ends: BTreeMap::new(),
        unexplained: Vec::new(),
        turns: 0,
    };
    let (errors, memory) = run(&scene, &mut operator, Duration::from_secs(seconds));
    scene.proxy.wait_no_more_files(files, 2 * 2 * 64);
    operator.rotate_log();
    let Operator {
        ends,
        unexplained,
        turns,
        ..
    } = operator;
    println!(
        "{} clients served, {turns} turns",
        scene.served.into_inner()
    );
    ends.iter()
        .for_each(|(end, count)| println!("{count:>9} {end}"));
    println!("{}", expect_flat(&memory));
    let few = &unexplained[..unexplained.len().min(10)];
    assert!(few.is_empty(), "{} ends, say {few:#?}", unexplained.len());
    // One that its server left while it was served is all that a client may suffer.
    let lost: u64 = ends
        .iter()
        .filter(|(end, _)| end.contains("by upstream") && !end.contains("Vandal"))
        .map(|(_, count)| count)
        .sum();
    assert!(errors.len() as u64 <= lost, "{lost} lost: {errors:#?}");
}
