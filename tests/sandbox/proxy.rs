//! The proxy itself, with less and less rights, under traffic.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use aws_lc_rs::hkdf;

use ringway_support::pki::Leaf;
use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Ending, House, Link, Peer, Proxy, ringway, until};

use crate::scene::{folder_with_log, of_every_thread};
use crate::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        Needs::Root,
        "it_serves_and_rotates_its_log_as_another_user",
        serves_as_nobody,
    ),
    (
        Needs::Root,
        "for_low_ports_the_control_thread_keeps_one_capability_and_workers_none",
        low_port,
    ),
    (
        Needs::RawSockets,
        "a_transparent_upstream_keeps_the_capability_for_it",
        transparent,
    ),
    (
        Needs::Root,
        "a_log_that_the_user_cannot_write_is_refused_at_the_start",
        log_of_another,
    ),
    (
        Needs::Root,
        "no_text_of_a_key_file_is_left_in_its_memory",
        memory,
    ),
    (
        Needs::Root,
        "no_secret_of_a_connection_is_left_in_its_memory",
        secrets_of_connections,
    ),
    (
        Needs::Landlock,
        "a_reload_that_names_a_file_elsewhere_is_refused_by_the_sandbox",
        reload_elsewhere,
    ),
    (Needs::Nothing, "the_banner_says_what_is_given_up", banner),
    (
        Needs::Nothing,
        "the_banner_says_what_is_not_given_up_and_by_which_key",
        banner_off,
    ),
];

const SIGTERM: i32 = 15;
const SIGUSR1: i32 = 10;
const SIGHUP: i32 = 1;

pub(crate) fn exchange(proxy: &Proxy, house: &House) {
    let config = ClientTls::trusting(&house.ca).config();
    let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    link.ping(&[7; 300_000]);
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

fn serves_as_nobody() {
    let house = House::new();
    let echo = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let (folder, log) = folder_with_log();
    let path = log.join("access.log");
    let key_log = format!(
        "key_log = \"{}\"\nkey_log_sources = \"127.0.0.1\"\n",
        log.join("keys").display()
    );
    let tls = house.terminate() + &key_log;
    let toml = listener("front", "back", "", &tls)
        + &upstream("back", &[echo.address()], &house.originate("back"));
    let mut proxy = ringway!()
        .runtime("user = \"nobody\"")
        .access(path.to_str().unwrap())
        .start(&toml);
    for (field, value) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", "0000000000000000"),
    ] {
        for (thread, seen) in of_every_thread(proxy.pid(), field) {
            assert_eq!(seen, value, "{field} of {thread}{}", proxy.story());
        }
    }
    let names = of_every_thread(proxy.pid(), "Name");
    assert!(names.iter().any(|it| it.0 == "ringway-keys"), "{names:?}");
    assert_eq!(proxy.stderr_lines("had begun before"), [""; 0]);
    exchange(&proxy, &house);
    let lines = |name: &str| {
        fs::read_to_string(log.join(name))
            .unwrap_or_default()
            .lines()
            .count()
    };
    until("a line of the access log", || {
        (lines("access.log") == 1).then_some(())
    });
    fs::rename(&path, log.join("access.log.1")).unwrap();
    proxy.signal(SIGUSR1);
    until("a new file for the access log", || {
        path.exists().then_some(())
    });
    exchange(&proxy, &house);
    until("a line in the new file", || {
        (lines("access.log") == 1).then_some(())
    });
    assert_eq!(lines("access.log.1"), 1);
    proxy.signal(SIGTERM);
    proxy.wait_exit().expect_code(0);
    drop(folder);
}

/// The capabilities of the workers, and those of all other threads.
fn capabilities(proxy: &Proxy) -> (Vec<u64>, Vec<u64>) {
    let threads = of_every_thread(proxy.pid(), "CapEff");
    let is_worker = |name: &str| {
        name.strip_prefix("ringway-")
            .is_some_and(|it| it.parse::<u16>().is_ok())
    };
    let (workers, others): (Vec<_>, Vec<_>) = threads.into_iter().partition(|it| is_worker(&it.0));
    let numbers = |threads: Vec<(String, String)>| {
        let number = |it: &(String, String)| u64::from_str_radix(&it.1, 16).unwrap();
        threads.iter().map(number).collect()
    };
    (numbers(workers), numbers(others))
}

const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_RAW: u64 = 1 << 13;

fn low_port() {
    let echo = Peer::plain().echo();
    // Free now; who takes it meanwhile makes the proxy refuse to start, and the test fail.
    let port = (600..1024)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free low port");
    let toml =
        front_to_back("", "", echo.address()).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let mut proxy = ringway!()
        .runtime("user = \"nobody\"")
        .access("stderr")
        .start(&toml);
    proxy.wait_stderr(&["capabilities: cap_net_bind_service (ports below 1024)"]);
    let (workers, others) = capabilities(&proxy);
    assert_eq!(workers, [0, 0]);
    assert!(
        others.iter().all(|it| *it == CAP_NET_BIND_SERVICE),
        "{others:?}"
    );
    Link::connect(proxy.address("front"))
        .unwrap()
        .ping(b"through a low port");
    proxy.expect_alive();
}

fn transparent() {
    let echo = Peer::plain().echo();
    let toml = listener("front", "back", "", "")
        + &upstream("back", &[echo.address()], "transparent = true");
    let proxy = ringway!()
        .runtime("user = \"nobody\"")
        .access("stderr")
        .start(&toml);
    let (workers, others) = capabilities(&proxy);
    assert_eq!(workers, [CAP_NET_RAW; 2]);
    assert!(others.iter().all(|it| *it == CAP_NET_RAW), "{others:?}");
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"from the client's own address");
}

fn log_of_another() {
    let echo = Peer::plain().echo();
    let (folder, _log) = folder_with_log();
    let path = folder.path().join("access.log");
    let exit = ringway!()
        .runtime("user = \"nobody\"")
        .access(path.to_str().unwrap())
        .run_to_end(&front_to_back("", "", echo.address()));
    exit.expect_code(71)
        .expect_words(&["let ringway's user write there"]);
}

fn reload_elsewhere() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let toml = |tls: &str| front_to_back("", tls, echo.address());
    let proxy = ringway!().start(&toml(&house.terminate()));
    // Its files are in another folder.
    let other = House::new();
    proxy.write(&toml(&other.terminate()));
    proxy.signal(SIGHUP);
    proxy.wait_stderr(&["not reloaded, everything stays as it was"]);
    proxy.wait_stderr(&["the sandbox forbids it to be read"]);
    proxy.wait_stderr(&["restart ringway; or put the file beside those that it reads"]);
    exchange(&proxy, &house);

    proxy.write(&(toml(&house.terminate()) + "[sandbox]\nseccomp = false\n"));
    proxy.signal(SIGHUP);
    proxy.wait_stderr(&["sandbox.seccomp: true -> false: needs a restart, stays as it was"]);
    exchange(&proxy, &house);
}

/// Reads all that the process has in memory of its own.
fn memory() {
    let mut house = House::new();
    // Large enough that what is freed is not soon written over by chance.
    house.edge = house.ca.issue(&Leaf::server("localhost").rsa());
    let folder = tempfile::tempdir().unwrap();
    let ticket_key: Vec<u8> = (0..80).map(|at: u8| at.wrapping_mul(37) ^ 0x5a).collect();
    let ticket_file = folder.path().join("ticket.key");
    fs::write(&ticket_file, &ticket_key).unwrap();
    let echo = Peer::plain().echo();
    let tls = format!(
        "{}session_ticket_keys = \"{}\"\n",
        house.terminate(),
        ticket_file.display()
    );
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    exchange(&proxy, &house);
    let pem = fs::read_to_string(&house.edge.private_key).unwrap();
    let key = house.edge.key_der();
    // Of 2,048 bits in PKCS#8: behind the modulus.
    let mut secrets = vec![
        key.secret_der()[600..640].to_vec(),
        ticket_key[16..].to_vec(),
    ];
    // The first line is the same in all keys, and the last may be short.
    let lines = pem.lines().skip(2).filter(|line| line.len() == 64);
    secrets.extend(lines.map(|line| line.as_bytes().to_vec()));
    assert!(secrets.len() >= 4, "{pem}");
    // What is there on purpose shows that the search finds what there is.
    assert!(holds(proxy.pid(), &[house.edge.chain[0].as_ref().to_vec()]));
    assert!(!holds(proxy.pid(), &secrets), "a key is left in memory");
}

/// Takes what a client knows of its connections' secrets.
#[derive(Debug)]
struct Known(Sender<(String, Vec<u8>)>);

impl rustls::KeyLog for Known {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let known = (label.to_owned(), secret.to_vec());
        self.0.send(known).unwrap();
    }
}

/// HKDF-Expand-Label(secret, label, "", bytes) of RFC 8446 7.1, for SHA-256.
fn derived(secret: &[u8], label: &str, bytes: usize) -> Vec<u8> {
    struct Bytes(usize);
    impl hkdf::KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let lengths = [
        0,
        u8::try_from(bytes).unwrap(),
        u8::try_from(label.len()).unwrap(),
    ];
    let info = [&lengths[..], label.as_bytes(), &[0]];
    let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret);
    let mut out = vec![0; bytes];
    let expanded = secret.expand(&info, Bytes(bytes)).unwrap();
    expanded.fill(&mut out).unwrap();
    out
}

/// Connections that have ended: their traffic secrets, and the keys that come of them.
fn secrets_of_connections() {
    let house = House::new();
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let (known, secrets) = mpsc::channel();
    let known = Arc::new(Known(known));
    let toml = listener(
        "front",
        "back",
        "",
        &(house.terminate() + "protocols = \"TLSv1.3\"\nciphers = \"TLS_AES_128_GCM_SHA256\"\n"),
    ) + &upstream("back", &[server.address()], &house.originate("back"));
    let proxy = ringway!().workers(1).start(&toml);
    let begin = || {
        let mut config = (*ClientTls::trusting(&house.ca).config()).clone();
        config.key_log = Arc::clone(&known) as _;
        let config = Arc::new(config);
        let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
        link.ping(&[7; 3_000]);
        link
    };
    let finish = |mut link: Link| {
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
    };
    let of_all = || {
        let mut named = Vec::new();
        for (label, secret) in secrets.try_iter() {
            if label.ends_with("TRAFFIC_SECRET_0") {
                named.push((format!("key of {label}"), derived(&secret, "key", 16)));
                named.push((format!("iv of {label}"), derived(&secret, "iv", 12)));
            }
            named.push((label, secret));
        }
        named.into_iter().unzip()
    };
    (0..12).for_each(|_| finish(begin()));
    let (labels, needles): (Vec<String>, Vec<Vec<u8>>) = of_all();
    assert!(needles.len() >= 12 * 9, "{}", needles.len());
    // Later ones go over the same places of the stacks.
    (0..5).for_each(|_| finish(begin()));
    let _ = proxy.wait_records(17);
    let left = held(proxy.pid(), &needles).into_iter();
    let left: Vec<&str> = left.map(|at| labels[at].as_str()).collect();
    assert!(left.is_empty(), "{left:?} are left in memory");
    // What lives is there, and found.
    let _: (Vec<String>, Vec<Vec<u8>>) = of_all();
    let _lives = begin();
    let (_, needles): (Vec<String>, Vec<Vec<u8>>) = of_all();
    assert!(holds(proxy.pid(), &needles));
}

/// Whether the memory of a process, but what it shares with files, holds one of `needles`.
fn holds(pid: u32, needles: &[Vec<u8>]) -> bool {
    !held(pid, needles).is_empty()
}

/// Which of `needles` it holds.
fn held(pid: u32, needles: &[Vec<u8>]) -> BTreeSet<usize> {
    const CHUNK: usize = 64 * 1024;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut chunk = vec![0; CHUNK];
    let zeros = vec![0; CHUNK];
    let mut found = BTreeSet::new();
    for area in own_memory(pid) {
        for at in area.step_by(CHUNK / 2) {
            // Guard pages and the kernel's own cannot be read. What ends beyond the area is cut.
            let bytes = memory.read_at(&mut chunk, at).unwrap_or(0);
            let seen = &chunk[..bytes];
            if *seen != zeros[..bytes] {
                let is_there = |at: &usize| memchr::memmem::find(seen, &needles[*at]).is_some();
                found.extend((0..needles.len()).filter(is_there));
            }
        }
    }
    found
}

fn own_memory(pid: u32) -> Vec<std::ops::Range<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let anonymous = maps.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].starts_with("rw") && fields[4] == "0"
    });
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    anonymous
        .map(|line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            number(start)..number(end)
        })
        .collect()
}

fn banner() {
    let echo = Peer::plain().echo();
    // Written down, for without it the tests of a user who is not root have them on.
    let toml = "[sandbox]\ncore_dumps = false\n".to_owned();
    let proxy = ringway!().start(&(toml + &front_to_back("", "", echo.address())));
    for what in [
        "no_new_privs: on",
        "core dumps: off",
        "seccomp: on (",
        "user: ",
    ] {
        let line = proxy.stderr_line(what);
        assert!(line.contains("INFO"), "{line}");
    }
    let line = proxy.stderr_line("Landlock: ");
    match crate::scene::has_landlock() {
        true => assert!(
            line.contains("Landlock: on (ABI ") && line.contains("; writes /"),
            "{line}"
        ),
        false => assert!(line.contains("WARN Landlock: NOT AVAILABLE: "), "{line}"),
    }
    let root = rustix::process::geteuid().is_root();
    assert_eq!(
        proxy.stderr_lines("WARN RUNNING AS ROOT").len(),
        usize::from(root)
    );
}

fn banner_off() {
    let echo = Peer::plain().echo();
    let toml = "[sandbox]\nno_new_privs = false\nlandlock = false\nseccomp = false\n\
                core_dumps = true\n"
        .to_owned()
        + &front_to_back("", "", echo.address());
    let proxy = ringway!().start(&toml);
    for line in [
        "no_new_privs: off (no_new_privs = false in [sandbox])",
        "Landlock: off (landlock = false in [sandbox])",
        "seccomp: off (seccomp = false in [sandbox])",
        "core dumps: as the system has them",
    ] {
        let _ = proxy.stderr_line(line);
    }
    Link::connect(proxy.address("front"))
        .unwrap()
        .ping(b"unguarded");
}
