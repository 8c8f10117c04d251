//! What a service manager gives and hears: sockets, readiness, the end, the watchdog.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_support::link::Address;
use ringway_support::proxy::until_refused;
use ringway_support::toml::{front_to_back, listener};
use ringway_support::wait::within;
use ringway_support::{DEADLINE, Ending, Link, Peer, Proxy, ringway};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

const SIGTERM: i32 = 15;

/// The service manager's end of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            socket,
            path,
            directory,
        }
    }

    /// The next message that has a line of these words.
    fn expect(&self, words: &str) -> String {
        let mut heard = Vec::new();
        for _ in 0..100 {
            let message = self.next();
            if message.lines().any(|line| line == words) {
                return message;
            }
            heard.push(message);
        }
        panic!("{words} was not said, but {heard:?}");
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).expect("a message in time");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }
}

/// A listening socket as a service manager opens it: blocking, and kept by it.
fn listening(address: &str, reuse_port: bool) -> (Socket, Address) {
    let address: Address = address.parse().unwrap();
    let (domain, name) = match &address {
        Address::Ip(ip) => (Domain::for_address(*ip), SockAddr::from(*ip)),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    if reuse_port {
        socket.set_reuse_port(true).unwrap();
    }
    socket.bind(&name).unwrap();
    socket.listen(64).unwrap();
    let bound = socket.local_addr().unwrap().as_socket();
    (socket, bound.map_or(address, Address::Ip))
}

fn given(socket: &Socket) -> OwnedFd {
    socket.try_clone().unwrap().into()
}

/// [`front_to_back`] at this address.
fn at(address: &Address, server: &Address) -> String {
    front_to_back("", "", server).replace("127.0.0.1:0", &address.to_string())
}

fn expect_service(address: &Address) {
    let mut link = Link::connect(address).unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

fn end(mut proxy: Proxy) {
    proxy.signal(SIGTERM);
    proxy.wait_exit().expect_code(0);
}

#[test]
fn sockets_of_the_service_manager_are_served_with_what_waited_in_them_and_stay_its_own() {
    let echo = Peer::plain().echo();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    for (address, reuse_port) in [
        ("127.0.0.1:0".to_owned(), false),
        ("127.0.0.1:0".to_owned(), true),
        ("[::1]:0".to_owned(), true),
        (format!("unix:{}", path.display()), false),
    ] {
        let (socket, address) = listening(&address, reuse_port);
        let mut early: Vec<_> = (0..4).map(|_| Link::connect(&address).unwrap()).collect();
        let toml = at(&address, echo.address());
        for _ in 0..2 {
            let ringway = ringway!().activated(vec![given(&socket)], "front");
            let proxy = ringway.start(&toml);
            assert_eq!(proxy.address("front"), &address);
            early.iter_mut().for_each(|link| link.ping(b"at last"));
            (0..8).for_each(|_| expect_service(&address));
            let shares = proxy.stderr().contains("2 workers share 1 sockets");
            let is_lone = matches!(address, Address::Ip(_)) && !reuse_port;
            assert_eq!(shares, is_lone, "{address}, reuse_port {reuse_port}");
            early.clear();
            end(proxy);
            // Whoever comes while no process serves waits for the next one.
            early.push(Link::connect(&address).unwrap());
        }
    }
    assert!(path.exists(), "the file is the service manager's");
}

#[test]
fn several_sockets_of_one_address_are_shared_out_among_the_workers() {
    let echo = Peer::plain().echo();
    let (first, address) = listening("127.0.0.1:0", true);
    let more = (0..2).map(|_| listening(&address.to_string(), true).0);
    let sockets: Vec<Socket> = [first].into_iter().chain(more).collect();
    let passed = sockets.iter().map(given).collect();
    let ringway = ringway!().workers(2).activated(passed, "front:front:front");
    let proxy = ringway.start(&at(&address, echo.address()));
    (0..40).for_each(|_| expect_service(&address));
    end(proxy);
}

#[test]
fn what_no_listener_binds_or_nobody_can_listen_on_is_refused_by_its_name() {
    let echo = Peer::plain().echo();
    let (wanted, address) = listening("127.0.0.1:0", false);
    let toml = at(&address, echo.address());
    let refused = |socket: OwnedFd, words: &str| {
        let sockets = vec![given(&wanted), socket];
        let exit = ringway!()
            .activated(sockets, "front:odd.socket")
            .run_to_end(&toml);
        exit.expect_code(71).expect_words(&[words]);
        exit.expect_words(&["odd.socket"]);
    };
    let (other, other_address) = listening("127.0.0.1:0", false);
    let words = format!("listens on {other_address}");
    refused(other.into(), &words);
    let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    refused(datagrams.into(), "does not listen for streams");
    let connected = Link::connect(&address).unwrap();
    let connected = connected.socket().try_clone().unwrap();
    refused(connected.into(), "does not listen for streams");
    let (dual, _) = listening("[::]:0", false);
    refused(dual.into(), "BindIPv6Only=ipv6-only");
}

#[test]
fn variables_that_are_meant_for_another_process_are_passed_over() {
    let echo = Peer::plain().echo();
    let ringway = ringway!()
        .environment("LISTEN_PID", "1")
        .environment("LISTEN_FDS", "2");
    let proxy = ringway.start(&front_to_back("", "", echo.address()));
    expect_service(proxy.address("front"));
}

#[test]
fn an_address_that_the_service_manager_did_not_open_is_bound_beside_its_own() {
    let echo = Peer::plain().echo();
    let (socket, address) = listening("127.0.0.1:0", false);
    let toml = at(&address, echo.address()) + &listener("side", "back", "", "");
    let proxy = ringway!().activated(vec![given(&socket)], "").start(&toml);
    expect_service(&address);
    expect_service(proxy.address("side"));
    let side = proxy.address("side").clone();
    end(proxy);
    until_refused(&side);
}

#[test]
fn the_service_manager_hears_of_readiness_and_of_the_end() {
    let echo = Peer::plain().echo();
    let manager = Manager::new();
    let proxy = ringway!()
        .environment("NOTIFY_SOCKET", &manager.path)
        .start(&front_to_back("", "", echo.address()));
    let ready = manager.next();
    assert_eq!(ready, "READY=1\nSTATUS=1 listeners on 2 workers");
    end(proxy);
    let stopping = manager.next();
    assert_eq!(stopping, "STOPPING=1\nSTATUS=draining for at most 30s");
}

#[test]
fn the_service_manager_hears_when_a_reload_begins_and_when_it_is_over_with_either_end() {
    let echo = Peer::plain().echo();
    let manager = Manager::new();
    let mut proxy = ringway!()
        .environment("NOTIFY_SOCKET", &manager.path)
        .start(&front_to_back("", "", echo.address()));
    manager.expect("READY=1");
    let two = front_to_back("", "", echo.address()) + &listener("side", "back", "", "");
    proxy.reload_with(&two);
    let began = manager.next();
    assert!(began.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{began}");
    assert_eq!(manager.next(), "READY=1\nSTATUS=2 listeners on 2 workers");
    proxy.write("nonsense");
    let _ = proxy.reload_refused();
    assert!(manager.next().starts_with("RELOADING=1\n"));
    assert_eq!(manager.next(), "READY=1\nSTATUS=2 listeners on 2 workers");
}

#[test]
fn the_watchdog_is_told_that_all_is_well_also_during_the_drain() {
    let echo = Peer::plain().echo();
    let manager = Manager::new();
    let proxy = ringway!()
        .environment("NOTIFY_SOCKET", &manager.path)
        .environment("WATCHDOG_USEC", "400000")
        .start(&front_to_back("", "", echo.address()));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    (0..3).for_each(|_| drop(manager.expect("WATCHDOG=1")));
    proxy.signal(SIGTERM);
    manager.expect("STOPPING=1");
    (0..3).for_each(|_| drop(manager.expect("WATCHDOG=1")));
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

#[test]
fn a_process_that_stands_still_does_not_tell_the_watchdog_that_all_is_well() {
    let echo = Peer::plain().echo();
    let manager = Manager::new();
    let proxy = ringway!()
        .environment("NOTIFY_SOCKET", &manager.path)
        .environment("WATCHDOG_USEC", "200000")
        .start(&front_to_back("", "", echo.address()));
    manager.expect("WATCHDOG=1");
    let short = Duration::from_millis(500);
    let quiet = proxy.while_stopped(|| {
        manager.socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 64];
        while manager.socket.recv(&mut bytes).is_ok() {}
        within(short, || manager.socket.recv(&mut bytes).ok()).is_none()
    });
    assert!(quiet);
    manager.socket.set_nonblocking(false).unwrap();
    manager.expect("WATCHDOG=1");
}

/// A process that others may follow, in this service manager's hands.
fn in_hands_of(manager: &Manager, door: &Path) -> ringway_support::Ringway {
    ringway!()
        .environment("NOTIFY_SOCKET", &manager.path)
        .runtime(&format!("takeover = \"unix:{}\"", door.display()))
}

#[test]
fn after_an_upgrade_the_new_process_is_the_main_one_and_the_old_one_does_not_say_that_it_stops() {
    let echo = Peer::plain().echo();
    let manager = Manager::new();
    let door = manager.directory.path().join("takeover.sock");
    let (socket, address) = listening("127.0.0.1:0", true);
    let toml = at(&address, echo.address());
    let old = in_hands_of(&manager, &door).activated(vec![given(&socket)], "front");
    let mut old = old.start(&toml);
    manager.expect("READY=1");
    let mut waiting = Link::connect(&address).unwrap();
    waiting.ping(b"before");

    let new = in_hands_of(&manager, &door).argument("--take-over");
    let new = new.start(&toml);
    let words = format!("STATUS=process {} has taken over", new.pid());
    assert_eq!(manager.next(), words);
    let ready = manager.next();
    assert!(
        ready.starts_with(&format!("READY=1\nMAINPID={}\n", new.pid())),
        "{ready}"
    );

    waiting.ping(b"after");
    drop(waiting);
    old.wait_exit().expect_code(0);
    expect_service(&address);
    end(new);
    // Nothing of the old process's end came between.
    assert!(manager.next().starts_with("STOPPING=1\n"));
}
