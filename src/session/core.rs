use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustls::ServerConfig;

use super::access::Access;
use super::journal::Journal;
use super::watch::Watch;
use crate::config::{Carriage, PathChoice, Plan};
use crate::net::{Buffers, Pipes};
use crate::observe::{Record, RecordSender};
use crate::relay::Tools;
use crate::sys::KtlsAbility;
use crate::tls::{HandshakesInFlight, ServerTls};
use crate::types::{CoreId, GroupId, ListenerId};
use crate::upstream::Group;

/// All that the connections of one core share. It never leaves its thread.
pub struct Core {
    pub id: CoreId,
    pub plan: Arc<Plan>,
    pub tools: Tools,
    pub watch: Watch,
    pub handshakes: HandshakesInFlight,
    listeners: Vec<ListenerState>,
    groups: Vec<Group>,
    journal: RefCell<Journal>,
    /// A task will flush the journal.
    flushing: Cell<bool>,
    records_made: Cell<u64>,
    live: Cell<usize>,
}

/// What a core is built from.
pub struct Parts {
    pub id: CoreId,
    pub plan: Arc<Plan>,
    pub listeners: Vec<ListenerState>,
    pub groups: Vec<Group>,
    pub log: RecordSender,
    pub kernel_tls: Option<KtlsAbility>,
}

/// One listener as one core serves it.
pub struct ListenerState {
    pub tls: Option<ListenerTls>,
    /// Connections of this listener on all cores: the one count that cores share, touched twice a
    /// connection (docs/decisions/0007-shared-counts.md).
    pub connections: Arc<AtomicUsize>,
    /// Shared by all cores as well. `None`: every client is served.
    pub access: Option<Arc<Access>>,
}

pub struct ListenerTls {
    pub shared: Arc<ServerTls>,
    pub config: Arc<ServerConfig>,
}

impl Core {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            id,
            plan,
            listeners,
            groups,
            log,
            kernel_tls,
        } = parts;
        let pipes = Pipes::new(plan.runtime.pipes_max);
        let handshakes = HandshakesInFlight::new(plan.runtime.handshakes_max);
        let journal = Journal::new(log, plan.log.refused_max);
        Self {
            id,
            plan,
            tools: Tools {
                buffers: Buffers::default(),
                pipes,
                kernel_tls,
            },
            watch: Watch::default(),
            handshakes,
            listeners,
            groups,
            journal: RefCell::new(journal),
            flushing: Cell::new(false),
            records_made: Cell::new(0),
            live: Cell::new(0),
        }
    }

    #[must_use]
    pub fn listener(&self, id: ListenerId) -> &ListenerState {
        &self.listeners[usize::from(id.0)]
    }

    /// Whether a leg that is carried so may go to kernel TLS later.
    #[must_use]
    pub fn keeps_secrets(&self, carriage: Carriage) -> bool {
        self.tools.kernel_tls.is_some() && carriage.path != PathChoice::User
    }

    #[must_use]
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[usize::from(id.0)]
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

    pub(super) fn enter(&self, listener: ListenerId) -> Entered<'_> {
        self.live.set(self.live.get() + 1);
        let total = self
            .listener(listener)
            .connections
            .fetch_add(1, Ordering::Relaxed)
            + 1;
        let admitted = total <= self.plan.listener(listener).connections_max;
        Entered {
            core: self,
            listener,
            admitted,
        }
    }
}

/// A connection's place in the counts, given back on drop.
pub(super) struct Entered<'a> {
    pub core: &'a Core,
    listener: ListenerId,
    /// False: the listener has as many connections as it may.
    pub admitted: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.core.live.set(self.core.live.get() - 1);
        self.core
            .listener(self.listener)
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    }
}
