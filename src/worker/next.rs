//! How a core comes from one generation to the next: prepared first, which may fail and changes
//! nothing, then put in place at once, which cannot.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use super::mailbox::Letter;
use super::reports::Reporter;
use super::serve::{Post, accept};
use super::thread::{Listen, Shared, WorkerError, keep_warm};
use crate::net::Listening;
use crate::session::{Core, Generation, ListenerState, ListenerTls, RunState};
use crate::tls::{MaterialError, ServerTls};
use crate::types::{CoreId, GroupId, ListenerId, SocketId};
use crate::upstream::{Group, GroupParts, Tell};

/// Called once with what became of an order; dropped uncalled when the core has died.
pub type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What a core makes its next generation of.
pub struct Preparation {
    pub shared: Arc<Shared>,
    /// Sockets that the core does not have yet.
    pub listen: Vec<Listen>,
    pub answer: Answer,
}

/// Puts the generation that was prepared last in place.
pub struct Switch {
    /// Every socket that accepts from now on; the others take what is in their queue and close.
    pub listeners: Arc<BTreeMap<SocketId, ListenerId>>,
    /// What is known of the servers, in the new numbering: addresses and states.
    pub known: Vec<Letter>,
    pub answer: Answer,
}

impl fmt::Debug for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Preparation");
        debug.field("generation", &self.shared.generation);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Switch");
        debug.field("listeners", &self.listeners);
        debug.finish_non_exhaustive()
    }
}

/// A core's thread beside its connections: what accepts, whom it tells, what comes next.
pub(super) struct Duty {
    pub(super) core: Rc<Core>,
    reporter: Rc<RefCell<Reporter>>,
    posts: RefCell<Vec<Rc<Post>>>,
    next: RefCell<Option<Next>>,
    /// Groups of plans before, while connections that began with them live.
    pub(super) former: RefCell<Vec<Weak<Group>>>,
}

/// Groups that a core has already, and their numbers in the next generation.
pub(super) type Carried = Vec<(GroupId, Rc<Group>)>;

/// A generation that is not in place yet.
struct Next {
    generation: Generation,
    carried: Carried,
    tell: Tell,
    listening: Vec<(SocketId, Listening)>,
}

/// Who hears what a core finds out in this generation.
pub(super) fn tell(reporter: &Rc<RefCell<Reporter>>, generation: u64) -> Tell {
    let reporter = Rc::clone(reporter);
    Rc::new(move |change| reporter.borrow_mut().report(generation, change))
}

/// A core's generation of `shared`. What `before` has of the same is used on, and its groups are
/// named with their numbers.
pub(super) fn generation(
    shared: &Shared,
    core: CoreId,
    tell: &Tell,
    before: Option<&Generation>,
) -> Result<(Generation, Carried), MaterialError> {
    let listeners = shared.server_tls.iter().map(|tls| {
        tls.as_ref().map(|tls| {
            let known = before.and_then(|before| known_tls(before, tls));
            known.unwrap_or_else(|| ListenerTls::new(Arc::clone(tls)))
        })
    });
    let listeners = (0..)
        .map(ListenerId)
        .zip(listeners)
        .zip(shared.connections.iter().zip(&shared.access))
        .map(|((id, tls), (connections, access))| ListenerState {
            meters: shared.meters.listener(core, id),
            tls,
            connections: Arc::clone(connections),
            access: access.clone(),
        })
        .collect();
    let mut carried = Vec::new();
    let upstreams = (0..).map(GroupId).zip(&shared.plan.upstreams);
    let shared_parts = shared.client_tls.iter().zip(&shared.server_counts);
    let groups = upstreams
        .zip(shared_parts)
        .map(|((id, plan), (tls, counts))| {
            let mut known = before.into_iter().flat_map(Generation::groups);
            if let Some(group) = known.find(|it| it.is_made_of(plan, tls.as_ref(), counts)) {
                carried.push((id, Rc::clone(group)));
                return Ok(Rc::clone(group));
            }
            Group::new(GroupParts {
                id,
                plan: Arc::new(plan.clone()),
                tls: tls.clone(),
                core,
                counts: Arc::clone(counts),
                tell: Rc::clone(tell),
                meters: shared.meters.group(core, id),
            })
            .map(Rc::new)
        })
        .collect::<Result<_, _>>()?;
    let parts = (listeners, groups);
    let generation = Generation::new(Arc::clone(&shared.plan), shared.meters.core(core), parts);
    Ok((generation, carried))
}

/// This core's copy of a listener's TLS, with its session cache.
fn known_tls(before: &Generation, tls: &Arc<ServerTls>) -> Option<ListenerTls> {
    let mut known = before.listeners().iter().filter_map(|it| it.tls.as_ref());
    known.find(|it| Arc::ptr_eq(&it.shared, tls)).cloned()
}

impl Duty {
    pub(super) fn new(core: Rc<Core>, reporter: Rc<RefCell<Reporter>>) -> Self {
        Self {
            core,
            reporter,
            posts: RefCell::default(),
            next: RefCell::default(),
            former: RefCell::default(),
        }
    }

    /// Accepts on a socket from now on.
    pub(super) fn serve(&self, socket: SocketId, listener: ListenerId, listening: Listening) {
        let post = Rc::new(Post::new(socket, listener));
        self.posts.borrow_mut().push(Rc::clone(&post));
        monoio::spawn(accept(Rc::clone(&self.core), post, listening));
    }

    pub(super) fn prepare(&self, preparation: Preparation) {
        let Preparation {
            shared,
            listen,
            answer,
        } = preparation;
        if self.core.watch.state() != RunState::Running {
            return answer(Err("it drains".to_owned()));
        }
        let prepared = self.next(&shared, listen);
        answer(match prepared {
            Ok(next) => {
                self.next.replace(Some(next));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        });
    }

    pub(super) fn forget(&self) {
        self.next.replace(None);
    }

    fn next(&self, shared: &Shared, listen: Vec<Listen>) -> Result<Next, WorkerError> {
        let tell = tell(&self.reporter, shared.generation);
        let before = self.core.generation();
        let (generation, carried) = generation(shared, self.core.id, &tell, Some(&before))
            .map_err(WorkerError::Material)?;
        let listening = listen.into_iter().map(|listen| {
            let listening = Listening::new(listen.fd, listen.address)?;
            Ok((listen.socket, listening))
        });
        Ok(Next {
            generation,
            carried,
            tell,
            listening: listening
                .collect::<Result<_, _>>()
                .map_err(WorkerError::Socket)?,
        })
    }

    /// All of it in one turn of this thread: no connection sees half of it.
    pub(super) fn switch(&self, switch: Switch) {
        let Switch {
            listeners,
            known,
            answer,
        } = switch;
        let Some(next) = self.next.take() else {
            return answer(Err("nothing was prepared".to_owned()));
        };
        let Next {
            generation,
            carried,
            tell,
            listening,
        } = next;
        for (id, group) in &carried {
            group.renumber(*id, Rc::clone(&tell));
        }
        let before = self.core.generation();
        let fresh = introduce(&generation, &before, &carried, &known);
        let staying: HashSet<_> = generation.groups().iter().map(Rc::as_ptr).collect();
        let gone = before.groups().iter();
        for group in gone.filter(|it| !staying.contains(&Rc::as_ptr(it))) {
            self.retire(group);
        }
        self.core.switch(Rc::new(generation));
        self.all_resolved(&known);
        self.core.watch_proofs();
        self.reassign(&listeners, &before);
        for (socket, listening) in listening {
            if let Some(listener) = listeners.get(&socket) {
                self.serve(socket, *listener, listening);
            }
        }
        fresh
            .into_iter()
            .for_each(|group| keep_warm(&self.core, &group));
        answer(Ok(()));
    }

    /// Sockets go on for the listener that has them now, or take their leave.
    fn reassign(&self, listeners: &BTreeMap<SocketId, ListenerId>, before: &Rc<Generation>) {
        let mut leaving = Vec::new();
        self.posts.borrow_mut().retain(|post| {
            let listener = listeners.get(&post.socket);
            match listener {
                Some(listener) => post.serve(*listener),
                None => {
                    post.leave(Rc::clone(before));
                    leaving.push(post.mark());
                }
            }
            listener.is_some()
        });
        if !leaving.is_empty() {
            self.core.watch.wake(&leaving);
        }
    }
}

/// Tells the groups that are new what is known of their servers, and returns them.
fn introduce(
    generation: &Generation,
    before: &Generation,
    carried: &[(GroupId, Rc<Group>)],
    known: &[Letter],
) -> Vec<Rc<Group>> {
    let is_carried = |id: GroupId| carried.iter().any(|(it, _)| *it == id);
    for letter in known {
        if let Letter::Resolved {
            group,
            server,
            found,
        } = letter
            && !is_carried(*group)
        {
            let resolved = generation
                .group(*group)
                .resolved(*server, found, Instant::now());
            if let Err(error) = resolved {
                tracing::error!(%error, "the addresses of a server are not used");
            }
        }
    }
    let numbered = (0..).map(GroupId).zip(generation.groups());
    let fresh: Vec<_> = numbered
        .filter(|(id, _)| !is_carried(*id))
        .map(|(_, group)| Rc::clone(group))
        .collect();
    for group in &fresh {
        let name = &group.plan.name;
        if let Some(before) = before.groups().iter().find(|it| it.plan.name == *name) {
            group.adopt(before);
        }
    }
    for letter in known {
        match letter {
            Letter::Server {
                group,
                server,
                address,
                state,
            } if !is_carried(*group) => {
                generation.group(*group).told(*server, address, *state);
            }
            Letter::Hold {
                group,
                server,
                address,
                hold,
            } if !is_carried(*group) => {
                let group = generation.group(*group);
                group.hold(*server, address.as_ref(), *hold);
            }
            _ => {}
        }
    }
    fresh
}
