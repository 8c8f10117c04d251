//! What of a group outlives the plan that it was made by.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Endpoint, Group, Tell};
use crate::config::{ServerAddress, UpstreamPlan};
use crate::tls::ClientTls;
use crate::types::{GroupId, ServerId};
use crate::upstream::{Health, ServerCounts};

impl Group {
    /// Whether a group made of these would be this one.
    #[must_use]
    pub fn is_made_of(
        &self,
        plan: &UpstreamPlan,
        tls: Option<&Arc<ClientTls>>,
        counts: &Arc<ServerCounts>,
    ) -> bool {
        let same_tls = match (&self.tls, tls) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        same_tls && Arc::ptr_eq(&self.counts, counts) && *self.plan == *plan
    }

    /// The plan in force has the group under another number.
    pub fn renumber(&self, id: GroupId, tell: Tell) {
        self.id.set(id);
        self.tell.replace(tell);
    }

    /// The plan in force has no such group any more: nothing is made ready for it.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.dismiss_warm();
    }

    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.is_retired.get()
    }

    /// Takes over what is known of servers that `before` had, too: their health and, where TLS is
    /// the same, their sessions. What checks have said is told anew.
    pub fn adopt(&self, before: &Self) {
        let same_tls = match (&self.tls, &before.tls) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        };
        let (mut endpoints, mut healths) = (Vec::new(), Vec::new());
        for endpoint in self.endpoints() {
            let twin = before.twin(self, &endpoint);
            healths.push(twin.as_ref().and_then(|twin| before.health_of(twin)));
            endpoints.push(match twin {
                Some(twin) if same_tls => endpoint.with_tls_of(&twin),
                _ => endpoint,
            });
        }
        self.replace(endpoints);
        self.recall(healths);
    }

    /// The same address of the same server, in `self`.
    fn twin(&self, other: &Self, endpoint: &Endpoint) -> Option<Rc<Endpoint>> {
        let configured = other.configured(endpoint.server);
        let members = self.members.borrow();
        let mut twins = members.endpoints.iter();
        let twin = twins
            .find(|it| it.address == endpoint.address && self.configured(it.server) == configured);
        twin.map(Rc::clone)
    }

    /// Its numbers of a server of `other`: the configuration names its address so in both.
    #[must_use]
    pub fn same_servers(&self, other: &Self, server: ServerId) -> Vec<ServerId> {
        let Some(configured) = other.configured(server) else {
            return Vec::new();
        };
        let own = (0..).map(ServerId).zip(&self.plan.servers);
        let same = own.filter(|(_, it)| it.address.value == *configured);
        same.map(|(id, _)| id).collect()
    }

    fn configured(&self, server: ServerId) -> Option<&ServerAddress> {
        let server = self.plan.servers.get(usize::from(server.0));
        server.map(|it| &it.address.value)
    }

    fn health_of(&self, endpoint: &Endpoint) -> Option<Health> {
        let members = self.members.borrow();
        Some(members.roster.member(endpoint.member.get()?).health)
    }

    /// `healths`: by the number of the member.
    fn recall(&self, healths: Vec<Option<Health>>) {
        let roster = &mut self.members.borrow_mut().roster;
        for (member, health) in healths.into_iter().enumerate() {
            if let Some(health) = health.and_then(Health::inherited) {
                roster.recall(member, health);
            }
        }
    }
}

impl Endpoint {
    /// The same, with the sessions of `twin`.
    fn with_tls_of(&self, twin: &Self) -> Rc<Self> {
        Rc::new(Self {
            server: self.server,
            address: self.address.clone(),
            tls: twin.tls.clone(),
            member: Cell::new(None),
            found: self.found.clone(),
            has_rival: self.has_rival.clone(),
            order: Cell::new(None),
            is_held: Cell::new(false),
        })
    }
}
