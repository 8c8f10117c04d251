use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rustls::ServerConfig;

use super::access::Access;
use crate::config::Plan;
use crate::observe::CorePlan;
use crate::observe::meters::{CoreMeters, ListenerMeters};
use crate::tls::ServerTls;
use crate::types::{GroupId, ListenerId};
use crate::upstream::Group;

/// What one core serves by one plan. A connection keeps the one that it began with.
pub struct Generation {
    /// For the records of its connections.
    pub(super) handle: Arc<CorePlan>,
    listeners: Vec<ListenerState>,
    groups: Vec<Rc<Group>>,
    meters: Arc<CoreMeters>,
}

/// One listener as one core serves it.
pub struct ListenerState {
    pub tls: Option<ListenerTls>,
    /// Connections of this listener on all cores: the one count that cores share, touched twice a
    /// connection (docs/decisions/0007-shared-counts.md).
    pub connections: Arc<AtomicUsize>,
    /// Shared by all cores as well. `None`: every client is served.
    pub access: Option<Arc<Access>>,
    /// This core's own.
    pub meters: Arc<ListenerMeters>,
}

#[derive(Clone)]
pub struct ListenerTls {
    pub shared: Arc<ServerTls>,
    config: Arc<ServerConfig>,
    /// For clients whose secrets are logged.
    logged: Option<Arc<ServerConfig>>,
}

impl ListenerTls {
    /// Call it on the core's thread, once.
    #[must_use]
    pub fn new(shared: Arc<ServerTls>) -> Self {
        let config = shared.for_core();
        Self {
            logged: shared.with_key_log(&config),
            config,
            shared,
        }
    }

    pub(super) fn config_for(&self, client: Option<IpAddr>) -> Arc<ServerConfig> {
        let logged = self.logged.as_ref();
        let chosen = logged.filter(|_| self.shared.logs_keys_of(client));
        Arc::clone(chosen.unwrap_or(&self.config))
    }
}

impl Generation {
    /// `listeners` and `groups` in the order of the plan.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        meters: Arc<CoreMeters>,
        (listeners, groups): (Vec<ListenerState>, Vec<Rc<Group>>),
    ) -> Self {
        meters.generations.add(1);
        Self {
            handle: Arc::new(CorePlan::new(plan)),
            listeners,
            groups,
            meters,
        }
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.handle.plan()
    }

    #[must_use]
    pub fn listener(&self, id: ListenerId) -> &ListenerState {
        &self.listeners[usize::from(id.0)]
    }

    #[must_use]
    pub fn listeners(&self) -> &[ListenerState] {
        &self.listeners
    }

    #[must_use]
    pub fn group(&self, id: GroupId) -> &Rc<Group> {
        &self.groups[usize::from(id.0)]
    }

    #[must_use]
    pub fn groups(&self) -> &[Rc<Group>] {
        &self.groups
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.meters.generations.take(1);
    }
}
