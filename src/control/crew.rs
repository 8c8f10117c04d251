//! The workers' threads: started, and started again when one dies.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::metrics::WORKER_NAME;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a worker's thread reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Ready {
        worker: usize,
    },
    /// It drained and ended as it was told to.
    Finished {
        worker: usize,
    },
    /// It could not begin, or could not go on; why.
    Failed {
        worker: usize,
        words: String,
    },
    Panicked {
        worker: usize,
    },
}

/// Starts threads and hears of their end. A channel that holds at most a few words a thread.
pub(super) struct Crew {
    notices: UnboundedSender<Notice>,
}

impl Crew {
    pub(super) fn new() -> (Self, UnboundedReceiver<Notice>) {
        let (notices, received) = unbounded_channel();
        (Self { notices }, received)
    }

    /// A notice that came while nothing could be done about it will come again.
    pub(super) fn postpone(&self, notice: Notice) {
        tell(&self.notices, notice);
    }

    /// Runs `body` on a thread of its own. It is given what to call once it is ready.
    pub(super) fn start<F>(&self, worker: usize, body: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn FnOnce() + Send>) -> Result<(), String> + Send + 'static,
    {
        let notices = self.notices.clone();
        let ready = self.notices.clone();
        let on_ready = Box::new(move || tell(&ready, Notice::Ready { worker }));
        let run = move || {
            let ended = catch_unwind(AssertUnwindSafe(|| body(on_ready)));
            tell(&notices, notice(worker, ended));
        };
        std::thread::Builder::new()
            .name(format!("{WORKER_NAME}{worker}"))
            .spawn(run)?;
        Ok(())
    }
}

fn notice(worker: usize, ended: std::thread::Result<Result<(), String>>) -> Notice {
    match ended {
        Ok(Ok(())) => Notice::Finished { worker },
        Ok(Err(words)) => Notice::Failed { worker, words },
        Err(_) => Notice::Panicked { worker },
    }
}

fn tell(notices: &UnboundedSender<Notice>, notice: Notice) {
    // The receiver is gone only when the process ends.
    let _ = notices.send(notice);
}

/// Gives up on a worker that keeps dying: restarting for ever would hide the defect.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// By worker: its deaths that count, the oldest first; at most one more than [`RESTARTS_MAX`].
    deaths: Vec<Vec<Instant>>,
}

/// Restarts of one worker within [`DEATH_COUNTS`]; then the process ends instead, so that its
/// supervisor takes over.
pub(super) const RESTARTS_MAX: usize = 16;
/// How long a death counts. A worker that dies every hour serves better than a process that
/// ends each night; one that dies at its start is given up within a second.
const DEATH_COUNTS: Duration = Duration::from_mins(10);

impl Restarts {
    /// True: start it again.
    pub(super) fn on_death(&mut self, worker: usize, now: Instant) -> bool {
        if self.deaths.len() <= worker {
            self.deaths.resize_with(worker + 1, Vec::new);
        }
        let deaths = &mut self.deaths[worker];
        deaths.retain(|death| now.duration_since(*death) < DEATH_COUNTS);
        deaths.push(now);
        deaths.len() <= RESTARTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_worker_that_panics_is_reported_and_can_be_started_again() {
        let (crew, mut notices) = Crew::new();
        let lives = Arc::new(AtomicU32::new(0));
        let body = || {
            let lives = Arc::clone(&lives);
            move |on_ready: Box<dyn FnOnce() + Send>| {
                on_ready();
                assert!(
                    lives.fetch_add(1, Ordering::Relaxed) > 0,
                    "dies once, on purpose"
                );
                Ok(())
            }
        };
        crew.start(3, body()).unwrap();
        assert_eq!(notices.blocking_recv(), Some(Notice::Ready { worker: 3 }));
        assert_eq!(
            notices.blocking_recv(),
            Some(Notice::Panicked { worker: 3 })
        );
        crew.start(3, body()).unwrap();
        assert_eq!(notices.blocking_recv(), Some(Notice::Ready { worker: 3 }));
        assert_eq!(
            notices.blocking_recv(),
            Some(Notice::Finished { worker: 3 })
        );
    }

    #[test]
    fn a_worker_that_cannot_begin_says_why() {
        let (crew, mut notices) = Crew::new();
        crew.start(0, |_| Err("no ring".into())).unwrap();
        let failed = Notice::Failed {
            worker: 0,
            words: "no ring".into(),
        };
        assert_eq!(notices.blocking_recv(), Some(failed));
    }

    #[test]
    fn a_worker_that_keeps_dying_is_given_up() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        assert!((0..RESTARTS_MAX).all(|_| restarts.on_death(1, now)));
        assert!(!restarts.on_death(1, now));
        assert!(restarts.on_death(0, now), "each worker has its own count");
    }

    #[test]
    fn deaths_that_are_long_past_do_not_count() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        assert!((0..RESTARTS_MAX).all(|_| restarts.on_death(0, start)));
        assert!(restarts.on_death(0, start + DEATH_COUNTS));
        assert_eq!(restarts.deaths[0].len(), 1, "the others are forgotten");

        let apart = DEATH_COUNTS / u32::try_from(RESTARTS_MAX).unwrap();
        let mut restarts = Restarts::default();
        assert!((0..100).all(|n| restarts.on_death(0, start + apart * n)));
        let mut restarts = Restarts::default();
        let closer = apart - Duration::from_secs(1);
        assert!(!(0..100).all(|n| restarts.on_death(0, start + closer * n)));
    }

    #[test]
    fn the_documents_name_the_number_of_restarts_and_how_long_a_death_counts() {
        let minutes = DEATH_COUNTS.as_secs() / 60;
        let words = format!("more than {RESTARTS_MAX} times within {minutes} minutes");
        assert!(include_str!("../../docs/operations.md").contains(&words));
        assert!(include_str!("../../docs/architecture.md").contains(&words));
    }
}
