//! The access log's writer: a thread of its own, fed by one bounded ring per core.
//!
//! The data plane never waits for it: a full ring costs lines, which are counted, not time.
//! While lines keep coming the writer looks at the rings every [`GATHER`] and needs no wake-up;
//! when all are empty it sleeps until the next record, so an idle proxy has no wake-ups either.

mod batch;
mod frame;
mod output;
mod sender;
mod target;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, Thread};
use std::time::Duration;

pub use sender::RecordSender;

use crate::config::LogPlan;
use frame::Framer;
use output::Output;
use sender::{Lane, lane};
use writer::Writer;

/// How long the writer lets lines gather before it looks again: late enough to share a write,
/// early enough for an operator who watches.
const GATHER: Duration = Duration::from_millis(20);

/// How long closing waits for the last lines: a log on a stalled pipe must not keep the process.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why the access log cannot be opened.
#[derive(Debug)]
pub enum SinkError {
    /// The file of `log.access`.
    Open { path: PathBuf, error: io::Error },
    /// The writer's thread.
    Thread(io::Error),
}

/// What the writer has done since it started.
#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    /// Lines that the writer has lost, beside those that found their queue full.
    lost: AtomicU64,
    /// What found each queue full, counted by its core: told also while the writer is stuck.
    refused: Lock,
    /// Attempts at writing that failed.
    failures: AtomicU64,
}

#[expect(
    clippy::disallowed_types,
    reason = "the control thread's own; no worker sees it"
)]
type Lock = std::sync::Mutex<Vec<Arc<AtomicU64>>>;

impl Counters {
    fn add_queue(&self, refused: Arc<AtomicU64>) {
        let queues = self.refused.lock();
        let mut queues = queues.unwrap_or_else(std::sync::PoisonError::into_inner);
        queues.push(refused);
    }

    fn dropped(&self) -> u64 {
        let queues = self.refused.lock();
        let queues = queues.unwrap_or_else(std::sync::PoisonError::into_inner);
        let refused = queues.iter().map(|it| it.load(Ordering::Relaxed));
        refused.sum::<u64>() + self.lost.load(Ordering::Relaxed)
    }
}

/// What the writer has done since it started, for any thread to read.
#[derive(Debug, Clone, Default)]
pub struct LogCounts(Arc<Counters>);

impl LogCounts {
    /// As [`SinkHandle::written`].
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// As [`SinkHandle::dropped`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// As [`SinkHandle::failures`].
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }
}

enum Command {
    Serve(Lane),
    Reopen,
    Close,
}

/// The running access log. Dropping it closes it as [`close`](Self::close) does.
#[derive(Debug)]
pub struct SinkHandle {
    queue_max: usize,
    counters: Arc<Counters>,
    /// `None`: the access log is off.
    thread: Option<WriterThread>,
}

#[derive(Debug)]
struct WriterThread {
    commands: Sender<Command>,
    asleep: Arc<AtomicBool>,
    thread: Thread,
    /// Disconnected when the thread has written all it could and ended.
    ended: Receiver<()>,
}

impl SinkHandle {
    /// Opens the access log and starts its writer.
    pub fn spawn(plan: &LogPlan) -> Result<Self, SinkError> {
        let queue_max = plan.queue_max;
        let counters = Arc::new(Counters::default());
        let thread = match Output::open(&plan.access)? {
            None => None,
            Some(output) => Some(WriterThread::spawn(
                Framer::new(plan),
                output,
                counters.clone(),
            )?),
        };
        Ok(Self {
            queue_max,
            counters,
            thread,
        })
    }

    /// A sender for one worker; any number, at any time.
    #[must_use]
    pub fn sender(&self) -> RecordSender {
        let Some(writer) = &self.thread else {
            return RecordSender::off();
        };
        let (sender, lane) = lane(self.queue_max, writer.asleep.clone(), writer.thread.clone());
        self.counters.add_queue(lane.refused());
        writer.order(Command::Serve(lane));
        sender
    }

    /// Opens the log's file anew, after log rotation has moved it away.
    pub fn reopen(&self) {
        if let Some(writer) = &self.thread {
            writer.order(Command::Reopen);
        }
    }

    /// What the writer counts, for the metrics.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        LogCounts(Arc::clone(&self.counters))
    }

    /// Lines written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.counters.written.load(Ordering::Relaxed)
    }

    /// Lines lost so far, because a queue was full or because the log could not be written to
    /// the end.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counters.dropped()
    }

    /// Attempts at writing that failed so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counters.failures.load(Ordering::Relaxed)
    }

    /// Writes what the senders have sent until now and ends the writer, in bounded time.
    pub fn close(self) {}
}

impl Drop for SinkHandle {
    fn drop(&mut self) {
        if let Some(writer) = self.thread.take() {
            writer.close(CLOSE_WAIT_MAX);
        }
    }
}

impl WriterThread {
    fn spawn(framer: Framer, output: Output, counters: Arc<Counters>) -> Result<Self, SinkError> {
        let (commands, orders) = mpsc::channel();
        let (running, ended) = mpsc::channel();
        let asleep = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(framer, output, counters, orders, asleep.clone());
        let thread = thread::Builder::new()
            .name("ringway-log".into())
            .spawn(move || {
                writer.run();
                drop(running);
            })
            .map_err(SinkError::Thread)?
            .thread()
            .clone();
        Ok(Self {
            commands,
            asleep,
            thread,
            ended,
        })
    }

    fn order(&self, command: Command) {
        // An error means that the thread is gone; its lines are then dropped and counted.
        let _ = self.commands.send(command);
        self.thread.unpark();
    }

    fn close(self, wait: Duration) {
        self.order(Command::Close);
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(wait) {
            tracing::error!(
                "the access log's last lines are lost: its file or pipe has taken nothing for \
                 {} s; look at what reads it",
                wait.as_secs()
            );
        }
    }
}

impl std::fmt::Display for SinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open { path, error } => write!(
                f,
                "the access log {} cannot be opened: {error}; {}, or set log.access to \
                 \"stderr\" or \"off\"",
                path.display(),
                target::open_cure(error),
            ),
            Self::Thread(error) => write!(
                f,
                "the access log's thread cannot be started: {error}; raise the limit of \
                 processes (ulimit -u, or TasksMax= of the service)"
            ),
        }
    }
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { error, .. } | Self::Thread(error) => Some(error),
        }
    }
}
