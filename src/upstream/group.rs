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
