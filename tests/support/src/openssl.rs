//! OpenSSL's `s_server` and `s_client` as peers.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::lines::Lines;
use crate::link::Address;
use crate::pki::Credential;
use crate::sys;
use crate::wait::{DEADLINE, within};

/// A missing program is a failure, not a reason to skip: these peers are what the test is about.
pub const MISSING: &str = "a peer of this test is missing; cure: apt-get install openssl nginx libnginx-mod-stream haproxy curl strace redis-server systemd iproute2";

/// `openssl s_server -rev`: it answers each line with the line reversed. One connection at a time.
pub struct SServer {
    child: Child,
    address: Address,
    output: Lines,
    errors: Lines,
}

impl SServer {
    /// # Panics
    /// When it does not start to listen.
    #[must_use]
    pub fn start(credential: &Credential, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev"])
            .arg("-cert")
            .arg(&credential.certificate)
            .arg("-cert_chain")
            .arg(&credential.certificate)
            .arg("-key")
            .arg(&credential.private_key)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        sys::die_with_parent(&mut command);
        let mut child = command.spawn().expect(MISSING);
        let output = Lines::of(child.stdout.take().expect("stdout is piped"));
        let errors = Lines::of(child.stderr.take().expect("stderr is piped"));
        let address = output.wait("line `ACCEPT address`", |line| {
            line.strip_prefix("ACCEPT ")?.trim().parse().ok()
        });
        Self {
            child,
            address,
            output,
            errors,
        }
    }

    /// Requires a client certificate of this CA with at most `depth` intermediates.
    #[must_use]
    pub fn requiring(credential: &Credential, ca: &Path, depth: usize) -> Self {
        let (ca, depth) = (ca.display().to_string(), depth.to_string());
        let arguments = ["-CAfile", &ca, "-Verify", &depth, "-verify_return_error"];
        Self::start(credential, &arguments)
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// SIGSTOP: the kernel goes on to take connections for it, and nobody answers.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: i32) {
        sys::kill(self.child.id(), signal).expect("s_server runs");
    }

    /// What it wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text() + &self.errors.text()
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- s_server at {}\n{}---", self.address, self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One `openssl s_client` call.
pub struct SClient {
    arguments: Vec<OsString>,
}

/// What `s_client` wrote, and whether it was content.
#[derive(Debug)]
pub struct Said {
    pub text: String,
    pub success: bool,
}

impl Said {
    /// # Panics
    /// When `words` are not in what it wrote.
    pub fn expect(&self, words: &str) -> &Self {
        assert!(
            self.text.contains(words),
            "expected {words:?} in what s_client wrote:\n{}",
            self.text
        );
        self
    }

    /// # Panics
    /// When `words` are in what it wrote.
    pub fn expect_not(&self, words: &str) -> &Self {
        assert!(
            !self.text.contains(words),
            "expected no {words:?} in what s_client wrote:\n{}",
            self.text
        );
        self
    }

    #[must_use]
    pub fn resumed(&self) -> bool {
        self.text.contains("Reused, ")
    }
}

impl SClient {
    #[must_use]
    pub fn to(address: &Address) -> Self {
        let connect = match address {
            Address::Ip(ip) => vec!["-connect".into(), ip.to_string().into()],
            Address::Unix(path) => vec!["-unix".into(), path.into()],
        };
        Self { arguments: connect }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(Into::into));
        self
    }

    /// Refuses a server that this CA does not vouch for, or that has another name.
    #[must_use]
    pub fn verify(self, ca: &Path, name: &str) -> Self {
        self.arg("-CAfile")
            .arg(ca)
            .args(&["-verify_return_error", "-servername", name])
            .args(&["-verify_hostname", name])
    }

    #[must_use]
    pub fn identity(self, credential: &Credential) -> Self {
        self.arg("-cert")
            .arg(&credential.certificate)
            .arg("-cert_chain")
            .arg(&credential.certificate)
            .arg("-key")
            .arg(&credential.private_key)
    }

    /// Sends `line`, waits for `answer` to come back, then closes.
    ///
    /// s_client prints its session between the bytes it receives, so the answer need not stand
    /// on a line of its own.
    ///
    /// # Panics
    /// When the answer does not come.
    #[must_use]
    pub fn talk(&self, line: &str, answer: &str) -> Said {
        talk(self.command(), line, answer)
    }

    /// Shakes hands, sends nothing, and waits for the end: for connections that shall fail.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn fail(&self) -> Said {
        fail(self.command())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("openssl");
        command.arg("s_client").args(&self.arguments);
        command
    }
}

/// An OpenSSL program that is typed to, line by line: a line may be a command, like `K` for new keys.
pub struct Dialogue {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Lines,
    errors: Lines,
}

impl Dialogue {
    /// An s_client.
    #[must_use]
    pub fn client(client: &SClient) -> Self {
        Self::of(client.command())
    }

    /// An s_server, which takes one connection at a time.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn server(credential: &Credential, arguments: &[&str]) -> Self {
        Self::server_in(Path::new("."), credential, arguments)
    }

    /// The same, in the folder from which `-WWW` serves files.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn server_in(folder: &Path, credential: &Credential, arguments: &[&str]) -> Self {
        // Line by line, also what it says by printf(3).
        let mut command = Command::new("stdbuf");
        command
            .current_dir(folder)
            .args([
                "--output=L",
                "openssl",
                "s_server",
                "-accept",
                "127.0.0.1:0",
            ])
            .arg("-cert")
            .arg(&credential.certificate)
            .arg("-cert_chain")
            .arg(&credential.certificate)
            .arg("-key")
            .arg(&credential.private_key)
            .args(arguments);
        Self::of(command)
    }

    fn of(command: Command) -> Self {
        let (mut child, output, errors) = spawn(command);
        Self {
            stdin: child.stdin.take(),
            child,
            output,
            errors,
        }
    }

    /// Where an s_server listens.
    ///
    /// # Panics
    /// When it does not say so.
    #[must_use]
    pub fn address(&self) -> Address {
        self.output.wait("line `ACCEPT address`", |line| {
            line.strip_prefix("ACCEPT ")?.trim().parse().ok()
        })
    }

    /// # Panics
    /// When the program is gone.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not finished");
        // At once: the program takes what one read gives for a line.
        let line = format!("{line}\n");
        stdin.write_all(line.as_bytes()).expect("the program reads");
    }

    /// Waits until `words` stand so many times in what it wrote.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn expect(&self, words: &str, times: usize) {
        let said = || self.output.text() + &self.errors.text();
        let found = within(DEADLINE, || {
            (said().matches(words).count() >= times).then_some(())
        });
        assert!(
            found.is_some(),
            "expected {words:?} {times} times, OpenSSL wrote:\n{}",
            said()
        );
    }

    /// Ends its input and waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Said {
        drop(self.stdin.take());
        finish(&mut self.child, &self.output, &self.errors)
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// [`SClient::talk`] with an s_client that `command` runs.
///
/// # Panics
/// When the answer does not come.
#[must_use]
pub fn talk(command: Command, line: &str, answer: &str) -> Said {
    let (mut child, output, errors) = spawn(command);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // Fails when the handshake failed and s_client is gone: then no answer comes.
    let _ = writeln!(stdin, "{line}");
    let answered = within(DEADLINE, || {
        let found = output.text().contains(answer);
        let ended = child.try_wait().expect("a child of ours").is_some();
        (found || ended).then_some(found)
    });
    drop(stdin);
    let said = finish(&mut child, &output, &errors);
    // What was still in the pipe when s_client ended counts as well.
    assert!(
        answered == Some(true) || said.text.contains(answer),
        "sent {line:?}, expected {answer:?}, s_client wrote:\n{}",
        said.text
    );
    said
}

/// [`SClient::fail`] with an s_client that `command` runs.
///
/// # Panics
/// When it does not end.
#[must_use]
pub fn fail(command: Command) -> Said {
    let (mut child, output, errors) = spawn(command);
    // Held open: with TLS 1.3 the refusal comes after the client's own handshake.
    let stdin = child.stdin.take();
    let ended = within(DEADLINE, || child.try_wait().expect("a child of ours"));
    if ended.is_none() {
        let _ = child.kill();
        let said = finish(&mut child, &output, &errors);
        panic!("s_client was not refused; it wrote:\n{}", said.text);
    }
    drop(stdin);
    finish(&mut child, &output, &errors)
}

fn spawn(mut command: Command) -> (Child, Lines, Lines) {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().expect(MISSING);
    let output = Lines::of(child.stdout.take().expect("stdout is piped"));
    let errors = Lines::of(child.stderr.take().expect("stderr is piped"));
    (child, output, errors)
}

fn finish(child: &mut Child, output: &Lines, errors: &Lines) -> Said {
    let ended = within(DEADLINE, || child.try_wait().expect("a child of ours"));
    if ended.is_none() {
        let _ = child.kill();
    }
    let status = child.wait().expect("a child of ours");
    Said {
        text: format!("{}{}", output.text_to_end(), errors.text_to_end()),
        success: status.success(),
    }
}
