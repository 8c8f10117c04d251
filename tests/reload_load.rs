//! Reloads under load: nothing fails, and nothing is left behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::pki::Leaf;
use ringway_support::process::SPARE_PIPE_ENDS_MAX;
use ringway_support::reload::Pair;
use ringway_support::tls::ClientTls;
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{Ending, House, Link, Peer, Proxy, ringway, until};

const SIGHUP: i32 = 1;
const SIGTERM: i32 = 15;

/// Clients at work until it is dropped, and what went wrong.
struct Load {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// `visitors` make one full handshake after the other; `stayers` stay and move much.
    fn begin(house: &House, front: &Address, visitors: usize, stayers: usize) -> Self {
        let (over, done) = (Arc::default(), Arc::new(AtomicU64::new(0)));
        let mut clients = Vec::new();
        for number in 0..visitors + stayers {
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            let (tls, front) = (ClientTls::trusting(&house.ca), front.clone());
            clients.push(thread::spawn(move || {
                let is_over: &AtomicBool = &over;
                if number < visitors {
                    while !is_over.load(Ordering::Relaxed) {
                        visit(&tls, &front);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                } else {
                    stay(&tls, &front, is_over);
                }
            }));
        }
        let load = Self {
            over,
            done,
            clients,
        };
        load.goes_on();
        load
    }

    /// Waits until some more connections were made.
    fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until("some more connections", || {
            (self.done.load(Ordering::Relaxed) >= before + 4).then_some(())
        });
    }

    /// How many connections were made; each of them was right, or its thread has panicked.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no operation of this client fails");
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// A client that has no session: its handshake is a full one.
fn visit(tls: &ClientTls, front: &Address) {
    let mut link = Link::connect_tls(front, &tls.config(), "localhost").unwrap();
    link.ping(b"a full handshake");
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

fn stay(tls: &ClientTls, front: &Address, over: &AtomicBool) {
    let mut link = Link::connect_tls(front, &tls.config(), "localhost").unwrap();
    let chunk = vec![7; 48 * 1024];
    while !over.load(Ordering::Relaxed) {
        link.ping(&chunk);
    }
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

/// A record for every connection, and none of them with an end that was not its own.
fn expect_clean_records(proxy: &Proxy) {
    for record in proxy.records() {
        record.expect(&[("end", "finished")]);
    }
}

#[test]
fn a_hundred_reloads_with_changed_certificates_fail_nothing_and_leave_nothing() {
    let house = House::new();
    let others = [0, 1].map(|_| house.ca.issue(&Leaf::server("localhost")));
    let pair = Pair::of(&house.edge);
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &pair.toml(), echo.address());
    let mut proxy = ringway!().with_exact_memory().start(&toml);
    let front = proxy.address("front").clone();
    let reload = |proxy: &mut Proxy, number: usize| {
        let load = Load::begin(&house, &front, 2, 2);
        for turn in 0..number {
            pair.put(&others[turn % 2]);
            proxy.reload();
            if turn % 10 == 0 {
                load.goes_on();
            }
        }
        load.end()
    };
    let files = proxy.open_files();
    reload(&mut proxy, 20);
    proxy.wait_no_more_files(files, SPARE_PIPE_ENDS_MAX);
    let memory = proxy.memory_bytes();
    let visits = reload(&mut proxy, 100);
    assert!(visits >= 40, "{visits} connections are no load");
    proxy.wait_no_more_files(files, SPARE_PIPE_ENDS_MAX);
    let after = proxy.memory_bytes();
    eprintln!("{visits} connections; memory before {memory}, after {after}");
    assert!(
        after < memory + 3 * 1024 * 1024,
        "100 reloads keep {} KiB",
        (after - memory) / 1024
    );
    expect_clean_records(&proxy);
    proxy.expect_alive();
}

#[test]
fn a_pair_replaced_file_by_file_in_either_order_never_leads_to_a_failed_handshake() {
    let house = House::new();
    let next = house.ca.issue(&Leaf::server("localhost"));
    let pair = Pair::of(&house.edge);
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &pair.toml(), echo.address());
    let proxy = ringway!().start(&toml);
    let load = Load::begin(&house, proxy.address("front"), 2, 1);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                let credential = [&house.edge, &next][turn / 2 % 2];
                if turn % 2 == 0 {
                    pair.put_certificate(credential);
                    pause(Duration::from_millis(3));
                    pair.put_key(credential);
                } else {
                    pair.put_key(credential);
                    pause(Duration::from_millis(3));
                    pair.put_certificate(credential);
                }
                pause(Duration::from_millis(3));
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for number in 1..=60 {
            proxy.signal(SIGHUP);
            until("it has an answer", || {
                (proxy.stderr_lines("reloaded").len() >= number).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    load.goes_on();
    load.end();
    let refused = proxy.stderr_lines("not reloaded").len();
    assert!((1..60).contains(&refused), "{refused} of 60 were refused");
    expect_clean_records(&proxy);
}

#[test]
fn a_storm_of_signals_is_answered_and_harms_nobody() {
    let house = House::new();
    let pair = Pair::of(&house.edge);
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &pair.toml(), echo.address());
    let mut proxy = ringway!().start(&toml);
    let load = Load::begin(&house, proxy.address("front"), 1, 1);
    for _ in 0..500 {
        proxy.signal(SIGHUP);
    }
    load.goes_on();
    proxy.reload();
    load.end();
    expect_clean_records(&proxy);
    proxy.expect_alive();
}

#[test]
fn groups_and_listeners_that_change_at_each_reload_leave_nothing() {
    let echo = Peer::plain().echo();
    let toml = |turn: usize| {
        let side = match turn % 2 {
            0 => listener("side", "back", "", ""),
            _ => String::new(),
        };
        let keys = format!("warm = 2\nmax_connections = {}", 10 + turn);
        listener("front", "back", "", "") + &side + &upstream("back", &[echo.address()], &keys)
    };
    let mut proxy = ringway!().with_exact_memory().start(&toml(0));
    let mut turns = 0..;
    let mut reload = |proxy: &mut Proxy, number: usize| {
        for turn in turns.by_ref().take(number) {
            proxy.reload_with(&toml(turn));
            let mut link = Link::connect(proxy.address("front")).unwrap();
            link.ping(b"served");
        }
        // What was warm for the groups before says goodbye within a second.
        until("the groups before are gone", || {
            let files = proxy.open_files();
            Some(files).filter(|it| it.sockets < 30)
        })
    };
    reload(&mut proxy, 20);
    let memory = proxy.memory_bytes();
    reload(&mut proxy, 100);
    let after = proxy.memory_bytes();
    eprintln!("memory before {memory}, after {after}");
    assert!(after < memory + 2 * 1024 * 1024, "{memory} to {after}");
    expect_clean_records(&proxy);
}

#[test]
fn a_draining_proxy_refuses_to_reload_and_goes_on_draining() {
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&front_to_back("", "", echo.address()));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"before");
    proxy.signal(SIGTERM);
    proxy.wait_stderr(&["draining for"]);
    proxy.signal(SIGHUP);
    proxy.wait_stderr(&["no reload"]);
    link.ping(b"still there");
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    proxy.wait_exit().expect_code(0);
}
