//! What the operator says of servers: it stands above what connections and checks find.

use std::rc::Rc;

use super::{Endpoint, Group};
use crate::net::PeerAddress;
use crate::types::{Order, ServerId};

/// What a server is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// No new connections; those that it has go on.
    Drain,
    /// None at all.
    Down,
}

/// A server that is held, or one address of it.
pub(super) struct Held {
    server: ServerId,
    /// `None`: all of them, also those that are still to be found.
    address: Option<PeerAddress>,
    hold: Hold,
}

/// A member of a group as one core has it.
#[derive(Debug, Clone)]
pub struct EndpointSeen {
    pub server: ServerId,
    pub address: PeerAddress,
    /// Connections of this core, those that are being made among them.
    pub active: u32,
}

impl Held {
    fn is_of(&self, endpoint: &Endpoint) -> bool {
        let here = |address: &PeerAddress| *address == endpoint.address;
        self.server == endpoint.server && self.address.as_ref().is_none_or(here)
    }
}

impl Group {
    /// Holds a server, or lets it go (`None`). Without an address that goes for all that it has.
    ///
    /// Connections that come to a server which is down end by their endpoint's
    /// [`order`](Endpoint::order); those that are there have to be told.
    pub fn hold(&self, server: ServerId, address: Option<&PeerAddress>, hold: Option<Hold>) {
        let mut holds = self.holds.borrow_mut();
        let same = |it: &Held| address.is_none() || it.address.as_ref() == address;
        holds.retain(|it| it.server != server || !same(it));
        holds.extend(hold.map(|hold| Held {
            server,
            address: address.cloned(),
            hold,
        }));
        drop(holds);
        let members = &mut *self.members.borrow_mut();
        for (member, endpoint) in members.endpoints.iter().enumerate() {
            if endpoint.server != server {
                continue;
            }
            let held = self.obey(endpoint).is_some();
            let down = self.plan.servers[usize::from(server.0)].down || held;
            members.roster.set_down(member, down);
        }
    }

    /// Puts an endpoint of this group under what the operator has said last of it.
    pub(super) fn obey(&self, endpoint: &Endpoint) -> Option<Hold> {
        let holds = self.holds.borrow();
        let said = holds.iter().rfind(|it| it.is_of(endpoint));
        let hold = said.map(|it| it.hold);
        let is_down = hold == Some(Hold::Down);
        endpoint.is_held.set(hold.is_some());
        endpoint
            .order
            .set(is_down.then_some(&Order::SERVER_TAKEN_DOWN));
        hold
    }

    /// The members as they are.
    #[must_use]
    pub fn census(&self) -> Vec<EndpointSeen> {
        let members = self.members.borrow();
        let seen = |(member, endpoint): (usize, &Rc<Endpoint>)| EndpointSeen {
            server: endpoint.server,
            address: endpoint.address.clone(),
            active: members.roster.member(member).active,
        };
        members.endpoints.iter().enumerate().map(seen).collect()
    }
}

impl Endpoint {
    /// Whether the operator wants no new connections to it.
    pub(in crate::upstream) fn is_held(&self) -> bool {
        self.is_held.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::parse;
    use crate::observe::meters::PlanMeters;
    use crate::types::{CoreId, GroupId};
    use crate::upstream::group::{Asked, GroupParts};
    use crate::upstream::{Found, Lack, Lease, ServerCounts};

    /// A server by its address, and one by its name that has two.
    fn group() -> Group {
        let text = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
                    [upstream.b]\nservers = [\"10.0.0.1:1\", \"back.example.org:2\"]\n\
                    balance = \"least-connections\"\n";
        let plan = parse("x.toml", text).into_plan().unwrap();
        let group = Group::new(GroupParts {
            meters: PlanMeters::unread(&plan, 1).group(CoreId(0), GroupId(0)),
            id: GroupId(0),
            counts: Arc::new(ServerCounts::new(&plan.upstreams[0], 1)),
            plan: Arc::new(plan.upstreams[0].clone()),
            tls: None,
            core: CoreId(0),
            tell: Rc::new(|_| ()),
        });
        let group = group.unwrap();
        resolve(&group, &["10.0.0.2:2", "10.0.0.3:2"]);
        group
    }

    fn resolve(group: &Group, addresses: &[&str]) {
        let found = addresses.iter().map(|it| Found::at(it.parse().unwrap()));
        let found: Vec<Found> = found.collect();
        group
            .resolved(NAME, &found, std::time::Instant::now())
            .unwrap();
    }

    const FIRST: ServerId = ServerId(0);
    const NAME: ServerId = ServerId(1);

    fn pick(group: &Group) -> Result<Lease<'_>, Lack> {
        group.pick(&Asked { key: 0, tried: &[] })
    }

    /// Addresses that have connections, when there are many.
    fn served(group: &Group) -> Vec<String> {
        let leases: Vec<_> = (0..9).filter_map(|_| pick(group).ok()).collect();
        let address = |lease: &Lease<'_>| lease.endpoint().address.to_string();
        let mut served: Vec<String> = leases.iter().map(address).collect();
        served.sort();
        served.dedup();
        served
    }

    fn at(address: &str) -> PeerAddress {
        PeerAddress::Ip(address.parse().unwrap())
    }

    #[test]
    fn a_server_that_is_held_has_no_new_connections_until_it_is_let_go() {
        let group = group();
        let lease = pick(&group).ok().unwrap();
        assert_eq!(lease.endpoint().server, FIRST);
        group.hold(FIRST, None, Some(Hold::Drain));
        assert_eq!(served(&group), ["10.0.0.2:2", "10.0.0.3:2"]);
        assert_eq!(lease.endpoint().order(), None, "it goes on");
        assert_eq!(group.census()[0].active, 1);

        group.hold(FIRST, None, Some(Hold::Down));
        assert_eq!(lease.endpoint().order(), Some(&Order::SERVER_TAKEN_DOWN));
        group.hold(FIRST, None, None);
        assert_eq!(lease.endpoint().order(), None);
        assert_eq!(served(&group).len(), 3);
    }

    #[test]
    fn one_address_of_a_name_is_held_alone_and_all_with_the_name() {
        let group = group();
        group.hold(NAME, Some(&at("10.0.0.2:2")), Some(Hold::Drain));
        assert_eq!(served(&group), ["10.0.0.1:1", "10.0.0.3:2"]);
        group.hold(NAME, None, Some(Hold::Drain));
        assert_eq!(served(&group), ["10.0.0.1:1"]);
        resolve(&group, &["10.0.0.3:2", "10.0.0.4:2"]);
        assert_eq!(
            served(&group),
            ["10.0.0.1:1"],
            "new addresses are held, too"
        );
        group.hold(NAME, None, None);
        assert_eq!(served(&group), ["10.0.0.1:1", "10.0.0.3:2", "10.0.0.4:2"]);
    }

    #[test]
    fn a_group_whose_servers_are_all_held_has_none() {
        let group = group();
        for server in [FIRST, NAME] {
            group.hold(server, None, Some(Hold::Drain));
        }
        assert_eq!(pick(&group).err(), Some(Lack::AllDown));
    }
}
