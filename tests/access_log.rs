//! The access log: what a line holds, and what happens when it cannot be written.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringway_support::bridge::LEGS;
use ringway_support::hello::hello_of;
use ringway_support::link::Address;
use ringway_support::peer::ClosedPort;
use ringway_support::sys::{die_with_parent, kill};
use ringway_support::tls::ClientTls;
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{
    Bridge, Bystander, Ending, House, Leg, Link, Peer, Proxy, Scrape, ringway, until,
};

/// In this order, as operators' tools may rely on.
const FIELDS: [&str; 42] = [
    "time",
    "id",
    "core",
    "listener",
    "client",
    "local",
    "sni",
    "downstream_protocol",
    "downstream_cipher",
    "downstream_group",
    "downstream_alpn",
    "downstream_resumed",
    "client_identity",
    "client_verified",
    "upstream",
    "server",
    "server_address",
    "tries",
    "passed_over",
    "upstream_sni",
    "upstream_protocol",
    "upstream_cipher",
    "upstream_group",
    "upstream_alpn",
    "upstream_resumed",
    "server_identity",
    "server_verified",
    "bytes_up",
    "bytes_down",
    "path_up",
    "path_down",
    "client_hello_ms",
    "downstream_handshake_ms",
    "connect_ms",
    "upstream_handshake_ms",
    "first_byte_ms",
    "total_ms",
    "end",
    "phase",
    "ended_by",
    "alert",
    "detail",
];

/// What every served connection's line holds.
const ALWAYS: [&str; 18] = [
    "time",
    "id",
    "core",
    "listener",
    "client",
    "local",
    "upstream",
    "server",
    "server_address",
    "tries",
    "bytes_up",
    "bytes_down",
    "path_up",
    "path_down",
    "connect_ms",
    "total_ms",
    "end",
    "phase",
];

fn position(field: &str) -> Option<usize> {
    FIELDS.iter().position(|known| *known == field)
}

fn expect_order<'a>(line: &str, fields: impl Iterator<Item = &'a str>) {
    let positions: Vec<_> = fields
        .map(|field| position(field).unwrap_or_else(|| panic!("unknown field `{field}` in {line}")))
        .collect();
    assert!(
        positions.is_sorted(),
        "the fields are not in their order: {line}"
    );
}

/// Keys of a JSON object's text, in the order they stand there: objects in it there are none.
fn json_keys(line: &str) -> Vec<&str> {
    let mut keys: Vec<_> = FIELDS
        .iter()
        .filter_map(|field| Some((line.find(&format!("\"{field}\":"))?, *field)))
        .collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, field)| field).collect()
}

/// Splits `a=1 b="two words"`.
fn logfmt_pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted
                    .match_indices('"')
                    .map(|(at, _)| at)
                    .find(|at| *at == 0 || quoted.as_bytes()[at - 1] != b'\\')
                    .unwrap_or_else(|| panic!("an open quote in {line}"));
                (&quoted[..end], &quoted[end + 1..])
            }
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        pairs.push((key.trim().to_owned(), value.to_owned()));
        rest = left.trim_start();
    }
    pairs
}

fn expect_time(text: &str) {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(
        shape, "0000-00-00T00:00:00.000Z",
        "RFC 3339 in UTC with milliseconds"
    );
}

#[test]
fn a_json_line_tells_a_mutual_tls_connection_in_the_order_of_the_fields() {
    let house = House::new();
    let tls = ringway_support::tls::ServerTls::with(&house.backend).require_client(&house.ca);
    let echo = Peer::tls(tls.config()).echo();
    let originate = format!("{}{}", house.originate("back"), house.client.toml());
    let toml = listener("front", "back", "", &house.terminate_verified("required"))
        + &upstream("back", &[echo.address()], &originate);
    let proxy = ringway!().start(&toml);
    let config = ClientTls::trusting(&house.ca)
        .identity(&house.client)
        .config();
    let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    link.ping(&[7; 1000]);
    link.finish().unwrap();
    let _ = link.receive_to_end();
    let record = proxy.record_of(link.local());

    record.expect(&[
        ("listener", "front"),
        ("local", &proxy.address("front").to_string()),
        ("sni", "localhost"),
        ("downstream_protocol", "TLSv1.3"),
        ("client_identity", "spiffe://example.org/tester"),
        ("upstream", "back"),
        ("server", &echo.address().to_string()),
        ("server_address", &echo.address().to_string()),
        ("upstream_sni", "backend.internal"),
        ("upstream_protocol", "TLSv1.3"),
        ("path_up", "user"),
        ("path_down", "user"),
        ("end", "finished"),
        ("phase", "relay"),
        ("ended_by", "ringway"),
    ]);
    assert!(record.text("server_identity").contains("backend.internal"));
    for flag in ["client_verified", "server_verified"] {
        assert!(record.flag(flag), "{flag} in {record}");
    }
    for flag in ["downstream_resumed", "upstream_resumed"] {
        assert!(!record.flag(flag), "{flag} in {record}");
    }
    for (count, expected) in [("tries", 1), ("bytes_up", 1000), ("bytes_down", 1000)] {
        assert_eq!(record.count(count), expected, "{count} in {record}");
    }
    assert!(record.count("core") < 2, "{record}");
    for time in [
        "client_hello_ms",
        "downstream_handshake_ms",
        "connect_ms",
        "upstream_handshake_ms",
        "first_byte_ms",
    ] {
        let (ms, total) = (record.number(time), record.number("total_ms"));
        assert!((0.0..=total).contains(&ms), "{time} in {record}");
    }
    expect_time(record.text("time"));
    let log = proxy.access_log();
    expect_order(&log, json_keys(log.lines().next().unwrap()).into_iter());
}

#[test]
fn the_wait_for_a_hello_is_told_apart_from_the_handshake() {
    const WAIT: Duration = Duration::from_secs(1);
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let config = ClientTls::trusting(&bridge.house.ca).config();
    let (connection, hello) = hello_of(&config, "localhost");
    let mut link = Link::connect(bridge.proxy.address("front")).unwrap();
    let (early, late) = hello.split_at(hello.len() / 2);
    link.send_raw(early).unwrap();
    pause(WAIT);
    link.send_raw(late).unwrap();
    link.use_tls(connection.into());
    link.handshake().unwrap();
    drop(bridge.peer.accept());
    let _ = link.expect_end();
    link.finish().unwrap();
    let record = bridge.record(&link);
    let [hello, handshake, total] =
        ["client_hello_ms", "downstream_handshake_ms", "total_ms"].map(|it| record.number(it));
    // Its time begins when the connection is accepted, which may be late.
    assert!(hello >= WAIT.as_secs_f64() * 500.0, "{record}");
    assert!(hello + handshake <= total, "{record}");
}

#[test]
fn a_json_line_holds_known_fields_only_and_leaves_out_what_is_absent() {
    for legs in LEGS {
        let bridge = Bridge::start(ringway!(), legs, "");
        bridge.expect_service();
        let record = bridge.proxy.wait_record("the connection", |_| true);
        let keys = record.0.as_object().unwrap().keys();
        for key in keys {
            assert!(position(key).is_some(), "unknown field `{key}` in {record}");
        }
        for field in ALWAYS {
            assert!(
                !record.0[field].is_null(),
                "field `{field}` is missing in {record}"
            );
        }
        for (leg, prefix) in [(legs.0, "downstream_"), (legs.1, "upstream_")] {
            for suffix in ["protocol", "cipher", "resumed", "handshake_ms"] {
                let field = format!("{prefix}{suffix}");
                assert_eq!(
                    record.0.get(&field).is_some(),
                    leg.is_tls(),
                    "{legs:?}: field `{field}` in {record}"
                );
            }
        }
        let path = if legs == LEGS[0] { "copy" } else { "user" };
        record.expect(&[("path_up", path), ("path_down", path)]);
    }
}

#[test]
fn a_logfmt_line_has_the_same_names_in_the_same_order() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let ringway = ringway!().log("format = \"logfmt\"");
    let proxy = ringway.start(&front_to_back("", &house.terminate(), echo.address()));
    let config = ClientTls::trusting(&house.ca).config();
    let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    let _ = link.receive_to_end();
    let line = until("a line of the access log", || {
        Some(proxy.access_log()).filter(|log| log.ends_with('\n'))
    });
    let pairs = logfmt_pairs(&line);
    expect_order(&line, pairs.iter().map(|(key, _)| key.as_str()));
    let value = |key: &str| {
        let pair = pairs.iter().find(|(k, _)| k == key);
        pair.map_or_else(|| panic!("no {key} in {line}"), |(_, v)| v.as_str())
    };
    for (key, expected) in [
        ("listener", "front"),
        ("sni", "localhost"),
        ("downstream_protocol", "TLSv1.3"),
        ("downstream_resumed", "false"),
        ("bytes_up", "5"),
        ("bytes_down", "5"),
        ("end", "finished"),
        ("phase", "relay"),
    ] {
        assert_eq!(value(key), expected, "{key} in {line}");
    }
    assert_eq!(value("client"), link.local().to_string());
    expect_time(value("time"));
}

#[test]
fn bytes_of_a_peer_cannot_forge_a_line() {
    let house = House::new();
    let echo = Peer::plain().echo();
    for format in ["json", "logfmt", "$client $sni $detail $end"] {
        let ringway = ringway!().log(&format!("format = \"{format}\""));
        let proxy = ringway.start(&front_to_back("", &house.terminate(), echo.address()));
        let config = ClientTls::trusting(&house.ca).config();
        let (_, hello) = ringway_support::hello::hello_of(&config, "aaaaaaaa.example");
        let forged =
            ringway_support::hello::with_name(&hello, "aaaaaaaa.example", b"a\n\" end=finished");
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.send_raw(&forged).unwrap();
        let _ = link.receive_to_end();
        drop(link);
        let log = until("a line of the access log", || {
            Some(proxy.access_log()).filter(|log| log.ends_with('\n'))
        });
        assert_eq!(log.lines().count(), 1, "one connection, one line: {log}");
        assert!(!log.contains(" end=finished"), "{log}");
    }
}

/// Opens a connection from front to back and ends it cleanly.
fn visit(proxy: &Proxy, listener: &str) {
    let mut link = Link::connect(proxy.address(listener)).unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    let _ = link.receive_to_end();
}

/// The access log of a proxy that has ended.
fn whole_log(mut proxy: Proxy) -> String {
    proxy.signal(15);
    proxy.wait_exit().expect_code(0);
    proxy.access_log()
}

#[test]
fn fields_choose_what_a_line_holds_and_in_which_order() {
    let echo = Peer::plain().echo();
    for (format, begin, end) in [
        ("json", "{\"end\":\"finished\",\"bytes_up\":5,", "\"}\n"),
        (
            "logfmt",
            "end=finished bytes_up=5 listener=front time=",
            "Z\n",
        ),
    ] {
        let keys = format!(
            "format = \"{format}\"\nfields = [\"end\", \"sni\", \"bytes_up\", \"listener\", \"time\"]"
        );
        let proxy = ringway!()
            .log(&keys)
            .start(&front_to_back("", "", echo.address()));
        visit(&proxy, "front");
        let log = whole_log(proxy);
        assert!(log.starts_with(begin) && log.ends_with(end), "{log}");
    }
}

#[test]
fn a_template_is_filled_in_line_by_line() {
    let echo = Peer::plain().echo();
    let proxy = ringway!()
        .log("format = '$listener|$sni|$bytes_up/$bytes_down|\"$detail\"|$$${tries}x|$end'")
        .start(&front_to_back("", "", echo.address()));
    visit(&proxy, "front");
    visit(&proxy, "front");
    let line = "front|-|5/5|\"-\"|$1x|finished\n";
    assert_eq!(whole_log(proxy), line.repeat(2));
}

#[test]
fn with_a_sample_clean_ends_are_thinned_out_and_failures_are_not() {
    let echo = Peer::plain().echo();
    let closed = ClosedPort::new();
    let toml = listener("front", "back", "", "")
        + &listener("dead", "nobody", "", "")
        + &upstream("back", &[echo.address()], "")
        + &upstream("nobody", &[&closed.address()], "");
    let proxy = ringway!().log("sample = 5").start(&toml);
    for _ in 0..100 {
        visit(&proxy, "front");
    }
    for _ in 0..10 {
        let mut link = Link::connect(proxy.address("dead")).unwrap();
        let _ = link.receive_to_end();
    }
    let log = whole_log(proxy);
    let (clean, failed): (Vec<_>, Vec<_>) = log
        .lines()
        .partition(|line| line.contains("\"end\":\"finished\""));
    assert_eq!(failed.len(), 10, "{log}");
    assert!((5..50).contains(&clean.len()), "{} of 100", clean.len());
    assert!(clean.iter().all(|line| line.contains("\"sampled\":5")));
    assert!(failed.iter().all(|line| !line.contains("\"sampled\"")));
}

#[test]
fn the_access_log_may_go_to_stderr() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().access("stderr");
    let proxy = ringway.start(&front_to_back("", "", echo.address()));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    let record = proxy.record_of(link.local());
    record.expect(&[("end", "finished")]);
}

const SIGUSR1: i32 = 10;

#[test]
fn after_sigusr1_lines_go_to_a_new_file_and_no_line_is_lost() {
    const ROUNDS: usize = 5;
    const VISITS: usize = 20;
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&front_to_back("", "", echo.address()));
    let log = proxy.access_log_path().to_owned();
    let moved = |round: usize| log.with_extension(round.to_string());
    for round in 0..ROUNDS {
        (0..VISITS).for_each(|_| visit(&proxy, "front"));
        std::fs::rename(&log, moved(round)).unwrap();
        proxy.signal(SIGUSR1);
        // While the file changes.
        (0..VISITS).for_each(|_| visit(&proxy, "front"));
        until("the new file is there", || log.exists().then_some(()));
    }
    proxy.signal(15);
    proxy.wait_exit().expect_code(0);
    let files = (0..ROUNDS).map(moved).chain([log.clone()]);
    let lines: Vec<usize> = files
        .map(|file| std::fs::read_to_string(file).unwrap().lines().count())
        .collect();
    assert_eq!(
        lines.iter().sum::<usize>(),
        2 * ROUNDS * VISITS,
        "{lines:?}"
    );
    assert!(lines.iter().all(|it| *it > 0), "{lines:?}");
}

/// Both kinds of lines go there, and the pipe takes 64 KiB of them.
#[test]
fn a_stderr_that_nobody_reads_costs_lines_that_are_counted_and_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| Address::Unix(folder.path().join(name));
    let echo = Peer::plain().echo();
    let toml = format!(
        "[log]\naccess = \"stderr\"\nqueue = 16\n[admin]\nlisten = \"{}\"\n\
         [[listener]]\nname = \"front\"\nbind = \"{}\"\nupstream = \"back\"\n{}",
        at("admin"),
        at("front"),
        upstream("back", &[echo.address()], "")
    );
    let file = folder.path().join("ringway.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.arg("run").arg(&file).stderr(Stdio::piped());
    die_with_parent(&mut command);
    let mut process = command.spawn().unwrap();
    let mut stderr = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ringway is ready") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    for _ in 0..300 {
        let mut link = Link::connect(&at("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
    }
    // Each is a line of the log level's.
    for _ in 0..1_200 {
        let mut ask = Link::connect(&at("admin")).unwrap();
        ask.send(b"POST /log-level?level=info HTTP/1.0\r\n\r\n")
            .unwrap();
        let (answer, _) = ask.receive_to_end();
        assert!(answer.starts_with(b"HTTP/1.0 200"), "{answer:?}");
    }
    let scrape = Scrape::of(&at("admin"));
    for name in [
        "ringway_log_lines_dropped_total",
        "ringway_events_dropped_total",
    ] {
        assert!(scrape.sum(name, &[]) > 0.0, "{name}");
    }
    kill(process.id(), 15).unwrap();
    let code = until("it ends", || process.try_wait().unwrap());
    assert!(code.success(), "{code}");
}

#[test]
fn access_off_writes_no_line() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().access("off");
    let mut proxy = ringway.start(&front_to_back("", "", echo.address()));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    let _ = link.receive_to_end();
    proxy.signal(15);
    let exit = proxy.wait_exit();
    exit.expect_code(0);
    assert!(!exit.stderr.contains("\"bytes_up\""), "{}", exit.stderr);
    assert_eq!(exit.stdout, "");
}

#[test]
fn a_full_disk_under_the_access_log_is_told_once_and_costs_no_connection() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().access("/dev/full");
    let toml = front_to_back("", "", echo.address());
    let (mut proxy, mut bystander) = Bystander::beside(ringway, &toml);
    for _ in 0..50 {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        let _ = link.receive_to_end();
    }
    proxy.wait_stderr(&["no space left"]);
    let lines = proxy.stderr().lines().count();
    assert!(lines < 40, "{lines} lines on stderr for 50 connections");
    bystander.settled(&proxy);
    drop(bystander);
    proxy.signal(15);
    proxy.wait_exit().expect_code(0);
}

#[test]
fn a_closed_pipe_under_the_access_log_costs_no_connection() {
    let echo = Peer::plain().echo();
    let ringway = ringway!().access("/dev/stdout");
    let toml = front_to_back("", "", echo.address());
    let (mut proxy, mut bystander) = Bystander::beside(ringway, &toml);
    let mut lines = BufReader::new(proxy.take_stdout());
    visit(&proxy, "front");
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("\"bytes_up\":5"), "{line}");

    drop(lines);
    for _ in 0..20 {
        visit(&proxy, "front");
    }
    proxy.wait_stderr(&["broken pipe"]);
    bystander.settled(&proxy);
    drop(bystander);
    proxy.signal(15);
    proxy.wait_exit().expect_code(0);
}

#[test]
fn a_reader_that_never_reads_the_access_log_costs_no_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.fifo");
    ringway_support::sys::make_fifo(&path).unwrap();
    let _reader = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc_nonblock())
        .open(&path)
        .unwrap();
    let echo = Peer::plain().echo();
    let ringway = ringway!()
        .access(&path.display().to_string())
        .log("queue = 16");
    let toml = front_to_back("", "", echo.address());
    let (proxy, mut bystander) = Bystander::beside(ringway, &toml);
    // 64 KiB fit into the pipe and 16 records into each queue: the rest must be dropped.
    for _ in 0..300 {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        let _ = link.receive_to_end();
    }
    bystander.settled(&proxy);
}

/// O_NONBLOCK: opening a pipe for reading alone would wait for its writer.
fn libc_nonblock() -> i32 {
    0o4000
}

#[test]
fn a_failed_handshake_is_a_line_with_the_leg_and_the_reason() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let client = Link::connect(bridge.proxy.address("front")).unwrap();
    // A client that does not trust us, and says so with an alert.
    let stranger = House::new();
    let config = ClientTls::trusting(&stranger.ca).config();
    let address = client.local();
    assert!(client.start_tls(&config, "localhost").is_err());
    let record = bridge.proxy.record_of(address);
    record.expect(&[
        ("end", "alert"),
        ("phase", "downstream_handshake"),
        ("ended_by", "downstream"),
        ("sni", "localhost"),
    ]);
    record.expect_reason(&["unknown", "bad_certificate", "badcertificate", "ca"]);
}
