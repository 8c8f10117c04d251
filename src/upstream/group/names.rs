//! Endpoints that come and go with the answers of the DNS, and those of one host by two families.

use std::rc::Rc;
use std::time::Instant;

use super::{Asked, Endpoint, Group};
use crate::net::PeerAddress;
use crate::tls::MaterialError;
use crate::types::{Order, ServerId};
use crate::upstream::{Found, Lease};

/// An endpoint that has left the DNS, while its connections may come to their end.
pub(super) struct Leaving {
    endpoint: Rc<Endpoint>,
    until: Instant,
}

impl Group {
    /// A name has new addresses. Endpoints that stay keep their sessions and their health.
    ///
    /// True: connections to addresses that left have `resolve_drain` from `now` on, and
    /// [`overdue`](Self::overdue) is to be asked then.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn resolved(
        &self,
        server: ServerId,
        found: &[Found],
        now: Instant,
    ) -> Result<bool, MaterialError> {
        if self.has_found(server, found) {
            return Ok(false);
        }
        let before = self.members.borrow().endpoints.clone();
        let stays = |it: &Rc<Endpoint>| it.server != server || found.iter().any(|at| it.is_at(at));
        let (mut endpoints, left): (Vec<_>, Vec<_>) = before.into_iter().partition(stays);
        for found_now in found {
            let known = |it: &&Rc<Endpoint>| it.server == server && it.is_at(found_now);
            let endpoint = match endpoints.iter().find(known) {
                Some(endpoint) => Rc::clone(endpoint),
                None => {
                    let endpoint = self.returned_or_new(server, found_now)?;
                    endpoints.push(Rc::clone(&endpoint));
                    endpoint
                }
            };
            let is_rival = |other: &Found| other.is_other_family_of(found_now);
            endpoint.has_rival.set(found.iter().any(is_rival));
            endpoint.found.set(Some(*found_now));
        }
        endpoints.sort_by_key(|endpoint| endpoint.server);
        self.replace(endpoints);
        Ok(self.part_with(left, now))
    }

    /// Endpoints that have been away from the DNS for `resolve_drain`. Their connections shall end.
    pub fn overdue(&self, now: Instant) -> Vec<Rc<Endpoint>> {
        let leaving = &mut self.members.borrow_mut().leaving;
        let overdue = leaving.extract_if(.., |it| it.until <= now);
        let overdue: Vec<_> = overdue.map(|it| it.endpoint).collect();
        for endpoint in &overdue {
            endpoint.order.set(Some(&Order::RESOLVE_DRAIN_OVER));
        }
        overdue
    }

    /// Another address of the endpoint's host, of the other family, with a place there. `None`:
    /// nobody knows one that is up and has room.
    pub(in crate::upstream) fn rival(
        &self,
        endpoint: &Endpoint,
        asked: &Asked<'_>,
    ) -> Option<Lease<'_>> {
        let own = endpoint.found.get()?;
        let is_rival = |it: &&Rc<Endpoint>| {
            let found = it.found.get();
            it.server == endpoint.server
                && found.is_some_and(|found| found.is_other_family_of(&own))
                && !asked.tried.iter().any(|tried| Rc::ptr_eq(tried, it))
        };
        let members = self.members.borrow();
        let up = members
            .endpoints
            .iter()
            .filter(is_rival)
            .filter_map(|it| Some((it, members.roster.member(it.member.get()?))))
            .filter(|(_, member)| member.health.is_up());
        let rival = up.min_by_key(|(_, member)| member.active);
        let rival = rival.map(|(rival, _)| Rc::clone(rival))?;
        drop(members);
        self.lease_at(&rival)
    }

    /// Whether the server's endpoints are these already.
    fn has_found(&self, server: ServerId, found: &[Found]) -> bool {
        let members = self.members.borrow();
        let own = members.endpoints.iter().filter(|it| it.server == server);
        let own: Vec<_> = own.map(|it| it.found.get()).collect();
        own.len() == found.len() && found.iter().all(|it| own.contains(&Some(*it)))
    }

    fn returned_or_new(
        &self,
        server: ServerId,
        found: &Found,
    ) -> Result<Rc<Endpoint>, MaterialError> {
        let leaving = &mut self.members.borrow_mut().leaving;
        let returned = |it: &Leaving| it.endpoint.server == server && it.endpoint.is_at(found);
        match leaving.iter().position(returned) {
            Some(place) => Ok(leaving.swap_remove(place).endpoint),
            None => self.endpoint(server, PeerAddress::Ip(found.address)),
        }
    }

    fn part_with(&self, mut left: Vec<Rc<Endpoint>>, now: Instant) -> bool {
        let Some(drain) = self.plan.resolve_drain else {
            return false;
        };
        // Who has no connection is held here alone.
        left.retain(|endpoint| Rc::strong_count(endpoint) > 1);
        let parts = !left.is_empty();
        let until = now + drain;
        let leaving = left.into_iter().map(|endpoint| Leaving { endpoint, until });
        self.members.borrow_mut().leaving.extend(leaving);
        parts
    }
}

impl Endpoint {
    /// Whether another address of its host is of the other family.
    pub(in crate::upstream) fn has_rival(&self) -> bool {
        self.has_rival.get()
    }

    /// Why its connections are to end, if they are: it has left the DNS for too long, or the
    /// operator has taken it down.
    #[must_use]
    pub fn order(&self) -> Option<&'static Order> {
        self.order.get()
    }

    /// Tells it from every other that lives; never 0.
    #[must_use]
    pub fn mark(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn is_at(&self, found: &Found) -> bool {
        self.address == PeerAddress::Ip(found.address)
    }

    /// Whether the group still sends connections there.
    pub(in crate::upstream) fn is_member(&self) -> bool {
        self.member.get().is_some()
    }

    /// Connections that it has, while nobody but `endpoints` holds it beside them.
    pub(super) fn held(self: &Rc<Self>) -> u32 {
        u32::try_from(Rc::strong_count(self).saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::parse;
    use crate::observe::meters::PlanMeters;
    use crate::types::{CoreId, GroupId};
    use crate::upstream::group::GroupParts;
    use crate::upstream::{Lack, ServerCounts};

    const NAME: ServerId = ServerId(0);
    const DRAIN: Duration = Duration::from_secs(30);

    /// One server that is a service.
    fn group(keys: &str) -> Group {
        let text = format!(
            "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
             [upstream.b]\nservers = [\"srv:_pg._tcp.example.org\"]\n\
             balance = \"least-connections\"\nresolve_drain = \"30s\"\n{keys}\n"
        );
        let plan = parse("x.toml", text).into_plan().unwrap();
        let meters = PlanMeters::unread(&plan, 1);
        Group::new(GroupParts {
            meters: meters.group(CoreId(0), GroupId(0)),
            id: GroupId(0),
            counts: Arc::new(ServerCounts::new(&plan.upstreams[0], 1)),
            plan: Arc::new(plan.upstreams[0].clone()),
            tls: None,
            core: CoreId(0),
            tell: Rc::new(|_| ()),
        })
        .unwrap()
    }

    fn at(address: &str, host: u16) -> Found {
        Found {
            host,
            ..Found::at(address.parse().unwrap())
        }
    }

    fn pick(group: &Group) -> Result<Lease<'_>, Lack> {
        group.pick(&asked(&[]))
    }

    fn asked(tried: &[Rc<Endpoint>]) -> Asked<'_> {
        Asked { key: 0, tried }
    }

    fn address(lease: &Lease<'_>) -> String {
        lease.endpoint().address.to_string()
    }

    #[test]
    fn connections_to_an_address_that_left_are_overdue_after_their_time_and_not_before() {
        let (group, now) = (group(""), Instant::now());
        let (old, new) = (at("10.0.0.1:1", 0), at("10.0.0.2:1", 0));
        assert!(!group.resolved(NAME, &[old], now).unwrap());
        let lease = pick(&group).ok().unwrap();
        assert!(group.resolved(NAME, &[new], now).unwrap());
        assert_eq!(address(&pick(&group).ok().unwrap()), "10.0.0.2:1");
        assert!(group.overdue(now + DRAIN / 2).is_empty());
        assert!(lease.endpoint().order().is_none());
        assert_eq!(group.overdue(now + DRAIN).len(), 1);
        assert!(lease.endpoint().order().is_some());
        assert!(group.overdue(now + DRAIN * 2).is_empty(), "told once");
    }

    #[test]
    fn an_address_that_is_back_in_time_keeps_its_connections_and_they_count() {
        let (group, now) = (group(""), Instant::now());
        let both = [at("10.0.0.1:1", 0), at("10.0.0.2:1", 0)];
        group.resolved(NAME, &both[..1], now).unwrap();
        let lease = pick(&group).ok().unwrap();
        assert!(group.resolved(NAME, &both[1..], now).unwrap());
        assert!(!group.resolved(NAME, &both, now + DRAIN / 2).unwrap());
        assert!(group.overdue(now + DRAIN * 2).is_empty());
        assert!(lease.endpoint().order().is_none());
        let other = pick(&group).ok().unwrap();
        assert_eq!(address(&other), "10.0.0.2:1", "the other has one already");
        drop(lease);
        assert_eq!(address(&pick(&group).ok().unwrap()), "10.0.0.1:1");
    }

    #[test]
    fn an_address_without_connections_leaves_nothing_to_wait_for() {
        let (group, now) = (group(""), Instant::now());
        group.resolved(NAME, &[at("10.0.0.1:1", 0)], now).unwrap();
        drop(pick(&group));
        assert!(!group.resolved(NAME, &[at("10.0.0.2:1", 0)], now).unwrap());
    }

    #[test]
    fn a_backup_of_a_service_has_its_turn_when_the_others_are_tried() {
        let (group, now) = (group(""), Instant::now());
        let first = at("10.0.0.9:1", 0);
        let backup = Found {
            backup: true,
            ..at("10.0.0.1:1", 1)
        };
        group.resolved(NAME, &[backup, first], now).unwrap();
        let lease = pick(&group).ok().unwrap();
        assert_eq!(address(&lease), "10.0.0.9:1");
        let tried = [Rc::clone(lease.endpoint())];
        let second = group.pick(&asked(&tried)).ok().unwrap();
        assert_eq!(address(&second), "10.0.0.1:1");
        let tried = [Rc::clone(lease.endpoint()), Rc::clone(second.endpoint())];
        assert!(group.pick(&asked(&tried)).is_err());
        // What was the backup is first now.
        let first = Found {
            backup: false,
            ..backup
        };
        group.resolved(NAME, &[first], now).unwrap();
        assert_eq!(address(&pick(&group).ok().unwrap()), "10.0.0.1:1");
    }

    #[test]
    fn a_rival_is_an_address_of_the_same_host_and_the_other_family() {
        let (group, now) = (group(""), Instant::now());
        let found = [
            at("10.0.0.1:1", 0),
            at("[::1]:2", 0),
            at("[::2]:1", 1),
            at("[::3]:1", 0),
        ];
        group.resolved(NAME, &found[..3], now).unwrap();
        let lease = pick(&group).ok().unwrap();
        assert_eq!(address(&lease), "10.0.0.1:1");
        assert!(!lease.endpoint().has_rival());
        assert!(group.rival(lease.endpoint(), &asked(&[])).is_none());
        group.resolved(NAME, &found, now).unwrap();
        assert!(lease.endpoint().has_rival());
        let rival = group.rival(lease.endpoint(), &asked(&[])).unwrap();
        assert_eq!(address(&rival), "[::3]:1");
        let tried = [Rc::clone(rival.endpoint())];
        assert!(group.rival(lease.endpoint(), &asked(&tried)).is_none());
    }

    #[test]
    fn a_rival_needs_a_place_and_gives_it_back() {
        let (group, now) = (group("max_connections = 2"), Instant::now());
        let found = [at("10.0.0.1:1", 0), at("[::1]:1", 0)];
        group.resolved(NAME, &found, now).unwrap();
        let (first, second) = (pick(&group).ok().unwrap(), pick(&group).ok().unwrap());
        assert!(group.rival(first.endpoint(), &asked(&[])).is_none());
        drop(second);
        drop(group.rival(first.endpoint(), &asked(&[])).unwrap());
        assert!(group.rival(first.endpoint(), &asked(&[])).is_some());
    }
}
