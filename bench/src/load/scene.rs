//! What the tasks of one run share: the phase, the tally, and how busy the core is.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::carousel::turn;
use super::tally::Tally;

/// A fraction of the smallest backlog, stunnel's of 128 (SOMAXCONN).
const AT_DOOR_MAX: u16 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    WarmUp,
    Measured,
}

#[derive(Debug)]
pub(crate) struct Scene {
    phase: Cell<Phase>,
    tally: RefCell<Tally>,
    /// System calls that moved something. A turn without one was spent waiting.
    progress: Cell<u64>,
    /// Operations completed in the warm-up.
    warm_operations: Cell<u64>,
    /// Clients that open a connection to keep, all at once.
    at_door: Cell<u16>,
    /// Connections that stay and have been opened.
    settled: Cell<u64>,
    /// The last thing that went wrong, also in the warm-up: why a run never got going.
    last_failure: RefCell<Option<String>>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            phase: Cell::new(Phase::WarmUp),
            tally: RefCell::new(Tally::new()),
            progress: Cell::new(0),
            warm_operations: Cell::new(0),
            at_door: Cell::new(0),
            settled: Cell::new(0),
            last_failure: RefCell::new(None),
        }
    }

    pub(crate) fn begin_measuring(&self) {
        self.phase.set(Phase::Measured);
    }

    pub(crate) fn progressed(&self) {
        self.progress.set(self.progress.get().wrapping_add(1));
    }

    pub(crate) fn warm_operations(&self) -> u64 {
        self.warm_operations.get()
    }

    /// Thousands of connections at one moment would overflow the listener's backlog, and the
    /// kernel's second try comes a second later.
    pub(crate) async fn await_door(&self) {
        while self.at_door.get() == AT_DOOR_MAX {
            turn().await;
        }
        self.at_door.set(self.at_door.get() + 1);
    }

    pub(crate) fn leave_door(&self) {
        self.at_door.set(self.at_door.get() - 1);
    }

    /// One more connection that stays is open. Nobody talks before `all` are: those that do would
    /// take the proxy's time from those that still open theirs.
    pub(crate) async fn settle(&self, all: u64) {
        self.settled.set(self.settled.get() + 1);
        while self.settled.get() < all {
            turn().await;
        }
    }

    pub(crate) fn settled_connections(&self) -> u64 {
        self.settled.get()
    }

    /// One more operation is complete; `note` enters its times while the run is measured.
    pub(crate) fn completed(&self, note: impl FnOnce(&mut Tally)) {
        match self.phase.get() {
            Phase::WarmUp => self.warm_operations.set(self.warm_operations.get() + 1),
            Phase::Measured => {
                let mut tally = self.tally.borrow_mut();
                tally.operations += 1;
                note(&mut tally);
            }
        }
    }

    /// Enters something that is no operation of its own: bytes moved, a handshake's kind.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Tally)) {
        if self.phase.get() == Phase::Measured {
            note(&mut self.tally.borrow_mut());
        }
    }

    pub(crate) fn failed(&self, class: String) {
        self.note(|tally| tally.failed(class.clone()));
        *self.last_failure.borrow_mut() = Some(class);
    }

    pub(crate) fn last_failure(&self) -> Option<String> {
        self.last_failure.borrow().clone()
    }

    pub(crate) fn take_tally(&self) -> Tally {
        self.tally.replace(Tally::new())
    }
}

/// Tells working time from waiting time by whether a turn of all tasks moved anything.
pub(crate) struct Gauge<'a> {
    scene: &'a Scene,
    seen: u64,
    since: Instant,
    pub(crate) waiting: Duration,
}

impl<'a> Gauge<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            seen: scene.progress.get(),
            since: Instant::now(),
            waiting: Duration::ZERO,
        }
    }

    /// Called once a turn; gives the time, so that the caller need not ask the clock again.
    pub(crate) fn tick(&mut self) -> Instant {
        let now = Instant::now();
        let progress = self.scene.progress.get();
        if progress == self.seen {
            self.waiting += now - self.since;
        }
        self.seen = progress;
        self.since = now;
        now
    }
}
