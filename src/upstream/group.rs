use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::balance::RoundRobin;
use crate::config::{ServerAddress, UpstreamPlan};
use crate::net::PeerAddress;
use crate::tls::{self, ClientTls, MaterialError};
use crate::types::{CoreId, ServerId};

/// One core's view of an upstream group: the addresses of its servers, whose turn it is, and the
/// TLS sessions that may be resumed.
pub struct Group {
    pub plan: Arc<UpstreamPlan>,
    tls: Option<Arc<ClientTls>>,
    core: CoreId,
    members: RefCell<Members>,
}

#[derive(Default)]
struct Members {
    endpoints: Vec<Rc<Endpoint>>,
    weights: Vec<u32>,
    rotation: RoundRobin,
}

/// One address of a server, and how TLS is spoken there.
pub struct Endpoint {
    pub server: ServerId,
    pub address: PeerAddress,
    /// Holds this core's sessions with this address.
    pub tls: Option<tls::Endpoint>,
}

impl Group {
    /// Servers that are names have no endpoint until [`resolved`](Self::resolved) gives them one.
    ///
    /// # Errors
    /// A server name that TLS cannot ask for.
    pub fn new(
        plan: Arc<UpstreamPlan>,
        tls: Option<Arc<ClientTls>>,
        core: CoreId,
    ) -> Result<Self, MaterialError> {
        let group = Self {
            plan,
            tls,
            core,
            members: RefCell::default(),
        };
        let mut endpoints = Vec::new();
        for (index, server) in group.plan.servers.iter().enumerate() {
            let address = match &server.address.value {
                ServerAddress::Ip(address) => PeerAddress::Ip(*address),
                ServerAddress::Unix(path) => PeerAddress::Unix(Arc::new(path.clone())),
                ServerAddress::Name { .. } => continue,
            };
            endpoints.push(group.endpoint(server_id(index), address)?);
        }
        group.replace(endpoints);
        Ok(group)
    }

    /// A name has new addresses. Endpoints that stay keep their sessions.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn resolved(&self, server: ServerId, found: &[SocketAddr]) -> Result<(), MaterialError> {
        let mut endpoints = self.members.borrow().endpoints.clone();
        endpoints.retain(|endpoint| {
            endpoint.server != server
                || matches!(endpoint.address, PeerAddress::Ip(address) if found.contains(&address))
        });
        for address in found.iter().map(|address| PeerAddress::Ip(*address)) {
            let known =
                |endpoint: &Rc<Endpoint>| endpoint.server == server && endpoint.address == address;
            if !endpoints.iter().any(known) {
                endpoints.push(self.endpoint(server, address)?);
            }
        }
        endpoints.sort_by_key(|endpoint| endpoint.server);
        self.replace(endpoints);
        Ok(())
    }

    /// The next endpoint that is not among `tried`.
    #[must_use]
    pub fn next(&self, tried: &[Rc<Endpoint>]) -> Option<Rc<Endpoint>> {
        let Members {
            endpoints,
            weights,
            rotation,
        } = &mut *self.members.borrow_mut();
        let open = |index: usize| {
            !tried
                .iter()
                .any(|other| Rc::ptr_eq(other, &endpoints[index]))
        };
        rotation
            .next(weights, open)
            .map(|index| Rc::clone(&endpoints[index]))
    }

    #[must_use]
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_deref()
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
        }))
    }

    fn replace(&self, endpoints: Vec<Rc<Endpoint>>) {
        let weight =
            |endpoint: &Rc<Endpoint>| self.plan.servers[usize::from(endpoint.server.0)].weight;
        let mut members = self.members.borrow_mut();
        let weights: Vec<u32> = endpoints.iter().map(weight).collect();
        members.rotation.restart(&weights, usize::from(self.core.0));
        members.weights = weights;
        members.endpoints = endpoints;
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

    /// One server by address, one by name with three times the weight, one by address.
    fn group(core: CoreId) -> Group {
        let text = "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n\
                    [upstream.back]\nservers = [\"10.0.0.1:1\", \
                    { address = \"back.example.org:2\", weight = 3 }, \"10.0.0.3:3\"]\n\
                    [upstream.back.tls]\n";
        let plan = parse("x.toml", text).into_plan().unwrap();
        let upstream = plan.upstreams[0].clone();
        let tls = ClientTls::new(upstream.tls.as_ref().unwrap()).unwrap();
        Group::new(Arc::new(upstream), Some(Arc::new(tls)), core).unwrap()
    }

    const NAME: ServerId = ServerId(1);

    fn endpoints(group: &Group) -> Vec<Rc<Endpoint>> {
        group.members.borrow().endpoints.clone()
    }

    fn resolved(group: &Group, addresses: &[&str]) {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
        group.resolved(NAME, &addresses).unwrap();
    }

    /// Each endpoint that had a turn in the next `turns`, and how many it had.
    fn turns(group: &Group, turns: usize) -> Vec<(String, usize)> {
        let mut seen: Vec<(String, usize)> = Vec::new();
        for _ in 0..turns {
            let address = group.next(&[]).unwrap().address.to_string();
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
            group.next(&[]).unwrap().address.to_string()
        };
        assert_eq!(first(0), "10.0.0.2:2");
        assert_ne!(first(1), first(0));
    }
}
