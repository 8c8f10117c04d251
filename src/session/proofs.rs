//! Certificates that the peers of live connections have shown. They are judged again when the rules
//! change and when they end (`close_revoked`).

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::time::sleep;
use rustls::pki_types::{CertificateDer, ServerName};

use super::core::Core;
use super::generation::Generation;
use crate::config::Plan;
use crate::tls::{ClientTls, ServerTls, Shown, Standing, Withdrawn};
use crate::types::{GroupId, ListenerId, Order, Side, UnixSeconds, unix_now};

/// So often within `close_revoked` a core looks, so that the last look is well before its end.
const LOOKS: u32 = 4;

/// Until the plan is asked again how often to look: a reload may have made a day a second.
const REST_MAX: Duration = Duration::from_millis(250);

/// A chain costs about 0.2 ms: between so many the core serves its connections.
const JUDGED_IN_A_ROW: usize = 8;

/// Fewer are not looked through for those that have ended.
const SWEPT_MIN: usize = 64;

/// The proofs of one core.
#[derive(Default)]
pub(super) struct Proofs {
    kept: RefCell<Vec<Weak<Proof>>>,
    /// By the hash of their certificates: a chain that a thousand connections have shown is kept
    /// and judged once.
    chains: RefCell<HashMap<u64, Weak<Chain>>>,
    hasher: RandomState,
    is_watched: Cell<bool>,
    /// With so many kept it is time to look for those that have ended: between two looks by the
    /// clock there may be hours and millions of connections.
    sweep_at: Cell<usize>,
}

/// What one peer of one connection has shown, as long as the connection lives.
pub(super) struct Proof {
    /// The id of its record.
    connection: u64,
    shown_to: ShownTo,
    generation: Rc<Generation>,
    chain: Rc<Chain>,
    /// Who has judged it last.
    judge: RefCell<Option<Judge>>,
    good_until: Cell<UnixSeconds>,
    withdrawn: OnceCell<Withdrawn>,
}

/// Who has asked for it, by the ids of the connection's own plan.
pub(super) enum ShownTo {
    Listener(ListenerId),
    Group(GroupId, ServerName<'static>),
}

struct Chain {
    certificates: Box<[CertificateDer<'static>]>,
    verdict: RefCell<Option<(Judge, Standing)>>,
}

#[derive(Clone)]
enum Judge {
    OfClients(Arc<ServerTls>),
    OfServers(Arc<ClientTls>, ServerName<'static>),
}

impl Judge {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OfClients(one), Self::OfClients(other)) => Arc::ptr_eq(one, other),
            (Self::OfServers(one, its_name), Self::OfServers(other, name)) => {
                Arc::ptr_eq(one, other) && its_name == name
            }
            _ => false,
        }
    }

    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Standing {
        match self {
            Self::OfClients(tls) => tls.judge_again(chain, now),
            Self::OfServers(tls, name) => tls.judge_again(chain, name, now),
        }
    }
}

impl Chain {
    /// Once for each judge and end. True: it was news.
    fn judged_by(&self, judge: &Judge, now: UnixSeconds) -> (Standing, bool) {
        let mut verdict = self.verdict.borrow_mut();
        match &*verdict {
            Some((by, standing)) if by.is(judge) && holds(standing, now) => {
                (standing.clone(), false)
            }
            _ => {
                let standing = judge.judge(&self.certificates, now);
                *verdict = Some((judge.clone(), standing.clone()));
                (standing, true)
            }
        }
    }
}

fn holds(standing: &Standing, now: UnixSeconds) -> bool {
    standing.as_ref().map_or(true, |until| now <= *until)
}

impl Proof {
    /// Who judges it by the rules of `current`; `None`: nobody does, or not any more.
    fn judge_in(&self, current: &Rc<Generation>) -> Option<Judge> {
        let own = self.generation.plan();
        match &self.shown_to {
            ShownTo::Listener(id) => {
                let id = if Rc::ptr_eq(current, &self.generation) {
                    *id
                } else {
                    current.plan().listener_named(&own.listener(*id).name)?
                };
                let tls = current.plan().listener(id).tls.as_ref()?;
                let judge = &current.listener(id).tls.as_ref()?.shared;
                tls.close_revoked?;
                Some(Judge::OfClients(Arc::clone(judge)))
            }
            ShownTo::Group(id, name) => {
                let id = if Rc::ptr_eq(current, &self.generation) {
                    *id
                } else {
                    current.plan().upstream_named(&own.upstream(*id).name)?
                };
                let judge = current.group(id).tls()?;
                judge
                    .keeps_shown()
                    .then(|| Judge::OfServers(Arc::clone(judge), name.clone()))
            }
        }
    }

    /// True: its chain had to be judged.
    fn look_again(&self, current: &Rc<Generation>, now: UnixSeconds) -> bool {
        let Some(judge) = self.judge_in(current) else {
            return false;
        };
        let is_same = self.judge.borrow().as_ref().is_some_and(|it| it.is(&judge));
        let known = is_same && now <= self.good_until.get();
        if known || self.withdrawn.get().is_some() {
            return false;
        }
        let (standing, is_news) = self.chain.judged_by(&judge, now);
        match standing {
            Ok(until) => {
                self.good_until.set(until);
                self.judge.replace(Some(judge));
            }
            Err(withdrawn) => drop(self.withdrawn.set(withdrawn)),
        }
        is_news
    }

    fn side(&self) -> Side {
        match self.shown_to {
            ShownTo::Listener(_) => Side::Downstream,
            ShownTo::Group(..) => Side::Upstream,
        }
    }

    /// Whose certificate has been withdrawn, and why; `None`: it stands.
    pub(super) fn withdrawn(&self) -> Option<(Side, &Withdrawn)> {
        Some((self.side(), self.withdrawn.get()?))
    }
}

impl Proofs {
    /// Judges what a peer has shown again from now on, until the result is dropped.
    pub(super) fn keep(
        &self,
        connection: u64,
        generation: &Rc<Generation>,
        (shown_to, shown): (ShownTo, Shown),
    ) -> Rc<Proof> {
        let mut proof = Proof {
            connection,
            generation: Rc::clone(generation),
            chain: self.chain(shown.chain),
            judge: RefCell::new(None),
            good_until: Cell::new(shown.good_until),
            withdrawn: OnceCell::new(),
            shown_to,
        };
        proof.judge = RefCell::new(proof.judge_in(generation));
        let proof = Rc::new(proof);
        self.kept.borrow_mut().push(Rc::downgrade(&proof));
        if self.kept.borrow().len() >= self.sweep_at.get() {
            let living = self.sweep();
            self.sweep_at.set(SWEPT_MIN.max(2 * living));
        }
        proof
    }

    fn chain(&self, certificates: Box<[CertificateDer<'static>]>) -> Rc<Chain> {
        let chains = &mut *self.chains.borrow_mut();
        let place = chains
            .entry(self.hasher.hash_one(&certificates))
            .or_default();
        if let Some(known) = place.upgrade()
            && known.certificates == certificates
        {
            return known;
        }
        let chain = Rc::new(Chain {
            certificates,
            verdict: RefCell::new(None),
        });
        *place = Rc::downgrade(&chain);
        chain
    }

    /// Forgets those whose connections have ended. Returns how many are left.
    fn sweep(&self) -> usize {
        let chains = &mut *self.chains.borrow_mut();
        chains.retain(|_, chain| chain.strong_count() > 0);
        let kept = &mut *self.kept.borrow_mut();
        kept.retain(|proof| proof.strong_count() > 0);
        kept.len()
    }

    /// Those whose connections live.
    fn living(&self) -> Vec<Rc<Proof>> {
        self.sweep();
        let kept = self.kept.borrow();
        kept.iter().filter_map(Weak::upgrade).collect()
    }
}

/// The shortest time in which the plan wants a session closed; `None`: it wants none closed.
fn close_revoked(plan: &Plan) -> Option<Duration> {
    let of_clients = plan
        .listeners
        .iter()
        .filter_map(|it| it.tls.as_ref()?.close_revoked);
    let of_servers = plan
        .upstreams
        .iter()
        .filter_map(|it| it.tls.as_ref()?.close_revoked);
    of_clients.chain(of_servers).min()
}

impl Core {
    /// Has the certificates of live connections judged again while the plan in force wants it.
    /// Call it whenever one has come into force.
    pub fn watch_proofs(self: &Rc<Self>) {
        let is_wanted = close_revoked(self.generation().plan()).is_some();
        if is_wanted && !self.proofs.is_watched.replace(true) {
            monoio::spawn(watch(Rc::clone(self)));
        }
    }
}

async fn watch(core: Rc<Core>) {
    let mut looked = Instant::now();
    while let Some(limit) = close_revoked(core.generation().plan()) {
        let left = (limit / LOOKS).saturating_sub(looked.elapsed());
        if left.is_zero() {
            look(&core).await;
            looked = Instant::now();
        } else {
            sleep(left.min(REST_MAX)).await;
        }
    }
    core.proofs.is_watched.set(false);
}

async fn look(core: &Core) {
    let current = core.generation();
    let mut withdrawn = Vec::new();
    let mut in_a_row = 0;
    for proof in core.proofs.living() {
        in_a_row += usize::from(proof.look_again(&current, unix_now()));
        if proof.withdrawn().is_some() {
            withdrawn.push(proof.connection);
        }
        if in_a_row == JUDGED_IN_A_ROW {
            in_a_row = 0;
            sleep(GIVE_WAY).await;
        }
    }
    if !withdrawn.is_empty() {
        withdrawn.sort_unstable();
        let is_meant = |id: u64| withdrawn.binary_search(&id).is_ok();
        core.watch.end(&Order::WITHDRAWN, |live| is_meant(live.id));
    }
}

/// The shortest that monoio's timers know.
const GIVE_WAY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_connections_have_shown_is_forgotten_with_them_and_a_chain_is_kept_once() {
        let text = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
                    [upstream.b]\nservers = [\"127.0.0.1:1\"]\n";
        let plan = Arc::new(parse("x.toml", text).into_plan().unwrap());
        let generation = Rc::new(Generation::new(plan, Arc::default(), Default::default()));
        let proofs = Proofs::default();
        let keep = |id: u64, certificate: u8| {
            let chain = Box::new([CertificateDer::from(vec![certificate])]);
            let good_until = UnixSeconds::MAX;
            let shown = Shown { chain, good_until };
            proofs.keep(id, &generation, (ShownTo::Listener(ListenerId(0)), shown))
        };
        let lives = [keep(1, 7), keep(2, 7), keep(3, 8)];
        assert!(Rc::ptr_eq(&lives[0].chain, &lives[1].chain));
        assert!(!Rc::ptr_eq(&lives[0].chain, &lives[2].chain));
        (0..10_000).for_each(|id| drop(keep(id, 9)));
        assert!(proofs.kept.borrow().len() <= SWEPT_MIN);
        assert!(proofs.chains.borrow().len() <= 3);
        assert_eq!(proofs.living().len(), lives.len());
    }
}
