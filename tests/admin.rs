//! The admin server: who is let in, what it says and changes, and clients that behave badly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ringway_support::curl::Curl;
use ringway_support::toml::front_to_back;
use ringway_support::{DEADLINE, Peer, Proxy, ringway};
use serde_json::Value;
use tempfile::TempDir;

/// A proxy in front of an echo, and its admin socket.
struct Rig {
    proxy: Proxy,
    socket: PathBuf,
    _echo: Peer,
    _folder: TempDir,
}

impl Rig {
    fn start(admin: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("admin.sock");
        let echo = Peer::plain();
        let toml = format!(
            "[admin]\nlisten = [\"unix:{}\", \"127.0.0.1:0\"]\n{admin}\n{}",
            socket.display(),
            front_to_back("", "", echo.address())
        );
        Self {
            proxy: ringway!().start(&toml),
            socket,
            _echo: echo,
            _folder: folder,
        }
    }

    fn get(&self, target: &str) -> (u16, String) {
        ask(&self.socket, &format!("GET {target} HTTP/1.0\r\n\r\n"))
    }

    fn post(&self, target: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!("POST {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        ask(&self.socket, &request)
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

/// As many as may be served at once, so that the next has to wait for the end of one's time.
#[test]
fn clients_that_send_nothing_are_closed_and_those_who_waited_are_served() {
    let rig = Rig::start("");
    let silent: Vec<_> = (0..32).map(|_| connect(&rig.socket)).collect();
    expect_served(&rig);
    drop(silent);
}
