//! What the operator has said of servers, and since when they are as they are.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Board, Outlook, translated};
use crate::config::{Plan, ServerAddress};
use crate::control::resolver::NameKey;
use crate::net::PeerAddress;
use crate::types::{GroupId, ServerId, UnixSeconds, unix_now};
use crate::upstream::{Change, Hold, ServerState};
use crate::worker::Letter;

/// How a server is, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) struct Said {
    pub(in crate::control) state: ServerState,
    pub(in crate::control) since: UnixSeconds,
    pub(in crate::control) reason: Box<str>,
}

/// A server that the operator holds: under every plan that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) struct Held {
    group: String,
    server: ServerAddress,
    /// `None`: all of its addresses.
    address: Option<PeerAddress>,
    pub(in crate::control) hold: Hold,
    pub(in crate::control) since: UnixSeconds,
}

/// Why a server is not held, or let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) enum NotHeld {
    /// Its numbers are those of a plan that is not in force any more.
    Reloaded,
    /// An address alone cannot be let go: all of its server are held.
    Together,
}

impl Said {
    pub(super) fn of(change: &Change) -> Self {
        Self {
            state: change.state,
            since: unix_now(),
            reason: change.reason.clone(),
        }
    }
}

impl Held {
    /// Its numbers under a plan; `None`: that has no such server.
    pub(super) fn key(&self, plan: &Plan) -> Option<NameKey> {
        let mut groups = (0..).map(GroupId).zip(&plan.upstreams);
        let (group, upstream) = groups.find(|(_, it)| it.name == self.group)?;
        let mut servers = (0..).map(ServerId).zip(&upstream.servers);
        let (server, _) = servers.find(|(_, it)| it.address.value == self.server)?;
        Some(NameKey { group, server })
    }

    pub(super) fn letter(&self, plan: &Plan) -> Option<Letter> {
        let key = self.key(plan)?;
        Some(letter(key, self.address.as_ref(), Some(self.hold)))
    }

    fn is_of(&self, plan: &Plan, key: NameKey) -> bool {
        self.key(plan) == Some(key)
    }
}

impl Outlook {
    /// What was said, in the numbering of the next plan.
    pub(super) fn said_under(
        &self,
        before: &Plan,
        after: &Plan,
    ) -> HashMap<(NameKey, PeerAddress), Said> {
        let said = self.said.iter().filter_map(|((key, address), said)| {
            let key = translated(before, after, *key)?;
            Some(((key, address.clone()), said.clone()))
        });
        said.collect()
    }
}

impl Board {
    /// The operator holds a server, or lets it go: all workers are told. Without an address that goes
    /// for all that it has.
    ///
    /// # Errors
    /// Nothing has changed.
    pub(in crate::control) fn hold(
        &self,
        (plan, key): (&Arc<Plan>, NameKey),
        address: Option<&PeerAddress>,
        hold: Option<Hold>,
    ) -> Result<(), NotHeld> {
        self.with(|board| {
            if !board.plan.as_ref().is_some_and(|it| Arc::ptr_eq(it, plan)) {
                return Err(NotHeld::Reloaded);
            }
            let is_whole = |it: &Held| it.address.is_none() && it.is_of(plan, key);
            if hold.is_none() && address.is_some() && board.held.iter().any(is_whole) {
                return Err(NotHeld::Together);
            }
            let same = |it: &Held| address.is_none() || it.address.as_ref() == address;
            board.held.retain(|it| !it.is_of(plan, key) || !same(it));
            let upstream = plan.upstream(key.group);
            let server = upstream.servers.get(usize::from(key.server.0));
            board
                .held
                .extend(server.zip(hold).map(|(server, hold)| Held {
                    group: upstream.name.clone(),
                    server: server.address.value.clone(),
                    address: address.cloned(),
                    hold,
                    since: unix_now(),
                }));
            for postbox in board.workers.values() {
                postbox.post(letter(key, address, hold));
            }
            Ok(())
        })
    }

    /// What the operator has said last of an address; without one, of the whole server.
    pub(in crate::control) fn held(
        &self,
        key: NameKey,
        address: Option<&PeerAddress>,
    ) -> Option<Held> {
        self.with(|board| {
            let plan = board.plan.as_ref()?;
            let here = |it: &Held| it.address.is_none() || it.address.as_ref() == address;
            let held = board
                .held
                .iter()
                .rfind(|it| here(it) && it.is_of(plan, key));
            held.cloned()
        })
    }

    /// What was said last of an address; `None`: it was never down.
    pub(in crate::control) fn said(&self, key: NameKey, address: &PeerAddress) -> Option<Said> {
        self.with(|board| board.outlook.said.get(&(key, address.clone())).cloned())
    }
}

fn letter(key: NameKey, address: Option<&PeerAddress>, hold: Option<Hold>) -> Letter {
    Letter::Hold {
        group: key.group,
        server: key.server,
        address: address.cloned(),
        hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::worker::{Mailbox, mailbox};

    /// A plan with these groups, each of two servers.
    fn plan(groups: &[&str]) -> Arc<Plan> {
        let listener = |group: &&str| {
            format!(
                "[[listener]]\nname = \"{group}\"\nbind = \"127.0.0.1:0\"\nupstream = \"{group}\"\n"
            )
        };
        let upstream = |group: &&str| {
            format!("[upstream.{group}]\nservers = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\n")
        };
        let text: String = groups
            .iter()
            .map(listener)
            .chain(groups.iter().map(upstream))
            .collect();
        Arc::new(parse("x.toml", text).into_plan().unwrap())
    }

    fn key(plan: &Plan, group: &str) -> NameKey {
        let group = plan
            .upstreams
            .iter()
            .position(|it| it.name == group)
            .unwrap();
        NameKey {
            group: GroupId(u16::try_from(group).unwrap()),
            server: ServerId(1),
        }
    }

    fn holds(mailbox: &Mailbox) -> Vec<(NameKey, Option<Hold>)> {
        let letters = mailbox.received().into_iter();
        let hold = |letter| match letter {
            Letter::Hold {
                group,
                server,
                hold,
                ..
            } => Some((NameKey { group, server }, hold)),
            _ => None,
        };
        letters.filter_map(hold).collect()
    }

    fn enlisted(board: &Board, worker: usize) -> Mailbox {
        let (postbox, mailbox) = mailbox().unwrap();
        board.enlist(worker, postbox);
        mailbox
    }

    #[test]
    fn a_hold_is_told_to_all_stays_through_a_reload_and_ends_with_its_server() {
        let (first, second, third) = (plan(&["a", "b"]), plan(&["b"]), plan(&["c"]));
        let board = Board::default();
        board.begin(Arc::clone(&first));
        let worker = enlisted(&board, 0);
        let place = (&first, key(&first, "b"));
        board.hold(place, None, Some(Hold::Drain)).unwrap();
        assert_eq!(holds(&worker), [(key(&first, "b"), Some(Hold::Drain))]);
        assert_eq!(
            holds(&enlisted(&board, 1)),
            [(key(&first, "b"), Some(Hold::Drain))]
        );

        let switch = |generation, plan: &Arc<Plan>| {
            board.stage(Some(generation));
            let mut told = Vec::new();
            board.switch(plan, |letters| {
                told.push(letters.len());
                Letter::Forget
            });
            told
        };
        assert_eq!(switch(1, &second), [1, 1]);
        let held = board.held(key(&second, "b"), None).unwrap();
        assert_eq!(held.hold, Hold::Drain);
        assert_eq!(switch(2, &third), [0, 0]);
        assert_eq!(board.held(key(&third, "c"), None), None);
        assert_eq!(switch(3, &second), [0, 0], "forgotten");
    }

    #[test]
    fn a_server_that_is_let_go_is_let_go_with_all_its_addresses() {
        let plan = plan(&["a"]);
        let board = Board::default();
        board.begin(Arc::clone(&plan));
        let (key, address) = (
            key(&plan, "a"),
            PeerAddress::Ip("10.0.0.2:1".parse().unwrap()),
        );
        let hold = |address, hold| board.hold((&plan, key), address, hold);
        hold(Some(&address), Some(Hold::Down)).unwrap();
        assert_eq!(board.held(key, Some(&address)).unwrap().hold, Hold::Down);
        assert_eq!(board.held(key, None), None);
        hold(None, None).unwrap();
        assert_eq!(board.held(key, Some(&address)), None);
        hold(None, Some(Hold::Down)).unwrap();
        assert_eq!(hold(Some(&address), None), Err(NotHeld::Together));
        assert_eq!(board.held(key, Some(&address)).unwrap().hold, Hold::Down);
    }

    #[test]
    fn a_server_by_its_numbers_of_a_plan_that_was_replaced_is_not_another_that_is_held() {
        let (first, second) = (plan(&["a", "b"]), plan(&["b"]));
        let board = Board::default();
        board.begin(Arc::clone(&first));
        let worker = enlisted(&board, 0);
        board.stage(Some(1));
        board.switch(&second, |_| Letter::Forget);
        // "a" would be "b", and "b" nothing at all.
        for group in ["a", "b"] {
            let place = (&first, key(&first, group));
            let held = board.hold(place, None, Some(Hold::Down));
            assert_eq!(held, Err(NotHeld::Reloaded));
        }
        assert_eq!(holds(&worker), []);
        assert_eq!(board.held(key(&second, "b"), None), None);
    }
}
