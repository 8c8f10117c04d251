use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::SinkError;
use super::batch::Batch;
use crate::config::AccessLog;

/// A non-blocking reader that is full for this long counts as failed.
const FULL_WAIT: Duration = Duration::from_millis(20);
const FULL_WAITS_MAX: u32 = 50;

/// The same for a daemon that does not read its socket: only the log's own thread waits.
const SEND_WAIT: Duration = Duration::from_secs(1);

/// Where lines go.
pub(super) enum Target {
    Stderr,
    File { path: PathBuf, file: File },
    Daemon(Daemon),
}

/// What became of a batch, as far as it was written.
#[derive(Default)]
pub(super) struct Written {
    pub(super) lines: u64,
    /// Lines that the daemon's socket never takes.
    pub(super) too_long: u64,
}

impl Target {
    /// `None`: the access log is off. A daemon may come later than we do; then its socket is opened
    /// by the first write.
    pub(super) fn open(access: &AccessLog) -> Result<Option<Self>, SinkError> {
        Ok(Some(match access {
            AccessLog::Off => return Ok(None),
            AccessLog::Stderr => Self::Stderr,
            AccessLog::File(path) => Self::File {
                file: open_file(path).map_err(|error| SinkError::Open {
                    path: path.clone(),
                    error,
                })?,
                path: path.clone(),
            },
            AccessLog::Syslog(path) => Self::Daemon(Daemon::new("syslog", path)),
            AccessLog::Journald(path) => Self::Daemon(Daemon::new("journald", path)),
        }))
    }

    /// Opens the path again: the file may have been moved, its file system or its daemon come back.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        match self {
            Self::Stderr => {}
            Self::File { path, file } => *file = open_file(path)?,
            Self::Daemon(daemon) => daemon.connect().map(|_| ())?,
        }
        Ok(())
    }

    /// Whether nothing is left of what was written before.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::File { file, .. } => file
                .metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0),
            Self::Stderr | Self::Daemon(_) => false,
        }
    }

    pub(super) fn write(&mut self, batch: &mut Batch) -> (Written, io::Result<()>) {
        let mut written = Written::default();
        let result = match self {
            // Through std's lock, so that no event of the process lands inside a line.
            Self::Stderr => write_stream(&mut io::stderr(), batch, &mut written),
            Self::File { file, .. } => write_stream(file, batch, &mut written),
            Self::Daemon(daemon) => daemon.write(batch, &mut written),
        };
        (written, result)
    }
}

/// One write for the whole batch, unless the kernel takes less.
fn write_stream(
    stream: &mut impl Write,
    batch: &mut Batch,
    written: &mut Written,
) -> io::Result<()> {
    let mut full_waits = 0;
    while !batch.is_empty() {
        match stream.write(batch.rest()) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written.lines += batch.advance(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                full_waits += 1;
                if full_waits > FULL_WAITS_MAX {
                    return Err(error);
                }
                thread::park_timeout(FULL_WAIT);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A unix datagram socket that a daemon reads: one line, one datagram.
pub(super) struct Daemon {
    name: &'static str,
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Daemon {
    fn new(name: &'static str, path: &Path) -> Self {
        Self {
            name,
            path: path.to_owned(),
            socket: None,
        }
    }

    fn connect(&mut self) -> io::Result<&UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        socket.set_write_timeout(Some(SEND_WAIT))?;
        Ok(self.socket.insert(socket))
    }

    fn write(&mut self, batch: &mut Batch, written: &mut Written) -> io::Result<()> {
        while !batch.is_empty() {
            let line = batch.first_line();
            let bytes = line.len();
            match self.send(line) {
                Ok(()) => written.lines += batch.advance(bytes),
                Err(error) if is_too_long(&error) => written.too_long += batch.advance(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A daemon that was started anew has a new socket at its path.
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return self.connect()?.send(line).map(|_| ());
        };
        match socket.send(line) {
            Err(error) if is_gone(&error) => {
                self.socket = None;
                self.connect()?.send(line).map(|_| ())
            }
            sent => sent.map(|_| ()),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    let kinds = [ConnectionRefused, ConnectionReset, NotConnected, BrokenPipe];
    kinds.contains(&error.kind())
}

fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// `O_NONBLOCK` means nothing to a file; a FIFO without a reader is then an error, not a wait.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

pub(super) fn open_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "create its directory",
        ErrorKind::PermissionDenied => "let Ringway's user write there",
        ErrorKind::IsADirectory => "name a file, not a directory",
        ErrorKind::ReadOnlyFilesystem => "choose a file system that is not read-only",
        _ => "check the path",
    }
}

impl Target {
    pub(super) fn write_cure(&self, error: &io::Error) -> &'static str {
        match self {
            Self::Daemon(_) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    "start the daemon, or name its socket: `access = \"syslog:/dev/log\"`"
                }
                ErrorKind::PermissionDenied => "let Ringway's user write to the socket",
                ErrorKind::WouldBlock => "it has stopped reading: look at it",
                _ => "check the daemon and its socket, which must be one of datagrams",
            },
            Self::Stderr | Self::File { .. } => match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "free space on its file system"
                }
                ErrorKind::FileTooLarge => {
                    "rotate it, or raise the limit of file sizes (ulimit -f)"
                }
                ErrorKind::BrokenPipe => {
                    "what reads it has ended: start it again, or log to a file"
                }
                ErrorKind::WouldBlock => {
                    "what reads it has stopped reading: look at it, or log to a file"
                }
                _ => "check the file and its file system",
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("access log on stderr"),
            Self::File { path, .. } => write!(f, "access log {}", path.display()),
            Self::Daemon(Daemon { name, path, .. }) => {
                write!(f, "access log to {name} at {}", path.display())
            }
        }
    }
}
