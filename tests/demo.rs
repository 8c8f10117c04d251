//! `ringway demo`: what it shows, that it can be tried by hand, and that it leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringway_support::wait::within;
use ringway_support::{openssl, sys};
use tempfile::TempDir;

/// Three phases of about two seconds, in a build without optimisation, beside other tests.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running demo, with a place of its own for its temporary files.
struct Demo {
    child: Child,
    temporary: TempDir,
    written: TempDir,
}

impl Demo {
    fn start(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let (temporary, written) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let file = |name: &str| File::create(written.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("demo").args(arguments);
        command.env("TMPDIR", temporary.path());
        command.stdin(Stdio::null());
        command.stdout(file("stdout")).stderr(file("stderr"));
        sys::die_with_parent(&mut command);
        prepare(&mut command);
        Self {
            child: command.spawn().unwrap(),
            temporary,
            written,
        }
    }

    fn text(&self, stream: &str) -> String {
        fs::read_to_string(self.written.path().join(stream)).unwrap()
    }

    fn wait_text(&self, stream: &str, words: &str) {
        let found = within(DEADLINE, || self.text(stream).contains(words).then_some(()));
        assert!(found.is_some(), "no {words:?} on {stream}{}", self.story());
    }

    fn signal(&self, signal: i32) {
        sys::kill(self.child.id(), signal).unwrap();
    }

    /// Waits for the end, with this exit code and nothing left behind; returns stdout.
    fn expect_end(&mut self, code: i32) -> String {
        let status = within(DEADLINE, || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("the demo goes on and on{}", self.story()));
        assert_eq!(status.code(), Some(code), "{status}{}", self.story());
        assert_eq!(names_in(self.temporary.path()), [""; 0], "left behind");
        self.text("stdout")
    }

    fn story(&self) -> String {
        let (stdout, stderr) = (self.text("stdout"), self.text("stderr"));
        format!("\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Full and resumed handshakes of both legs of a phase, downstream first.
fn handshakes(stdout: &str, phase: &str) -> [(u64, u64); 2] {
    let mut lines = stdout.lines().skip_while(|line| !line.starts_with(phase));
    ["downstream", "upstream"].map(|leg| {
        let line = lines.next().unwrap_or_default();
        let (_, figures) = line
            .split_once(leg)
            .unwrap_or_else(|| panic!("no {leg}: {line}"));
        let mut figures = figures.split_whitespace().map(|f| f.parse().unwrap());
        (figures.next().unwrap(), figures.next().unwrap())
    })
}

fn expect_figures(stdout: &str) {
    for (full, resumed) in handshakes(stdout, "full handshakes") {
        assert!(full > 0, "no full handshake in: {stdout}");
        assert_eq!(resumed, 0, "resumed where all should be full: {stdout}");
    }
    for (_, resumed) in handshakes(stdout, "resumed handshakes") {
        assert!(resumed > 0, "nothing resumed in: {stdout}");
    }
    let line = |name: &str| {
        let line = stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name:?} in: {stdout}"))
            .trim()
    };
    let mebibytes: f64 = line("bytes verified")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(mebibytes >= 32.0, "{mebibytes} MiB verified: {stdout}");
    assert!(
        line("relay path").starts_with("user up, user down"),
        "{stdout}"
    );
    assert_eq!(line("failed"), "0", "{stdout}");
}

#[test]
fn once_it_shows_full_and_resumed_handshakes_and_verified_bytes_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--once"], |_| {});
    let stdout = demo.expect_end(0);
    expect_figures(&stdout);
    assert!(stdout.contains("no\nbenchmark figures"), "{stdout}");
    let progress = demo.text("stderr");
    assert!(progress.contains("s  full handshakes: "), "{progress}");
    assert!(progress.contains("s  bulk: "), "{progress}");
}

/// The commands that the demo prints to try by hand, each as it stands there.
fn printed_commands(stdout: &str) -> Vec<String> {
    let (_, rest) = stdout.split_once("To try by hand").unwrap();
    let (_, rest) = rest.split_once("\n\n").unwrap();
    let (commands, _) = rest.split_once("\nThe demo stays up").unwrap();
    let commands = commands.split("\n\n").map(|command| {
        let lines = command.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    });
    commands.collect()
}

/// As a reader of the demo's words would run it, with ringway on the path.
fn in_shell(command: &str) -> Command {
    let directory = Path::new(env!("CARGO_BIN_EXE_ringway")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).env("PATH", path);
    shell
}

fn expect_answer(command: &str) -> String {
    let output = in_shell(command).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command}\n{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// That the s_client of `command` verifies whom it speaks with, and has back what it says.
fn expect_echo(command: &str) {
    let said = openssl::talk(in_shell(command), "nobody knows this line", "nobody knows");
    said.expect("Verify return code: 0 (ok)");
    assert!(said.success, "{command}\n{}", said.text);
}

#[test]
fn it_stays_up_for_the_printed_commands_until_sigterm_ends_it() {
    let mut demo = Demo::start(&[], |_| {});
    demo.wait_text("stdout", "stays up until Ctrl-C");
    let commands = printed_commands(&demo.text("stdout"));
    let [curl, through, refused, accepted, tail, explain] = commands.as_slice() else {
        panic!("six commands are known, the demo prints {commands:#?}");
    };

    let body = expect_answer(curl);
    assert!(body.starts_with("Hello from upstream server "), "{body}");
    assert!(body.contains("CN=the proxy of ringway demo"), "{body}");
    expect_echo(through);
    let said = openssl::fail(in_shell(refused));
    said.expect("alert certificate required");
    assert!(!said.success, "{}", said.text);
    expect_echo(accepted);
    let line = expect_answer(tail);
    assert!(
        line.starts_with('{') && line.contains("\"end\":\"finished\""),
        "{line}"
    );
    let explained = expect_answer(explain);
    assert!(explained.contains("max_connections"), "{explained}");

    demo.signal(15);
    demo.expect_end(0);
    let stderr = demo.text("stderr");
    assert!(
        !stderr.contains("closing the connections"),
        "one signal drains: {stderr}"
    );
}

#[test]
fn a_closed_terminal_ends_it_in_order() {
    let mut demo = Demo::start(&[], |_| {});
    demo.wait_text("stderr", "ringway is ready");
    demo.signal(1);
    demo.expect_end(0);
}

#[test]
fn ctrl_c_in_the_middle_of_the_show_ends_it_in_order() {
    let mut demo = Demo::start(&[], |_| {});
    demo.wait_text("stderr", "s  full handshakes: ");
    let made = names_in(demo.temporary.path());
    assert_eq!(made.len(), 1, "one directory for all: {made:?}");
    demo.signal(2);
    let stdout = demo.expect_end(0);
    assert!(!stdout.contains("FAILED"), "{stdout}");
}

#[test]
fn without_io_uring_it_refuses_and_with_allow_epoll_it_shows_the_same() {
    let mut refused = Demo::start(&["--once"], sys::deny_io_uring);
    refused.expect_end(71);
    let stderr = refused.text("stderr");
    assert!(stderr.contains("--allow-epoll"), "{stderr}");
    let mut demo = Demo::start(&["--once", "--allow-epoll"], sys::deny_io_uring);
    expect_figures(&demo.expect_end(0));
}
