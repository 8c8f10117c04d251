use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use super::group::{Endpoint, Group};
use super::health::Event;

/// A connection's place at a server, given back on drop.
#[must_use = "dropping it gives the place back"]
pub struct Lease<'a> {
    group: &'a Group,
    endpoint: Rc<Endpoint>,
    begun: Instant,
    /// It is known whether the server took the connection.
    is_settled: Cell<bool>,
    /// The place goes on without it.
    is_parked: Cell<bool>,
}

impl<'a> Lease<'a> {
    pub(super) fn new(group: &'a Group, endpoint: Rc<Endpoint>, begun: Instant) -> Self {
        Self {
            group,
            endpoint,
            begun,
            is_settled: Cell::new(false),
            is_parked: Cell::new(false),
        }
    }

    /// Lets the connection keep its place while it has no client. The place is given back by way of
    /// [`resume`](Self::resume) alone.
    pub(super) fn park(self) {
        self.is_parked.set(true);
    }

    /// The lease of a place that was parked. The server has taken the connection.
    pub(super) fn resume(group: &'a Group, endpoint: Rc<Endpoint>, begun: Instant) -> Self {
        let lease = Self::new(group, endpoint, begun);
        lease.is_settled.set(true);
        lease
    }

    #[must_use]
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// When the place was taken.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The server has taken the connection.
    pub fn works(&self) {
        self.is_settled.set(true);
        let event = Event::Success { begun: self.begun };
        let reason = || "it took a connection".to_owned();
        self.group.on(&self.endpoint, event, reason);
    }

    /// The server is to blame that there is no connection.
    pub fn fails(&self, reason: impl FnOnce() -> String) {
        self.is_settled.set(true);
        self.group.on(&self.endpoint, Event::Failure, reason);
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_parked.get() {
            return;
        }
        if !self.is_settled.get() {
            self.group.on(&self.endpoint, Event::Abandoned, String::new);
        }
        self.group.release(&self.endpoint);
    }
}
