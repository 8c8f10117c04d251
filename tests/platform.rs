//! A kernel that refuses io_uring.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::Duration;

use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{Ending, House, Link, Peer, ringway};

#[test]
fn without_io_uring_it_refuses_to_start_and_names_cause_and_cure() {
    let echo = Peer::plain().echo();
    let exit = ringway!()
        .without_io_uring()
        .run_to_end(&front_to_back("", "", echo.address()));
    exit.expect_code(71)
        .expect_words(&["io_uring"])
        .expect_words(&["not permitted", "eperm", "seccomp"])
        .expect_words(&["seccomp", "io_uring_disabled", "sysctl"])
        .expect_words(&["--allow-epoll"]);
    assert!(!exit.stderr.contains("ringway is ready"), "{}", exit.stderr);
}

#[test]
fn allow_epoll_runs_without_io_uring_and_says_so() {
    let house = House::new();
    let echo = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let toml = listener("front", "back", "", &house.terminate())
        + &upstream("back", &[echo.address()], &house.originate("back"));
    let mut proxy = ringway!()
        .without_io_uring()
        .argument("--allow-epoll")
        .start(&toml);
    proxy.wait_stderr(&["epoll"]);
    let config = ClientTls::trusting(&house.ca).config();
    for _ in 0..10 {
        let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
        link.ping(&[7; 30_000]);
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        let record = proxy.record_of(link.local());
        record.expect(&[("end", "finished")]);
    }
    let before = proxy.cpu_time();
    pause(Duration::from_millis(500));
    let spent = proxy.cpu_time().saturating_sub(before);
    assert!(
        spent < Duration::from_millis(50),
        "idle on epoll it took {spent:?} CPU in half a second"
    );
    proxy.signal(15);
    proxy.wait_exit().expect_code(0);
}

#[test]
fn allow_epoll_does_not_leave_io_uring_unused_where_it_works() {
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let proxy = ringway!().argument("--allow-epoll").start(&toml);
    let rings = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().contains("[io_uring]"))
        .count();
    assert_eq!(
        rings,
        2,
        "one ring for each of two workers{}",
        proxy.story()
    );
}
