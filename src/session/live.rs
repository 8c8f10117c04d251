//! The connections of a core while they live: what can be asked of them, and whom an order is for.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::core::Core;
use super::generation::Generation;
use crate::net::{CoarseInstant, PeerAddress};
use crate::observe::{Address, CorePlan, Record};
use crate::types::{CoreId, GroupId, ListenerId, Order, Phase, ServerId};
use crate::upstream::Endpoint;

/// What the core's watch keeps of a connection: nothing but what others ask for.
pub(super) struct Live {
    pub id: u64,
    pub generation: Rc<Generation>,
    pub listener: ListenerId,
    pub phase: Phase,
    pub begun: CoarseInstant,
    /// `None`: of a unix socket.
    pub client: Option<SocketAddr>,
    pub group: Option<GroupId>,
    /// Where it is served; weak, since who counts an endpoint's holders counts its connections.
    pub endpoint: Weak<Endpoint>,
    /// Application bytes to the server, and to the client.
    pub bytes: [u64; 2],
    /// It is to end.
    pub order: Option<&'static Order>,
}

// What each connection pays, an idle one too.
const _: () = assert!(size_of::<Live>() <= 112);

/// A connection as it was a moment ago.
#[derive(Debug, Clone)]
pub struct Connection {
    pub id: u64,
    pub core: CoreId,
    /// Names its listener and its group.
    pub plan: Arc<CorePlan>,
    pub listener: ListenerId,
    pub phase: Phase,
    pub age: Duration,
    /// `None`: of a unix socket.
    pub client: Option<SocketAddr>,
    pub group: Option<GroupId>,
    /// While its bytes are relayed.
    pub server: Option<(ServerId, PeerAddress)>,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// Which connections are meant: those that all of these fit.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub id: Option<u64>,
    pub listener: Option<String>,
    pub group: Option<String>,
    /// As the configuration names it, or one of its addresses.
    pub server: Option<String>,
    pub source: Option<IpNet>,
    pub age_min: Duration,
}

/// Some of the connections that are wanted, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    pub connections: Vec<Connection>,
    /// How many there are.
    pub total: usize,
}

impl Live {
    /// A connection that has just been accepted.
    pub(super) fn new(record: &Record, generation: &Rc<Generation>) -> Self {
        let mut live = Self {
            id: record.id,
            generation: Rc::clone(generation),
            listener: record.listener,
            phase: Phase::Accept,
            begun: CoarseInstant::now(),
            client: None,
            group: None,
            endpoint: Weak::new(),
            bytes: [0; 2],
            order: None,
        };
        live.set_client(&record.client);
        live
    }

    pub(super) fn is_at(&self, marks: &[usize]) -> bool {
        marks.contains(&self.endpoint.as_ptr().addr())
    }

    pub(super) fn set_client(&mut self, client: &Address) {
        self.client = match client {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        };
    }

    fn connection(&self, core: CoreId, now: CoarseInstant) -> Connection {
        let endpoint = self.endpoint.upgrade();
        Connection {
            id: self.id,
            core,
            plan: Arc::clone(&self.generation.handle),
            listener: self.listener,
            phase: self.phase,
            age: now.saturating_since(self.begun),
            client: self.client,
            group: self.group,
            server: endpoint.map(|it| (it.server, it.address.clone())),
            bytes_up: self.bytes[0],
            bytes_down: self.bytes[1],
        }
    }
}

impl Wanted {
    /// Cheap questions first: a core may have a hundred thousand connections.
    fn fits(&self, live: &Live, now: CoarseInstant) -> bool {
        let plan = live.generation.plan();
        let listener = || plan.listener(live.listener).name.as_str();
        let group = || live.group.map(|it| plan.upstream(it).name.as_str());
        self.id.is_none_or(|id| id == live.id)
            && now.saturating_since(live.begun) >= self.age_min
            && self.source.is_none_or(|it| live.is_from(&it))
            && self.listener.as_deref().is_none_or(|it| it == listener())
            && self.group.as_deref().is_none_or(|it| Some(it) == group())
            && self
                .server
                .as_deref()
                .is_none_or(|it| live.is_served_by(it))
    }
}

impl Live {
    fn is_from(&self, source: &IpNet) -> bool {
        let client = self.client.map(|it| it.ip().to_canonical());
        client.is_some_and(|it| source.contains(&it))
    }

    fn is_served_by(&self, server: &str) -> bool {
        let (Some(endpoint), Some(group)) = (self.endpoint.upgrade(), self.group) else {
            return false;
        };
        let group = self.generation.plan().upstream(group);
        let configured = group.servers.get(usize::from(endpoint.server.0));
        endpoint.address.to_string() == server
            || configured.is_some_and(|it| it.address.value.to_string() == server)
    }
}

impl Core {
    /// At most `max` of the connections that are wanted.
    #[must_use]
    pub fn list(&self, wanted: &Wanted, max: usize) -> Listed {
        let now = CoarseInstant::now();
        let mut ids = Vec::new();
        self.watch.each_live(|live| {
            if wanted.fits(live, now) {
                ids.push(live.id);
            }
        });
        let total = ids.len();
        // Ids of one core count upwards: the least is the oldest.
        ids.sort_unstable();
        ids.truncate(max);
        let mut connections = Vec::with_capacity(ids.len());
        self.watch.each_live(|live| {
            if ids.binary_search(&live.id).is_ok() {
                connections.push(live.connection(self.id, now));
            }
        });
        connections.sort_unstable_by_key(|it| it.id);
        Listed { connections, total }
    }

    /// Ends the connections that are wanted, in whatever phase they are. Their records have the
    /// order's cause and detail. Returns how many were told.
    pub fn end(&self, wanted: &Wanted, order: &'static Order) -> usize {
        let now = CoarseInstant::now();
        self.watch.end(order, |live| wanted.fits(live, now))
    }
}
