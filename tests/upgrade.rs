//! A new process takes the listening sockets of the running one over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use ringway_support::link::Address;
use ringway_support::peer::Service;
use ringway_support::proxy::until_refused;
use ringway_support::sys::{as_user, kill};
use ringway_support::tls::{ClientTls, TLS12, TLS13};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{DEADLINE, Ending, House, Link, Peer, Proxy, Ringway, ringway, until};
use rustls::ClientConfig;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Where processes of one test find each other.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn door(&self) -> PathBuf {
        self.directory.path().join("takeover.sock")
    }

    /// A process that others may follow.
    fn ringway(&self) -> Ringway {
        let door = self.door();
        ringway!().runtime(&format!("takeover = \"unix:{}\"", door.display()))
    }

    fn successor(&self) -> Ringway {
        self.ringway().argument("--take-over")
    }

    /// Starts the process after `old`, which has yielded when this returns.
    fn follow(&self, old: &Proxy, ringway: Ringway, toml: &str) -> Proxy {
        let new = ringway.start(toml);
        let _ = new.stderr_line("took over from process");
        old.wait_stderr(&["has taken over"]);
        assert_eq!(new.address("front"), old.address("front"));
        new
    }
}

/// What one connection carries each way, in rounds.
#[derive(Clone, Copy)]
struct Errand {
    bytes: usize,
    rounds: usize,
}

const SHORT: Errand = Errand {
    bytes: 4,
    rounds: 1,
};
/// Some hundred milliseconds: longer than an upgrade takes from step to step.
const LONG: Errand = Errand {
    bytes: 16 * 1024,
    rounds: 200,
};

/// One connection from connect to its clean end.
fn operate(address: &Address, config: &Arc<ClientConfig>, errand: Errand) -> io::Result<()> {
    let mut link = Link::connect(address)?.start_tls(config, "localhost")?;
    let mut answer = vec![0; errand.bytes];
    for round in 0..errand.rounds {
        let question = vec![u8::try_from(round % 251).unwrap(); errand.bytes];
        link.send(&question)?;
        let mut filled = 0;
        while filled < answer.len() {
            match link.receive_some(&mut answer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => filled += some,
            }
        }
        if answer != question {
            return Err(io::Error::other("other bytes came back"));
        }
    }
    link.finish()?;
    match link.expect_end() {
        Ending::Clean => Ok(()),
        other => Err(io::Error::other(format!("it ended with {other:?}"))),
    }
}

/// Clients without a pause: each connection is a full handshake. The last client's are long.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(clients: usize, address: &Address, house: &House) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |number: usize| {
            let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), address.clone());
            let version = if number.is_multiple_of(2) {
                TLS13
            } else {
                TLS12
            };
            let tls = ClientTls::trusting(&house.ca).version(version);
            let errand = if number + 1 == clients { LONG } else { SHORT };
            thread::spawn(move || {
                let mut faults = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match operate(&address, &tls.config(), errand) {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => faults.push(error.to_string()),
                    }
                }
                faults
            })
        };
        let clients = (0..clients).map(client).collect();
        Self {
            stop,
            done,
            clients,
        }
    }

    /// Waits for so many more operations.
    fn go_on(&self, count: usize) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        until("the clients are served", || {
            (self.done.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Operations done, and how the others failed.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let faults = clients.flat_map(|client| client.join().unwrap()).collect();
        (self.done.load(Ordering::Relaxed), faults)
    }
}

#[test]
fn ten_upgrades_under_full_handshakes_fail_no_operation_and_leave_nothing_behind() {
    let (place, house) = (Place::new(), House::new());
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &house.terminate(), echo.address());
    let mut proxy = place.ringway().with_exact_memory().start(&toml);
    let address = proxy.address("front").clone();
    let mut memory = Vec::new();
    let files = proxy.open_files();
    let client = ClientTls::trusting(&house.ca).config();
    let transfer = || {
        let link = Link::connect(&address).unwrap();
        link.start_tls(&client, "localhost").unwrap()
    };
    let load = Load::start(4, &address, &house);
    let mut left: Vec<(Proxy, Link)> = Vec::new();
    for upgrade in 0..10 {
        let mut long = transfer();
        long.ping(&[7; 100_000]);
        // Accepted by the old process, which still has its handshake before it.
        let hesitant = Link::connect(&address).unwrap();
        load.go_on(8);
        memory.push(proxy.memory_bytes());
        let successor = place.successor().with_exact_memory();
        let next = place.follow(&proxy, successor, &toml);
        left.push((std::mem::replace(&mut proxy, next), long));
        let mut hesitant = hesitant.start_tls(&client, "localhost").unwrap();
        hesitant.ping(b"at last");
        hesitant.finish().unwrap();
        assert_eq!(hesitant.expect_end(), Ending::Clean);
        load.go_on(8);
        // Transfers of the two processes before this go on; the one before them comes to its end.
        for (_, long) in &mut left {
            long.ping(&[upgrade; 100_000]);
        }
        if left.len() > 2 {
            let (mut old, mut long) = left.remove(0);
            long.finish().unwrap();
            assert_eq!(long.expect_end(), Ending::Clean);
            old.wait_exit().expect_code(0);
        }
    }
    let (done, faults) = load.end();
    assert_eq!(faults, [] as [String; 0], "beside {done} that were done");
    for (mut old, mut long) in left {
        long.finish().unwrap();
        assert_eq!(long.expect_end(), Ending::Clean);
        old.wait_exit().expect_code(0);
    }
    proxy.wait_no_more_files(files, 0);
    // What is handed on from process to process would show in each one after.
    let least = |some: &[u64]| some.iter().copied().min().unwrap();
    let grown = least(&memory[7..]).saturating_sub(least(&memory[1..4]));
    assert!(grown < 2 << 20, "memory of each process: {memory:?}");
    proxy.signal(SIGTERM);
    proxy.wait_exit().expect_code(0);
    assert!(!place.door().exists(), "the last one takes it away");
}

/// A name server that never answers: a process that asks it waits some seconds with its start.
fn silent_name_server() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let line = format!("resolver = \"{}\"", socket.local_addr().unwrap());
    (socket, line)
}

/// [`front_to_back`], and a name to be resolved before the start.
fn slow_to_start(server: &Address) -> String {
    let name = "[upstream.named]\nservers = [\"nobody.example.org:1\"]\n";
    let use_it = listener("second", "named", "", "");
    front_to_back("", "", server) + &use_it + name
}

/// The successor has the sockets and does not accept yet.
fn wait_between(new: &Proxy) {
    let _ = new.stderr_line("sockets come from process");
    new.wait_stderr(&["listening name=second"]);
}

#[test]
fn connections_that_wait_in_the_queues_are_served_though_the_old_process_is_killed_meanwhile() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let old = place
        .ringway()
        .start(&front_to_back("", "", echo.address()));
    let address = old.address("front").clone();
    let (_silence, resolver) = silent_name_server();
    let slow = place.successor().runtime(&resolver);
    let mut new = slow.begin(&slow_to_start(echo.address()));
    wait_between(&new);
    // Neither process accepts: what connects now waits in the queues of both workers' sockets.
    let mut waiting = old.while_stopped(|| {
        let waiting = (0..40).map(|_| Link::connect(&address).unwrap());
        let waiting: Vec<Link> = waiting.collect();
        old.signal(SIGKILL);
        waiting
    });
    new.wait_ready();
    for link in &mut waiting {
        link.ping(b"served after all");
    }
    assert!(
        new.stderr()
            .contains("has ended; its sockets are served on")
    );
    // It is complete: the next one follows it.
    drop(old);
    let plain = front_to_back("", "", echo.address());
    let next = place.follow(&new, place.successor(), &plain);
    Link::connect(next.address("front")).unwrap().ping(b"hello");
}

#[test]
fn each_number_of_workers_may_follow_each() {
    let (place, house) = (Place::new(), House::new());
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &house.terminate(), echo.address());
    let mut proxy = place.ringway().workers(1).start(&toml);
    let load = Load::start(3, &proxy.address("front").clone(), &house);
    for workers in [2, 1, 3, 3, 2] {
        let next = place.successor().workers(workers);
        let next = place.follow(&proxy, next, &toml);
        proxy.wait_exit().expect_code(0);
        proxy = next;
        load.go_on(10);
    }
    let (done, faults) = load.end();
    assert_eq!(faults, [] as [String; 0], "beside {done} that were done");
}

/// The core that serves a client of each of many addresses, three times over.
fn cores(proxy: &Proxy) -> Vec<BTreeSet<u64>> {
    let core = |source: IpAddr| {
        let mut link = Link::connect_from(source, proxy.address("front")).unwrap();
        link.ping(b"who serves me?");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        proxy.record_of(link.local()).count("core")
    };
    let sources = (1..=12).map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    let of_source = |source| (0..3).map(|_| core(source)).collect();
    sources.map(of_source).collect()
}

#[test]
fn clients_are_steered_by_their_address_by_as_many_workers_as_there_are_after_the_upgrade() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("steering = \"source-address\"", "", echo.address());
    let mut old = place.ringway().workers(1).start(&toml);
    let new = place.follow(&old, place.successor().workers(3), &toml);
    old.wait_exit().expect_code(0);
    let cores = cores(&new);
    assert!(cores.iter().all(|cores| cores.len() == 1), "{cores:?}");
    let used: BTreeSet<_> = cores.into_iter().flatten().collect();
    assert_eq!(used.len(), 3, "all workers have clients: {used:?}");
}

/// Whether a client comes back by a ticket. It leaves with one.
fn resumes(proxy: &Proxy, client: &Arc<ClientConfig>) -> bool {
    let link = Link::connect(proxy.address("front")).unwrap();
    let mut link = link.start_tls(client, "localhost").unwrap();
    link.ping(b"a ticket, please");
    link.resumed()
}

#[test]
fn sessions_are_resumed_with_the_new_process_by_tickets_of_the_old_one() {
    let (place, house) = (Place::new(), House::new());
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &house.terminate(), echo.address());
    for version in [TLS13, TLS12] {
        let mut old = place.ringway().start(&toml);
        let client = ClientTls::trusting(&house.ca).version(version).config();
        let resumed = |proxy: &Proxy| resumes(proxy, &client);
        assert!(!resumed(&old));
        let new = place.follow(&old, place.successor(), &toml);
        old.wait_exit().expect_code(0);
        assert!(resumed(&new), "{version:?}");
    }
}

#[test]
fn tickets_of_before_a_reload_survive_the_upgrade_after_it_unless_the_policy_is_another() {
    let (place, house) = (Place::new(), House::new());
    let echo = Peer::plain().echo();
    let toml = |keys: &str| front_to_back("", &(house.terminate() + keys), echo.address());
    let reloaded = toml("session_lifetime = \"2d\"\n");
    let asking = format!(
        "client_ca = \"{}\"\nverify_client = \"optional\"\n",
        house.ca.file().display()
    );
    for (next, expected) in [(reloaded.clone(), true), (toml(&asking), false)] {
        let mut old = place.ringway().start(&toml(""));
        let client = ClientTls::trusting(&house.ca).config();
        let resumed = |proxy: &Proxy| resumes(proxy, &client);
        assert!(!resumed(&old));
        old.reload_with(&reloaded);
        let new = place.follow(&old, place.successor(), &next);
        old.wait_exit().expect_code(0);
        assert_eq!(resumed(&new), expected);
        assert!(resumed(&new), "it has a ticket of its own");
    }
}

#[test]
fn a_unix_sockets_file_stays_over_an_upgrade_and_goes_with_the_last_process() {
    let place = Place::new();
    let path = place.directory.path().join("front.sock");
    let echo = Peer::plain().echo();
    let unix = format!("unix:{}", path.display());
    let toml = front_to_back("", "", echo.address()).replace("127.0.0.1:0", &unix);
    let mut proxy = place.ringway().start(&toml);
    for _ in 0..2 {
        let mut long = Link::connect(proxy.address("front")).unwrap();
        long.ping(b"before");
        let next = place.follow(&proxy, place.successor(), &toml);
        long.ping(b"after");
        long.finish().unwrap();
        assert_eq!(long.expect_end(), Ending::Clean);
        proxy.wait_exit().expect_code(0);
        proxy = next;
        Link::connect(proxy.address("front")).unwrap().ping(b"new");
    }
    proxy.signal(SIGTERM);
    proxy.wait_exit().expect_code(0);
    assert!(!path.exists() && !place.door().exists());
}

#[test]
fn a_listener_that_the_new_process_does_not_have_is_drained_by_the_old_one() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let front = front_to_back("", "", echo.address());
    let mut old = place
        .ringway()
        .start(&(front.clone() + &listener("side", "back", "", "")));
    let side = old.address("side").clone();
    let mut long = Link::connect(&side).unwrap();
    long.ping(b"before");
    let added = front + &listener("added", "back", "", "");
    let new = place.follow(&old, place.successor(), &added);
    until_refused(&side);
    long.ping(b"after");
    long.finish().unwrap();
    assert_eq!(long.expect_end(), Ending::Clean);
    old.wait_exit().expect_code(0);
    Link::connect(new.address("added")).unwrap().ping(b"new");
}

/// A port below those that the kernel chooses for clients: no other test's stands in the way of
/// all addresses.
fn port_of_no_client() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    let is_free = |port: &u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
        socket.bind(&all.into()).is_ok()
    };
    (first..32_000).find(is_free).unwrap()
}

#[test]
fn an_address_that_becomes_wider_or_narrower_is_bound_beside_the_old_one() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let any_port = front_to_back("", "", echo.address());
    let port = port_of_no_client();
    let at = |address: &str| any_port.replace("127.0.0.1:0", &format!("{address}:{port}"));
    let mut old = place.ringway().start(&at("127.0.0.1"));
    for bind in ["0.0.0.0", "127.0.0.1"] {
        let new = place.successor().start(&at(bind));
        let _ = new.stderr_line("took over from process");
        old.wait_exit().expect_code(0);
        let address: Address = format!("127.0.0.1:{port}").parse().unwrap();
        Link::connect(&address).unwrap().ping(b"hello");
        old = new;
    }
}

#[test]
fn what_a_reload_has_opened_is_taken_over_as_well() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let front = front_to_back("", "", echo.address());
    let mut old = place.ringway().start(&front);
    let both = front + &listener("side", "back", "", "");
    old.reload_with(&both);
    let side = old.address("side").clone();
    let mut waiting = Link::connect(&side).unwrap();
    let new = place.follow(&old, place.successor(), &both);
    assert_eq!(new.address("side"), &side);
    waiting.ping(b"with the old one");
    Link::connect(&side).unwrap().ping(b"with the new one");
}

#[test]
fn the_admin_server_is_the_new_processs_after_an_upgrade() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let path = place.directory.path().join("admin.sock");
    let admin = format!(
        "[admin]\nlisten = [\"unix:{}\", \"127.0.0.1:0\"]\n",
        path.display()
    );
    let toml = admin + &front_to_back("", "", echo.address());
    let mut old = place.ringway().start(&toml);
    let stop = Arc::<AtomicBool>::default();
    let operator = {
        let (stop, path) = (Arc::clone(&stop), path.clone());
        thread::spawn(move || {
            let mut answering = vec![operated(&path)];
            while !stop.load(Ordering::Relaxed) {
                answering.push(operated(&path));
            }
            answering.dedup();
            answering
        })
    };
    let mut processes = vec![old.pid()];
    for _ in 0..3 {
        let new = place.follow(&old, place.successor(), &toml);
        processes.push(new.pid());
        assert!(!new.stderr().contains("`listen` of [admin]"));
        assert_eq!(operated(&path), new.pid());
        old.wait_exit().expect_code(0);
        assert_eq!(
            operated(&path),
            new.pid(),
            "the old one's end changes nothing"
        );
        old = new;
    }
    stop.store(true, Ordering::Relaxed);
    // Each question was answered, and by no process that another one had followed.
    let answering = operator.join().unwrap();
    let mut later = processes.iter();
    assert!(
        answering.iter().all(|pid| later.any(|it| it == pid)),
        "{answering:?} of {processes:?}"
    );
    old.signal(SIGTERM);
    old.wait_exit().expect_code(0);
    assert!(!path.exists(), "the last one takes it away");
}

/// The process that an operator speaks to.
fn operated(path: &Path) -> u32 {
    let arguments = ["status", "--json", "--socket", path.to_str().unwrap()];
    let exit = ringway!().command(&arguments.map(OsStr::new));
    exit.expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
    status["pid"].as_u64().unwrap().try_into().unwrap()
}

#[test]
fn slow_clients_of_the_admin_server_do_not_hold_up_the_old_processs_end() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let path = place.directory.path().join("admin.sock");
    let front = front_to_back("", "", echo.address());
    let toml = format!("[admin]\nlisten = \"unix:{}\"\n{front}", path.display());
    let mut old = place.ringway().start(&toml);
    // Served for a minute at most: one says nothing, one does not send what it has announced.
    let requests = [
        "",
        "GET /status HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
    ];
    let slow = requests.map(|request| {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        client
    });
    assert_eq!(operated(&path), old.pid(), "they are being served");
    let new = place.follow(&old, place.successor(), &toml);
    old.wait_exit().expect_code(0);
    for mut client in slow {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = Vec::new();
        // Either end will do.
        let ended = client.read_to_end(&mut answer);
        assert!(
            ended.is_ok() || ended.is_err_and(|it| it.kind() == io::ErrorKind::ConnectionReset)
        );
    }
    assert_eq!(operated(&path), new.pid());
}

/// A process with an admin server and the one after it without, and a connection of the first.
fn followed_by_one_without_admin(place: &Place, path: &Path, echo: &Service) -> ([Proxy; 2], Link) {
    let front = front_to_back("", "", echo.address());
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", path.display());
    let old = place.ringway().start(&(admin + &front));
    let mut long = Link::connect(old.address("front")).unwrap();
    long.ping(b"before");
    let new = place.follow(&old, place.successor(), &front);
    ([old, new], long)
}

#[test]
fn without_an_admin_server_of_the_new_process_the_old_one_answers_while_it_drains() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let path = place.directory.path().join("admin.sock");
    let ([mut old, _new], mut long) = followed_by_one_without_admin(&place, &path, &echo);
    assert_eq!(operated(&path), old.pid());
    long.finish().unwrap();
    assert_eq!(long.expect_end(), Ending::Clean);
    old.wait_exit().expect_code(0);
    assert!(!path.exists());
}

#[test]
fn a_process_that_another_has_followed_refuses_what_would_change_something_and_shows_the_rest() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let path = place.directory.path().join("admin.sock");
    let ([mut old, new], mut long) = followed_by_one_without_admin(&place, &path, &echo);
    let server = echo.address().to_string();
    let commands = [
        &["drain"][..],
        &["close", "--all"],
        &["server", "back", &server, "down"],
        &["log-level", "debug"],
    ];
    for command in commands {
        let all = [command, &["--socket", path.to_str().unwrap()]].concat();
        let all: Vec<&OsStr> = all.into_iter().map(OsStr::new).collect();
        let exit = ringway!().command(&all);
        let words = format!("process {} has taken over", new.pid());
        exit.expect_code(64);
        assert!(exit.stderr.contains(&words), "{command:?}: {exit:?}");
    }
    assert_eq!(operated(&path), old.pid());
    long.ping(b"as it was");
    long.finish().unwrap();
    assert_eq!(long.expect_end(), Ending::Clean);
    old.wait_exit().expect_code(0);
}

/// The process serves, and another one can still follow it.
fn expect_untouched(place: &Place, mut old: Proxy, toml: &str) {
    Link::connect(old.address("front"))
        .unwrap()
        .ping(b"still there");
    old.expect_alive();
    let new = place.follow(&old, place.successor(), toml);
    Link::connect(new.address("front")).unwrap().ping(b"hello");
}

#[test]
fn a_process_that_fails_with_the_sockets_in_hand_leaves_the_old_one_as_it_was() {
    let place = Place::new();
    let (echo, taken) = (Peer::plain().echo(), Peer::plain());
    let path = place.directory.path().join("side.sock");
    let unix = format!("unix:{}", path.display());
    let side = listener("side", "back", "", "").replace("127.0.0.1:0", &unix);
    let toml = front_to_back("", "", echo.address()) + &side;
    let old = place.ringway().start(&toml);
    let in_use = listener("second", "back", "", "");
    let in_use = in_use.replace("127.0.0.1:0", &taken.address().to_string());
    let exit = place
        .successor()
        .workers(3)
        .run_to_end(&(toml.clone() + &in_use));
    exit.expect_code(71).expect_words(&["in use"]);
    old.wait_stderr(&["has not taken over: it has ended; this process goes on"]);
    assert!(path.exists(), "the file is the old process's");
    expect_untouched(&place, old, &toml);
}

#[test]
fn a_reload_waits_for_what_becomes_of_a_process_with_the_sockets_in_hand() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let path = place.directory.path().join("side.sock");
    let side = listener("side", "back", "", "");
    let side = side.replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let front = front_to_back("", "", echo.address());
    let mut old = place.ringway().start(&(front.clone() + &side));
    let (successor, offer) = ask(&SockAddr::unix(place.door()).unwrap());
    assert!(offer.contains("offer"), "{offer}");
    // It has the listener, and would not hear that its file is removed.
    old.write(&front);
    let said = old.reload_refused();
    assert!(
        said.contains("another process is about to take over"),
        "{said}"
    );
    assert!(path.exists());
    drop(successor);
    old.wait_stderr(&["has not taken over"]);
    old.reload();
    until("the listener is gone", || (!path.exists()).then_some(()));
    expect_untouched(&place, old, &front);
}

#[test]
fn a_process_that_is_killed_with_the_sockets_in_hand_leaves_the_old_one_as_it_was() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let old = place.ringway().start(&toml);
    let (_silence, resolver) = silent_name_server();
    let slow = place.successor().runtime(&resolver);
    let new = slow.begin(&slow_to_start(echo.address()));
    wait_between(&new);
    drop(new);
    old.wait_stderr(&["has not taken over: it has ended; this process goes on"]);
    expect_untouched(&place, old, &toml);
}

#[test]
fn a_process_that_is_told_to_end_meanwhile_keeps_its_sockets_and_the_other_does_not_start() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let mut old = place
        .ringway()
        .start(&front_to_back("", "", echo.address()));
    let (_silence, resolver) = silent_name_server();
    let slow = place.successor().runtime(&resolver);
    let mut new = slow.begin(&slow_to_start(echo.address()));
    wait_between(&new);
    old.signal(SIGTERM);
    old.wait_exit().expect_code(0);
    let exit = new.wait_exit();
    exit.expect_code(71).expect_words(&["about to end"]);
}

/// A process that is no child of this one's.
struct Background(u32);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill(self.0, SIGKILL);
    }
}

/// Runs the process after `old` in the background. Its exit code, and what was said.
fn run_in_background(file: &Path, words: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command
        .args(["run", "--take-over", "--background"])
        .arg(file);
    // What goes on in the background would keep a pipe open.
    command.stderr(fs::File::create(words).unwrap());
    let status = command.stdin(Stdio::piped()).stdout(Stdio::null()).status();
    (status.unwrap().code(), fs::read_to_string(words).unwrap())
}

#[test]
fn in_the_background_a_successor_returns_once_it_serves_or_with_the_reason_why_not() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let mut old = place.ringway().start(&toml);
    let address = old.address("front").clone();
    let mut long = Link::connect(&address).unwrap();
    long.ping(b"before");
    let words = place.directory.path().join("words");

    let wrong = place.directory.path().join("wrong.toml");
    let text = fs::read_to_string(old.file()).unwrap();
    fs::write(&wrong, text.clone() + "nonsense = 1\n").unwrap();
    let (code, said) = run_in_background(&wrong, &words);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("nonsense"), "{said}");
    fs::write(&wrong, text.replace("takeover.sock", "none/takeover.sock")).unwrap();
    let (code, said) = run_in_background(&wrong, &words);
    assert_eq!(code, Some(71), "{said}");
    old.expect_alive();

    let (code, said) = run_in_background(old.file(), &words);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("took over from process"), "{said}");
    let line = old.stderr_line("has taken over");
    let pid = line.split_whitespace().rev().nth(3).unwrap();
    let new = Background(pid.parse().unwrap());
    // Nobody who waits for it is left: it is a child of whoever takes orphans in.
    let status = fs::read_to_string(format!("/proc/{}/status", new.0)).unwrap();
    assert!(
        !status.contains(&format!("PPid:\t{}\n", std::process::id())),
        "{status}"
    );
    let input = fs::read_link(format!("/proc/{}/fd/0", new.0)).unwrap();
    assert_eq!(input, Path::new("/dev/null"));
    long.ping(b"after");
    long.finish().unwrap();
    assert_eq!(long.expect_end(), Ending::Clean);
    old.wait_exit().expect_code(0);
    Link::connect(&address).unwrap().ping(b"with the new one");
    kill(new.0, SIGTERM).unwrap();
    until_refused(&address);
}

#[test]
fn a_successor_in_a_pid_namespace_of_its_own_takes_over_as_any_other() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let mut old = place
        .ringway()
        .start(&front_to_back("", "", echo.address()));
    let address = old.address("front").clone();
    let words = place.directory.path().join("words");
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child"])
        .args([env!("CARGO_BIN_EXE_ringway"), "run", "--take-over"])
        .arg(old.file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&words).unwrap());
    let mut child = command.spawn().unwrap();
    let _new = Background(child.id());
    let said = || fs::read_to_string(&words).unwrap();
    until("it serves, or says why it does not", || {
        let has_ended = child.try_wait().unwrap().is_some();
        (has_ended || said().contains("ringway is ready")).then_some(())
    });
    let said = said();
    if said.starts_with("unshare:") {
        println!("SKIPPED: only root can make a namespace: {said}");
        return;
    }
    assert!(said.contains("took over from process"), "{said}");
    old.wait_exit().expect_code(0);
    Link::connect(&address).unwrap().ping(b"with the new one");
}

#[test]
fn where_nobody_waits_a_process_starts_as_usual_and_says_so() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let proxy = place.successor().start(&toml);
    let _ = proxy.stderr_line("there is nothing to take over");
    Link::connect(proxy.address("front"))
        .unwrap()
        .ping(b"hello");
    // A killed process leaves its file behind.
    drop(proxy);
    assert!(place.door().exists());
    let proxy = place.successor().start(&toml);
    let _ = proxy.stderr_line("there is nothing to take over");
}

#[test]
fn without_the_word_or_without_the_key_nothing_is_taken_over() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let old = place.ringway().start(&toml);
    let exit = place.ringway().run_to_end(&toml);
    exit.expect_code(71).expect_words(&["--take-over"]);
    let exit = ringway!().argument("--take-over").run_to_end(&toml);
    exit.expect_code(71)
        .expect_words(&["`takeover` in [runtime]"]);
    expect_untouched(&place, old, &toml);
}

/// Connects to the door, asks as protocol 1 does, and returns what is answered first.
fn ask(door: &SockAddr) -> (Socket, String) {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    socket.connect(door).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let ask = br#"{"ask":{"protocol":1,"version":"0.0.0","pid":1}}"#;
    // A stranger may have been turned away already.
    let _ = socket.send(ask);
    let mut bytes = [0; 4096];
    let mut read = || (&socket).read(&mut bytes);
    let count = match read() {
        // Unread, the question comes back as this, once, before the answer.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => read(),
        read => read,
    };
    let count = count.unwrap();
    (
        socket,
        String::from_utf8_lossy(&bytes[..count]).into_owned(),
    )
}

#[test]
fn another_users_process_is_given_nothing() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let old = place.ringway().start(&toml);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.door()), 0o600);
    // As if somebody had opened the folder and the file to all.
    let open = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(place.directory.path().to_owned(), 0o755).unwrap();
    open(place.door(), 0o666).unwrap();
    let door = SockAddr::unix(place.door()).unwrap();
    match as_user(65_534, || ask(&door).1) {
        Ok(answer) => assert!(answer.contains("runs as user 65534"), "{answer}"),
        Err(error) => {
            println!("SKIPPED: only root can be another user: {error}");
            return;
        }
    }
    old.wait_stderr(&["runs as user 65534, and only user 0 or root may"]);
    expect_untouched(&place, old, &toml);
}

#[test]
fn who_asks_for_nothing_or_nonsense_does_not_keep_others_out() {
    let place = Place::new();
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address()) + &upstream("more", &[echo.address()], "");
    let old = place.ringway().start(&toml);
    let door = SockAddr::unix(place.door()).unwrap();
    for words in [&b""[..], b"{", b"\"complete\"", &[0; 70_000]] {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&door).unwrap();
        let _ = socket.send(words);
    }
    expect_untouched(&place, old, &toml);
}
