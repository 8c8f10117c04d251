mod held;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::resolver::NameKey;
use super::watchdog::Question;
use crate::config::Plan;
use crate::net::PeerAddress;
use crate::session::RunState;
use crate::types::{GroupId, ServerId};
use crate::upstream::{Change, Found, ServerState};
use crate::worker::{Letter, Postbox};
pub(super) use held::NotHeld;
use held::{Held, Said};

/// The names' addresses and the servers that are down, and the workers who are told of them.
#[derive(Clone, Default)]
pub(super) struct Board {
    state: Arc<BoardLock>,
}

#[derive(Default)]
struct BoardState {
    generation: u64,
    /// `None`: before the first.
    plan: Option<Arc<Plan>>,
    /// The one before, whose numbers may still come from workers.
    last: Option<(u64, Arc<Plan>)>,
    outlook: Outlook,
    /// Of a generation that is being prepared.
    next: Option<(u64, Outlook)>,
    workers: BTreeMap<usize, Postbox>,
    /// What the operator has said, in names: it stays through reloads.
    held: Vec<Held>,
}

/// What is known of the servers, in the numbering of one plan.
#[derive(Default)]
struct Outlook {
    known: BTreeMap<NameKey, Arc<[Found]>>,
    /// All that are not up.
    down: HashMap<(NameKey, PeerAddress), ServerState>,
    /// What was said last of those that were ever down.
    said: HashMap<(NameKey, PeerAddress), Said>,
}

#[expect(
    clippy::disallowed_types,
    reason = "the control thread's own; no worker sees it"
)]
type BoardLock = std::sync::Mutex<BoardState>;

impl Board {
    /// The first plan.
    pub(super) fn begin(&self, plan: Arc<Plan>) {
        self.with(|board| board.plan = Some(plan));
    }

    /// A name's addresses, in the numbering of a generation: told if it is in force, kept if it is
    /// being prepared, and of no interest if it is over.
    pub(super) fn publish(&self, generation: u64, key: NameKey, found: Vec<Found>) {
        self.with(|board| {
            let found: Arc<[Found]> = found.into();
            if let Some((_, next)) = board.next.as_mut().filter(|(it, _)| *it == generation) {
                next.known.insert(key, found);
                return;
            }
            if generation != board.generation {
                return;
            }
            board.outlook.down.retain(|(known, address), _| {
                let stays = |found: &Found| *address == PeerAddress::Ip(found.address);
                *known != key || found.iter().any(stays)
            });
            board.outlook.known.insert(key, Arc::clone(&found));
            for postbox in board.workers.values() {
                postbox.post(resolved(key, &found));
            }
        });
    }

    /// A generation is being prepared, or none is any more.
    pub(super) fn stage(&self, generation: Option<u64>) {
        self.with(|board| board.next = generation.map(|it| (it, Outlook::default())));
    }

    /// Posts a letter to every worker. Returns how many there are.
    pub(super) fn post_all(&self, mut letter: impl FnMut(usize) -> Letter) -> usize {
        self.with(|board| {
            for (worker, postbox) in &board.workers {
                postbox.post(letter(*worker));
            }
            board.workers.len()
        })
    }

    /// The generation that was being prepared is in force. Each worker is told by `letter`, made of
    /// what is known of the servers.
    pub(super) fn switch(&self, plan: &Arc<Plan>, mut letter: impl FnMut(Vec<Letter>) -> Letter) {
        self.with(|board| {
            let Some((generation, mut next)) = board.next.take() else {
                return;
            };
            if let Some(before) = &board.plan {
                let down = board.outlook.down.iter();
                let kept = down.filter_map(|((key, address), state)| {
                    let key = translated(before, plan, *key)?;
                    next.has(plan, key, address, *state)
                        .then(|| ((key, address.clone()), *state))
                });
                next.down = kept.collect();
                next.said = board.outlook.said_under(before, plan);
                board.last = Some((board.generation, Arc::clone(before)));
            }
            board.outlook = next;
            board.generation = generation;
            board.plan = Some(Arc::clone(plan));
            board.held.retain(|it| it.key(plan).is_some());
            for postbox in board.workers.values() {
                postbox.post(letter(board.letters()));
            }
        });
    }

    /// The addresses of every name.
    pub(super) fn known(&self) -> Vec<(NameKey, Vec<SocketAddr>)> {
        self.with(|board| {
            let known = board.outlook.known.iter();
            known
                .map(|(key, found)| (*key, found.iter().map(|it| it.address).collect()))
                .collect()
        })
    }

    /// A worker that is new, or new again, learns all that is known.
    pub(super) fn enlist(&self, worker: usize, postbox: Postbox) {
        self.with(|board| {
            for letter in board.letters() {
                postbox.post(letter);
            }
            board.workers.insert(worker, postbox);
        });
    }

    /// A worker has found out how a server is, and tells it in the numbering of a generation. The
    /// change as the plan in force has it: it was not known, and the others are told.
    ///
    /// What the checks say of a server stands above what connections meet.
    pub(super) fn on_change(&self, worker: usize, told: (u64, Change)) -> Option<Change> {
        self.with(|board| {
            let change = board.current(told)?;
            let place = (key_of(&change), change.address.clone());
            let is_news = match (change.state, board.outlook.down.get(&place)) {
                (ServerState::Up, known) => known == Some(&ServerState::Down),
                (_, known) => known.is_none(),
            };
            if !is_news {
                return None;
            }
            board.note(place, &change);
            board.tell(&change, Some(worker));
            Some(change)
        })
    }

    /// The plan in force.
    pub(super) fn plan(&self) -> Option<Arc<Plan>> {
        self.with(|board| board.plan.clone())
    }

    /// The checks of a server have found that it is down, or up again: all workers are told.
    pub(super) fn on_check(&self, change: &Change) {
        self.with(|board| {
            board.note((key_of(change), change.address.clone()), change);
            board.tell(change, None);
        });
    }

    /// The worker's thread has ended.
    pub(super) fn strike(&self, worker: usize) {
        self.with(|board| board.workers.remove(&worker));
    }

    /// True when no worker's thread is left.
    pub(super) fn is_empty(&self) -> bool {
        self.with(|board| board.workers.is_empty())
    }

    pub(super) fn advance(&self, state: RunState) {
        self.with(|board| {
            for postbox in board.workers.values() {
                postbox.post(Letter::Advance(state));
            }
        });
    }

    /// Other processes accept on these addresses.
    pub(super) fn leave(&self, addresses: &[PeerAddress]) {
        let addresses: Arc<[PeerAddress]> = addresses.into();
        self.with(|board| {
            for postbox in board.workers.values() {
                postbox.post(Letter::Leave(Arc::clone(&addresses)));
            }
        });
    }

    /// Asks every worker for a sign of life.
    pub(super) fn ask_all(&self) -> Vec<Question> {
        let ask = |(worker, postbox): (&usize, &Postbox)| {
            let answered = Arc::default();
            postbox.post(Letter::Answer(Arc::clone(&answered)));
            let worker = *worker;
            Question { worker, answered }
        };
        self.with(|board| board.workers.iter().map(ask).collect())
    }

    fn with<R>(&self, run: impl FnOnce(&mut BoardState) -> R) -> R {
        run(&mut self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Outlook {
    fn letters(&self) -> Vec<Letter> {
        let known = self.known.iter().map(|(key, found)| resolved(*key, found));
        let down = self.down.iter();
        let down = down.map(|((key, address), state)| server(*key, address, *state));
        known.chain(down).collect()
    }

    /// Whether a server's state is of use under `plan`: its address is still the server's, and
    /// who says that it is barred can say that it is not.
    fn has(&self, plan: &Plan, key: NameKey, address: &PeerAddress, state: ServerState) -> bool {
        let is_there = match self.known.get(&key) {
            None => true,
            Some(found) => found
                .iter()
                .any(|it| *address == PeerAddress::Ip(it.address)),
        };
        let has_checks = plan.upstream(key.group).check.is_some();
        is_there && (state != ServerState::Barred || has_checks)
    }
}

/// The same server of the same group under another plan.
pub(super) fn translated(before: &Plan, after: &Plan, key: NameKey) -> Option<NameKey> {
    let group = before.upstreams.get(usize::from(key.group.0))?;
    let server = group.servers.get(usize::from(key.server.0))?;
    let mut groups = (0..).map(GroupId).zip(&after.upstreams);
    let (group, next) = groups.find(|(_, it)| it.name == group.name)?;
    let mut servers = (0..).map(ServerId).zip(&next.servers);
    let (server, _) = servers.find(|(_, it)| it.address == server.address)?;
    Some(NameKey { group, server })
}

impl BoardState {
    /// A change in the numbering of the plan in force.
    fn current(&self, (generation, change): (u64, Change)) -> Option<Change> {
        if generation == self.generation {
            return Some(change);
        }
        let (number, last) = self.last.as_ref()?;
        let plan = self.plan.as_ref()?;
        let key = (*number == generation).then(|| translated(last, plan, key_of(&change)))??;
        Some(Change {
            group: key.group,
            server: key.server,
            ..change
        })
    }

    /// All that a worker has to know.
    fn letters(&self) -> Vec<Letter> {
        let held = self
            .held
            .iter()
            .filter_map(|it| it.letter(self.plan.as_ref()?));
        self.outlook.letters().into_iter().chain(held).collect()
    }

    fn note(&mut self, place: (NameKey, PeerAddress), change: &Change) {
        self.outlook.said.insert(place.clone(), Said::of(change));
        match change.state {
            ServerState::Up => self.outlook.down.remove(&place),
            ServerState::Down | ServerState::Barred => {
                self.outlook.down.insert(place, change.state)
            }
        };
    }

    fn tell(&self, change: &Change, but: Option<usize>) {
        let others = self.workers.iter().filter(|(it, _)| Some(**it) != but);
        for (_, postbox) in others {
            postbox.post(server(key_of(change), &change.address, change.state));
        }
    }
}

fn key_of(change: &Change) -> NameKey {
    NameKey {
        group: change.group,
        server: change.server,
    }
}

fn resolved(key: NameKey, found: &Arc<[Found]>) -> Letter {
    Letter::Resolved {
        group: key.group,
        server: key.server,
        found: Arc::clone(found),
    }
}

fn server(key: NameKey, address: &PeerAddress, state: ServerState) -> Letter {
    Letter::Server {
        group: key.group,
        server: key.server,
        address: address.clone(),
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{Mailbox, mailbox};

    const FIRST: NameKey = NameKey {
        group: GroupId(0),
        server: ServerId(1),
    };
    const SECOND: NameKey = NameKey {
        group: GroupId(2),
        server: ServerId(0),
    };

    fn addresses(ports: &[u16]) -> Vec<Found> {
        let address = |port: &u16| Found::at(SocketAddr::from(([127, 0, 0, 1], *port)));
        ports.iter().map(address).collect()
    }

    fn enlisted(board: &Board, worker: usize) -> Mailbox {
        let (postbox, mailbox) = mailbox().unwrap();
        board.enlist(worker, postbox);
        mailbox
    }

    /// Names and ports that have come for a worker.
    fn told(mailbox: &Mailbox) -> Vec<(NameKey, Vec<u16>)> {
        let read = |letter| match letter {
            Letter::Resolved {
                group,
                server,
                found,
            } => {
                let ports = found.iter().map(|it| it.address.port()).collect();
                (NameKey { group, server }, ports)
            }
            other => panic!("nobody asked for {other:?}"),
        };
        mailbox.received().into_iter().map(read).collect()
    }

    #[test]
    fn every_worker_is_told_of_new_addresses_once() {
        let board = Board::default();
        let mailboxes = [enlisted(&board, 0), enlisted(&board, 1)];
        board.publish(0, FIRST, addresses(&[1, 2]));
        for mailbox in &mailboxes {
            assert_eq!(told(mailbox), [(FIRST, vec![1, 2])]);
            assert_eq!(told(mailbox), []);
        }
    }

    #[test]
    fn a_worker_that_comes_late_learns_the_last_addresses_of_every_name() {
        let board = Board::default();
        board.publish(0, FIRST, addresses(&[1, 2]));
        board.publish(0, SECOND, addresses(&[7]));
        board.publish(0, FIRST, addresses(&[3]));
        let late = enlisted(&board, 0);
        assert_eq!(told(&late), [(FIRST, vec![3]), (SECOND, vec![7])]);
    }

    fn change(state: ServerState) -> Change {
        Change {
            group: FIRST.group,
            server: FIRST.server,
            address: PeerAddress::Ip(([127, 0, 0, 1], 1).into()),
            state,
            reason: "for a test".into(),
        }
    }

    /// States of the server of [`change`] that have come for a worker.
    fn states(mailbox: &Mailbox) -> Vec<ServerState> {
        let letters = mailbox.received().into_iter();
        letters
            .filter_map(|letter| match letter {
                Letter::Server { group, state, .. } if group == FIRST.group => Some(state),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn what_one_worker_finds_is_news_once_and_goes_to_the_others() {
        let board = Board::default();
        let mailboxes = [
            enlisted(&board, 0),
            enlisted(&board, 1),
            enlisted(&board, 2),
        ];
        assert!(board.on_change(1, (0, change(ServerState::Down))).is_some());
        assert!(
            board.on_change(0, (0, change(ServerState::Down))).is_none(),
            "known"
        );
        let told = mailboxes.each_ref().map(states);
        let down = vec![ServerState::Down];
        assert_eq!(told, [down.clone(), vec![], down]);
        assert!(board.on_change(0, (0, change(ServerState::Up))).is_some());
        assert!(
            board.on_change(2, (0, change(ServerState::Up))).is_none(),
            "known"
        );
        let told = mailboxes.each_ref().map(states);
        let up = vec![ServerState::Up];
        assert_eq!(told, [vec![], up.clone(), up]);
    }

    #[test]
    fn a_worker_that_comes_late_learns_which_servers_are_down_and_still_there() {
        let board = Board::default();
        board.publish(0, FIRST, addresses(&[1, 2]));
        assert!(board.on_change(0, (0, change(ServerState::Down))).is_some());
        assert_eq!(states(&enlisted(&board, 1)), [ServerState::Down]);
        board.publish(0, FIRST, addresses(&[2]));
        assert_eq!(states(&enlisted(&board, 2)), []);
    }

    #[test]
    fn a_worker_that_is_started_again_learns_what_it_knew_and_what_it_missed() {
        let board = Board::default();
        let before = enlisted(&board, 0);
        board.publish(0, FIRST, addresses(&[1]));
        board.strike(0);
        assert!(board.is_empty());
        board.publish(0, SECOND, addresses(&[7]));
        assert_eq!(told(&before), [(FIRST, vec![1])]);
        let again = enlisted(&board, 0);
        assert!(!board.is_empty());
        assert_eq!(told(&again), [(FIRST, vec![1]), (SECOND, vec![7])]);
        board.publish(0, FIRST, addresses(&[2]));
        assert_eq!(told(&again), [(FIRST, vec![2])]);
    }

    /// What is known, by what is heard: the news for the others, and what is known then.
    #[test]
    fn what_a_check_says_stands_above_what_connections_meet() {
        use ServerState::{Barred, Down, Up};
        for (known, heard, told, then) in [
            (Up, Down, vec![Down], Down),
            (Up, Up, vec![], Up),
            (Down, Down, vec![], Down),
            (Down, Up, vec![Up], Up),
            (Barred, Down, vec![], Barred),
            (Barred, Up, vec![], Barred),
        ] {
            let board = Board::default();
            board.on_check(&change(known));
            let others = enlisted(&board, 1);
            let _ = states(&others);
            let is_news = board.on_change(0, (0, change(heard))).is_some();
            assert_eq!(is_news, !told.is_empty(), "{known:?}, {heard:?}");
            assert_eq!(states(&others), told, "{known:?}, {heard:?}");
            let late: Vec<_> = [then].into_iter().filter(|it| *it != Up).collect();
            assert_eq!(states(&enlisted(&board, 2)), late, "{known:?}, {heard:?}");
        }
    }

    #[test]
    fn every_worker_is_told_what_a_check_says_also_of_a_server_that_is_out() {
        use ServerState::{Barred, Down, Up};
        let board = Board::default();
        let workers = [enlisted(&board, 0), enlisted(&board, 1)];
        assert!(board.on_change(0, (0, change(Down))).is_some());
        board.on_check(&change(Barred));
        board.on_check(&change(Up));
        assert_eq!(states(&workers[0]), [Barred, Up]);
        assert_eq!(states(&workers[1]), [Down, Barred, Up]);
        assert_eq!(states(&enlisted(&board, 2)), []);
    }

    #[test]
    fn an_address_that_a_name_has_lost_is_forgotten_with_its_state() {
        let board = Board::default();
        board.publish(0, FIRST, addresses(&[1]));
        board.on_check(&change(ServerState::Barred));
        board.publish(0, FIRST, addresses(&[2]));
        board.publish(0, FIRST, addresses(&[1, 2]));
        assert_eq!(states(&enlisted(&board, 0)), []);
    }

    fn two_groups(text: &str) -> Arc<Plan> {
        let text = format!(
            "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"a\"\n\
             [[listener]]\nname = \"side\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n{text}"
        );
        Arc::new(crate::config::parse("x.toml", text).into_plan().unwrap())
    }

    #[test]
    fn what_is_known_of_servers_goes_over_to_another_numbering_by_names() {
        let before = two_groups(
            "[upstream.a]\nservers = [\"127.0.0.1:9\", \"127.0.0.1:1\"]\n\
             [upstream.b]\nservers = [\"127.0.0.1:1\"]\n",
        );
        let after = two_groups(
            "[upstream.b]\nservers = [\"127.0.0.1:2\"]\n\
             [upstream.a]\nservers = [\"127.0.0.1:1\"]\n",
        );
        let key = |group, server| NameKey {
            group: GroupId(group),
            server: ServerId(server),
        };
        let names: Vec<_> = before.upstreams.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let of_a = after
            .upstreams
            .iter()
            .position(|it| it.name == "a")
            .unwrap();
        let of_a = u16::try_from(of_a).unwrap();
        assert_eq!(translated(&before, &after, key(0, 1)), Some(key(of_a, 0)));
        assert_eq!(translated(&before, &after, key(0, 0)), None, "it has left");
        assert_eq!(
            translated(&before, &after, key(1, 0)),
            None,
            "another server"
        );

        let board = Board::default();
        board.begin(Arc::clone(&before));
        let change = Change {
            group: GroupId(0),
            server: ServerId(1),
            ..change(ServerState::Down)
        };
        board.stage(Some(1));
        board.switch(&after, |_| Letter::Forget);
        // Told in the old numbering, of a server that stays.
        let news = board.on_change(0, (0, change.clone())).unwrap();
        assert_eq!((news.group, news.server), (GroupId(of_a), ServerId(0)));
        board.stage(Some(2));
        board.switch(&before, |_| Letter::Forget);
        assert!(
            board.on_change(0, (1, news)).is_none(),
            "known in the next one, too"
        );
        assert!(board.on_change(0, (0, change)).is_none(), "two plans ago");
    }
}
