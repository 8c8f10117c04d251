use std::io;
use std::time::{Duration, Instant};

use super::SinkError;
use super::batch::Batch;
use super::target::{Target, Written, open_cure};
use crate::config::AccessLog;

/// First and longest wait between attempts while the log cannot be written.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Where the lines go, and whether it takes them.
pub(super) struct Output {
    target: Target,
    failure: Option<Failure>,
    /// Attempts that failed, ever.
    failures: u64,
    too_long_told: bool,
}

/// Lines that a write has taken care of.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) written: u64,
    pub(super) lost: u64,
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
        let Some(target) = Target::open(access)? else {
            return Ok(None);
        };
        let mut output = Self {
            target,
            failure: None,
            failures: 0,
            too_long_told: false,
        };
        if let Target::Daemon(_) = output.target
            && let Err(error) = output.target.reopen()
        {
            output.on_failure(&error, Instant::now());
        }
        Ok(Some(output))
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

    /// Lines lost while the log does not work.
    pub(super) fn lost(&self) -> u64 {
        self.failure.as_ref().map_or(0, |failure| failure.lost)
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

    /// Writes the batch unless an earlier failure's wait is not over. What is not written stays in
    /// the batch.
    pub(super) fn write(&mut self, batch: &mut Batch, now: Instant) -> Progress {
        if batch.is_empty() || self.retry_at().is_some_and(|at| at > now) {
            return Progress::default();
        }
        let mut lost = 0;
        let mut reopened = Ok(());
        if self.failure.is_some() {
            reopened = self.target.reopen();
            // Room may have been made by emptying the file under a line that was cut.
            if self.target.is_blank() {
                lost = batch.skip_cut_line();
            }
        }
        let (written, result) = match reopened {
            Ok(()) => self.target.write(batch),
            Err(error) => (Written::default(), Err(error)),
        };
        if written.too_long > 0 {
            self.on_too_long();
        }
        lost += written.too_long;
        self.count_lost(lost);
        match result {
            Ok(()) => self.on_success(now),
            Err(error) => self.on_failure(&error, now),
        }
        Progress {
            written: written.lines,
            lost,
        }
    }

    fn on_too_long(&mut self) {
        if !std::mem::replace(&mut self.too_long_told, true) {
            tracing::warn!(
                "{}: its socket does not take a line as long as this one, which is dropped and \
                 counted; so will be others, without a word. Choose fewer `fields` in [log]",
                self.target
            );
        }
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
            self.target.write_cure(error)
        );
        self.failure = Some(Failure {
            since: now,
            lost: 0,
            retry_at: now + RETRY_FIRST,
            wait: RETRY_FIRST,
        });
    }
}
