use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::batch::{BATCH_BYTES, Batch};
use super::frame::Framer;
use super::output::{Output, Progress};
use super::sender::Lane;
use super::{Command, Counters, GATHER};

/// Drops are reported at most this often.
const DROP_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Records taken from one lane before the next has its turn.
const LANE_TURN: usize = 64;

/// What the thread `ringway-log` runs.
pub(super) struct Writer {
    framer: Framer,
    output: Output,
    counters: Arc<Counters>,
    orders: Receiver<Command>,
    asleep: Arc<AtomicBool>,
    lanes: Vec<Lane>,
    batch: Batch,
    drops: Drops,
    closing: bool,
}

/// Drops not yet reported.
#[derive(Default)]
struct Drops {
    unreported: u64,
    reported_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        framer: Framer,
        output: Output,
        counters: Arc<Counters>,
        orders: Receiver<Command>,
        asleep: Arc<AtomicBool>,
    ) -> Self {
        Self {
            framer,
            output,
            counters,
            orders,
            asleep,
            lanes: Vec::new(),
            batch: Batch::default(),
            drops: Drops::default(),
            closing: false,
        }
    }

    pub(super) fn run(mut self) {
        while !self.closing {
            self.take_orders();
            let gathered = self.turn(Instant::now());
            if !self.closing {
                self.rest(gathered);
            }
        }
        self.finish();
    }

    fn take_orders(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Command::Serve(lane)) => self.lanes.push(lane),
                Ok(Command::Reopen) => {
                    let lost = self.output.reopen(&mut self.batch);
                    self.counters.lost.fetch_add(lost, Ordering::Relaxed);
                    self.output.count_lost(lost);
                }
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => self.closing = true,
                Err(TryRecvError::Empty) => return,
            }
            if self.closing {
                return;
            }
        }
    }

    /// Gathers a batch and writes it. The number of records gathered.
    fn turn(&mut self, now: Instant) -> usize {
        // A batch that could not be written yet goes first; the rings hold what comes after it.
        let gathered = if self.batch.is_empty() {
            self.gather()
        } else {
            0
        };
        self.take_up_drops();
        let Progress { written, lost } = self.output.write(&mut self.batch, now);
        self.counters.written.fetch_add(written, Ordering::Relaxed);
        self.counters.lost.fetch_add(lost, Ordering::Relaxed);
        let failures = self.output.failures();
        self.counters.failures.store(failures, Ordering::Relaxed);
        self.report_drops(now);
        gathered
    }

    fn gather(&mut self) -> usize {
        let mut gathered = 0;
        let mut before_round = usize::MAX;
        while before_round != gathered && self.batch.len() < BATCH_BYTES {
            before_round = gathered;
            for lane in &mut self.lanes {
                for record in std::iter::from_fn(|| lane.next()).take(LANE_TURN) {
                    self.batch.push(|out| self.framer.write(&record, out));
                    gathered += 1;
                }
            }
        }
        gathered
    }

    fn take_up_drops(&mut self) {
        let new: u64 = self.lanes.iter_mut().map(Lane::newly_dropped).sum();
        self.lanes.retain(|lane| !lane.is_over());
        self.output.count_lost(new);
        // While the log does not work they are told when it does again.
        if self.output.retry_at().is_none() {
            self.drops.unreported += new;
        }
    }

    fn report_drops(&mut self, now: Instant) {
        if self.drops.unreported > 0 && self.drops.due_at().is_none_or(|at| at <= now) {
            tracing::warn!(
                "access log: {} lines dropped, the queue was full; raise log.queue, or give \
                 the log a faster disk or reader",
                self.drops.unreported
            );
            self.drops = Drops {
                unreported: 0,
                reported_at: Some(now),
            };
        }
    }

    /// Waits for what is next: a retry, more lines to gather, or the next record at all.
    fn rest(&self, gathered: usize) {
        let now = Instant::now();
        if let (false, Some(retry_at)) = (self.batch.is_empty(), self.output.retry_at()) {
            thread::park_timeout(retry_at.saturating_duration_since(now));
        } else if gathered > 0 {
            // After a full batch more is there already.
            if !self.lanes.iter().any(|lane| lane.waiting() >= LANE_TURN) {
                thread::park_timeout(GATHER);
            }
        } else {
            self.sleep(now);
        }
    }

    fn sleep(&self, now: Instant) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.waiting() == 0 {
            match self.drops.due_at() {
                Some(due_at) if self.drops.unreported > 0 => {
                    thread::park_timeout(due_at.saturating_duration_since(now));
                }
                _ => thread::park(),
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Writes all that is left; what the output does not take now is lost.
    fn finish(mut self) {
        self.output.retry_now();
        loop {
            self.turn(Instant::now());
            if !self.batch.is_empty() || self.waiting() == 0 {
                break;
            }
        }
        let lost = self.batch.lines() + self.waiting();
        self.counters.lost.fetch_add(lost, Ordering::Relaxed);
        let total = lost + self.drops.unreported + self.output.lost();
        if total > 0 {
            tracing::error!("access log: {total} lines are lost at the end");
        }
    }

    /// Records in the rings.
    fn waiting(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.waiting() as u64).sum()
    }
}

impl Drops {
    fn due_at(&self) -> Option<Instant> {
        self.reported_at.map(|at| at + DROP_REPORT_INTERVAL)
    }
}
