//! What is known of servers, through reloads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use ringway_support::dns::DnsServer;
use ringway_support::link::Address;
use ringway_support::peer::ClosedPort;
use ringway_support::toml::{listener, upstream};
use ringway_support::{Ending, Link, Peer, Proxy, Record, ringway, until};

fn visit(proxy: &Proxy) -> Record {
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    let local = link.local();
    finish(link);
    proxy.record_of(local)
}

fn finish(mut link: Link) {
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

fn toml(servers: &[&Address], keys: &str) -> String {
    listener("front", "back", "", "") + &upstream("back", servers, keys)
}

#[test]
fn a_server_that_connections_took_out_stays_out_in_a_group_that_changed() {
    let (dead, echo) = (ClosedPort::new(), Peer::plain().echo());
    let servers = [&dead.address(), echo.address()];
    let out = "max_fails = 1\nfail_timeout = \"1h\"";
    let mut proxy = ringway!().workers(1).start(&toml(&servers, out));
    until("the dead server is out", || {
        (visit(&proxy).count("tries") == 2).then_some(())
    });
    for keys in ["queue_timeout = \"1s\"", "queue_timeout = \"2s\""] {
        proxy.reload_with(&toml(&servers, &format!("{out}\n{keys}")));
        for _ in 0..4 {
            assert_eq!(visit(&proxy).count("tries"), 1, "{keys}");
        }
    }
    assert_eq!(proxy.stderr_lines("server down").len(), 1);
}

#[test]
fn what_checks_took_down_stays_down_while_there_are_checks_and_no_longer() {
    let (dead, echo) = (ClosedPort::new(), Peer::plain().echo());
    let servers = [&dead.address(), echo.address()];
    // Connections alone take nobody out.
    let group = toml(&servers, "max_fails = 0");
    let check = |interval: &str| {
        format!(
            "{group}[upstream.back.check]\nfall = 1\ntimeout = \"1s\"\ninterval = \"{interval}\"\n"
        )
    };
    let mut proxy = ringway!().start(&check("50ms"));
    until("it is down", || {
        (!proxy.stderr_lines("server down").is_empty()).then_some(())
    });
    proxy.reload_with(&check("100ms"));
    for _ in 0..8 {
        assert_eq!(visit(&proxy).count("tries"), 1, "it is barred");
    }
    assert_eq!(proxy.stderr_lines("server down").len(), 1, "no news");
    proxy.reload_with(&group);
    until("it is tried again", || {
        (visit(&proxy).count("tries") == 2).then_some(())
    });
}

#[test]
fn a_server_that_comes_back_is_seen_by_checks_that_went_on_through_reloads() {
    let (dead, echo) = (ClosedPort::new(), Peer::plain().echo());
    let servers = [&dead.address(), echo.address()];
    let check =
        "[upstream.back.check]\nfall = 1\nrise = 1\ntimeout = \"1s\"\ninterval = \"200ms\"\n";
    let text = toml(&servers, "max_fails = 0") + check;
    let mut proxy = ringway!().start(&text);
    until("it is down", || {
        (!proxy.stderr_lines("server down").is_empty()).then_some(())
    });
    let _back = Peer::listen(&dead.address(), 128).echo();
    // Oftener than checks are due: each reload would put the next one off for ever.
    until("it is up", || {
        proxy.reload();
        (!proxy.stderr_lines("server up").is_empty()).then_some(())
    });
    until("it has connections", || {
        (visit(&proxy).text("server") == dead.address().to_string()).then_some(())
    });
}

#[test]
fn names_that_stay_keep_their_answers_and_new_ones_are_asked_for_before_the_switch() {
    let dns = DnsServer::new();
    let echo = Peer::plain().echo();
    let port = echo.address().port();
    for name in ["one.example", "two.example"] {
        dns.set_addresses(name, &["127.0.0.1"]);
    }
    let group = |names: &[&str], keys: &str| {
        let servers = names.iter().map(|name| format!("\"{name}:{port}\""));
        let servers: Vec<_> = servers.collect();
        listener("front", "back", "", "")
            + &format!(
                "[upstream.back]\nservers = [{}]\nresolve_ttl_min = \"1h\"\nresolve_ttl_max = \"1h\"\n{keys}\n",
                servers.join(", ")
            )
    };
    let mut proxy = ringway!()
        .runtime(&dns.toml())
        .start(&group(&["one.example"], ""));
    visit(&proxy);
    let asked = dns.answered();
    for limit in 1..=5 {
        let keys = format!("max_connections = {}", limit + 5);
        proxy.reload_with(&group(&["one.example"], &keys));
        visit(&proxy);
    }
    assert_eq!(dns.answered(), asked, "nothing was asked that was known");
    proxy.reload_with(&group(&["two.example"], ""));
    for _ in 0..4 {
        visit(&proxy);
    }
    assert!(dns.answered() > asked);
}

#[test]
fn connections_to_a_server_that_was_taken_out_of_the_file_go_on() {
    let (one, two) = (Peer::plain().echo(), Peer::plain().echo());
    let mut proxy = ringway!().start(&toml(&[one.address()], ""));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"before");
    proxy.reload_with(&toml(&[two.address()], ""));
    for _ in 0..4 {
        assert_eq!(visit(&proxy).text("server"), two.address().to_string());
    }
    link.ping(b"after");
}

#[test]
fn the_limit_of_a_server_counts_connections_of_the_plan_before() {
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&toml(&[echo.address()], "max_connections = 2"));
    let mut links = [(); 2].map(|()| Link::connect(proxy.address("front")).unwrap());
    links.iter_mut().for_each(|link| link.ping(b"one of two"));
    proxy.reload_with(&toml(&[echo.address()], "max_connections = 3"));
    let mut third = Link::connect(proxy.address("front")).unwrap();
    third.ping(b"one more");
    let mut fourth = Link::connect(proxy.address("front")).unwrap();
    let _ = fourth.send(b"too many");
    assert_eq!(fourth.expect_end(), Ending::Reset);
    let [first, _second] = links;
    let local = first.local();
    first.reset();
    let _ = proxy.record_of(local);
    until("its place is free", || {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        let _ = link.send(b"x");
        (link.receive_some(&mut [0; 1]).ok() == Some(1)).then_some(())
    });
}

#[test]
fn a_limit_that_is_new_counts_from_the_reload_on() {
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&toml(&[echo.address()], ""));
    let mut before = Link::connect(proxy.address("front")).unwrap();
    before.ping(b"not counted");
    proxy.reload_with(&toml(&[echo.address()], "max_connections = 1"));
    let mut first = Link::connect(proxy.address("front")).unwrap();
    first.ping(b"the one");
    let mut second = Link::connect(proxy.address("front")).unwrap();
    let _ = second.send(b"too many");
    assert_eq!(second.expect_end(), Ending::Reset);
    // What was not counted is not given back.
    let local = before.local();
    finish(before);
    let _ = proxy.record_of(local);
    let mut third = Link::connect(proxy.address("front")).unwrap();
    let _ = third.send(b"still too many");
    assert_eq!(third.expect_end(), Ending::Reset);
    first.ping(b"still the one");
}

/// The first name would need a restart otherwise: see docs/sandbox.md.
const OPEN: &str = "[sandbox]\nlandlock = false\n";

#[test]
fn a_process_that_is_told_to_end_while_a_reload_waits_for_a_name_ends() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo = Peer::plain().echo();
    let resolver = format!("resolver = \"{}\"", silent.local_addr().unwrap());
    let mut proxy = ringway!()
        .runtime(&resolver)
        .start(&(toml(&[echo.address()], "") + OPEN));
    let unknown = listener("front", "back", "", "")
        + "[upstream.back]\nservers = [\"nobody.answers.example:1\"]\n"
        + OPEN;
    proxy.write(&unknown);
    proxy.signal(1);
    let mut question = [0; 512];
    silent.recv(&mut question).unwrap();
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"meanwhile by the plan before");
    drop(link);
    proxy.signal(15);
    proxy.wait_stderr(&["draining for"]);
    proxy.wait_exit().expect_code(0);
    assert!(proxy.stderr_lines("reloaded, generation").is_empty());
}
