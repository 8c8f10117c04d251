//! Active health checks: every address of a group that has them is asked in its turn, off the data
//! plane.
//!
//! Needs a tokio runtime of the control thread with its timer and its I/O.

mod check;
mod standing;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::resolver::{NameKey, jitter};
use crate::config::{CheckKind, Plan, ServerAddress};
use crate::net::PeerAddress;
use crate::tls::{ClientTls, MaterialError};
use crate::types::{GroupId, ServerId};
use crate::upstream::Change;
use check::Question;
use standing::{News, Outcome, Standing, first_due, next_due};

/// Checks under way at once; the others wait. So many servers that do not answer at all cost each
/// other no time, and their descriptors are a small part of what a proxy has.
pub(super) const CHECKS_MAX: usize = 256;

/// The checks of all groups that have them. All clones are one; dropping the last ends the checks.
#[derive(Clone)]
pub(super) struct Prober {
    state: Arc<ProberLock>,
}

#[expect(
    clippy::disallowed_types,
    reason = "the control thread's own; no worker sees it"
)]
type ProberLock = std::sync::Mutex<ProberState>;

struct ProberState {
    tasks: HashMap<(NameKey, PeerAddress), Task>,
    /// Where the checks of the plan before have come to.
    inherited: HashMap<Lasting, Course>,
    /// `None`: the checks have ended.
    common: Option<Arc<Common>>,
}

/// What the checks of one address run on. Dropping it ends them at once.
struct Task {
    runs: JoinHandle<()>,
    course: watch::Receiver<Course>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.runs.abort();
    }
}

/// How far the checks of an address have come.
#[derive(Debug, Clone, Copy)]
struct Course {
    standing: Standing,
    due: Instant,
}

/// An address by names that outlive a plan: group, server, address.
type Lasting = (String, String, PeerAddress);

/// What all checks share.
struct Common {
    plan: Arc<Plan>,
    /// By upstream group.
    client_tls: Vec<Option<Arc<ClientTls>>>,
    publish: Box<dyn Fn(Change) + Send + Sync>,
    places: Semaphore,
    /// Checks that could not be made.
    unmade: AtomicU64,
}

impl Prober {
    /// Checks every server that is no name; the others once they are [`resolved`](Self::resolved).
    /// Calls `publish` whenever the checks of an address take it down or bring it up.
    pub(super) fn start(
        plan: Arc<Plan>,
        client_tls: Vec<Option<Arc<ClientTls>>>,
        publish: impl Fn(Change) + Send + Sync + 'static,
    ) -> Self {
        Self::succeeding(None, (plan, client_tls), publish)
    }

    /// The same; the checks of addresses that `before` checks go on where they are, and there they
    /// end.
    pub(super) fn succeeding(
        before: Option<&Self>,
        (plan, client_tls): (Arc<Plan>, Vec<Option<Arc<ClientTls>>>),
        publish: impl Fn(Change) + Send + Sync + 'static,
    ) -> Self {
        let common = Arc::new(Common {
            plan,
            client_tls,
            publish: Box::new(publish),
            places: Semaphore::new(CHECKS_MAX),
            unmade: AtomicU64::new(0),
        });
        let mut state = ProberState {
            tasks: HashMap::new(),
            inherited: before.map(Self::courses).unwrap_or_default(),
            common: Some(Arc::clone(&common)),
        };
        for (key, address) in addresses(&common.plan) {
            state.follow(key, address);
        }
        Self {
            state: Arc::new(ProberLock::new(state)),
        }
    }

    fn courses(&self) -> HashMap<Lasting, Course> {
        let courses = self.with(|state| {
            let common = state.common.as_ref();
            let tasks = state.tasks.iter().filter_map(|((key, address), task)| {
                Some((common?.lasting(*key, address)?, *task.course.borrow()))
            });
            tasks.collect()
        });
        self.end();
        courses
    }

    /// A name has these addresses now. Those that stay keep their standing.
    pub(super) fn resolved(&self, key: NameKey, found: &[SocketAddr]) {
        self.with(|state| {
            state.tasks.retain(|(known, address), _| {
                *known != key || matches!(address, PeerAddress::Ip(it) if found.contains(it))
            });
            for address in found {
                state.follow(key, PeerAddress::Ip(*address));
            }
        });
    }

    /// Every address that the plan before had is checked again: what is left is of none.
    pub(super) fn settle(&self) {
        self.with(|state| state.inherited = HashMap::new());
    }

    /// Ends all checks, those under way included; no other begins.
    pub(super) fn end(&self) {
        self.with(|state| {
            state.tasks.clear();
            state.common = None;
        });
    }

    fn with<R>(&self, run: impl FnOnce(&mut ProberState) -> R) -> R {
        run(&mut self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Every server of the plan that is no name.
fn addresses(plan: &Plan) -> Vec<(NameKey, PeerAddress)> {
    let groups = (0..).map(GroupId).zip(&plan.upstreams);
    groups
        .flat_map(|(group, upstream)| {
            let servers = (0..).map(ServerId).zip(&upstream.servers);
            servers.filter_map(move |(server, plan)| {
                let address = match &plan.address.value {
                    ServerAddress::Ip(address) => PeerAddress::Ip(*address),
                    ServerAddress::Unix(path) => PeerAddress::Unix(Arc::new(path.clone())),
                    ServerAddress::Name { .. } | ServerAddress::Service(_) => return None,
                };
                Some((NameKey { group, server }, address))
            })
        })
        .collect()
}

impl ProberState {
    /// Checks an address from now on, unless that is done already, or its group has no checks.
    fn follow(&mut self, key: NameKey, address: PeerAddress) {
        let (Some(common), false) = (
            &self.common,
            self.tasks.contains_key(&(key, address.clone())),
        ) else {
            return;
        };
        match common.question(key, &address) {
            Ok(Some(question)) => {
                let lasting = common.lasting(key, &address);
                let inherited = lasting.and_then(|it| self.inherited.remove(&it));
                let course = inherited.unwrap_or_else(|| Course::begin(&question));
                let (told, course) = watch::channel(course);
                let check = check(key, address.clone(), (question, told), Arc::clone(common));
                let runs = tokio::spawn(check);
                self.tasks.insert((key, address), Task { runs, course });
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%address, %error, "it is not checked"),
        }
    }
}

impl Course {
    fn begin(question: &Question) -> Self {
        Self {
            standing: Standing::default(),
            due: first_due(Instant::now(), question.plan.interval, jitter()),
        }
    }
}

impl Common {
    fn lasting(&self, key: NameKey, address: &PeerAddress) -> Option<Lasting> {
        let group = self.plan.upstream(key.group);
        let server = group.servers.get(usize::from(key.server.0))?;
        let server = server.address.value.to_string();
        Some((group.name.clone(), server, address.clone()))
    }

    /// `None`: nobody wants to know.
    fn question(
        &self,
        key: NameKey,
        address: &PeerAddress,
    ) -> Result<Option<Question>, MaterialError> {
        let group = self.plan.upstream(key.group);
        let server = group.servers.get(usize::from(key.server.0));
        let (Some(plan), Some(server)) = (&group.check, server.filter(|it| !it.down)) else {
            return Ok(None);
        };
        let group_tls = self.client_tls.get(usize::from(key.group.0));
        let tls = match (plan.kind, group_tls) {
            (CheckKind::Tls, Some(Some(tls))) => Some(tls.for_check(&server.address.value)?),
            _ => None,
        };
        let address = match (plan.port, address) {
            (Some(port), PeerAddress::Ip(it)) => PeerAddress::Ip((it.ip(), port).into()),
            _ => address.clone(),
        };
        Ok(Some(Question {
            address,
            plan: plan.clone(),
            socket: group.socket,
            local: group.local.clone(),
            proxy_protocol: group.proxy_protocol,
            tls,
        }))
    }

    fn tell(&self, key: NameKey, address: &PeerAddress, news: News) {
        (self.publish)(Change {
            group: key.group,
            server: key.server,
            address: address.clone(),
            state: news.state,
            reason: news.reason.into(),
        });
    }

    /// At growing distances: without descriptors every check of every server would say so.
    fn on_unmade(&self, words: &str) {
        let unmade = self.unmade.fetch_add(1, Ordering::Relaxed) + 1;
        if unmade.is_power_of_two() {
            tracing::warn!("{unmade} health checks could not be made: {words}");
        }
    }
}

/// One address's checks, for as long as its task lives.
async fn check(
    key: NameKey,
    address: PeerAddress,
    (question, told): (Question, watch::Sender<Course>),
    common: Arc<Common>,
) {
    let interval = question.plan.interval;
    let Course {
        mut standing,
        mut due,
    } = *told.borrow();
    // Another plan may have set a longer interval.
    due = due.min(Instant::now() + interval);
    loop {
        sleep_until(due.into()).await;
        // Never closed.
        let Ok(place) = common.places.acquire().await else {
            return;
        };
        let begun = Instant::now();
        let outcome = question.ask().await;
        drop(place);
        let (after, news) = standing.after(&outcome, &question.plan);
        standing = after;
        match &outcome {
            Outcome::Passed => {}
            Outcome::Failed(words) => tracing::debug!(%address, words, "a check failed"),
            Outcome::Unmade(words) => common.on_unmade(words),
        }
        if let Some(news) = news {
            common.tell(key, &address, news);
        }
        due = next_due(begun, Instant::now(), interval, jitter());
        told.send_replace(Course { standing, due });
    }
}
