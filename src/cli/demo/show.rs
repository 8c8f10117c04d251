use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use super::access_log::Logged;
use super::clients::{Client, Done, Work};
use super::pki::Pki;
use super::report::Report;
use super::servers::Servers;
use super::tally::Handshakes;

/// How long each phase of handshakes lasts.
const HANDSHAKES_TIME: Duration = Duration::from_millis(1500);

/// Bytes of the bulk phase in each direction, all clients together.
const BULK_BYTES: usize = 32 * 1024 * 1024;

/// Clients on each core, so that the proxy need not wait for one to think.
const CLIENTS_PER_CORE: usize = 2;

const CLIENTS_MAX: usize = 32;

/// The running scene.
pub(super) struct Show {
    pub edge: SocketAddr,
    pub workers: usize,
    pub pki: Pki,
    pub servers: Servers,
}

/// What one phase did, counted by Ringway's peers.
pub(super) struct Phase {
    pub name: &'static str,
    /// Whether its handshakes per second mean anything.
    pub is_rated: bool,
    pub took: Duration,
    pub downstream: Handshakes,
    pub upstream: Handshakes,
    /// In each direction.
    pub bytes: u64,
    pub failures: Vec<String>,
}

/// What sets phases apart.
struct Act {
    name: &'static str,
    work: Work,
    /// Whether clients and servers let sessions be resumed.
    resumes: bool,
}

impl Show {
    /// Runs on a thread of its own. Nothing comes when that thread dies.
    pub(super) fn begin(self) -> Result<oneshot::Receiver<Report>> {
        let (sender, outcome) = oneshot::channel();
        // Nobody waits for the report of an interrupted show.
        let perform = move || drop(sender.send(self.perform()));
        thread::Builder::new()
            .name("demo-show".into())
            .spawn(perform)
            .context("no thread for the show")?;
        Ok(outcome)
    }

    fn perform(&self) -> Report {
        let handshakes = Work::Handshakes {
            time: HANDSHAKES_TIME,
        };
        let bulk = Work::Bulk {
            bytes: BULK_BYTES / self.clients(),
        };
        let acts = [
            Act {
                name: "full handshakes",
                work: handshakes,
                resumes: false,
            },
            Act {
                name: "resumed handshakes",
                work: handshakes,
                resumes: true,
            },
            Act {
                name: "bulk",
                work: bulk,
                resumes: true,
            },
        ];
        let phases: Vec<Phase> = acts.iter().map(|act| self.play(act)).collect();
        let connections = phases.iter().map(|phase| phase.downstream.total()).sum();
        let logged = Logged::read(&self.pki.directory.join("access.log"), connections);
        Report::new(self, &phases, &logged)
    }

    fn clients(&self) -> usize {
        (CLIENTS_PER_CORE * self.workers).min(CLIENTS_MAX)
    }

    fn play(&self, act: &Act) -> Phase {
        self.servers.resume(act.resumes);
        let before = self.servers.tally().so_far();
        let (done, begun) = (Done::default(), Instant::now());
        let mut failures = thread::scope(|scope| {
            let (end, ends) = mpsc::channel();
            for number in 1..=self.clients() {
                let (edge, pki, done, end) = (self.edge, &self.pki, &done, end.clone());
                scope.spawn(move || {
                    let worked = Client::new(edge, pki, act.resumes)
                        .and_then(|client| client.work(act.work, done));
                    // Its receiver lives until every client has ended.
                    let _ = end.send((number, worked));
                });
            }
            drop(end);
            watch(&ends, || progress(act, &done, begun))
        });
        failures.extend(self.servers.complaints.try_iter());
        Phase {
            name: act.name,
            is_rated: matches!(act.work, Work::Handshakes { .. }),
            took: begun.elapsed(),
            downstream: done.tally.so_far(),
            upstream: self.servers.tally().so_far().since(before),
            bytes: done.bytes.load(Ordering::Relaxed),
            failures,
        }
    }
}

/// Shows how far the clients are until all have ended; returns what failed.
fn watch(ends: &Receiver<(usize, Result<()>)>, progress: impl Fn() -> String) -> Vec<String> {
    let terminal = io::stderr().is_terminal();
    let (pause, begin, end) = match terminal {
        true => (Duration::from_millis(100), "\r\x1b[K", ""),
        false => (Duration::from_millis(500), "", "\n"),
    };
    // A closed stderr has nobody to show anything to.
    let show = |end| drop(write!(io::stderr(), "{begin}{}{end}", progress()));
    let mut failures = Vec::new();
    let mut due = Instant::now() + pause;
    loop {
        match ends.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok((_, Ok(()))) => {}
            Ok((number, Err(error))) => failures.push(format!("client {number}: {error:#}")),
            Err(RecvTimeoutError::Timeout) => {
                show(end);
                due = Instant::now() + pause;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    show("\n");
    failures
}

fn progress(act: &Act, done: &Done, begun: Instant) -> String {
    let Handshakes { full, resumed } = done.tally.so_far();
    format!(
        "{:>4.1} s  {}: {full} full and {resumed} resumed, {} verified each way",
        begun.elapsed().as_secs_f64(),
        act.name,
        mebibytes(done.bytes.load(Ordering::Relaxed))
    )
}

/// For humans: MiB with one decimal.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
