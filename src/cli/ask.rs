//! The commands' end of the admin server: one HTTP request over its unix socket.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::{EXIT_REFUSED, EXIT_SYSTEM};
use crate::config::ADMIN_SOCKET;

/// Longer than the server lets a connection live.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(70);
/// A hundred thousand connections are a tenth of that.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Which process is spoken to.
#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The unix socket of the process's [admin] table.
    #[arg(long = "socket", value_name = "PATH", default_value = ADMIN_SOCKET)]
    path: PathBuf,
}

/// Why there is no answer to use. The text says what, where, and what to do.
#[derive(Debug)]
pub(super) enum AskError {
    Unreachable {
        path: PathBuf,
        error: io::Error,
    },
    /// What came back is no answer of Ringway.
    Strange {
        path: PathBuf,
    },
    /// Nobody would see what is shown.
    NoTerminal,
    Terminal(io::Error),
    /// The process says why not.
    Refused {
        status: u16,
        words: String,
    },
    /// What `ringway check` says of the configuration, or why the machine refuses it.
    Unloadable {
        report: String,
    },
}

impl Socket {
    /// # Errors
    /// [`AskError`]
    pub(super) fn get(&self, target: &str) -> Result<String, AskError> {
        self.ask("GET", target, "")
    }

    /// # Errors
    /// [`AskError`]
    pub(super) fn post(&self, target: &str, body: &str) -> Result<String, AskError> {
        self.ask("POST", target, body)
    }

    /// What is answered is not what was asked for.
    pub(super) fn strange(&self) -> AskError {
        AskError::Strange {
            path: self.path.clone(),
        }
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Result<String, AskError> {
        match self.ask_once(method, target, body) {
            // A process that is followed by another one may end before it has answered; that one is
            // there already. What changes something is not asked for twice.
            Err(error) if error.is_of_an_end() && method == "GET" => {
                self.ask_once(method, target, body)
            }
            answer => answer,
        }
    }

    /// HTTP/1.0, so that the answer has no chunks and ends with the connection.
    fn ask_once(&self, method: &str, target: &str, body: &str) -> Result<String, AskError> {
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: ringway\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let exchanged = exchange(&self.path, request.as_bytes());
        let answer = exchanged.map_err(|error| AskError::Unreachable {
            path: self.path.clone(),
            error,
        })?;
        let Some((status, body)) = parsed(&answer) else {
            return Err(self.strange());
        };
        match (status, serde_json::from_str(body)) {
            (200..300, _) => Ok(body.to_owned()),
            (UNPROCESSABLE, Ok(Refusal { error, .. })) => {
                Err(AskError::Unloadable { report: error })
            }
            _ => Err(AskError::Refused {
                status,
                words: words(body),
            }),
        }
    }
}

/// The answer to a configuration that cannot be used.
const UNPROCESSABLE: u16 = 422;

#[derive(Deserialize)]
struct Refusal {
    error: String,
    cure: String,
}

fn exchange(path: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    match is_cut(&answer) {
        true => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it ended before its answer did",
        )),
        false => Ok(answer),
    }
}

/// Whether this is nothing, or the beginning of an answer.
fn is_cut(answer: &[u8]) -> bool {
    answer.is_empty() || answer.starts_with(b"HTTP/1.") && parsed(answer).is_none()
}

/// Status and body of a whole answer.
fn parsed(answer: &[u8]) -> Option<(u16, &str)> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut status = lines.next()?.split(' ');
    let version = status.next()?;
    let status = status.next()?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    })?;
    (version.starts_with("HTTP/1.") && length == body.len()).then_some((status, body))
}

/// What a refusal says; the body itself where it is none of ours.
fn words(body: &str) -> String {
    match serde_json::from_str::<Refusal>(body) {
        Ok(Refusal { error, cure }) => format!("{error}\n  cure: {cure}"),
        Err(_) => body.trim().to_owned(),
    }
}

impl AskError {
    /// Whether the process may have ended instead of answering.
    fn is_of_an_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Unreachable { error, .. } => {
                matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            }
            _ => false,
        }
    }

    /// Says it on stderr.
    pub(super) fn exit(&self) -> ExitCode {
        // A closed stderr has nobody to tell.
        let _ = match self {
            // As `check` prints it, to the byte.
            Self::Unloadable { report } => writeln!(io::stderr(), "{report}\n\nringway: {self}"),
            _ => writeln!(io::stderr(), "ringway: {self}"),
        };
        ExitCode::from(match self {
            Self::Refused { .. } | Self::Unloadable { .. } | Self::NoTerminal => EXIT_REFUSED,
            Self::Unreachable { .. } | Self::Strange { .. } | Self::Terminal(_) => EXIT_SYSTEM,
        })
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { path, error } => {
                let cure = cure(path, error);
                let path = path.display();
                write!(f, "{path} does not answer: {error}\n  cure: {cure}")
            }
            Self::Strange { path } => write!(
                f,
                "{} does not answer as ringway does\n  cure: name the socket of [admin] with --socket",
                path.display()
            ),
            Self::NoTerminal => {
                write!(
                    f,
                    "this is no terminal to draw on\n  cure: add --once, which prints lines"
                )
            }
            Self::Terminal(error) => {
                write!(
                    f,
                    "the terminal cannot be used: {error}\n  cure: add --once"
                )
            }
            Self::Refused { status, words } => write!(f, "{words} (HTTP {status})"),
            Self::Unloadable { .. } => write!(f, "not taken, everything stays as it was"),
        }
    }
}

/// What to do where nobody answers.
fn cure(path: &Path, error: &io::Error) -> &'static str {
    let is_socket = || {
        use std::os::unix::fs::FileTypeExt as _;
        std::fs::metadata(path).is_ok_and(|it| it.file_type().is_socket())
    };
    match error.kind() {
        io::ErrorKind::NotFound => {
            "start ringway with an [admin] table in its configuration, or say where its socket is \
             with --socket"
        }
        io::ErrorKind::ConnectionRefused if is_socket() => {
            "the process that listened there has ended: start it, or say with --socket where another \
             one listens"
        }
        io::ErrorKind::ConnectionRefused => {
            "this is no socket: name the one of [admin] with --socket"
        }
        io::ErrorKind::PermissionDenied => {
            "run as root or as a user that `mode` of [admin] lets in"
        }
        io::ErrorKind::InvalidInput => {
            "a socket's path has at most 107 bytes: name it from nearer by"
        }
        _ => "see that the process is alive",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer_is_taken_and_no_other() {
        let whole = b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(parsed(whole), Some((200, "abc")));
        for cut in 0..whole.len() {
            assert_eq!(parsed(&whole[..cut]), None, "{cut}");
        }
        for strange in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(parsed(strange.as_bytes()), None, "{strange}");
        }
        assert!(!is_cut(whole) && !is_cut(b"SSH-2.0-x\r\n\r\n"));
        assert!(is_cut(b"") && is_cut(&whole[..9]) && is_cut(&whole[..whole.len() - 1]));
    }

    #[test]
    fn a_refusal_is_told_with_its_cure() {
        let ours = r#"{"error":"no such group","cure":"groups are a, b"}"#;
        assert_eq!(words(ours), "no such group\n  cure: groups are a, b");
        assert_eq!(words(" Bad Request\n"), "Bad Request");
    }

    #[test]
    fn a_process_that_is_not_there_is_told_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket {
            path: folder.path().join("admin.sock"),
        };
        let words = socket.get("/health").unwrap_err().to_string();
        assert!(
            words.contains("[admin]") && words.contains("--socket"),
            "{words}"
        );
    }

    #[test]
    fn who_is_not_let_in_is_told_who_is() {
        let error = AskError::Unreachable {
            path: "/run/ringway/admin.sock".into(),
            error: io::ErrorKind::PermissionDenied.into(),
        };
        let words = error.to_string();
        assert!(words.contains("`mode` of [admin]"), "{words}");
    }
}
