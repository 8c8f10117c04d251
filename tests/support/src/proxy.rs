//! The proxy under test as a process: start, watch, signal, look into.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::link::{Address, Link};
use crate::openssl::MISSING;
use crate::record::Record;
use crate::sys::{self, OpenFilesLimit};
use crate::wait::{DEADLINE, until, within};

/// How to start the proxy. Made by [`ringway!`](crate::ringway).
pub struct Ringway {
    binary: PathBuf,
    workers: usize,
    runtime: String,
    log: String,
    access: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
    open_files: Option<OpenFilesLimit>,
    io_uring_denied: bool,
    is_memory_exact: bool,
    traced: Option<String>,
    etc: Option<PathBuf>,
    activated: Vec<OwnedFd>,
}

impl Ringway {
    #[must_use]
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            workers: 2,
            runtime: String::new(),
            log: String::new(),
            access: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            io_uring_denied: false,
            is_memory_exact: false,
            traced: None,
            etc: None,
            activated: Vec::new(),
        }
    }

    /// Two, unless this says otherwise.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// More lines for `[runtime]`.
    #[must_use]
    pub fn runtime(mut self, lines: &str) -> Self {
        self.runtime.push_str(lines);
        self.runtime.push('\n');
        self
    }

    /// More lines for `[log]`.
    #[must_use]
    pub fn log(mut self, lines: &str) -> Self {
        self.log.push_str(lines);
        self.log.push('\n');
        self
    }

    /// Where the access log goes; else to a file that [`Proxy::records`] reads.
    #[must_use]
    pub fn access(mut self, access: &str) -> Self {
        self.access = Some(access.to_owned());
        self
    }

    /// One more argument of `ringway run`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// One more variable of the proxy's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref().to_owned();
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Lets the proxy open so many files and no more.
    #[must_use]
    pub fn open_files(self, files: u64) -> Self {
        self.open_files_limit(OpenFilesLimit {
            soft: files,
            hard: files,
        })
    }

    /// Starts the proxy under this limit of open files.
    #[must_use]
    pub fn open_files_limit(mut self, limit: OpenFilesLimit) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Makes `io_uring_setup` fail with EPERM.
    #[must_use]
    pub fn without_io_uring(mut self) -> Self {
        self.io_uring_denied = true;
        self
    }

    /// Makes [`Proxy::memory_bytes`] exact: huge pages come by 2 MiB, and the allocator keeps what it
    /// was given back for a while.
    #[must_use]
    pub fn with_exact_memory(mut self) -> Self {
        self.is_memory_exact = true;
        self
    }

    /// Notes these system calls, as strace names them, for [`Proxy::traced_calls`].
    #[must_use]
    pub fn traced(mut self, calls: &str) -> Self {
        self.traced = Some(calls.to_owned());
        self
    }

    /// Gives the proxy another folder for /etc. Needs [`sys::may_mount`].
    #[must_use]
    pub fn etc(mut self, folder: &Path) -> Self {
        self.etc = Some(folder.to_owned());
        self
    }

    /// Passes these sockets as a service manager does (sd_listen_fds(3)); `names` are joined by
    /// colons.
    #[must_use]
    pub fn activated(mut self, sockets: Vec<OwnedFd>, names: &str) -> Self {
        self.activated = sockets;
        self.environment("LISTEN_FDNAMES", names)
    }

    /// Runs the proxy on `toml` and does not wait for it.
    #[must_use]
    pub fn begin(self, toml: &str) -> Proxy {
        self.spawn(toml)
    }

    /// Runs the proxy on `toml` and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(self, toml: &str) -> Proxy {
        let mut proxy = self.spawn(toml);
        proxy.wait_ready();
        proxy
    }

    /// Runs the proxy on `toml` until it ends by itself.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn run_to_end(self, toml: &str) -> Exit {
        self.spawn(toml).wait_exit()
    }

    /// Runs `ringway` with these arguments until it ends by itself.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn command(&self, arguments: &[&OsStr]) -> Exit {
        let output = Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        Exit {
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    fn spawn(self, toml: &str) -> Proxy {
        let directory = TempDir::new().expect("a temporary directory");
        let access_log = directory.path().join("access.log");
        let file = directory.path().join("ringway.toml");
        let (own, text) = self.file_text(toml, &access_log);
        fs::write(&file, &text).expect("a writable temporary directory");

        let trace = directory.path().join("trace");
        let (mut command, starts) = match &self.traced {
            Some(calls) => (strace(&trace, calls, &self.binary), MISSING),
            None if self.activated.is_empty() => (Command::new(&self.binary), "the binary starts"),
            None => (for_listen_pid(&self.binary), "a shell starts"),
        };
        command.arg("run").arg(&file).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        if !self.activated.is_empty() {
            command.env("LISTEN_FDS", self.activated.len().to_string());
            sys::pass_descriptors(&mut command, self.activated);
        }
        if let Some(limit) = self.open_files {
            sys::limit_open_files(&mut command, limit);
        }
        if self.is_memory_exact {
            sys::refuse_huge_pages(&mut command);
            command.env("MIMALLOC_PURGE_DELAY", "0");
        }
        if self.io_uring_denied {
            sys::deny_io_uring(&mut command);
        }
        if let Some(folder) = &self.etc {
            sys::replace_etc(&mut command, folder);
        }
        let mut child = command.spawn().expect(starts);
        let stderr = Lines::of(child.stderr.take().expect("stderr is piped"));
        Proxy {
            stdout: child.stdout.take(),
            child,
            stderr,
            file,
            own,
            text,
            access_log,
            trace,
            addresses: BTreeMap::new(),
            _directory: directory,
        }
    }

    /// The scenario's file may have tables of its own; then ours stay out.
    fn file_text(&self, toml: &str, access_log: &Path) -> (String, String) {
        let has = |table: &str| toml.lines().any(|line| line.trim().starts_with(table));
        let mut text = String::new();
        if !has("[runtime]") {
            text += &format!("[runtime]\n{}", self.runtime);
            if !self.runtime.contains("cpus") {
                text += &format!("workers = {}\n", self.workers);
            }
        }
        if !has("[log]") {
            let default = access_log.display().to_string();
            let access = self.access.as_ref().unwrap_or(&default);
            text += &format!("[log]\naccess = \"{access}\"\n{}", self.log);
        }
        if !has("[sandbox]") && !is_root() {
            // Else the kernel shows the proxy's files and memory to root alone.
            text += "[sandbox]\ncore_dumps = true\n";
        }
        let whole = text.clone() + toml;
        (text, whole)
    }
}

/// The kernel gives a process's folder to its user.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub stderr: String,
    pub stdout: String,
}

impl Exit {
    /// # Panics
    /// When the exit code is another one.
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "exit code expected {code}, got {} (signal {:?}); it wrote:\n{}{}",
            self.status,
            self.status.signal(),
            self.stdout,
            self.stderr
        );
        self
    }

    /// # Panics
    /// When none of `words` was written, in any case.
    pub fn expect_words(&self, words: &[&str]) -> &Self {
        let written = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        assert!(
            words.iter().any(|w| written.contains(&w.to_lowercase())),
            "expected one of {words:?} in what it wrote:\n{}{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A running proxy. Killed when dropped; if the test is failing, what it wrote is shown.
pub struct Proxy {
    child: Child,
    stderr: Lines,
    stdout: Option<ChildStdout>,
    pub(crate) file: PathBuf,
    /// The tables that were put in front of the test's.
    pub(crate) own: String,
    text: String,
    access_log: PathBuf,
    trace: PathBuf,
    addresses: BTreeMap<String, Vec<Address>>,
    _directory: TempDir,
}

impl Proxy {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the listener of this name listens: its first address.
    ///
    /// # Panics
    /// When the proxy named none.
    #[must_use]
    pub fn address(&self, listener: &str) -> &Address {
        self.addresses(listener)
            .first()
            .unwrap_or_else(|| panic!("no address of listener `{listener}`{}", self.story()))
    }

    /// All addresses of the listener of this name.
    #[must_use]
    pub fn addresses(&self, listener: &str) -> &[Address] {
        self.addresses.get(listener).map_or(&[], Vec::as_slice)
    }

    /// What the proxy wrote to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The access log so far, as it stands in the file.
    #[must_use]
    pub fn access_log(&self) -> String {
        fs::read_to_string(&self.access_log).unwrap_or_default()
    }

    /// What each system call of [`Ringway::traced`] so far gave, errors left out.
    ///
    /// # Panics
    /// When nothing is traced.
    #[must_use]
    pub fn traced_calls(&self) -> Vec<u64> {
        let trace = fs::read_to_string(&self.trace).expect("a trace");
        let results = trace.lines().filter_map(|line| line.rsplit_once(" = "));
        results
            .filter_map(|(_, result)| result.parse().ok())
            .collect()
    }

    /// The names of the system calls of [`Ringway::traced`] so far.
    ///
    /// # Panics
    /// When nothing is traced.
    #[must_use]
    pub fn traced_names(&self) -> BTreeSet<String> {
        let trace = fs::read_to_string(&self.trace).expect("a trace");
        let names = trace.lines().filter_map(|line| {
            let (_, call) = line.split_once(' ')?;
            let (name, _) = call.trim_start().split_once('(')?;
            let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            is_name.then(|| name.to_owned())
        });
        names.collect()
    }

    /// The records so far: of the file, and of stderr where the access log goes there.
    ///
    /// # Panics
    /// When a line of the file is no JSON.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let file = self.access_log();
        let parse = |line: &str| serde_json::from_str::<Value>(line).map(Record);
        let complete = file.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        let mut records: Vec<_> = complete
            .map(|line| match parse(line) {
                Ok(record) => record,
                Err(error) => panic!("a line of the access log is no JSON ({error}): {line}"),
            })
            .collect();
        let stderr = self.stderr();
        let lines = stderr.lines().filter(|line| line.starts_with('{'));
        records.extend(lines.filter_map(|line| parse(line).ok()));
        records
    }

    /// The record that `wanted` picks.
    ///
    /// # Panics
    /// When it is not written in time.
    #[must_use]
    pub fn wait_record(&self, what: &str, mut wanted: impl FnMut(&Record) -> bool) -> Record {
        let found = within(DEADLINE, || self.records().into_iter().find(&mut wanted));
        found.unwrap_or_else(|| {
            panic!("no record of {what} in {DEADLINE:?}{}", self.story());
        })
    }

    /// The record of the connection that came from `client`.
    ///
    /// # Panics
    /// When it is not written in time.
    #[must_use]
    pub fn record_of(&self, client: SocketAddr) -> Record {
        let client = client.to_string();
        self.wait_record(&format!("the connection from {client}"), |record| {
            record.find("client") == Some(&client)
        })
    }

    /// All records, as soon as there are `count`.
    ///
    /// # Panics
    /// When there are fewer in time.
    #[must_use]
    pub fn wait_records(&self, count: usize) -> Vec<Record> {
        let found = within(DEADLINE, || {
            Some(self.records()).filter(|records| records.len() >= count)
        });
        found.unwrap_or_else(|| {
            let seen = self.records().len();
            panic!("{seen} of {count} records in {DEADLINE:?}{}", self.story());
        })
    }

    /// Waits until stderr holds one of `words`, in any case.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_stderr(&self, words: &[&str]) {
        let found = within(DEADLINE, || {
            let text = self.stderr().to_lowercase();
            words.iter().any(|word| text.contains(word)).then_some(())
        });
        assert!(
            found.is_some(),
            "none of {words:?} on stderr in {DEADLINE:?}{}",
            self.story()
        );
    }

    /// Lines on stderr that hold `words`.
    #[must_use]
    pub fn stderr_lines(&self, words: &str) -> Vec<String> {
        let stderr = self.stderr();
        let lines = stderr.lines().filter(|line| line.contains(words));
        lines.map(str::to_owned).collect()
    }

    /// The one line on stderr that holds `words`, waited for.
    ///
    /// # Panics
    /// When none comes in time, or there are more.
    #[must_use]
    pub fn stderr_line(&self, words: &str) -> String {
        let lines = within(DEADLINE, || {
            Some(self.stderr_lines(words)).filter(|lines| !lines.is_empty())
        });
        match lines.as_deref() {
            Some([line]) => line.clone(),
            _ => panic!("not one line with `{words}` but {lines:?}{}", self.story()),
        }
    }

    /// Where the access log stands unless [`Ringway::access`] says otherwise.
    #[must_use]
    pub fn access_log_path(&self) -> &Path {
        &self.access_log
    }

    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: i32) {
        sys::kill(self.pid(), signal).expect("the proxy runs");
    }

    /// # Panics
    /// When the process is gone.
    pub fn expect_alive(&mut self) {
        let status = self.child.try_wait().expect("a child of ours");
        assert!(
            status.is_none(),
            "the proxy died: {status:?}{}",
            self.story()
        );
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn wait_exit(&mut self) -> Exit {
        let ended = within(DEADLINE, || self.child.try_wait().expect("a child of ours"));
        let Some(status) = ended else {
            panic!("the proxy still runs after {DEADLINE:?}{}", self.story());
        };
        let mut stdout = String::new();
        if let Some(mut pipe) = self.stdout.take() {
            let _ = pipe.read_to_string(&mut stdout);
        }
        Exit {
            status,
            stderr: self.stderr.text_to_end(),
            stdout,
        }
    }

    /// The read end of the proxy's stdout: dropping it closes the pipe.
    ///
    /// # Panics
    /// When taken before.
    #[must_use]
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.stdout.take().expect("stdout was not taken yet")
    }

    /// All that the proxy told: for a failing test's message.
    #[must_use]
    pub fn story(&self) -> String {
        format!(
            "\n--- configuration\n{}--- the proxy's stderr\n{}--- access log\n{}---",
            self.text,
            self.stderr(),
            last_bytes(&self.access_log(), 20_000)
        )
    }

    /// Takes the addresses that the proxy has named so far.
    pub(crate) fn look_for_addresses(&mut self) {
        self.addresses = listening(&self.stderr());
    }

    /// Waits until the proxy is ready.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn wait_ready(&mut self) {
        let ready = within(DEADLINE, || {
            let ready = self.stderr().contains("ringway is ready");
            let dead = self.child.try_wait().expect("a child of ours").is_some();
            (ready || dead).then_some(ready)
        });
        match ready {
            Some(true) => self.look_for_addresses(),
            Some(false) => {
                let exit = self.wait_exit();
                panic!(
                    "the proxy ended before it was ready: {}\n--- configuration\n{}--- it wrote\n\
                     {}{}---",
                    exit.status, self.text, exit.stdout, exit.stderr
                );
            }
            None => panic!(
                "the proxy did not write `ringway is ready` in {DEADLINE:?}{}",
                self.story()
            ),
        }
    }
}

/// `binary` under strace, as a direct child of whoever spawns the command.
fn strace(trace: &Path, calls: &str, binary: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["--daemonize", "--follow-forks", "--quiet=all"]);
    command.arg("--trace").arg(calls).arg("--output").arg(trace);
    command.arg("--").arg(binary);
    command
}

/// `binary` with the variable that only the process itself can know, before it begins.
fn for_listen_pid(binary: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(binary);
    command
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.story());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses by listener of the lines `listening name=NAME address=ADDRESS`.
fn listening(stderr: &str) -> BTreeMap<String, Vec<Address>> {
    let mut addresses: BTreeMap<String, Vec<Address>> = BTreeMap::new();
    for line in stderr.lines().filter(|line| line.contains("listening")) {
        let value = |key: &str| {
            let words = line.split_whitespace();
            let value = words.filter_map(|w| w.strip_prefix(key)).next();
            value.map(|v| v.trim_matches(['"', ',']).to_owned())
        };
        let (Some(name), Some(address)) = (value("name="), value("address=")) else {
            continue;
        };
        match address.parse() {
            Ok(address) => addresses.entry(name).or_default().push(address),
            Err(error) => panic!("no address in the line ({error}): {line}"),
        }
    }
    addresses
}

fn last_bytes(text: &str, count: usize) -> &str {
    let mut start = text.len().saturating_sub(count);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Waits until nothing listens on `address` any more.
pub fn until_refused(address: &Address) {
    until(&format!("{address} refuses connections"), || {
        match Link::connect(address) {
            // A close would be the end of one direction only, and the proxy right to wait.
            Ok(taken) => {
                taken.reset();
                None
            }
            Err(refused) => Some(refused),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::listening;
    use crate::lines::without_colours;

    #[test]
    fn listening_lines_are_read_with_and_without_quotes_and_colours() {
        let line = "\u{1b}[32m INFO\u{1b}[0m listening \u{1b}[3mname\u{1b}[0m=front address=127.0.0.1:80\n";
        let text = without_colours(line.as_bytes()) + "listening name=\"front\" address=unix:/x\n";
        let found = listening(&text);
        assert_eq!(found["front"].len(), 2, "{found:?}");
    }
}
