mod holds;
mod names;
mod succession;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::time::timeout;

use super::balance::{Chance, MEMBERS_MAX, identity};
use super::found::Found;
use super::health::{Event, Health, ServerState};
use super::lease::Lease;
use super::places::ServerCounts;
use super::queue::Queue;
use super::roster::{Lack, Member, Places, Roster};
use super::warm::WarmPool;
use crate::config::{Balance, ServerAddress, UpstreamPlan};
use crate::net::PeerAddress;
use crate::observe::meters::GroupShare;
use crate::tls::{self, ClientTls, MaterialError};
use crate::types::{CoreId, GroupId, Order, ServerId};
use holds::Held;
use names::Leaving;

pub use holds::{EndpointSeen, Hold};

/// One core's view of an upstream group: the addresses of its servers, whose turn it is, how they
/// are, who waits for them, and the TLS sessions that may be resumed.
pub struct Group {
    pub plan: Arc<UpstreamPlan>,
    /// Its number in the plan in force, and who is told in that numbering.
    id: Cell<GroupId>,
    tell: RefCell<Tell>,
    tls: Option<Arc<ClientTls>>,
    core: CoreId,
    counts: Arc<ServerCounts>,
    queue: Queue,
    /// It has no place in the plan in force: only connections that began with it are left.
    is_retired: Cell<bool>,
    pub(super) warm: WarmPool,
    pub(super) meters: GroupShare,
    members: RefCell<Members>,
    /// What the operator has said of its servers.
    holds: RefCell<Vec<Held>>,
}

/// What a group is built from.
pub struct GroupParts {
    pub id: GroupId,
    pub plan: Arc<UpstreamPlan>,
    pub tls: Option<Arc<ClientTls>>,
    pub core: CoreId,
    /// Shared by all cores.
    pub counts: Arc<ServerCounts>,
    pub tell: Tell,
    /// This core's own.
    pub meters: GroupShare,
}

/// Takes what this core has found out, and never waits.
pub type Tell = Rc<dyn Fn(Change)>;

/// A server is not what it was, as one core has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub group: GroupId,
    pub server: ServerId,
    pub address: PeerAddress,
    pub state: ServerState,
    /// In words, for the log.
    pub reason: Box<str>,
}

struct Members {
    endpoints: Vec<Rc<Endpoint>>,
    roster: Roster,
    chance: Chance,
    leaving: Vec<Leaving>,
}

/// One address of a server, and how TLS is spoken there.
pub struct Endpoint {
    pub server: ServerId,
    pub address: PeerAddress,
    /// Holds this core's sessions with this address.
    pub tls: Option<tls::Endpoint>,
    /// Its number among the group's members now; `None`: it is gone.
    member: Cell<Option<usize>>,
    /// What the last answer said of it; `None`: the configuration names its address.
    found: Cell<Option<Found>>,
    has_rival: Cell<bool>,
    /// Its connections are to end, for this reason.
    order: Cell<Option<&'static Order>>,
    /// The operator wants no new connections to it.
    is_held: Cell<bool>,
}

/// Who has a connection's turn is asked with this.
pub struct Asked<'a> {
    /// What the strategy hashes: see [`Group::key`].
    pub key: u64,
    pub tried: &'a [Rc<Endpoint>],
}

/// How often the first in the queue looks for places that other cores give back: often enough that
/// nobody sees it, seldom enough that it costs nothing.
const QUEUE_LOOK: Duration = Duration::from_millis(10);

impl Group {
    /// Servers that are names have no endpoint until [`resolved`](Self::resolved) gives them one.
    ///
    /// # Errors
    /// A server name that TLS cannot ask for.
    pub fn new(parts: GroupParts) -> Result<Self, MaterialError> {
        let GroupParts {
            id,
            plan,
            tls,
            core,
            counts,
            tell,
            meters,
        } = parts;
        let members = Members {
            endpoints: Vec::new(),
            roster: Roster::new(plan.balance, Vec::new(), 0),
            chance: Chance::new(RandomState::new().build_hasher().finish()),
            leaving: Vec::new(),
        };
        let group = Self {
            queue: Queue::new(plan.queue_max),
            warm: WarmPool::default(),
            is_retired: Cell::new(false),
            plan,
            id: Cell::new(id),
            tell: RefCell::new(tell),
            tls,
            core,
            counts,
            meters,
            members: RefCell::new(members),
            holds: RefCell::default(),
        };
        let mut endpoints = Vec::new();
        for (index, server) in group.plan.servers.iter().enumerate() {
            let address = match &server.address.value {
                ServerAddress::Ip(address) => PeerAddress::Ip(*address),
                ServerAddress::Unix(path) => PeerAddress::Unix(Arc::new(path.clone())),
                ServerAddress::Name { .. } | ServerAddress::Service(_) => continue,
            };
            endpoints.push(group.endpoint(server_id(index), address)?);
        }
        group.replace(endpoints);
        Ok(group)
    }

    /// What a strategy that hashes goes by. 0 where it does not.
    #[must_use]
    pub fn key(&self, source: Option<IpAddr>, server_name: Option<&str>) -> u64 {
        let of_source = || match source.map(|it| it.to_canonical()) {
            Some(IpAddr::V4(source)) => identity(&source.octets()),
            Some(IpAddr::V6(source)) => identity(&source.octets()),
            None => identity(b"unix"),
        };
        match (self.plan.balance, server_name) {
            (Balance::HashSni, Some(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                identity(name.to_ascii_lowercase().as_bytes())
            }
            (Balance::HashSource | Balance::HashSni, _) => of_source(),
            _ => 0,
        }
    }

    /// A place at the server whose turn it is.
    ///
    /// # Errors
    /// Why there is none. Where others wait already, they come first: [`Lack::AllFull`].
    pub fn pick(&self, asked: &Asked<'_>) -> Result<Lease<'_>, Lack> {
        let has_queue = self.plan.queue_max > 0;
        if has_queue && (!self.queue.is_empty() || self.is_late(Instant::now())) {
            return Err(Lack::AllFull);
        }
        self.pick_now(asked)
    }

    /// Somebody on another core waits for longer: a place that is free is not taken before it
    /// has looked, else the core that has the places would keep them.
    fn is_late(&self, since: Instant) -> bool {
        self.counts.waits_longer(self.core, since)
    }

    /// The same, by way of the queue. `None`: that is full. Does not end by itself.
    pub async fn queued(&self, asked: &Asked<'_>) -> Option<Result<Lease<'_>, Lack>> {
        // Dropped after the ticket, so that it sees who is first then.
        let _front = Front { group: self };
        let ticket = self.queue.join()?;
        self.note_front();
        loop {
            if ticket.is_first() {
                // Rung or not, it looks.
                let _ = timeout(QUEUE_LOOK, ticket.rung()).await;
            } else {
                ticket.rung().await;
            }
            match self.pick_now(asked) {
                Err(Lack::AllFull) if asked.tried.is_empty() => {}
                // There may be room at a server that this one has tried.
                Err(Lack::AllFull) => ticket.pass_on(),
                done => return Some(done),
            }
        }
    }

    fn pick_now(&self, asked: &Asked<'_>) -> Result<Lease<'_>, Lack> {
        let now = Instant::now();
        let Members {
            endpoints,
            roster,
            chance,
            ..
        } = &mut *self.members.borrow_mut();
        let tried = asked.tried.iter().filter_map(|it| it.member.get());
        let tried: Vec<usize> = tried.collect();
        let draw = match self.plan.balance {
            Balance::HashSource | Balance::HashSni => asked.key,
            Balance::RandomTwoChoices => chance.draw(),
            Balance::RoundRobin | Balance::LeastConnections => 0,
        };
        let places = GroupPlaces {
            endpoints,
            counts: &self.counts,
        };
        let member = roster.pick(now, draw, &tried, &places)?;
        let endpoint = Rc::clone(&endpoints[member]);
        self.meters.server(endpoint.server).live.add(1);
        Ok(Lease::new(self, endpoint, now))
    }

    /// A place at this very endpoint; `None`: it is gone, out, or full.
    pub(super) fn lease_at(&self, endpoint: &Rc<Endpoint>) -> Option<Lease<'_>> {
        let member = endpoint.member.get()?;
        let now = Instant::now();
        let Members {
            endpoints, roster, ..
        } = &mut *self.members.borrow_mut();
        let places = GroupPlaces {
            endpoints,
            counts: &self.counts,
        };
        if !roster.take(member, now, &places) {
            return None;
        }
        self.meters.server(endpoint.server).live.add(1);
        Some(Lease::new(self, Rc::clone(endpoint), now))
    }

    pub(super) fn endpoints(&self) -> Vec<Rc<Endpoint>> {
        self.members.borrow().endpoints.clone()
    }

    /// What a connection to `endpoint` has met. Cores that do not know it yet are told.
    pub(super) fn on(&self, endpoint: &Endpoint, event: Event, reason: impl FnOnce() -> String) {
        let Some(member) = endpoint.member.get() else {
            return;
        };
        let now = Instant::now();
        let changed = self.members.borrow_mut().roster.on(member, event, now);
        if let Some(state) = changed {
            let tell = Rc::clone(&self.tell.borrow());
            tell(Change {
                group: self.id.get(),
                server: endpoint.server,
                address: endpoint.address.clone(),
                state,
                reason: reason().into(),
            });
        }
    }

    /// A connection to `endpoint` is over, or came to nothing.
    pub(super) fn release(&self, endpoint: &Endpoint) {
        self.meters.server(endpoint.server).live.take(1);
        let has_room = self.counts.give_back(endpoint.server);
        if let Some(member) = endpoint.member.get() {
            self.members.borrow_mut().roster.release(member);
        }
        let since = self.queue.since();
        if has_room && since.is_some_and(|since| !self.is_late(since)) {
            self.queue.ring();
        }
    }

    fn note_front(&self) {
        self.counts.note_front(self.core, self.queue.since());
    }

    /// Another core has found out, or the control thread.
    pub fn told(&self, server: ServerId, address: &PeerAddress, state: ServerState) {
        let Members {
            endpoints, roster, ..
        } = &mut *self.members.borrow_mut();
        let known = |it: &Rc<Endpoint>| it.server == server && it.address == *address;
        if let Some(member) = endpoints.iter().position(known) {
            // Who told it tells the others.
            let _ = roster.on(member, Event::Told(state), Instant::now());
        }
    }

    #[must_use]
    pub fn tls(&self) -> Option<&Arc<ClientTls>> {
        self.tls.as_ref()
    }

    fn endpoint(
        &self,
        server: ServerId,
        address: PeerAddress,
    ) -> Result<Rc<Endpoint>, MaterialError> {
        let configured = &self.plan.servers[usize::from(server.0)].address.value;
        let tls = self
            .tls
            .as_ref()
            .map(|tls| tls.for_endpoint(configured))
            .transpose()?;
        Ok(Rc::new(Endpoint {
            server,
            address,
            tls,
            member: Cell::new(None),
            found: Cell::new(None),
            has_rival: Cell::new(false),
            order: Cell::new(None),
            is_held: Cell::new(false),
        }))
    }

    /// Members that stay are as they were; a balancer's turns begin anew.
    fn replace(&self, mut endpoints: Vec<Rc<Endpoint>>) {
        if endpoints.len() > MEMBERS_MAX {
            tracing::warn!(
                core = %self.core, group = self.plan.name,
                "only {MEMBERS_MAX} of {} addresses are used", endpoints.len()
            );
            endpoints.truncate(MEMBERS_MAX);
        }
        let before = &mut *self.members.borrow_mut();
        let mut twins: HashMap<u64, u64> = HashMap::new();
        let mut members = Vec::with_capacity(endpoints.len());
        for endpoint in &endpoints {
            let mut member = self.member(endpoint, &before.roster);
            let twin = twins.entry(member.identity).or_default();
            member.identity = member.identity.wrapping_add(*twin);
            *twin += 1;
            members.push(member);
        }
        for endpoint in &before.endpoints {
            endpoint.member.set(None);
        }
        for (number, endpoint) in endpoints.iter().enumerate() {
            endpoint.member.set(Some(number));
        }
        before.roster = Roster::new(self.plan.balance, members, usize::from(self.core.0));
        before.endpoints = endpoints;
    }

    fn member(&self, endpoint: &Rc<Endpoint>, before: &Roster) -> Member {
        let plan = &self.plan.servers[usize::from(endpoint.server.0)];
        let (health, active) = match endpoint.member.get() {
            Some(member) => {
                let before = before.member(member);
                (before.health, before.active)
            }
            // New, or back with the connections that it had.
            None => (Health::default(), endpoint.held()),
        };
        let found = endpoint.found.get();
        let name = format!("{} {}", plan.address.value, endpoint.address);
        Member {
            // Beside the shares of a service the plan has none.
            weight: plan.weight * found.map_or(1, |it| u32::from(it.weight)),
            backup: plan.backup || found.is_some_and(|it| it.backup),
            down: plan.down || self.obey(endpoint).is_some(),
            plan: plan.health,
            identity: identity(name.as_bytes()),
            health,
            active,
        }
    }
}

/// Tells the other cores on drop since when the first of the queue waits.
struct Front<'a> {
    group: &'a Group,
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        self.group.note_front();
    }
}

/// The places of a group's servers, by the number of the member.
struct GroupPlaces<'a> {
    endpoints: &'a [Rc<Endpoint>],
    counts: &'a ServerCounts,
}

impl Places for GroupPlaces<'_> {
    fn take(&self, member: usize) -> bool {
        self.counts.take(self.endpoints[member].server)
    }

    fn is_free(&self, member: usize) -> bool {
        self.counts.is_free(self.endpoints[member].server)
    }
}

/// The configuration holds far fewer servers than an id has values; resolve checks it.
fn server_id(index: usize) -> ServerId {
    ServerId(u16::try_from(index).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::observe::meters::PlanMeters;

    /// One server by address, one by name with three times the weight, one by address.
    fn group(core: CoreId) -> Group {
        let text = "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n\
                    [upstream.back]\nservers = [\"10.0.0.1:1\", \
                    { address = \"back.example.org:2\", weight = 3 }, \"10.0.0.3:3\"]\n\
                    [upstream.back.tls]\n";
        let plan = parse("x.toml", text).into_plan().unwrap();
        let upstream = plan.upstreams[0].clone();
        let tls = ClientTls::new(upstream.tls.as_ref().unwrap()).unwrap();
        let meters = PlanMeters::unread(&plan, usize::from(core.0) + 1);
        Group::new(GroupParts {
            meters: meters.group(core, GroupId(0)),
            id: GroupId(0),
            counts: Arc::new(ServerCounts::new(&upstream, 1)),
            plan: Arc::new(upstream),
            tls: Some(Arc::new(tls)),
            core,
            tell: Rc::new(|_| ()),
        })
        .unwrap()
    }

    const NAME: ServerId = ServerId(1);

    fn endpoints(group: &Group) -> Vec<Rc<Endpoint>> {
        group.members.borrow().endpoints.clone()
    }

    fn resolved(group: &Group, addresses: &[&str]) {
        let found: Vec<Found> = addresses
            .iter()
            .map(|it| Found::at(it.parse().unwrap()))
            .collect();
        let left = group.resolved(NAME, &found, Instant::now()).unwrap();
        assert!(!left, "nobody has `resolve_drain`");
    }

    fn turn(group: &Group) -> String {
        let asked = Asked { key: 0, tried: &[] };
        let lease = group.pick(&asked).ok().unwrap();
        lease.endpoint().address.to_string()
    }

    /// Each endpoint that had a turn in the next `turns`, and how many it had.
    fn turns(group: &Group, turns: usize) -> Vec<(String, usize)> {
        let mut seen: Vec<(String, usize)> = Vec::new();
        for _ in 0..turns {
            let address = turn(group);
            match seen.iter_mut().find(|(known, _)| *known == address) {
                Some((_, count)) => *count += 1,
                None => seen.push((address, 1)),
            }
        }
        seen.sort();
        seen
    }

    fn owned(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
        let own = |(address, count): &(&str, usize)| ((*address).to_owned(), *count);
        expected.iter().map(own).collect()
    }

    #[test]
    fn a_name_has_no_turn_until_it_is_resolved_and_then_the_turns_of_its_weight() {
        let group = group(CoreId(0));
        let without = owned(&[("10.0.0.1:1", 5), ("10.0.0.3:3", 5)]);
        assert_eq!(turns(&group, 10), without);
        resolved(&group, &["10.0.0.2:2"]);
        let with = owned(&[("10.0.0.1:1", 2), ("10.0.0.2:2", 6), ("10.0.0.3:3", 2)]);
        assert_eq!(turns(&group, 10), with);
    }

    #[test]
    fn an_address_that_a_new_answer_lacks_gets_no_more_connections() {
        let group = group(CoreId(0));
        resolved(&group, &["10.0.0.2:2", "10.0.0.9:2"]);
        resolved(&group, &["10.0.0.9:2", "10.0.0.8:2"]);
        let expected = owned(&[
            ("10.0.0.1:1", 1),
            ("10.0.0.3:3", 1),
            ("10.0.0.8:2", 3),
            ("10.0.0.9:2", 3),
        ]);
        assert_eq!(turns(&group, 8), expected);
    }

    #[test]
    fn the_same_answer_again_leaves_the_turns_where_they_are() {
        let group = group(CoreId(0));
        resolved(&group, &["10.0.0.2:2", "10.0.0.9:2"]);
        let first = turn(&group);
        resolved(&group, &["10.0.0.9:2", "10.0.0.2:2"]);
        assert_ne!(turn(&group), first);
    }

    #[test]
    fn endpoints_that_stay_are_the_same_with_their_sessions() {
        let group = group(CoreId(0));
        resolved(&group, &["10.0.0.2:2", "10.0.0.9:2"]);
        let before = endpoints(&group);
        assert!(before.iter().all(|endpoint| endpoint.tls.is_some()));
        resolved(&group, &["10.0.0.8:2", "10.0.0.9:2"]);
        let after = endpoints(&group);
        let stays = |endpoint: &Rc<Endpoint>| before.iter().any(|it| Rc::ptr_eq(it, endpoint));
        let (stayed, new): (Vec<_>, Vec<_>) = after.into_iter().partition(stays);
        let addresses = |endpoints: &[Rc<Endpoint>]| {
            let address = |endpoint: &Rc<Endpoint>| endpoint.address.to_string();
            endpoints.iter().map(address).collect::<Vec<_>>()
        };
        assert_eq!(
            addresses(&stayed),
            ["10.0.0.1:1", "10.0.0.9:2", "10.0.0.3:3"]
        );
        assert_eq!(addresses(&new), ["10.0.0.8:2"]);
        assert!(new[0].tls.is_some());
    }

    /// Two servers may come to one address; each keeps its own name, weight and sessions.
    #[test]
    fn an_address_that_another_server_has_is_an_endpoint_of_both() {
        let group = group(CoreId(0));
        resolved(&group, &["10.0.0.1:1"]);
        assert_eq!(
            turns(&group, 5),
            owned(&[("10.0.0.1:1", 4), ("10.0.0.3:3", 1)])
        );
        resolved(&group, &["10.0.0.2:2"]);
        let servers: Vec<u16> = endpoints(&group).iter().map(|it| it.server.0).collect();
        assert_eq!(servers, [0, 1, 2]);
    }

    #[test]
    fn a_core_keeps_to_its_own_place_after_a_new_answer() {
        let first = |core| {
            let group = group(CoreId(core));
            resolved(&group, &["10.0.0.2:2"]);
            turn(&group)
        };
        assert_eq!(first(0), "10.0.0.1:1");
        assert_ne!(first(1), first(0));
    }
}
