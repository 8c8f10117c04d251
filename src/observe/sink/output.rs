use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::SinkError;
use crate::config::AccessLog;

/// A batch is written once it is this long: about 400 lines, well past the point where the
/// system call's own cost shows.
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// First and longest wait between attempts while the log cannot be written.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A non-blocking reader that is full for this long counts as failed.
const FULL_WAIT: Duration = Duration::from_millis(20);
const FULL_WAITS_MAX: u32 = 50;

/// Lines on their way out: whole, except for a first one that was cut by a failed write.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    written: usize,
    lines: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one line.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.lines += 1;
    }

    /// Lines not yet written to their end.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Takes note that the next `count` bytes are written; the number of lines that ended there.
    fn advance(&mut self, count: usize) -> u64 {
        let ended = lines(self.rest().get(..count).unwrap_or_default());
        self.written += count;
        self.lines -= ended;
        if self.rest().is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
        ended
    }

    /// Drops the rest of a line whose beginning went elsewhere; the number of lines lost.
    fn skip_cut_line(&mut self) -> u64 {
        let before = self
            .written
            .checked_sub(1)
            .and_then(|at| self.bytes.get(at));
        if before.is_none_or(|byte| *byte == b'\n') {
            return 0;
        }
        let tail = self.rest().iter().position(|byte| *byte == b'\n');
        self.advance(tail.map_or(0, |at| at + 1))
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Where the lines go, and whether it takes them.
pub(super) struct Output {
    target: Target,
    failure: Option<Failure>,
    /// Attempts that failed, ever.
    failures: u64,
}

enum Target {
    Stderr,
    File { path: PathBuf, file: File },
}

/// The log could not be written, and has not been since.
struct Failure {
    since: Instant,
    lost: u64,
    retry_at: Instant,
    wait: Duration,
}

impl Output {
    /// `None`: the access log is off.
    pub(super) fn open(access: &AccessLog) -> Result<Option<Self>, SinkError> {
        let target = match access {
            AccessLog::Off => return Ok(None),
            AccessLog::Stderr => Target::Stderr,
            AccessLog::File(path) => Target::File {
                file: open_file(path).map_err(|error| SinkError::Open {
                    path: path.clone(),
                    error,
                })?,
                path: path.clone(),
            },
        };
        Ok(Some(Self {
            target,
            failure: None,
            failures: 0,
        }))
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// When the next attempt is due; `None`: the log works.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.retry_at)
    }

    /// Makes the next attempt due at once.
    pub(super) fn retry_now(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = failure.since;
        }
    }

    /// Takes note of lines that were lost elsewhere while the log does not work.
    pub(super) fn count_lost(&mut self, lines: u64) {
        if let Some(failure) = &mut self.failure {
            failure.lost += lines;
        }
    }

    /// Opens the file anew. Where that fails the old one serves on. The number of lines lost:
    /// at most one, whose beginning the old file has.
    pub(super) fn reopen(&mut self, batch: &mut Batch) -> u64 {
        self.retry_now();
        match self.target.reopen() {
            Ok(()) => batch.skip_cut_line(),
            Err(error) => {
                tracing::error!(
                    "{} cannot be opened again: {error}; {}, then ask for it once more. Lines \
                     go to the file that was open before",
                    self.target,
                    open_cure(&error)
                );
                0
            }
        }
    }

    /// Writes the batch unless an earlier failure's wait is not over; the number of lines
    /// written. What is not written stays in the batch.
    pub(super) fn write(&mut self, batch: &mut Batch, now: Instant) -> u64 {
        if batch.is_empty() || self.retry_at().is_some_and(|at| at > now) {
            return 0;
        }
        let reopened = if self.failure.is_some() {
            self.target.reopen()
        } else {
            Ok(())
        };
        let (written, result) = match reopened {
            Ok(()) => self.target.write(batch),
            Err(error) => (0, Err(error)),
        };
        match result {
            Ok(()) => self.on_success(now),
            Err(error) => self.on_failure(&error, now),
        }
        written
    }

    fn on_success(&mut self, now: Instant) {
        if let Some(failure) = self.failure.take() {
            tracing::warn!(
                "{} works again after {} s; {} lines were dropped meanwhile",
                self.target,
                now.saturating_duration_since(failure.since).as_secs(),
                failure.lost
            );
        }
    }

    fn on_failure(&mut self, error: &io::Error, now: Instant) {
        self.failures += 1;
        if let Some(failure) = &mut self.failure {
            failure.wait = (failure.wait * 2).min(RETRY_MAX);
            failure.retry_at = now + failure.wait;
            return;
        }
        tracing::error!(
            "{} cannot be written: {error}; {}. Connections go on; lines wait in the queues \
             and are dropped and counted once these are full",
            self.target,
            write_cure(error)
        );
        self.failure = Some(Failure {
            since: now,
            lost: 0,
            retry_at: now + RETRY_FIRST,
            wait: RETRY_FIRST,
        });
    }
}

impl Target {
    /// Opens the path again: the file may have been moved, or its file system come back.
    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { path, file } = self {
            *file = open_file(path)?;
        }
        Ok(())
    }

    /// One write for the whole batch, unless the kernel takes less.
    fn write(&mut self, batch: &mut Batch) -> (u64, io::Result<()>) {
        let mut lines = 0;
        let mut full_waits = 0;
        while !batch.is_empty() {
            match self.write_once(batch.rest()) {
                Ok(0) => return (lines, Err(ErrorKind::WriteZero.into())),
                Ok(count) => lines += batch.advance(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    full_waits += 1;
                    if full_waits > FULL_WAITS_MAX {
                        return (lines, Err(error));
                    }
                    thread::park_timeout(FULL_WAIT);
                }
                Err(error) => return (lines, Err(error)),
            }
        }
        (lines, Ok(()))
    }

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Through std's lock, so that no event of the process lands inside a line.
            Self::Stderr => io::stderr().write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }
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

fn write_cure(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space on its file system",
        ErrorKind::FileTooLarge => "rotate it, or raise the limit of file sizes (ulimit -f)",
        ErrorKind::BrokenPipe => "what reads it has ended: start it again, or log to a file",
        ErrorKind::WouldBlock => "what reads it has stopped reading: look at it, or log to a file",
        _ => "check the file and its file system",
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stderr => f.write_str("access log on stderr"),
            Self::File { path, .. } => write!(f, "access log {}", path.display()),
        }
    }
}
