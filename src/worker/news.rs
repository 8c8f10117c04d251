//! What a core hears of servers: for the group of the plan in force, and for those that it had
//! before a reload, while connections that began with them live.

use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Instant;

use monoio::time::sleep;

use super::mailbox::{Census, Letter};
use super::next::Duty;
use crate::net::PeerAddress;
use crate::session::Core;
use crate::types::{GroupId, ServerId};
use crate::upstream::{EndpointSeen, Found, Group, Hold, ServerState};

impl Duty {
    /// The plan in force does not have the group any more, or has another in its place.
    pub(super) fn retire(&self, group: &Rc<Group>) {
        group.retire();
        let mut former = self.former.borrow_mut();
        former.retain(|it| it.strong_count() > 0);
        former.push(Rc::downgrade(group));
    }

    /// A server's name has these addresses.
    pub(super) fn resolved(&self, (group, server): (GroupId, ServerId), found: &[Found]) {
        self.each(group, server, |group, server| {
            match group.resolved(server, found, Instant::now()) {
                Ok(true) => {
                    monoio::spawn(part(Rc::clone(&self.core), Rc::downgrade(group)));
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(core = %self.core.id, %error, "new addresses are not used");
                }
            }
        });
    }

    /// The same of all names at once, at a switch.
    pub(super) fn all_resolved(&self, known: &[Letter]) {
        for letter in known {
            if let Letter::Resolved {
                group,
                server,
                found,
            } = letter
            {
                self.resolved((*group, *server), found);
            }
        }
    }

    /// A server is down, or up.
    pub(super) fn told(
        &self,
        (group, server): (GroupId, ServerId),
        address: &PeerAddress,
        state: ServerState,
    ) {
        self.each(group, server, |group, server| {
            group.told(server, address, state);
        });
    }

    /// The operator holds a server, or lets it go.
    pub(super) fn hold(
        &self,
        (group, server): (GroupId, ServerId),
        address: Option<&PeerAddress>,
        hold: Option<Hold>,
    ) {
        self.each(group, server, |group, server| {
            group.hold(server, address, hold);
        });
    }

    /// How the core is; a server's connections are counted under whatever plan they began.
    pub(super) fn census(&self) -> Census {
        let generation = self.core.generation();
        let groups = generation.groups().iter().map(|group| {
            let mut members = group.census();
            for former in self.former_of(group) {
                add_former(group, &mut members, &former);
            }
            members
        });
        Census {
            core: self.core.id,
            live: self.core.live(),
            groups: groups.collect(),
        }
    }

    /// Goes to a server of the plan in force, and to the same one of groups before.
    fn each(&self, group: GroupId, server: ServerId, tell: impl Fn(&Rc<Group>, ServerId)) {
        let generation = self.core.generation();
        let group = generation.group(group);
        tell(group, server);
        for former in self.former_of(group) {
            for server in former.same_servers(group, server) {
                tell(&former, server);
            }
        }
    }

    fn former_of(&self, group: &Group) -> Vec<Rc<Group>> {
        let former = self.former.borrow();
        let living = former.iter().filter_map(Weak::upgrade);
        living
            .filter(|it| it.plan.name == group.plan.name)
            .collect()
    }
}

fn add_former(group: &Group, members: &mut [EndpointSeen], former: &Group) {
    let busy = former.census().into_iter().filter(|it| it.active > 0);
    let busy: Vec<_> = busy.collect();
    if busy.is_empty() {
        return;
    }
    let places = (0..members.len()).map(|place| {
        let EndpointSeen {
            server, address, ..
        } = &members[place];
        ((*server, address.clone()), place)
    });
    let places: HashMap<_, _> = places.collect();
    for seen in busy {
        let same = group.same_servers(former, seen.server).into_iter();
        let mut same = same.filter_map(|server| places.get(&(server, seen.address.clone())));
        if let Some(place) = same.next() {
            members[*place].active += seen.active;
        }
    }
}

/// Ends what is left of the connections to addresses that leave the DNS now.
async fn part(core: Rc<Core>, group: Weak<Group>) {
    let Some(drain) = group.upgrade().map(|it| it.plan.resolve_drain) else {
        return;
    };
    let drain = drain.unwrap_or_default();
    // Not asked of the clock again: a timer that fires early would miss them.
    let until = Instant::now() + drain;
    sleep(drain).await;
    // Its last connections may have ended.
    let overdue = group.upgrade().map(|it| it.overdue(until));
    let marks: Vec<usize> = overdue
        .iter()
        .flatten()
        .map(|endpoint| endpoint.mark())
        .collect();
    if !marks.is_empty() {
        core.watch.wake(&marks);
    }
}
