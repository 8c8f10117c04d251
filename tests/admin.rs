//! The admin server: who is let in, what it says and changes, and clients that behave badly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringway_support::curl::Curl;
use ringway_support::link::Address;
use ringway_support::peer::{ClosedPort, Service};
use ringway_support::pki::Authority;
use ringway_support::proxy::Exit;
use ringway_support::reload::replace;
use ringway_support::sys::as_user;
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::{DEADLINE, Ending, House, Link, Peer, Proxy, ringway, until};
use serde_json::Value;
use tempfile::TempDir;

/// A proxy in front of an echo, and its admin socket.
struct Rig {
    proxy: Proxy,
    socket: PathBuf,
    echo: Service,
    _folder: TempDir,
}

impl Rig {
    fn start(admin: &str) -> Self {
        Self::start_with(admin, "")
    }

    /// `tables` stand at the file's end, or are the listener's TLS.
    fn start_with(admin: &str, tables: &str) -> Self {
        let echo = Peer::plain().echo();
        let address = echo.address().clone();
        Self::launch(admin, tables, &address, echo)
    }

    /// The proxy's server is another one, at `server`.
    fn start_to(admin: &str, server: &Address) -> Self {
        Self::launch(admin, "", server, Peer::plain().echo())
    }

    fn launch(admin: &str, tables: &str, server: &Address, echo: Service) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("admin.sock");
        let is_tls = tables.starts_with("[listener.tls]");
        let (tls, tables) = if is_tls { (tables, "") } else { ("", tables) };
        let toml = format!(
            "[admin]\nlisten = [\"unix:{}\", \"127.0.0.1:0\"]\n{admin}\n{}{tables}",
            socket.display(),
            front_to_back("", tls, server)
        );
        Self {
            proxy: ringway!().start(&toml),
            socket,
            echo,
            _folder: folder,
        }
    }

    /// A client that is being served.
    fn client(&self) -> Link {
        let mut link = Link::connect(self.proxy.address("front")).unwrap();
        link.ping(b"hello");
        link
    }

    /// Whether a client comes in vain.
    fn turned_away(&self) -> bool {
        let mut link = Link::connect(self.proxy.address("front")).unwrap();
        let _ = link.send(b"hello").and_then(|()| link.finish());
        let (bytes, _) = link.receive_to_end();
        bytes.is_empty()
    }

    /// What a command says, asked of this proxy.
    fn command(&self, arguments: &[&str]) -> Exit {
        let socket = self.socket.to_str().unwrap();
        let all = [arguments, &["--socket", socket]].concat();
        let all: Vec<&OsStr> = all.into_iter().map(OsStr::new).collect();
        ringway!().command(&all)
    }

    fn get(&self, target: &str) -> (u16, String) {
        ask(&self.socket, &format!("GET {target} HTTP/1.0\r\n\r\n"))
    }

    fn post(&self, target: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!("POST {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        ask(&self.socket, &request)
    }

    /// Another state for its only server.
    fn hold(&self, state: &str) {
        let address = self.echo.address();
        let target = format!("/server?upstream=back&server={address}&state={state}");
        json(self.post(&target, ""));
    }

    /// Reloads with these keys in place of those that its group had.
    fn change_group(&self, keys: &str) {
        let text = std::fs::read_to_string(self.proxy.file()).unwrap();
        let (before, group) = text.split_once("[upstream.back]\n").unwrap();
        let kept = group
            .lines()
            .filter(|line| !line.starts_with("queue_timeout"));
        let kept: Vec<&str> = kept.collect();
        let text = format!("{before}[upstream.back]\n{keys}{}\n", kept.join("\n"));
        replace(self.proxy.file(), text);
        json(self.post("/reload", ""));
    }

    /// The TCP address that the proxy named.
    fn port(&self) -> String {
        let stderr = self.proxy.stderr();
        let mut addresses = stderr
            .lines()
            .filter_map(|line| line.split_once("admin address="));
        let (_, address) = addresses.find(|(_, it)| it.starts_with("127.")).unwrap();
        address.trim().to_owned()
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn ask(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = connect(socket);
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut stream)
}

fn read_answer(stream: &mut UnixStream) -> (u16, String) {
    let mut answer = Vec::new();
    // Where the server has left bytes of ours unread, a reset comes behind its answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn json(answer: (u16, String)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str(&answer.1).unwrap()
}

#[test]
fn curl_finds_the_process_healthy_by_both_doors_and_may_change_it_by_the_socket_alone() {
    let rig = Rig::start("");
    let by_socket = |arguments: &[&str]| {
        let curl = Curl::at("http://ringway/health")
            .arg("--unix-socket")
            .arg(&rig.socket);
        curl.args(arguments).run()
    };
    by_socket(&[]).expect("{\"status\":\"running\"}\n");
    let port = rig.port();
    let by_port = |path: &str| Curl::at(&format!("http://{port}{path}"));
    by_port("/health")
        .run()
        .expect("{\"status\":\"running\"}\n");
    let refused = by_port("/drain").args(&["--request", "POST"]).run();
    assert!(
        refused.body.contains("may look but not change"),
        "{refused:?}"
    );
    by_port("/health")
        .run()
        .expect("{\"status\":\"running\"}\n");
}

#[test]
fn without_an_admin_table_nothing_listens() {
    let echo = Peer::plain();
    let proxy = ringway!().start(&front_to_back("", "", echo.address()));
    assert!(!proxy.stderr().contains("admin address="));
}

#[test]
fn a_drain_that_is_asked_for_ends_the_process_as_sigterm_does() {
    let mut rig = Rig::start("");
    assert_eq!(json(rig.post("/drain", ""))["status"], "draining");
    rig.proxy.wait_exit().expect_code(0);
    assert!(!rig.socket.exists(), "the socket's file goes with it");
}

// What it says.

/// The only connection there is, once it has come so far.
fn connection(rig: &Rig, phase: &str) -> Value {
    until("the connection is listed", || {
        let answer = json(rig.get("/connections"));
        let connection = answer["connections"].get(0)?.clone();
        (answer["total"] == 1 && connection["phase"] == phase).then_some(connection)
    })
}

#[test]
fn a_connection_is_listed_as_it_is_and_in_the_log_by_the_same_id() {
    let rig = Rig::start("");
    let mut link = Link::connect(rig.proxy.address("front")).unwrap();
    link.ping(b"hello");
    let seen = connection(&rig, "relay");
    assert_eq!(seen["listener"], "front");
    assert_eq!(seen["client"], link.local().to_string());
    assert_eq!(seen["upstream"], "back");
    assert_eq!(seen["server"], rig.echo.address().to_string());
    assert_eq!(seen["address"], rig.echo.address().to_string());
    until("its bytes are counted", || {
        let seen = connection(&rig, "relay");
        (seen["bytes_up"] == 5 && seen["bytes_down"] == 5).then_some(())
    });
    let status = json(rig.get("/status"));
    assert_eq!(status["listeners"][0]["connections"], 1);
    assert_eq!(status["upstreams"][0]["servers"][0]["connections"], 1);
    let cores = status["cores"].as_array().unwrap().iter();
    let live: u64 = cores
        .map(|core| core["connections"].as_u64().unwrap())
        .sum();
    assert_eq!(live, 1);

    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    rig.proxy
        .record_of(link.local())
        .expect(&[("id", seen["id"].as_str().unwrap())]);
    until("it is gone", || {
        (json(rig.get("/connections"))["total"] == 0).then_some(())
    });
}

#[test]
fn a_client_that_has_not_come_to_a_server_is_listed_in_its_phase() {
    let house = House::new();
    let tls = house.terminate();
    let rig = Rig::start_with("", &tls);
    let silent = Link::connect(rig.proxy.address("front")).unwrap();
    let seen = connection(&rig, "client_hello");
    assert!(seen["upstream"].is_null() && seen["server"].is_null());
    let id = seen["id"].as_str().unwrap();
    let closed = json(rig.post(&format!("/connections/close?id={id}"), ""));
    assert_eq!(closed["closed"], 1);
    let record = rig.proxy.record_of(silent.local());
    record.expect(&[
        ("end", "operator"),
        ("phase", "client_hello"),
        ("ended_by", "ringway"),
    ]);
}

#[test]
fn filters_pick_connections_and_those_are_closed_and_no_others() {
    let rig = Rig::start("");
    let links: Vec<_> = (0..8).map(|_| rig.client()).collect();
    until("all are listed", || {
        (json(rig.get("/connections"))["total"] == 8).then_some(())
    });
    let count = |filter: &str| json(rig.get(&format!("/connections?{filter}")))["total"].clone();
    let server = rig.echo.address();
    for (filter, total) in [
        ("listener=front", 8),
        ("listener=other", 0),
        ("upstream=back&listener=front", 8),
        (&*format!("server={server}"), 8),
        ("server=10.0.0.1:1", 0),
        ("source=127.0.0.0/8", 8),
        ("source=10.0.0.0/8", 0),
        ("min_age=0s", 8),
        ("min_age=1h", 0),
    ] {
        assert_eq!(count(filter), total, "{filter}");
    }
    let few = json(rig.get("/connections?limit=3"));
    assert_eq!(
        (
            few["total"].as_u64(),
            few["connections"].as_array().unwrap().len()
        ),
        (Some(8), 3)
    );
    let ages: Vec<_> = few["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["age_ms"].as_u64())
        .collect();
    assert!(
        ages.is_sorted_by(|a, b| a >= b),
        "the oldest first: {ages:?}"
    );

    for wrong in [
        "",
        "?all=false",
        "?all=true&listener=front",
        "?listner=front",
        "?min_age=5",
    ] {
        assert_eq!(
            rig.post(&format!("/connections/close{wrong}"), "").0,
            400,
            "{wrong}"
        );
    }
    let id = few["connections"][0]["id"].as_str().unwrap();
    assert_eq!(
        json(rig.post(&format!("/connections/close?id={id}"), ""))["closed"],
        1
    );
    until("one is gone", || (count("") == 7).then_some(()));
    assert_eq!(
        json(rig.post("/connections/close?source=127.0.0.1", ""))["closed"],
        7
    );
    for mut link in links {
        assert_eq!(link.expect_end(), Ending::Reset);
        let record = rig.proxy.record_of(link.local());
        record.expect(&[
            ("end", "operator"),
            ("phase", "relay"),
            ("detail", "closed by the operator"),
        ]);
    }
}

#[test]
fn a_server_that_is_drained_keeps_what_it_has_and_one_that_is_down_has_nothing() {
    let rig = Rig::start("");
    let (first, address) = (rig.client(), rig.echo.address().to_string());
    let hold = |state: &str| {
        let target = format!("/server?upstream=back&server={address}&state={state}");
        json(rig.post(&target, ""))["state"].clone()
    };
    let state = || json(rig.get("/status"))["upstreams"][0]["servers"][0].clone();
    assert_eq!(state()["state"], "up");

    assert_eq!(hold("drain"), "drained");
    until("no client is served", || (rig.turned_away()).then_some(()));
    assert_eq!(
        (&state()["state"], &state()["connections"]),
        (&"drained".into(), &1.into())
    );
    let mut first = first;
    first.ping(b"it goes on");

    assert_eq!(hold("down"), "taken_down");
    assert_eq!(first.expect_end(), Ending::Reset);
    let record = rig.proxy.record_of(first.local());
    record.expect(&[
        ("end", "operator"),
        ("detail", "its server was taken down by the operator"),
    ]);
    assert!(rig.turned_away());

    assert_eq!(hold("up"), "up");
    until("clients are served again", || {
        (!rig.turned_away()).then_some(())
    });
    assert_eq!(state()["state"], "up");
    for wrong in [
        "upstream=back&server=10.0.0.1:1&state=up",
        "upstream=nowhere&server=x&state=up",
        "upstream=back&state=up",
        "upstream=back&server=x&state=gone",
    ] {
        assert_eq!(rig.post(&format!("/server?{wrong}"), "").0, 400, "{wrong}");
    }
}

#[test]
fn a_server_that_is_held_stays_so_through_a_reload_and_old_connections_obey_too() {
    let rig = Rig::start("");
    let mut first = rig.client();
    let address = rig.echo.address().to_string();
    let hold = |state: &str| {
        let target = format!("/server?upstream=back&server={address}&state={state}");
        json(rig.post(&target, ""))["state"].clone()
    };
    assert_eq!(hold("drain"), "drained");
    json(rig.post("/reload", ""));
    until("no client is served", || rig.turned_away().then_some(()));
    let status = json(rig.get("/status"));
    assert_eq!(status["upstreams"][0]["servers"][0]["state"], "drained");
    first.ping(b"it goes on");
    assert_eq!(hold("down"), "taken_down");
    assert_eq!(first.expect_end(), Ending::Reset);
    assert_eq!(hold("up"), "up");
    until("clients are served again", || {
        (!rig.turned_away()).then_some(())
    });
}

/// Says of every name that it is not there (RFC 1035 4.1.1: the question as it came, with QR, RD, RA
/// and the code 3).
fn deny_all(server: UdpSocket, first: ([u8; 512], usize, std::net::SocketAddr)) {
    let deny = |(mut message, bytes, client): ([u8; 512], usize, std::net::SocketAddr)| {
        message[2..4].copy_from_slice(&[0x81, 0x83]);
        let _ = server.send_to(&message[..bytes], client);
    };
    deny(first);
    let mut message = [0; 512];
    while let Ok((bytes, client)) = server.recv_from(&mut message) {
        deny((message, bytes, client));
    }
}

#[test]
fn while_a_reload_waits_for_a_name_others_are_answered_and_another_reload_has_its_turn() {
    // The first name would need a restart otherwise: see docs/sandbox.md.
    let rig = Rig::start_with("", "[sandbox]\nlandlock = false\n");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let text = std::fs::read_to_string(rig.proxy.file()).unwrap();
    let text = text.replace("[runtime]", &format!("[runtime]\nresolver = \"{address}\""));
    let unknown = "servers = [\"nobody.answers.example:1\", ";
    replace(rig.proxy.file(), text.replace("servers = [", unknown));
    let reload = || {
        let mut stream = connect(&rig.socket);
        stream.write_all(b"POST /reload HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    let mut first = reload();
    let mut question = [0; 512];
    let (bytes, client) = silent.recv_from(&mut question).unwrap();
    let mut second = reload();

    assert_eq!(json(rig.get("/health"))["status"], "running");
    assert_eq!(json(rig.get("/status"))["state"], "running");
    let _served = rig.client();
    let over = rig.proxy.stderr_lines("reloaded, generation");
    assert!(over.is_empty(), "it waits: {over:?}");

    std::thread::spawn(move || deny_all(silent, (question, bytes, client)));
    assert_eq!(json(read_answer(&mut first))["generation"], 1);
    assert_eq!(json(read_answer(&mut second))["generation"], 2);
    let _served = rig.client();
}

/// Whatever it is, the group is another one with it.
const CHANGED: &str = "queue_timeout = \"7s\"\n";

#[test]
fn a_server_that_is_held_stays_so_in_a_group_that_a_reload_changes() {
    let rig = Rig::start("");
    let mut first = rig.client();
    let state = || json(rig.get("/status"))["upstreams"][0]["servers"][0].clone();
    rig.hold("drain");
    rig.change_group(CHANGED);
    for _ in 0..4 {
        assert!(rig.turned_away(), "on whichever core");
    }
    assert_eq!(state()["state"], "drained");
    assert_eq!(state()["connections"], 1, "the plan before has it");
    first.ping(b"it goes on");

    rig.hold("up");
    until("clients are served again", || {
        (!rig.turned_away()).then_some(())
    });
    let second = rig.client();
    assert_eq!(state()["connections"], 2, "of both plans");
    rig.hold("down");
    for mut link in [first, second] {
        assert_eq!(link.expect_end(), Ending::Reset);
        rig.proxy.record_of(link.local()).expect(&[
            ("end", "operator"),
            ("detail", "its server was taken down by the operator"),
        ]);
    }
}

#[test]
fn a_client_that_is_still_greeting_under_the_plan_before_does_not_come_to_a_server_that_is_held() {
    let house = House::new();
    let rig = Rig::start_with("", &house.terminate());
    let config = ClientTls::trusting(&house.ca).config();
    for state in ["drain", "down"] {
        let waiting = Link::connect(rig.proxy.address("front")).unwrap();
        let local = waiting.local();
        until("it is accepted", || {
            let total = json(rig.get("/connections"))["total"].as_u64();
            (total == Some(1)).then_some(())
        });
        rig.change_group(&format!("queue_timeout = \"{}s\"\n", state.len()));
        rig.hold(state);
        let mut link = waiting.start_tls(&config, "localhost").unwrap();
        let _ = link.send(b"hello");
        assert_ne!(link.expect_end(), Ending::Clean, "{state}");
        let record = rig.proxy.record_of(local);
        record.expect(&[("end", "no_server"), ("phase", "connect")]);
        rig.hold("up");
    }
}

#[test]
fn what_connections_find_of_a_server_is_told_with_its_reason() {
    let nobody = ClosedPort::new();
    let rig = Rig::start_to("", &nobody.address());
    assert!(rig.turned_away());
    let server = until("the server is down", || {
        let server = json(rig.get("/status"))["upstreams"][0]["servers"][0].clone();
        (server["state"] == "down").then_some(server)
    });
    assert!(
        server["reason"].as_str().unwrap().contains("refused"),
        "{server}"
    );
    assert!(
        server["since"].as_u64().unwrap() > 1_600_000_000,
        "{server}"
    );
}

#[test]
fn the_plan_is_shown_as_explain_has_it_and_without_what_checks_say() {
    let check = "[upstream.back.check]\nsend = \"AUTH secret-word\\r\\n\"\nexpect = \"+OK\"\n";
    let rig = Rig::start_with("", check);
    let (_, text) = rig.get("/plan");
    assert!(
        text.contains("upstream.back.check.send") && text.contains("\"***\""),
        "{text}"
    );
    assert!(!text.contains("secret-word"), "{text}");
    // Nor is it in what a reload changes, here or in the log.
    let file = fs::read_to_string(rig.proxy.file()).unwrap();
    replace(
        rig.proxy.file(),
        file.replace("secret-word", "secret-words"),
    );
    let (_, changes) = rig.get("/diff");
    assert!(changes.contains("upstream.back.check.send"), "{changes}");
    assert_eq!(rig.post("/reload", "").0, 200);
    rig.proxy.wait_stderr(&["reloaded, generation 1"]);
    let stderr = rig.proxy.stderr();
    assert!(stderr.contains("~ upstream.back.check.send"), "{stderr}");
    assert!(!(changes + &stderr).contains("secret-word"), "{stderr}");
    assert!(
        text.contains("runtime.drain_timeout") && text.contains("# default: "),
        "{text}"
    );
    let values = json(rig.get("/plan?format=json"));
    let named = |key: &str| {
        values
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["key"] == key)
            .cloned()
    };
    assert_eq!(
        named("listener.front.upstream").unwrap()["value"],
        "\"back\""
    );
    assert!(named("admin.mode").unwrap()["why"].is_string());
    let digest = json(rig.get("/status"))["plan"]["digest"].clone();
    assert_eq!(digest.as_str().unwrap().len(), 64);
}

#[test]
fn the_level_of_the_log_changes_at_once_and_a_slip_is_refused() {
    let rig = Rig::start("");
    let level = || json(rig.get("/log-level"))["level"].clone();
    assert!(level().as_str().unwrap().starts_with("info"));
    assert_eq!(
        json(rig.post("/log-level?level=error", ""))["level"],
        "error"
    );
    assert_eq!(level(), "error");
    assert_eq!(rig.post("/log-level?level=eror", "").0, 400);
    assert_eq!(rig.post("/log-level", "").0, 400);
    // Each change is one line of the level info, but not at the level error.
    rig.post("/connections/close?all=true", "");
    rig.post("/log-level?level=info", "");
    rig.proxy.wait_stderr(&["/log-level"]);
    assert_eq!(
        rig.proxy.stderr_lines("/connections/close"),
        Vec::<String>::new()
    );
}

// The commands.

#[test]
fn the_commands_show_and_change_what_the_server_does() {
    let mut rig = Rig::start("");
    let mut link = rig.client();
    let client = link.local().to_string();
    let says = |arguments: &[&str], words: &[&str]| {
        let said = rig.command(arguments);
        said.expect_code(0);
        for word in words {
            assert!(said.stdout.contains(word), "{arguments:?}: {}", said.stdout);
        }
        said.stdout
    };
    says(&["status"], &["running for", "front", "back", " up "]);
    let status: Value = serde_json::from_str(&says(&["status", "--json"], &[])).unwrap();
    assert_eq!(status["pid"], rig.proxy.pid());
    says(
        &["connections", "--listener", "front"],
        &[&client, "relay", "5 B"],
    );
    says(&["plan"], &["listener.front.upstream"]);
    says(&["log-level"], &["info"]);
    says(&["log-level", "warn"], &["warn"]);
    let address = rig.echo.address().to_string();
    says(
        &["server", "back", &address, "drain"],
        &["no new connections"],
    );
    says(&["server", "back", &address, "up"], &["as its checks"]);
    says(
        &["close", "--source", "127.0.0.1"],
        &["1 connection closed"],
    );
    assert_eq!(link.expect_end(), Ending::Reset);
    rig.command(&["close"])
        .expect_code(64)
        .expect_words(&["not clear which", "cure: name them"]);
    says(&["drain"], &[]);
    rig.proxy.wait_exit().expect_code(0);
    rig.command(&["status"])
        .expect_code(71)
        .expect_words(&["--socket"]);
}

/// Whoever asks at the wrong place is told which is the right one.
#[test]
fn each_way_in_which_a_socket_does_not_answer_has_its_own_cure() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("file"), "").unwrap();
    // Whoever listened has gone and left its socket behind.
    drop(UnixListener::bind(at("stale")).unwrap());
    let stranger = UnixListener::bind(at("stranger")).unwrap();
    let answer = thread::spawn(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        // All of it, or a reset would come behind the answer.
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    let long = "x".repeat(200);
    for (socket, words) in [
        (at("nothing"), "start ringway with an [admin] table"),
        (at("file"), "this is no socket"),
        (at("stale"), "the process that listened there has ended"),
        (at("stranger"), "does not answer as ringway does"),
        (at(&long), "at most 107 bytes"),
    ] {
        let arguments = ["status", "--socket", &socket].map(OsStr::new);
        let said = ringway!().command(&arguments);
        said.expect_code(71);
        for words in [words, &socket, "\n  cure: "] {
            assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
        }
        assert_eq!(said.stdout, "");
    }
    answer.join().unwrap();
}

#[test]
fn who_may_not_write_to_the_socket_is_told_who_may() {
    let rig = Rig::start("mode = \"0600\"");
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(rig.socket.parent().unwrap(), 0o755).unwrap();
    let refusal = as_user(65_534, || {
        UnixStream::connect(&rig.socket).unwrap_err().kind()
    });
    match refusal {
        Ok(kind) => assert_eq!(kind, ErrorKind::PermissionDenied),
        Err(error) => println!("SKIPPED: only root can be another user: {error}"),
    }
}

#[test]
fn top_tells_handshakes_by_kind_failures_by_reason_and_their_slowest_hundredth() {
    let house = House::new();
    let rig = Rig::start_with("", &house.terminate());
    let front = rig.proxy.address("front").clone();
    let over = AtomicBool::new(false);
    let top = thread::scope(|scope| {
        scope.spawn(|| {
            let known = ClientTls::trusting(&house.ca).config();
            let stranger = ClientTls::trusting(&Authority::root("Another root")).config();
            while !over.load(Ordering::Relaxed) {
                for config in [&known, &ClientTls::trusting(&house.ca).config()] {
                    let mut link = Link::connect_tls(&front, config, "localhost").unwrap();
                    link.ping(&[7; 20_000]);
                }
                assert!(Link::connect_tls(&front, &stranger, "localhost").is_err());
            }
        });
        let top = rig.command(&["top", "--once", "--interval", "2s"]);
        over.store(true, Ordering::Relaxed);
        top
    });
    top.expect_code(0);
    let line = |begin: &str| {
        let found = top.stdout.lines().find_map(|line| line.strip_prefix(begin));
        found.unwrap_or_else(|| panic!("no line of {begin:?}:\n{}", top.stdout))
    };
    let words: Vec<&str> = line("handshakes downstream ").split(' ').collect();
    let [
        "full",
        full,
        "resumed",
        resumed,
        "failed",
        failed,
        "p99",
        p99,
    ] = words[..]
    else {
        panic!("{words:?}");
    };
    for rate in [full, resumed, failed, line("failures downstream alert ")] {
        let rate: f64 = rate.strip_suffix("/s").unwrap().parse().unwrap();
        assert!(rate > 0.0, "{}", top.stdout);
    }
    assert!(p99.ends_with("ms") || p99.ends_with('s'), "{p99}");
    assert_ne!(line("throughput up "), "0B/s down 0B/s");
    let busy: Vec<_> = (0..2)
        .map(|core| line(&format!("core {core} busy ")))
        .collect();
    assert!(busy.iter().any(|it| !it.starts_with("0%")), "{busy:?}");
}

#[test]
fn top_prints_what_happens_in_an_interval() {
    let rig = Rig::start("");
    let _link = rig.client();
    let top = rig.command(&["top", "--once", "--interval", "100ms"]);
    top.expect_code(0);
    let pid = format!("process {} version ", rig.proxy.pid());
    for words in [
        &*pid,
        "\nconnections 1 accepted ",
        "\nthroughput up ",
        "\nhandshakes downstream full 0.0/s",
        "\ncore 0 busy ",
        "\ncore 1 busy ",
        &format!(
            "\nserver back {0} {0} state up connections 1",
            rig.echo.address()
        ),
    ] {
        assert!(top.stdout.contains(words), "{words}: {}", top.stdout);
    }
    let screen = rig.command(&["top"]);
    screen
        .expect_code(64)
        .expect_words(&["no terminal", "--once"]);
}

// Clients that behave badly.

/// What may be asked beside a client that behaves badly.
fn expect_served(rig: &Rig) {
    assert_eq!(json(rig.get("/health"))["status"], "running");
}

#[test]
fn garbage_and_what_is_too_long_is_refused_and_others_are_served() {
    let rig = Rig::start("");
    let mut garbage = connect(&rig.socket);
    garbage
        .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, b'\r', b'\n', b'\r', b'\n'])
        .unwrap();
    assert_eq!(read_answer(&mut garbage).0, 400);

    let body = "x".repeat(20_000);
    assert_eq!(rig.post("/drain", &body).0, 413);
    for (target, status) in [("/nothing", 404), ("/drain", 405), ("/%00%ff?a=%", 404)] {
        assert_eq!(rig.get(target).0, status, "{target}");
    }
    let long = format!("/{}", "x".repeat(60_000));
    let mut stream = connect(&rig.socket);
    // The server may have refused it before it has come whole.
    let _ = stream.write_all(format!("GET {long} HTTP/1.1\r\n\r\n").as_bytes());
    let (status, _) = read_answer(&mut stream);
    assert!([414, 431].contains(&status), "{status}");
    expect_served(&rig);
}

#[test]
fn headers_without_end_are_cut_off() {
    let rig = Rig::start("");
    let mut stream = connect(&rig.socket);
    stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    let line = format!("X-Again: {}\r\n", "y".repeat(500));
    let sent = (0..1000)
        .take_while(|_| stream.write_all(line.as_bytes()).is_ok())
        .count();
    assert!(sent < 1000, "the server closed after some of them");
    expect_served(&rig);
}

/// Longer than a socket's buffer takes.
const LARGE_BYTES: usize = 400_000;

#[test]
fn clients_that_never_read_cost_nobody_but_themselves() {
    let servers: Vec<String> = (1..=1000)
        .map(|port| format!("\"127.0.0.1:{port}\""))
        .collect();
    let group = |n: u32| format!("[upstream.many{n}]\nservers = [{}]\n", servers.join(", "));
    let rig = Rig::start_with("", &(0..4).map(group).collect::<String>());
    let mut deaf: Vec<_> = (0..8).map(|_| connect(&rig.socket)).collect();
    for stream in &mut deaf {
        stream.write_all(b"GET /plan HTTP/1.0\r\n\r\n").unwrap();
    }
    for _ in 0..20 {
        expect_served(&rig);
    }
    rig.client();
    // Its answer has waited for it.
    let (status, plan) = read_answer(&mut deaf[0]);
    assert_eq!(status, 200);
    assert!(plan.len() > LARGE_BYTES, "{}", plan.len());
}

/// As many as may be served at once, so that the next has to wait for the end of one's time.
#[test]
fn clients_that_send_nothing_are_closed_and_those_who_waited_are_served() {
    let rig = Rig::start("");
    let silent: Vec<_> = (0..32).map(|_| connect(&rig.socket)).collect();
    expect_served(&rig);
    drop(silent);
}
