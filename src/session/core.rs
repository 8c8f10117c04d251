use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::generation::{Generation, ListenerState};
use super::journal::Journal;
use super::proofs::Proofs;
use super::watch::Watch;
use crate::config::{Carriage, PathChoice};
use crate::net::{Buffers, Pipes};
use crate::observe::meters::CoreMeters;
use crate::observe::{Record, RecordSender};
use crate::relay::Tools;
use crate::sys::KtlsAbility;
use crate::tls::HandshakesInFlight;
use crate::types::CoreId;

/// All that the connections of one core share. It never leaves its thread.
pub struct Core {
    pub id: CoreId,
    pub tools: Tools,
    pub watch: Watch,
    pub handshakes: HandshakesInFlight,
    pub(super) proofs: Proofs,
    /// Connections that one readiness event may accept before other work has its turn.
    pub accept_batch: Cell<usize>,
    pub meters: Arc<CoreMeters>,
    /// What new connections are served by.
    generation: RefCell<Rc<Generation>>,
    journal: RefCell<Journal>,
    /// A task will flush the journal.
    flushing: Cell<bool>,
    records_made: Cell<u64>,
    live: Cell<usize>,
}

/// What a core is built from.
pub struct Parts {
    pub id: CoreId,
    pub generation: Generation,
    pub log: RecordSender,
    pub kernel_tls: Option<KtlsAbility>,
    pub meters: Arc<CoreMeters>,
}

impl Core {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            id,
            generation,
            log,
            kernel_tls,
            meters,
        } = parts;
        let plan = generation.plan();
        let pipes = Pipes::new(plan.runtime.pipes_max, Arc::clone(&meters));
        let handshakes = HandshakesInFlight::new(plan.runtime.handshakes_max);
        let accept_batch = Cell::new(plan.runtime.accept_batch);
        let journal = Journal::new(log, &plan.log);
        Self {
            id,
            tools: Tools {
                buffers: Buffers::default(),
                pipes,
                kernel_tls,
            },
            watch: Watch::default(),
            handshakes,
            proofs: Proofs::default(),
            accept_batch,
            meters,
            generation: RefCell::new(Rc::new(generation)),
            journal: RefCell::new(journal),
            flushing: Cell::new(false),
            records_made: Cell::new(0),
            live: Cell::new(0),
        }
    }

    /// What a connection that begins now is served by.
    #[must_use]
    pub fn generation(&self) -> Rc<Generation> {
        Rc::clone(&self.generation.borrow())
    }

    /// Connections that begin from now on are served by `next`; the others keep what they have.
    pub fn switch(&self, next: Rc<Generation>) -> Rc<Generation> {
        let plan = next.plan();
        self.accept_batch.set(plan.runtime.accept_batch);
        self.handshakes.set_max(plan.runtime.handshakes_max);
        self.tools.pipes.set_spare_max(plan.runtime.pipes_max);
        let mut journal = self.journal.borrow_mut();
        journal.begin_anew(&plan.log, Instant::now());
        self.generation.replace(next)
    }

    /// Whether a leg that is carried so may go to kernel TLS later.
    #[must_use]
    pub fn keeps_secrets(&self, carriage: Carriage) -> bool {
        self.tools.kernel_tls.is_some() && carriage.path != PathChoice::User
    }

    /// Connections that live on this core.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.get()
    }

    pub(super) fn send_record(&self, record: Box<Record>) {
        self.journal.borrow_mut().write(record, Instant::now());
    }

    /// Writes what still waits for its line in the access log.
    pub fn flush_journal(&self) {
        self.journal.borrow_mut().flush(Instant::now(), true);
    }

    /// True once while refusals wait that nobody will flush.
    pub(super) fn begin_flushing(&self) -> bool {
        self.journal.borrow().is_waiting() && !self.flushing.replace(true)
    }

    /// Writes what has waited long enough. False: nothing waits any more.
    pub(super) fn go_on_flushing(&self) -> bool {
        let mut journal = self.journal.borrow_mut();
        journal.flush(Instant::now(), false);
        self.flushing.set(journal.is_waiting());
        self.flushing.get()
    }

    /// Core number above, a count below: unique while the process lives.
    pub(super) fn next_record_id(&self) -> u64 {
        let count = self.records_made.get() + 1;
        self.records_made.set(count);
        (u64::from(self.id.0) << 48) | count
    }

    fn count_live(&self, live: usize) {
        self.live.set(live);
        self.meters.live.set(live as u64);
    }

    /// `connections_max`: of the listener, on all cores.
    pub(super) fn enter<'a>(
        &'a self,
        listener: &'a ListenerState,
        connections_max: usize,
    ) -> Entered<'a> {
        self.count_live(self.live.get() + 1);
        let total = listener.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Entered {
            core: self,
            listener,
            admitted: total <= connections_max,
        }
    }
}

/// A connection's place in the counts, given back on drop.
pub(super) struct Entered<'a> {
    pub core: &'a Core,
    listener: &'a ListenerState,
    /// False: the listener has as many connections as it may.
    pub admitted: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.core.count_live(self.core.live.get() - 1);
        self.listener.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
