//! Active health checks: what they find, what connections see of it, and what they leave alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::openssl::SServer;
use ringway_support::peer::{ClosedPort, Service};
use ringway_support::pki::Leaf;
use ringway_support::redis::Redis;
use ringway_support::tls::ServerTls;
use ringway_support::toml::{listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{Bystander, Ending, House, Link, Peer, Proxy, Record, ringway, until};

/// Two checks a time decide, so that a stall of a busy machine does not.
const QUICK: &str = "interval = \"50ms\"\nrise = 2\nfall = 2\n";

/// Listener `front` to these servers, with checks.
fn checked(servers: &[&Address], tls: &str, check: &str) -> String {
    listener("front", "back", "", "")
        + &upstream("back", servers, tls)
        + &format!("[upstream.back.check]\n{QUICK}{check}\n")
}

fn started(servers: &[&Address], tls: &str, check: &str) -> (Proxy, Bystander) {
    Bystander::beside(ringway!(), &checked(servers, tls, check))
}

/// A line on stderr with all these words, waited for.
fn line(proxy: &Proxy, words: &[&str]) -> String {
    until(&format!("a line with {words:?}"), || {
        let stderr = proxy.stderr();
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        stderr.lines().find(has_all).map(str::to_owned)
    })
}

/// The one line that says so of this address.
fn told(proxy: &Proxy, what: &str, address: &Address) -> String {
    let address = format!("address={address} ");
    let first = line(proxy, &[what, &address]);
    let lines = proxy.stderr_lines(what);
    let of_address = lines.iter().filter(|line| line.contains(&address));
    assert_eq!(of_address.count(), 1, "{lines:#?}");
    first
}

/// The servers of so many connections, each of which was made at the first try.
fn visited(proxy: &Proxy, connections: usize) -> BTreeSet<String> {
    let visits = (0..connections).map(|_| {
        let record = proxy.visit();
        assert_eq!(record.count("tries"), 1, "{record}");
        assert_eq!(record.find("passed_over"), None, "{record}");
        record.text("server").to_owned()
    });
    visits.collect()
}

fn refused(proxy: &Proxy) -> Record {
    let mut link = Link::connect(proxy.address("front")).unwrap();
    let (bytes, ending) = link.receive_to_end();
    assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
    proxy.record_of(link.local())
}

/// Answers `PING` as `pong` says, and everything else with itself.
fn answering(peer: Peer, pong: impl Fn() -> &'static [u8] + Send + Sync + 'static) -> Service {
    peer.serve(move |mut link| {
        let mut buffer = [0; 4096];
        loop {
            let received = match link.receive_some(&mut buffer) {
                Ok(0) | Err(_) => return drop(link.finish()),
                Ok(received) => &buffer[..received],
            };
            let answer = if received == b"PING\r\n" {
                pong()
            } else {
                received
            };
            if link.send(answer).is_err() {
                return;
            }
        }
    })
}

fn ponging(peer: Peer, pong: &'static [u8]) -> Service {
    answering(peer, move || pong)
}

/// Says that it is not ready while it is not, and serves all the same.
fn following(is_ready: &Arc<AtomicBool>) -> Service {
    let is_ready = Arc::clone(is_ready);
    answering(Peer::plain(), move || {
        match is_ready.load(Ordering::SeqCst) {
            true => b"+PONG\r\n",
            false => b"-ERR\r\n",
        }
    })
}

const PING: &str = "send = \"PING\\r\\n\"\nexpect = \"+PONG\"\n";

#[test]
fn a_killed_server_is_found_before_any_client_meets_it_and_comes_back_with_its_checks() {
    // Held, so that nobody else takes it while the server is dead.
    let port = ClosedPort::new();
    let address = port.address();
    let dies = Peer::listen(&address, 1024).echo();
    let stays = Peer::plain().echo();
    let (proxy, mut bystander) = started(&[stays.address(), &address], "", "");
    let both = BTreeSet::from([stays.address().to_string(), address.to_string()]);
    assert_eq!(visited(&proxy, 8), both);
    drop(dies);
    let down = told(&proxy, "server down", &address);
    assert!(
        down.contains("2 tcp checks in a row failed, the last: connect: Connection refused"),
        "{down}"
    );
    let alone = BTreeSet::from([stays.address().to_string()]);
    assert_eq!(visited(&proxy, 20), alone);
    let _again = Peer::listen(&address, 1024).echo();
    let up = told(&proxy, "server up", &address);
    assert!(up.contains("2 tcp checks in a row passed"), "{up}");
    assert_eq!(visited(&proxy, 8), both);
    let of_front = proxy.records();
    let of_front = of_front
        .iter()
        .filter(|it| it.find("listener") == Some("front"));
    assert_eq!(of_front.count(), 36, "checks are in no access log");
    bystander.settled(&proxy);
}

#[test]
fn a_server_that_is_stopped_fails_the_tls_check_though_its_port_takes_connections() {
    let house = House::new();
    let server = SServer::start(&house.backend, &[]);
    let echo = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let servers = [server.address(), echo.address()];
    let (proxy, mut bystander) = started(&servers, &house.originate("back"), "timeout = \"1s\"");
    server.signal(libc::SIGSTOP);
    let down = told(&proxy, "server down", server.address());
    assert!(
        down.contains("2 tls checks in a row failed, the last: no TLS handshake within 1s"),
        "{down}"
    );
    let alone = BTreeSet::from([echo.address().to_string()]);
    assert_eq!(visited(&proxy, 10), alone);
    server.signal(libc::SIGCONT);
    let _ = told(&proxy, "server up", server.address());
    bystander.settled(&proxy);
}

#[test]
fn a_server_with_a_wrong_certificate_fails_the_tls_check_until_it_has_a_right_one() {
    let house = House::new();
    let wrong = house.ca.issue(&Leaf::server("other.internal"));
    let port = ClosedPort::new();
    let address = port.address();
    let serve = |credential| {
        let config = ServerTls::with(credential).config();
        Peer::listen(&address, 1024).with_tls(config).echo()
    };
    let server = serve(&wrong);
    let echo = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let tls = house.originate("back");
    let (proxy, mut bystander) = started(&[&address, echo.address()], &tls, "");
    let down = told(&proxy, "server down", &address);
    assert!(down.contains("TLS: certificate"), "{down}");
    assert!(down.contains("issued for other.internal"), "{down}");
    assert_eq!(
        visited(&proxy, 6),
        BTreeSet::from([echo.address().to_string()])
    );
    drop(server);
    let _mended = serve(&house.backend);
    let _ = told(&proxy, "server up", &address);
    assert_eq!(visited(&proxy, 6).len(), 2);
    bystander.settled(&proxy);
}

#[test]
fn a_revoked_certificate_and_one_of_an_unknown_ca_fail_the_tls_check() {
    let (house, stranger) = (House::new(), House::new());
    let revoked = house.ca.issue(&Leaf::server("backend.internal"));
    let crl = house.ca.crl(&[&revoked]);
    let servers = [&revoked, &stranger.backend, &house.backend]
        .map(|credential| Peer::tls(ServerTls::with(credential).config()).echo());
    let addresses = servers.each_ref().map(Service::address);
    let tls = format!("{}crl = \"{}\"\n", house.originate("back"), crl.display());
    let (proxy, mut bystander) = started(&addresses, &tls, "");
    let down = told(&proxy, "server down", addresses[0]);
    assert!(down.contains("revoked"), "{down}");
    let down = told(&proxy, "server down", addresses[1]);
    assert!(down.contains("unknown issuer"), "{down}");
    let good = BTreeSet::from([addresses[2].to_string()]);
    assert_eq!(visited(&proxy, 6), good);
    bystander.settled(&proxy);
}

#[test]
fn a_tls_check_never_resumes_and_leaves_the_sessions_of_connections_alone() {
    let house = House::new();
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let toml = checked(&[server.address()], &house.originate("back"), "");
    let (proxy, mut bystander) = Bystander::beside(ringway!().workers(1), &toml);
    let more_checks = || {
        let before = server.counts().full();
        until("more checks", || {
            (server.counts().full() > before + 10).then_some(())
        });
    };
    more_checks();
    assert_eq!(server.counts().resumed(), 0);
    let first = proxy.visit();
    assert!(!first.flag("upstream_resumed"), "{first}");
    more_checks();
    let second = proxy.visit();
    assert!(second.flag("upstream_resumed"), "{second}");
    more_checks();
    assert_eq!(server.counts().resumed(), 1);
    assert_eq!(server.counts().failed(), 0);
    bystander.settled(&proxy);
}

#[test]
fn a_tls_check_shows_the_groups_client_certificate() {
    let house = House::new();
    let config = || ServerTls::with(&house.backend).require_client(&house.ca);
    let server = ponging(Peer::tls(config().config()), b"+PONG\r\n");
    let with = format!("{}{}", house.originate("back"), house.client.toml());
    let toml = checked(&[server.address()], &with, PING)
        + &listener("aside", "without", "", "")
        + &upstream("without", &[server.address()], &house.originate("without"))
        + &format!("[upstream.without.check]\n{QUICK}{PING}");
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let down = told(&proxy, "server down", server.address());
    assert!(down.contains("without"), "{down}");
    assert!(
        down.contains("it wants a certificate and was shown none"),
        "{down}"
    );
    assert_eq!(visited(&proxy, 4).len(), 1);
    bystander.settled(&proxy);
}

/// A server of the group takes every connection for one with a header.
#[test]
fn a_check_tells_that_it_is_no_clients_connection_and_comes_from_the_groups_address() {
    for (version, header) in [
        ("v1", &b"PROXY UNKNOWN\r\n"[..]),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0"),
    ] {
        let peer = Peer::plain();
        let keys = format!("proxy_protocol = \"{version}\"\nsource_address = \"127.0.0.9\"\n");
        let toml = checked(&[peer.address()], &keys, PING);
        let _proxy = ringway!().workers(1).start(&toml);
        let mut check = peer.accept();
        let from = check.socket().peer_addr().unwrap().as_socket().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.9");
        assert_eq!(check.receive(header.len()), header);
        let rest = check.receive(PING_BYTES.len() + usize::from(version == "v2") * CHECKSUM_BYTES);
        assert!(rest.ends_with(PING_BYTES), "{version}: {rest:?}");
    }
}

const PING_BYTES: &[u8] = b"PING\r\n";
/// Length of the block, and the TLV with the CRC32C in it.
const CHECKSUM_BYTES: usize = 1 + 7;

#[test]
fn what_is_sent_must_be_answered_with_what_is_expected() {
    let good = ponging(Peer::plain(), b"* banner\r\n+PONG\r\n");
    let wrong = ponging(Peer::plain(), b"-LOADING\x1b[2J\r\n");
    let silent = ponging(Peer::plain(), b"");
    let closes = Peer::plain().serve(|mut link| {
        let _ = link.receive_some(&mut [0; 64]);
    });
    let floods = Peer::plain().serve(|mut link| while link.send(&[b'x'; 1000]).is_ok() {});
    let servers = [&good, &wrong, &silent, &closes, &floods].map(|it| it.address());
    let check = format!("{PING}timeout = \"1s\"\n");
    let proxy = ringway!().start(&checked(&servers, "", &check));
    for (server, words) in [
        (
            &wrong,
            r#"-LOADING\\x1b[2J\\r\\n\" has no \"+PONG\" within 1s"#,
        ),
        (&silent, "no answer within 1s"),
        (&closes, "it closed without an answer"),
        (&floods, "has no \\\"+PONG\\\""),
    ] {
        let down = told(&proxy, "server down", server.address());
        let plain = |text: &str| text.replace('\\', "");
        assert!(plain(&down).contains(&plain(words)), "{down}\n{words}");
    }
    let answers = BTreeSet::from([good.address().to_string()]);
    assert_eq!(visited(&proxy, 10), answers);
    assert_eq!(proxy.stderr_lines("server up").len(), 0);
}

/// Given by name, as most are.
#[test]
fn a_real_redis_server_is_followed_through_a_stall_and_its_death() {
    let port = ClosedPort::new();
    let address = port.address();
    let redis = Redis::at(&address);
    let name = format!("localhost:{}", address.port());
    let toml = listener("front", "back", "", "")
        + &format!(
            "[upstream.back]\nservers = [\"{name}\"]\n[upstream.back.check]\n{QUICK}{PING}\
             timeout = \"1s\"\n"
        );
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let pings = || {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.send(b"PING\r\n").unwrap();
        assert_eq!(link.receive(7), b"+PONG\r\n");
        let local = link.local();
        drop(link);
        assert!(proxy.record_of(local).count("tries") >= 1);
    };
    pings();
    redis.signal(libc::SIGSTOP);
    let down = told(&proxy, "server down", &address);
    assert!(down.contains(&name), "{down}");
    assert!(down.contains("no answer within 1s"), "{down}");
    redis.signal(libc::SIGCONT);
    let _ = told(&proxy, "server up", &address);
    pings();
    drop(redis);
    let of_address = format!("address={address} ");
    let _ = line(&proxy, &["server down", &of_address, "Connection refused"]);
    let record = refused(&proxy);
    record.expect(&[("end", "no_server")]);
    let _redis = Redis::at(&address);
    until("redis is up again", || {
        let ups = proxy.stderr_lines("server up");
        let ups = ups.iter().filter(|line| line.contains(&of_address));
        (ups.count() == 2).then_some(())
    });
    pings();
    bystander.settled(&proxy);
}

/// Its port answers, and every connection to it would work.
#[test]
fn no_connection_reaches_or_brings_back_who_is_down_by_its_checks_and_live_ones_go_on() {
    let is_ready = Arc::new(AtomicBool::new(true));
    let server = following(&is_ready);
    let lines = "max_fails = 1\nfail_timeout = \"50ms\"\n";
    let toml = listener("front", "back", "", "")
        + &upstream("back", &[server.address()], lines)
        + &format!("[upstream.back.check]\n{QUICK}{PING}");
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let mut live = Link::connect(proxy.address("front")).unwrap();
    live.ping(b"before");
    is_ready.store(false, Ordering::SeqCst);
    let down = told(&proxy, "server down", server.address());
    assert!(down.contains("-ERR"), "{down}");
    // Several times its fail_timeout.
    for _ in 0..5 {
        let record = refused(&proxy);
        record.expect(&[("end", "no_server")]);
        record.expect_reason(&["down by their checks"]);
        assert_eq!(record.count("tries"), 0, "{record}");
        pause(Duration::from_millis(60));
    }
    live.ping(b"meanwhile");
    is_ready.store(true, Ordering::SeqCst);
    let _ = told(&proxy, "server up", server.address());
    assert_eq!(visited(&proxy, 4).len(), 1);
    live.ping(b"after");
    drop(live);
    bystander.settled(&proxy);
}

/// Its port takes connections, which is all that the check asks, and each of them is reset.
#[test]
fn checks_that_pass_do_not_bring_back_who_is_out_by_its_connections() {
    let resets = Peer::plain().serve(|link| {
        pause(Duration::from_millis(100));
        link.reset();
    });
    let echo = Peer::plain().echo();
    let servers = [resets.address(), echo.address()];
    let toml = listener("front", "back", "", "")
        + &upstream("back", &servers, "max_fails = 1\nfail_timeout = \"1h\"\n")
        + &format!("[upstream.back.check]\n{QUICK}");
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    until("its connections take it out", || {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.limit(Duration::from_millis(200)).unwrap();
        let _ = link.receive_some(&mut [0; 16]);
        (!proxy.stderr_lines("server down").is_empty()).then_some(())
    });
    let down = told(&proxy, "server down", resets.address());
    assert!(down.contains("reset"), "{down}");
    let before = resets.counts().accepted();
    until("more checks", || {
        (resets.counts().accepted() > before + 10).then_some(())
    });
    assert_eq!(proxy.stderr_lines("server up").len(), 0);
    // The other worker is told by way of the control thread.
    assert_eq!(
        visited(&proxy, 10),
        BTreeSet::from([echo.address().to_string()])
    );
    bystander.settled(&proxy);
}

#[test]
fn many_checks_of_every_outcome_leave_no_file_open() {
    let house = House::new();
    let wrong = house.ca.issue(&Leaf::server("other.internal"));
    let good = ponging(
        Peer::tls(ServerTls::with(&house.backend).config()),
        b"+PONG",
    );
    let unnamed = Peer::tls(ServerTls::with(&wrong).config()).echo();
    let plain = Peer::plain().echo();
    let closed = ClosedPort::new();
    let silent = ponging(Peer::tls(ServerTls::with(&house.backend).config()), b"");
    let servers = [
        good.address(),
        unnamed.address(),
        plain.address(),
        &closed.address(),
        silent.address(),
    ];
    let check = format!("{PING}timeout = \"50ms\"\n");
    let tls = house.originate("back");
    let proxy = ringway!().start(&checked(&servers, &tls, &check));
    let mut files = proxy.open_files();
    for server in &servers[1..] {
        let _ = told(&proxy, "server down", server);
    }
    let accepted = || {
        let peers = [&good, &unnamed, &plain, &silent];
        peers.map(|it| it.counts().accepted())
    };
    let before = accepted();
    until("30 checks more of each", || {
        let pairs = before.into_iter().zip(accepted());
        pairs
            .map(|(before, now)| now - before)
            .all(|it| it > 30)
            .then_some(())
    });
    // Each server may be asked just now.
    files.sockets += servers.len();
    proxy.wait_no_more_files(files, 0);
}

#[test]
fn the_drain_ends_the_checks_while_connections_go_on() {
    let server = Peer::plain().echo();
    let (mut proxy, bystander) = started(&[server.address()], "", "");
    let mut live = Link::connect(proxy.address("front")).unwrap();
    live.ping(b"before");
    proxy.signal(libc::SIGTERM);
    let _ = line(&proxy, &["draining"]);
    // One that was begun may still be in the server's queue.
    pause(Duration::from_millis(100));
    let accepted = server.counts().accepted();
    pause(Duration::from_millis(300));
    assert_eq!(server.counts().accepted(), accepted);
    live.ping(b"still here");
    drop(live);
    drop(bystander);
    proxy.wait_exit().expect_code(0);
}
