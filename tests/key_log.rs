//! TLS secrets in a file: of the clients that the configuration names, and of nobody else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ringway_support::openssl::{SClient, SServer};
use ringway_support::pki::Leaf;
use ringway_support::reload::Pair;
use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{House, Link, Peer, Proxy, ringway, until};

const SIGUSR1: i32 = 10;

/// The keys of either tls table, for clients from 127.0.0.1.
fn key_log(path: &Path) -> String {
    format!(
        "key_log = \"{}\"\nkey_log_sources = [\"127.0.0.1\", \"10.0.0.0/8\"]\n",
        path.display()
    )
}

/// Lines of a key log, but for comments.
fn secrets(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// That each of our lines is one of the peer's: label, client random and secret.
fn expect_same(ours: &Path, theirs: &Path, count: usize) {
    let found = until("the secrets", || {
        Some(secrets(ours)).filter(|lines| lines.len() >= count)
    });
    assert_eq!(found.len(), count, "{found:?}");
    let theirs = secrets(theirs);
    for line in &found {
        assert!(theirs.contains(line), "{line} is not in {theirs:?}");
    }
}

struct Scene {
    house: House,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            house: House::new(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn a_named_clients_secrets_are_those_that_it_has_itself_and_no_other_client_has_any() {
    let scene = Scene::new();
    let echo = Peer::plain().echo();
    let ours = scene.file("ours");
    let tls = scene.house.terminate() + &key_log(&ours);
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let warning = proxy.stderr_line("WRITING TLS SECRETS");
    for words in ["listener front", "127.0.0.1/32, 10.0.0.0/8", "WARN"] {
        assert!(warning.contains(words), "{warning}");
    }
    let mode = fs::metadata(&ours).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let talk = |from: &str, version: &str, theirs: &Path| {
        let client = SClient::to(proxy.address("front"))
            .verify(&scene.house.ca.file(), "localhost")
            .args(&["-bind", from, version, "-keylogfile"])
            .arg(theirs);
        let said = client.talk("hello", "hello");
        assert!(said.success, "{}", said.text);
    };
    talk("127.0.0.2:0", "-tls1_3", &scene.file("stranger"));
    assert!(!secrets(&scene.file("stranger")).is_empty());
    talk("127.0.0.1:0", "-tls1_3", &scene.file("named"));
    expect_same(&ours, &scene.file("named"), 5);

    fs::write(&ours, "").unwrap();
    talk("127.0.0.2:0", "-tls1_2", &scene.file("stranger-12"));
    talk("127.0.0.1:0", "-tls1_2", &scene.file("named-12"));
    expect_same(&ours, &scene.file("named-12"), 1);
}

#[test]
fn towards_servers_the_secrets_of_connections_for_named_clients_are_written() {
    let scene = Scene::new();
    let (ours, theirs) = (scene.file("ours"), scene.file("theirs"));
    let path = theirs.display().to_string();
    let server = SServer::start(&scene.house.backend, &["-keylogfile", &path]);
    let tls = scene.house.originate("back") + &key_log(&ours);
    let toml = listener("front", "back", "", "") + &upstream("back", &[server.address()], &tls);
    let proxy = ringway!().start(&toml);
    assert!(
        proxy
            .stderr_line("WRITING TLS SECRETS")
            .contains("upstream back")
    );
    for host in [2, 1] {
        let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, host));
        let mut link = Link::connect_from(from, proxy.address("front")).unwrap();
        link.send(b"olleh\n").unwrap();
        assert_eq!(link.receive(6), b"hello\n");
        link.finish().unwrap();
        let _ = link.receive_to_end();
        proxy.record_of(link.local()).expect(&[("end", "finished")]);
        let lines = secrets(&ours).len();
        assert!(host == 1 || lines == 0, "{lines} lines of 127.0.0.2");
    }
    expect_same(&ours, &theirs, 5);
}

#[test]
fn a_named_client_gets_no_warm_connection_whose_secrets_nobody_has_noted() {
    let scene = Scene::new();
    let server = Peer::tls(ServerTls::with(&scene.house.backend).config()).echo();
    let ours = scene.file("ours");
    let toml = format!(
        "{}[upstream.back]\nservers = [\"{}\"]\nwarm = 1\n{}{}",
        listener("front", "back", "", ""),
        server.address(),
        scene.house.originate("back"),
        key_log(&ours)
    );
    let proxy = ringway!().workers(1).start(&toml);
    let visit = |host: u8| {
        let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, host));
        let mut link = Link::connect_from(from, proxy.address("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        let _ = link.receive_to_end();
        let record = proxy.record_of(link.local());
        record.0.get("warm_ms").is_some()
    };
    until("a warm connection", || visit(2).then_some(()));
    assert!(secrets(&ours).is_empty());
    for _ in 0..3 {
        assert!(!visit(1));
    }
    until("the secrets", || (secrets(&ours).len() == 15).then_some(()));
}

#[test]
fn a_session_that_one_client_began_is_resumed_by_the_other() {
    let scene = Scene::new();
    let echo = Peer::plain().echo();
    let ours = scene.file("ours");
    let tls = scene.house.terminate() + &key_log(&ours) + "protocols = \"TLSv1.2\"\n";
    let proxy = ringway!()
        .workers(1)
        .start(&front_to_back("", &tls, echo.address()));
    let session = scene.file("session").display().to_string();
    let talk = |from: &str, with_session: &str| {
        let client = SClient::to(proxy.address("front"))
            .verify(&scene.house.ca.file(), "localhost")
            .args(&["-bind", from, "-no_ticket", with_session, &session]);
        client.talk("hello", "hello")
    };
    assert!(!talk("127.0.0.2:0", "-sess_out").resumed());
    assert!(talk("127.0.0.1:0", "-sess_in").resumed());
    until("the secret", || (secrets(&ours).len() == 1).then_some(()));
}

/// How many of the proxy's descriptors are of this file.
fn descriptors(proxy: &Proxy, file: &Path) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let targets = all.flatten().map(|entry| fs::read_link(entry.path()));
    targets.flatten().filter(|target| target == file).count()
}

fn writers(proxy: &Proxy) -> usize {
    let threads = proxy.threads().into_iter();
    threads.filter(|(name, _)| name == "ringway-keys").count()
}

#[test]
fn reloads_leave_one_thread_and_one_descriptor_for_each_table_that_has_a_key_log() {
    let scene = Scene::new();
    let server = Peer::tls(ServerTls::with(&scene.house.backend).config()).echo();
    let logs = [scene.file("front"), scene.file("back")];
    let pair = Pair::of(&scene.house.edge);
    // The listener has other certificates each time, the upstream another plan.
    let toml = |session_reuse: bool, networks: &str| {
        let listens = pair.toml() + &key_log(&logs[0]).replace("10.0.0.0/8", networks);
        let connects = scene.house.originate("back") + &key_log(&logs[1]);
        listener("front", "back", "", &listens)
            + &upstream("back", &[server.address()], &connects)
            + &format!("session_reuse = {session_reuse}\n")
    };
    let mut proxy = ringway!().workers(1).start(&toml(true, "10.0.0.0/8"));
    let visit = |proxy: &Proxy| {
        let config = ClientTls::trusting(&scene.house.ca).config();
        let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
        link.ping(b"hello");
        link
    };
    let until_count = |file: &Path, count| {
        until("the secrets", || {
            (secrets(file).len() == count).then_some(())
        });
    };
    let mut alive = vec![visit(&proxy)];
    for generation in 1..=10 {
        pair.put(&scene.house.ca.issue(&Leaf::server("localhost")));
        proxy.reload_with(&toml(
            generation % 2 == 0,
            &format!("10.{generation}.0.0/16"),
        ));
        alive.push(visit(&proxy));
    }
    assert_eq!(writers(&proxy), logs.len());
    let moved = [scene.file("front.1"), scene.file("back.1")];
    for (file, moved) in logs.iter().zip(&moved) {
        assert_eq!(descriptors(&proxy, file), 1);
        until_count(file, 5 * alive.len());
        fs::rename(file, moved).unwrap();
    }
    proxy.signal(SIGUSR1);
    for (file, moved) in logs.iter().zip(&moved) {
        until("it lets go of the old file", || {
            (descriptors(&proxy, moved) == 0).then_some(())
        });
        assert_eq!(descriptors(&proxy, file), 1);
    }
    let before = 5 * alive.len();
    alive.push(visit(&proxy));
    for (file, moved) in logs.iter().zip(&moved) {
        until_count(file, 5);
        assert_eq!(secrets(moved).len(), before);
    }
    alive.iter_mut().for_each(|link| link.ping(b"still here"));
}

#[test]
fn the_environment_alone_changes_nothing() {
    let scene = Scene::new();
    let echo = Peer::plain().echo();
    let file = scene.file("environment");
    let proxy = ringway!()
        .environment("SSLKEYLOGFILE", &file)
        .start(&front_to_back("", &scene.house.terminate(), echo.address()));
    let client = SClient::to(proxy.address("front")).verify(&scene.house.ca.file(), "localhost");
    assert!(client.talk("hello", "hello").success);
    assert!(!file.exists());
    assert_eq!(proxy.stderr_lines("SECRETS").len(), 0);
}

#[test]
fn a_key_log_that_others_may_read_is_refused_with_the_cure() {
    let scene = Scene::new();
    let file = scene.file("open");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let tls = scene.house.terminate() + &key_log(&file);
    let toml = front_to_back("", &tls, Peer::plain().address());
    let exit = ringway!().run_to_end(&toml);
    exit.expect_code(64);
    assert!(exit.stderr.contains("chmod 600"), "{}", exit.stderr);
}
