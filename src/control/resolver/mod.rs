//! Names of servers, resolved off the data plane and again when their TTL is over.
//!
//! Needs a tokio runtime of the control thread with its timer and its I/O.

mod lookup;
mod schedule;
mod service;
mod system;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

pub use lookup::Source;
pub(super) use schedule::spread;
pub use schedule::{backoff, jitter, schedule};
pub use system::SystemFiles;

use crate::config::{Plan, ResolvePlan, ServerAddress};
use crate::types::{GroupId, ServerId};
use crate::upstream::Found;
use lookup::LookupError;
use service::KnownHosts;

/// How long the start waits for the first answers. Longer than a lost packet and its retry,
/// short enough that a dead name server does not look like a dead proxy.
pub const FIRST_WAIT_MAX: Duration = Duration::from_secs(5);

/// Reports that may wait for `publish`.
const REPORTS_MAX: usize = 64;

/// Whose addresses are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameKey {
    pub group: GroupId,
    pub server: ServerId,
}

/// A name to keep resolved.
#[derive(Debug, Clone)]
pub struct Question {
    pub key: NameKey,
    pub sought: Sought,
    pub limits: ResolvePlan,
}

/// What a name is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// The addresses of a host.
    Host { host: String, port: u16 },
    /// The hosts of a service, by its SRV records, and their addresses.
    Service(String),
}

impl std::fmt::Display for Sought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Host { host: name, .. } | Self::Service(name)) = self;
        f.write_str(name)
    }
}

/// What a name was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    /// Sorted, each address once. Empty where a service says that it is not there.
    found: Vec<Found>,
    hosts: KnownHosts,
    /// A host of a service that has no address while others have, and why.
    missing: Option<(String, LookupError)>,
    ttl: Duration,
}

impl Source {
    /// Addresses of `known` hosts whose questions alone fail are kept.
    async fn find(&self, sought: &Sought, known: &KnownHosts) -> Result<Answer, LookupError> {
        let (host, port) = match sought {
            Sought::Host { host, port } => (host, *port),
            Sought::Service(name) => return self.find_service(name, known).await,
        };
        let addresses = known.get(host).map_or(&[][..], Vec::as_slice);
        let answer = self.lookup(host, addresses).await?;
        let found = answer.addresses.iter();
        Ok(Answer {
            found: found
                .map(|address| Found::at(SocketAddr::new(*address, port)))
                .collect(),
            hosts: KnownHosts::from([(host.clone(), answer.addresses)]),
            missing: None,
            ttl: answer.ttl,
        })
    }
}

/// Every server of the plan that is given by name.
#[must_use]
pub fn questions(plan: &Plan) -> Vec<Question> {
    let groups = (0..).map(GroupId).zip(&plan.upstreams);
    groups
        .flat_map(|(group, upstream)| {
            let servers = (0..).map(ServerId).zip(&upstream.servers);
            servers.filter_map(move |(server, plan)| {
                let sought = match &plan.address.value {
                    ServerAddress::Name { host, port } => Sought::Host {
                        host: host.clone(),
                        port: *port,
                    },
                    ServerAddress::Service(name) => Sought::Service(name.clone()),
                    ServerAddress::Ip(_) | ServerAddress::Unix(_) => return None,
                };
                Some(Question {
                    key: NameKey { group, server },
                    sought,
                    limits: upstream.resolve,
                })
            })
        })
        .collect()
}

/// Names being kept resolved. Dropping it ends that.
#[derive(Debug)]
pub struct Resolver {
    _tasks: JoinSet<()>,
    memory: Memory,
}

/// What a resolver knows, for the one that succeeds it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    asked: Vec<(Sought, watch::Receiver<Remembered>)>,
}

/// What a name's next task need not ask for again.
#[derive(Debug, Clone, Default)]
struct Remembered {
    known: Vec<Found>,
    hosts: KnownHosts,
    /// When it is to be asked for again; `None`: it has had no good answer.
    due: Option<Instant>,
}

/// What a name's task has to say.
struct Report {
    key: NameKey,
    /// `None`: as before, or not known.
    found: Option<Vec<Found>>,
    /// Whether it is the name's first.
    first: bool,
}

impl Resolver {
    /// Resolves every name and calls `publish` with what it leads to, sorted by
    /// address, whenever that changes. While a name fails its last addresses stay as they are.
    ///
    /// Returns once each name has its first answer or failure, or after [`FIRST_WAIT_MAX`];
    /// whatever is missing then comes later, with a warning now.
    pub async fn start(
        source: Source,
        questions: Vec<Question>,
        publish: impl FnMut(NameKey, Vec<Found>) + Send + 'static,
    ) -> Self {
        Self::succeeding(Memory::default(), (source, questions), publish).await
    }

    /// The same; names that `before` has an answer for keep it until its time is over.
    pub async fn succeeding(
        before: Memory,
        (source, questions): (Source, Vec<Question>),
        mut publish: impl FnMut(NameKey, Vec<Found>) + Send + 'static,
    ) -> Self {
        let mut missing = questions.len();
        let mut tasks = JoinSet::new();
        let mut asked = Vec::new();
        let (sender, mut reports) = mpsc::channel(REPORTS_MAX);
        for question in questions {
            let (memory, remembers) = watch::channel(before.of(&question.sought));
            asked.push((question.sought.clone(), remembers));
            let ask = keep_resolved(question, source.clone(), (sender.clone(), memory));
            tasks.spawn(ask);
        }
        drop(sender);
        let first_answers = async {
            while missing > 0 {
                let Some(report) = reports.recv().await else {
                    break;
                };
                missing -= usize::from(report.first);
                report.publish_to(&mut publish);
            }
        };
        if timeout(FIRST_WAIT_MAX, first_answers).await.is_err() {
            tracing::warn!(
                "going on although {missing} server names have no answer yet after {} s; \
                 connections go to the other servers until they have",
                FIRST_WAIT_MAX.as_secs()
            );
        }
        tasks.spawn(async move {
            while let Some(report) = reports.recv().await {
                report.publish_to(&mut publish);
            }
        });
        Self {
            _tasks: tasks,
            memory: Memory { asked },
        }
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory.clone()
    }
}

impl Memory {
    fn of(&self, sought: &Sought) -> Remembered {
        let mut known = self.asked.iter().filter(|(it, _)| it == sought);
        let remembered = known.next().map(|(_, it)| it.borrow().clone());
        remembered.unwrap_or_default()
    }
}

impl Report {
    fn publish_to(self, publish: &mut impl FnMut(NameKey, Vec<Found>)) {
        if let Some(found) = self.found {
            publish(self.key, found);
        }
    }
}

/// One name's task. Ends with the receiver of its reports.
async fn keep_resolved(
    question: Question,
    source: Source,
    (reports, memory): (mpsc::Sender<Report>, watch::Sender<Remembered>),
) {
    let key = question.key;
    let (mut name, due) = WatchedName::remembering(question, memory.borrow().clone());
    let mut first = true;
    if let Some(due) = due {
        let report = Report {
            key,
            found: Some(name.known.clone()),
            first,
        };
        if reports.send(report).await.is_err() {
            return;
        }
        first = false;
        sleep_until(due.into()).await;
    }
    loop {
        let result = source.find(&name.question.sought, &name.hosts).await;
        let next = name.on_result(result, jitter());
        memory.send_replace(name.remembered(Instant::now() + next.wait));
        if first || next.publish.is_some() {
            let report = Report {
                key,
                found: next.publish,
                first,
            };
            if reports.send(report).await.is_err() {
                return;
            }
            first = false;
        }
        sleep(next.wait).await;
    }
}

/// What is known of a name, and how its questions went. Pure.
struct WatchedName {
    question: Question,
    /// The last good answer.
    known: Vec<Found>,
    /// By host, for questions that fail alone.
    hosts: KnownHosts,
    /// The last good answer was that it is not there.
    is_away: bool,
    /// The host that was missing in it.
    missing: Option<String>,
    /// In a row.
    failures: u32,
}

struct Next {
    publish: Option<Vec<Found>>,
    wait: Duration,
}

impl WatchedName {
    fn new(question: Question) -> Self {
        Self {
            question,
            known: Vec::new(),
            hosts: KnownHosts::new(),
            is_away: false,
            missing: None,
            failures: 0,
        }
    }

    /// Goes on where another task was. When the name is to be asked for; `None`: now.
    fn remembering(question: Question, remembered: Remembered) -> (Self, Option<Instant>) {
        let Remembered { known, hosts, due } = remembered;
        let due = due.map(|due| due.min(Instant::now() + question.limits.ttl_max));
        let is_away = due.is_some() && known.is_empty();
        let name = Self {
            known,
            hosts,
            is_away,
            ..Self::new(question)
        };
        (name, due)
    }

    fn remembered(&self, due: Instant) -> Remembered {
        let has_answer = !self.known.is_empty() || self.is_away;
        Remembered {
            known: self.known.clone(),
            hosts: self.hosts.clone(),
            due: has_answer.then_some(due),
        }
    }

    fn on_result(&mut self, result: Result<Answer, LookupError>, jitter: f64) -> Next {
        match result {
            Ok(answer) => self.on_answer(answer, jitter),
            Err(error) => self.on_failure(&error, jitter),
        }
    }

    fn on_answer(&mut self, answer: Answer, jitter: f64) -> Next {
        if self.failures > 0 {
            tracing::info!("{} resolves", self.question.sought);
        }
        self.failures = 0;
        self.say_what_lacks(&answer);
        let publish = (answer.found != self.known).then(|| answer.found.clone());
        (self.known, self.hosts) = (answer.found, answer.hosts);
        Next {
            publish,
            wait: schedule(answer.ttl, self.question.limits, jitter),
        }
    }

    /// Once for each thing that is not as it was.
    fn say_what_lacks(&mut self, answer: &Answer) {
        let sought = &self.question.sought;
        let is_away = answer.found.is_empty();
        if is_away && !self.is_away {
            tracing::warn!(
                "{sought} is not there, says the DNS (the target of its SRV record is \".\"): it \
                 gets no connection"
            );
        }
        self.is_away = is_away;
        let missing = answer.missing.as_ref();
        if let Some((host, error)) = missing.filter(|(host, _)| self.missing.as_ref() != Some(host))
        {
            tracing::warn!(
                "{host} of {sought} cannot be resolved: {error}. Until it can, it gets no connection"
            );
        }
        self.missing = missing.map(|(host, _)| host.clone());
    }

    fn on_failure(&mut self, error: &LookupError, jitter: f64) -> Next {
        self.failures = self.failures.saturating_add(1);
        // At growing distances: a name that stays away for a week is not a line every 30 s.
        if self.failures.is_power_of_two() {
            tracing::warn!("{}", self.complaint(error));
        }
        Next {
            publish: None,
            wait: backoff(self.failures, jitter),
        }
    }

    fn complaint(&self, error: &LookupError) -> String {
        let host = &self.question.sought;
        match self.known.len() {
            0 => format!("{host} cannot be resolved: {error}. Until it can, it gets no connection"),
            known => format!(
                "{host} cannot be resolved: {error}. Its last {known} addresses stay in use"
            ),
        }
    }
}
