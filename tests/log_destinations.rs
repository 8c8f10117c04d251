//! Where the access log may go beside a file: syslog, journald, and a disk that is full.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringway_support::toml::front_to_back;
use ringway_support::wait::within;
use ringway_support::{Bystander, DEADLINE, Link, Peer, Proxy, Ringway, ringway, until};

fn visit(proxy: &Proxy) {
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    let _ = link.receive_to_end();
}

/// A daemon's socket in a folder of the test.
struct Daemon {
    socket: UnixDatagram,
}

impl Daemon {
    fn at(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket }
    }

    fn next(&self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let count = self.socket.recv(&mut bytes).expect("a datagram in time");
        bytes.truncate(count);
        bytes
    }

    fn next_text(&self) -> String {
        String::from_utf8(self.next()).unwrap()
    }
}

fn socket_in(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("socket")
}

/// `syslog:` or `journald:` and the socket.
fn to(kind: &str, path: &Path) -> Ringway {
    ringway!().access(&format!("{kind}:{}", path.display()))
}

#[test]
fn a_syslog_daemon_is_sent_one_datagram_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::at(&socket_in(&directory));
    let echo = Peer::plain().echo();
    let ringway = to("syslog", &socket_in(&directory))
        .log("facility = \"local3\"\ntag = \"edge\"\nformat = '$listener $bytes_up $end'");
    let proxy = ringway.start(&front_to_back("", "", echo.address()));
    for _ in 0..3 {
        visit(&proxy);
        let text = daemon.next_text();
        // local3.info: 19 * 8 + 6.
        assert!(text.starts_with("<158>"), "{text}");
        let line = format!(" edge[{}]: front 5 finished", proxy.pid());
        assert!(text.ends_with(&line), "{text}");
    }
}

/// Fields of an entry that has no value of more than one line.
fn entry(bytes: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    text.lines()
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn journald_is_sent_an_entry_with_the_line_and_its_fields() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::at(&socket_in(&directory));
    let echo = Peer::plain().echo();
    let ringway = to("journald", &socket_in(&directory)).log("format = \"logfmt\"");
    let proxy = ringway.start(&front_to_back("", "", echo.address()));
    visit(&proxy);
    let entry = entry(&daemon.next());
    for (name, value) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "ringway"),
        ("SYSLOG_FACILITY", "3"),
        ("RINGWAY_LISTENER", "front"),
        ("RINGWAY_BYTES_UP", "5"),
        ("RINGWAY_END", "finished"),
    ] {
        assert_eq!(entry[name], value, "{name} in {entry:?}");
    }
    assert!(entry["MESSAGE"].contains(" end=finished"), "{entry:?}");
    assert!(!entry.contains_key("RINGWAY_SNI"), "{entry:?}");
}

#[test]
fn a_daemon_that_comes_late_or_again_gets_the_lines_that_waited() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_in(&directory);
    let echo = Peer::plain().echo();
    let proxy = to("syslog", &path).start(&front_to_back("", "", echo.address()));
    proxy.wait_stderr(&["cannot be written: no such file"]);
    visit(&proxy);
    let first = Daemon::at(&path);
    assert!(first.next_text().contains("finished"));
    proxy.wait_stderr(&["works again"]);

    drop(first);
    visit(&proxy);
    proxy.wait_stderr(&["cannot be written: connection refused"]);
    let second = Daemon::at(&path);
    assert!(second.next_text().contains("finished"));
    // Once more, but quicker than the next line.
    drop(second);
    let third = Daemon::at(&path);
    visit(&proxy);
    assert!(third.next_text().contains("finished"));
}

#[test]
fn a_daemon_that_stops_reading_costs_no_connection_and_its_lines_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::at(&socket_in(&directory));
    let echo = Peer::plain().echo();
    let ringway = to("syslog", &socket_in(&directory)).log("queue = 4\nfields = [\"end\"]");
    let toml = front_to_back("", "", echo.address());
    let (proxy, mut bystander) = Bystander::beside(ringway, &toml);
    // As many datagrams as the kernel queues (net.unix.max_dgram_qlen), and more.
    let room = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let room: usize = room.trim().parse().unwrap();
    for _ in 0..room + 100 {
        visit(&proxy);
    }
    proxy.wait_stderr(&["it has stopped reading"]);
    bystander.settled(&proxy);

    until("the log works again", || {
        let _ = daemon.next_text();
        Some(proxy.stderr_lines("works again")).filter(|lines| !lines.is_empty())
    });
    assert!(told_lost(&proxy, "works again") > 0, "{}", proxy.stderr());
}

/// A program that runs `binary` where `room` is a file system of 64 KiB, which goes with it.
fn in_a_small_room(directory: &Path, room: &Path, binary: &str) -> PathBuf {
    let script = directory.join("small-room");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --map-root-user sh -c \
         'mount -t tmpfs -o size=64k none {room} && exec {binary} \"$@\"' sh \"$@\"\n",
        room = room.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn may_mount() -> bool {
    let script = "mount -t tmpfs none /mnt";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script]);
    command.output().is_ok_and(|output| output.status.success())
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

/// Whole lines: the last one may be on its way.
fn lines(log: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(log).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let whole = text.split_inclusive('\n').filter(|it| it.ends_with('\n'));
    whole.map(parse).collect()
}

/// Numbers right in front of "lines ... dropped", on lines of stderr with `words`.
fn told_lost(proxy: &Proxy, words: &str) -> usize {
    let told = proxy.stderr_lines(words);
    let numbers = told.iter().map(|line| {
        let (before, _) = line.split_once(" lines ").unwrap();
        before.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    });
    numbers.sum()
}

#[test]
fn a_disk_that_fills_up_costs_lines_that_are_counted_and_they_flow_again_when_there_is_room() {
    if !may_mount() {
        println!("SKIPPED: no file system can be mounted here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let room = directory.path().join("room");
    fs::create_dir(&room).unwrap();
    let binary = in_a_small_room(directory.path(), &room, env!("CARGO_BIN_EXE_ringway"));
    let log = room.join("access.log");
    let ringway = Ringway::new(binary.to_str().unwrap())
        .workers(1)
        .access(log.to_str().unwrap())
        .log("queue = 16");
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let mut proxy = ringway.start(&toml);
    let inside = |path: &Path| {
        let root = PathBuf::from(format!("/proc/{}/root", proxy.pid()));
        root.join(path.strip_prefix("/").unwrap())
    };
    let (log, filler) = (inside(&log), inside(&room.join("filler")));
    visit(&proxy);
    until("the first line", || (lines(&log).len() == 1).then_some(()));

    fill(&filler);
    for _ in 0..60 {
        visit(&proxy);
    }
    proxy.wait_stderr(&["no space left on device"]);
    fs::remove_file(&filler).unwrap();
    proxy.wait_stderr(&["works again"]);
    assert!(told_lost(&proxy, "works again") > 0);
    visit(&proxy);
    // A few may have been dropped before the disk was found full.
    let lost = || told_lost(&proxy, "works again") + told_lost(&proxy, "the queue was full");
    let whole = within(DEADLINE, || {
        (lines(&log).len() + lost() == 62).then_some(())
    });
    assert!(
        whole.is_some(),
        "{} lines and {} lost are not 62:\n{}",
        lines(&log).len(),
        lost(),
        proxy.stderr()
    );

    // Room that is made by emptying the log itself.
    fill(&filler);
    for _ in 0..40 {
        visit(&proxy);
    }
    until("it fails again", || {
        (proxy.stderr_lines("No space left on device").len() == 2).then_some(())
    });
    File::create(&log).unwrap();
    until("lines in the empty log", || {
        fs::metadata(&log)
            .is_ok_and(|it| it.len() > 0)
            .then_some(())
    });
    assert!(!lines(&log).is_empty());
    proxy.signal(15);
    proxy.wait_exit().expect_code(0);
}

/// What a destination has been given of one line, without what it puts around it.
enum Place {
    File,
    Stderr,
    Syslog(Daemon),
    Journald(Daemon),
}

impl Place {
    fn line(&self, proxy: &Proxy) -> String {
        match self {
            Self::File => until("a line", || {
                Some(proxy.access_log()).filter(|log| log.ends_with('\n'))
            }),
            Self::Stderr => until("a line", || proxy.stderr_lines("finished").first().cloned()),
            Self::Syslog(daemon) => {
                let text = daemon.next_text();
                let (_, line) = text.split_once("]: ").unwrap();
                line.to_owned()
            }
            Self::Journald(daemon) => entry(&daemon.next())["MESSAGE"].clone(),
        }
    }
}

#[test]
fn every_format_goes_to_every_destination() {
    let echo = Peer::plain().echo();
    let template = "$listener up $bytes_up $end";
    for (format, line) in [
        (
            "json",
            "{\"listener\":\"front\",\"bytes_up\":5,\"end\":\"finished\"}",
        ),
        ("logfmt", "listener=front bytes_up=5 end=finished"),
        (template, "front up 5 finished"),
    ] {
        let keys = match format == template {
            true => format!("format = \"{format}\""),
            false => {
                format!("format = \"{format}\"\nfields = [\"listener\", \"bytes_up\", \"end\"]")
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (ringway, place) in [
            (ringway!(), Place::File),
            (ringway!().access("stderr"), Place::Stderr),
            (
                to("syslog", &path("s")),
                Place::Syslog(Daemon::at(&path("s"))),
            ),
            (
                to("journald", &path("j")),
                Place::Journald(Daemon::at(&path("j"))),
            ),
        ] {
            let ringway = ringway.log(&keys);
            let proxy = ringway.start(&front_to_back("", "", echo.address()));
            visit(&proxy);
            assert_eq!(place.line(&proxy).trim_end(), line, "{format}");
        }
    }
}
