//! Servers that die, stall, show wrong certificates and come back: what clients notice of it, which
//! is nothing where a retry can save them, and what is logged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::peer::{Blackhole, ClosedPort};
use ringway_support::pki::Leaf;
use ringway_support::server::Server;
use ringway_support::tls::ServerTls;
use ringway_support::toml::listener;
use ringway_support::wait::pause;
use ringway_support::{Bystander, Ending, House, Link, Peer, Proxy, Record, ringway, until};

fn back(keys: &str, servers: &[&Address]) -> String {
    let servers: Vec<String> = servers.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "[upstream.back]\n{keys}\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// Clients that come and go on threads of their own, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(proxy: &Proxy, clients: usize) -> Self {
        let (stop, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let client = |_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let address = proxy.address("front").clone();
            thread::spawn(move || {
                let mut errors = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match once(&address) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::SeqCst)),
                        Err(words) => errors.push(words),
                    }
                }
                errors
            })
        };
        Self {
            threads: (0..clients).map(client).collect(),
            stop: Arc::clone(&stop),
            served,
        }
    }

    /// Waits until so many more clients were served.
    fn serve(&self, more: u64) {
        let target = self.served.load(Ordering::SeqCst) + more;
        until("clients are served", || {
            (self.served.load(Ordering::SeqCst) >= target).then_some(())
        });
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    }
}

fn once(address: &Address) -> Result<(), String> {
    let mut link = Link::connect(address).map_err(|error| error.to_string())?;
    link.send(b"hello").map_err(|error| error.to_string())?;
    link.finish().map_err(|error| error.to_string())?;
    match link.receive_to_end() {
        (bytes, Ending::Clean) if bytes == b"hello" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Connections that each server has served, of the records after the first `skip`.
fn shares(proxy: &Proxy, skip: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for record in proxy.records().iter().skip(skip) {
        if let Some(server) = record.find("server") {
            *shares.entry(server.to_owned()).or_default() += 1;
        }
    }
    shares
}

fn expect_even(proxy: &Proxy, load: &Load, servers: &[&Address]) {
    let skip = proxy.records().len();
    load.serve(200);
    let shares = shares(proxy, skip);
    let all: usize = shares.values().sum();
    let part = all / servers.len();
    for server in servers {
        let had = shares.get(&server.to_string()).copied().unwrap_or(0);
        assert!(
            had > part / 2 && had < part * 2,
            "{server} had {had} of {all} connections: {shares:?}"
        );
    }
    let known = |it: &String| servers.iter().any(|server| server.to_string() == *it);
    let strangers = shares
        .iter()
        .filter(|(it, _)| !known(it))
        .map(|(_, had)| had);
    // Those under way when it was taken out, and trials.
    assert!(strangers.sum::<usize>() <= all / 10, "{shares:?}");
}

#[test]
fn under_load_no_client_notices_a_server_that_is_killed_stalled_or_shows_a_wrong_certificate() {
    let house = House::new();
    let wrong = house.ca.issue(&Leaf::server("other.internal"));
    let echo = Peer::plain().echo();
    let server = |last: u8| {
        Server::start(
            ringway!(),
            &format!("127.9.0.{last}:0"),
            &house.backend,
            &echo,
        )
    };
    let sound = server(1);
    let mut killed = server(2);
    let stalled = server(3);
    let mut false_one = server(4);
    let addresses = [&sound, &killed, &stalled, &false_one].map(|it| it.address.clone());
    let all: Vec<&Address> = addresses.iter().collect();
    let keys = "upstream_handshake_timeout = \"1s\"\nnext_upstream_tries = 4";
    let toml = listener("front", "back", keys, "")
        + &back("fail_timeout = \"1s\"", &all)
        + &house.originate("back");
    let proxy = ringway!().workers(2).start(&toml);
    let load = Load::start(&proxy, 4);
    expect_even(&proxy, &load, &all);

    killed.kill();
    proxy.wait_stderr(&["server down"]);
    expect_even(&proxy, &load, &[all[0], all[2], all[3]]);

    stalled.process.signal(libc::SIGSTOP);
    until("the stalled server is out", || {
        (proxy.stderr_lines("server down").len() >= 2).then_some(())
    });
    false_one.kill();
    let false_again = false_one.again(ringway!(), &wrong, &echo);
    until("the certificate was refused at a trial", || {
        let records = proxy.records();
        let refused = |it: &Record| it.reasons().contains("certificate_refused");
        records.iter().any(refused).then_some(())
    });
    // What is left serves everyone, but for the trials of the others.
    let skip = proxy.records().len();
    load.serve(100);
    let own = shares(&proxy, skip).get(&all[0].to_string()).copied();
    assert!(own.unwrap_or(0) >= 90, "{:?}", shares(&proxy, skip));

    // All come back, and have their shares.
    killed = killed.again(ringway!(), &house.backend, &echo);
    stalled.process.signal(libc::SIGCONT);
    drop(false_again);
    false_one = false_one.again(ringway!(), &house.backend, &echo);
    until("all are up again", || {
        let down = proxy.stderr_lines("server down").len();
        (proxy.stderr_lines("server up").len() == down).then_some(())
    });
    expect_even(&proxy, &load, &all);

    // Who was being served by a server that was killed had sent its bytes: no retry may save that.
    let errors = load.end();
    let records = proxy.records();
    let cut: Vec<&Record> = records
        .iter()
        .filter(|it| it.text("end") != "finished")
        .collect();
    for record in &cut {
        assert_eq!(
            record.text("phase"),
            "relay",
            "a retry could have saved {record}"
        );
        assert_eq!(record.text("ended_by"), "upstream", "{record}");
    }
    assert!(
        errors.len() <= cut.len() && cut.len() <= 8,
        "{errors:?}, {cut:?}"
    );
    drop((sound, killed, stalled, false_one));
}

#[test]
fn what_one_core_finds_all_learn_and_one_line_says() {
    let closed = ClosedPort::new();
    let echo = Peer::plain().echo();
    let toml = listener("front", "back", "", "")
        + &back(
            "fail_timeout = \"10m\"",
            &[&closed.address(), echo.address()],
        );
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(4), &toml);
    let failed = |record: &Record| record.count("tries") == 2;
    let first = until("the refusing server has had its turn", || {
        Some(proxy.visit()).filter(failed)
    });
    first.expect_reason(&["refused"]);
    let line = proxy.stderr_line("server down");
    let server = closed.address().to_string();
    for words in ["back", &server, "connect: unreachable", "refused"] {
        assert!(line.to_lowercase().contains(words), "{words} in {line}");
    }
    // A letter takes less than a look at a file; but the cores must have had their turn to read it.
    pause(Duration::from_millis(200));
    for _ in 0..40 {
        assert!(!failed(&proxy.visit()), "every core knows");
    }
    assert_eq!(proxy.stderr_lines("server down").len(), 1);
    bystander.settled(&proxy);
}

/// Connections of 20 that a server gets beside another one, once it has come back.
fn gained_when_back(keys: &str) -> u64 {
    let closed = ClosedPort::new();
    let echo = Peer::plain().echo();
    let keys = format!("fail_timeout = \"500ms\"\n{keys}");
    let toml =
        listener("front", "back", "", "") + &back(&keys, &[&closed.address(), echo.address()]);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(2), &toml);
    until("the refusing server is out", || {
        let _ = proxy.visit();
        (!proxy.stderr_lines("server down").is_empty()).then_some(())
    });
    let again = Peer::listen(&closed.address(), 64).echo();
    until("it serves again", || {
        let record = proxy.visit();
        (record.text("server") == again.address().to_string()).then_some(())
    });
    let line = proxy.stderr_line("server up");
    assert!(line.contains(&again.address().to_string()), "{line}");
    pause(Duration::from_millis(200));
    let before = again.counts().accepted();
    (0..20).for_each(|_| drop(proxy.visit()));
    let gained = again.counts().accepted() - before;
    bystander.settled(&proxy);
    gained
}

#[test]
fn a_server_that_is_back_is_tried_by_one_and_then_by_all() {
    let gained = gained_when_back("");
    assert!((8..=12).contains(&gained), "{gained} of 20");
}

#[test]
fn a_server_that_is_back_has_a_small_share_at_first_where_it_starts_slowly() {
    let gained = gained_when_back("slow_start = \"1h\"");
    assert!(gained <= 5, "{gained} of 20");
}

#[test]
fn where_all_servers_are_out_they_are_tried_all_the_same() {
    let closed = ClosedPort::new();
    let toml =
        listener("front", "back", "", "") + &back("fail_timeout = \"10m\"", &[&closed.address()]);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    for _ in 0..3 {
        let record = proxy.visit_in_vain();
        record.expect(&[("end", "unreachable"), ("phase", "connect")]);
        assert_eq!(record.count("tries"), 1, "{record}");
    }
    assert_eq!(proxy.stderr_lines("server down").len(), 1);
    let again = Peer::listen(&closed.address(), 64).echo();
    proxy.visit().expect(&[("end", "finished")]);
    let _ = proxy.stderr_line("server up");
    drop(again);
    bystander.settled(&proxy);
}

#[test]
fn failures_below_the_limit_take_no_server_out() {
    let closed = ClosedPort::new();
    let echo = Peer::plain().echo();
    for (max_fails, expected) in [(0, 20), (3, 3)] {
        let keys = format!("max_fails = {max_fails}\nfail_timeout = \"10m\"");
        let toml =
            listener("front", "back", "", "") + &back(&keys, &[&closed.address(), echo.address()]);
        let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
        let tries: Vec<u64> = (0..20).map(|_| proxy.visit().count("tries")).collect();
        let failed = tries.iter().filter(|it| **it == 2).count();
        assert_eq!(failed, expected, "max_fails = {max_fails}: {tries:?}");
        bystander.settled(&proxy);
    }
}

#[test]
fn a_reset_before_anything_was_carried_is_a_failure_and_one_after_is_none() {
    let resetting = Peer::plain().serve(Link::reset);
    let echo = Peer::plain().echo();
    let servers = [resetting.address(), echo.address()];
    let toml = listener("front", "back", "", "") + &back("fail_timeout = \"10m\"", &servers);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    // Silent clients: nothing is carried.
    until("the resetting server is out", || {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.limit(Duration::from_millis(100)).unwrap();
        let _ = link.receive_to_end();
        link.reset();
        (!proxy.stderr_lines("server down").is_empty()).then_some(())
    });
    bystander.settled(&proxy);

    // It reads a byte of the client's first, so that the client may have brought it about.
    let provoked = Peer::plain().serve(|mut link| {
        let _ = link.receive_some(&mut [0; 64]);
        link.reset();
    });
    let toml = listener("front", "back", "", "")
        + &back(
            "fail_timeout = \"10m\"",
            &[provoked.address(), echo.address()],
        );
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    for _ in 0..10 {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.send(b"poison").unwrap();
        // Its reset may be here already.
        let _ = link.finish();
        let _ = link.receive_to_end();
    }
    assert_eq!(provoked.counts().accepted(), 5, "it keeps its share");
    assert!(proxy.stderr_lines("server down").is_empty());
    bystander.settled(&proxy);
}

#[test]
fn each_failure_goes_on_to_the_next_server_only_where_its_word_says_so() {
    let house = House::new();
    let wrong = house.ca.issue(&Leaf::server("other.internal"));
    let good = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let closed = ClosedPort::new();
    let hole = Blackhole::new();
    let plain = Peer::plain().serve(|mut link| {
        let _ = link.send(b"220 I speak plain text\r\n");
        let _ = link.receive_to_end();
    });
    let unnamed = Peer::tls(ServerTls::with(&wrong).config()).echo();
    let cases = [
        ("refused", closed.address(), "unreachable", "connect"),
        (
            "connect-timeout",
            hole.address().clone(),
            "timeout",
            "connect",
        ),
        (
            "handshake",
            plain.address().clone(),
            "protocol_error",
            "upstream_handshake",
        ),
        (
            "verification",
            unnamed.address().clone(),
            "certificate_refused",
            "upstream_handshake",
        ),
    ];
    for (word, bad, cause, phase) in &cases {
        let others: Vec<String> = cases
            .iter()
            .filter(|(other, ..)| other != word)
            .map(|(other, ..)| format!("\"{other}\""))
            .collect();
        for (on, saved) in [
            (format!("[\"{word}\"]"), true),
            (format!("[{}]", others.join(", ")), false),
            ("\"off\"".to_owned(), false),
        ] {
            let keys = format!("connect_timeout = \"300ms\"\nnext_upstream = {on}");
            let toml = listener("front", "back", &keys, "")
                + &back("max_fails = 0", &[bad, good.address()])
                + &house.originate("back");
            let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
            if saved {
                let records = [proxy.visit(), proxy.visit()];
                let tries: u64 = records.iter().map(|it| it.count("tries")).sum();
                assert!(tries >= 3, "{word}: {tries} tries of two connections");
            } else {
                let record = until("the bad server has its turn", || {
                    let mut link = Link::connect(proxy.address("front")).unwrap();
                    let _ = link.send(b"hello");
                    let _ = link.finish();
                    let _ = link.receive_to_end();
                    let record = proxy.record_of(link.local());
                    (record.text("server") == bad.to_string()).then_some(record)
                });
                record.expect(&[("end", cause), ("phase", phase)]);
                assert_eq!(record.count("tries"), 1, "{record}");
            }
            bystander.settled(&proxy);
        }
    }
}

#[test]
fn all_tries_together_have_a_time_limit() {
    let holes: Vec<Blackhole> = (0..3).map(|_| Blackhole::new()).collect();
    let addresses: Vec<&Address> = holes.iter().map(Blackhole::address).collect();
    let keys = "connect_timeout = \"400ms\"\nnext_upstream_timeout = \"600ms\"";
    let toml = listener("front", "back", keys, "") + &back("", &addresses);
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let record = proxy.visit_in_vain();
    record.expect(&[("end", "timeout"), ("phase", "connect")]);
    record.expect_reason(&["next_upstream_timeout"]);
    assert_eq!(record.count("tries"), 2, "{record}");
    let total = record.number("total_ms");
    assert!((600.0..5000.0).contains(&total), "{record}");
    // Who had less than its own time is not blamed.
    assert_eq!(proxy.stderr_lines("server down").len(), 1);
    bystander.settled(&proxy);
}
