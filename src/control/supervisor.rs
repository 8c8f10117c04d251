use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::admin::{Admin, Commands, Reach, reach};
use super::banner::Banner;
use super::board::Board;
use super::confine::{Confinement, Enclosure};
use super::crew::{Crew, Notice, Restarts};
use super::key_logs;
use super::metrics::{InUse, Metrics};
use super::outside::Outside;
use super::reload::{Basis, Checked, FileWatch};
use super::reports::{REPORTS_MAX, follow};
use super::shared::{self, descriptors};
use super::signals::Signals;
use super::sockets::Sockets;
use super::succession::Succession;
use crate::config::{Plan, Workers};
use crate::net::PeerAddress;
use crate::observe::SinkHandle;
use crate::sys::{Activated, Nofile, Probe, probe, raise_nofile};
use crate::tls::MaterialError;
use crate::types::{CoreId, ListenerId, unix_now};
use crate::worker::{Assignment, Driver, Reporter, Shared, mailbox, reports, work};

/// What the command line adds to the plan.
#[derive(Debug, Default)]
pub struct Options {
    /// Run on epoll where io_uring is forbidden, instead of refusing.
    pub allow_epoll: bool,
    /// Take the sockets of the running process over, if there is one.
    pub take_over: bool,
    /// Sockets that a service manager has opened.
    pub activated: Vec<Activated>,
    /// `None`: the process keeps all its rights, as one that does more than this must.
    pub enclosure: Option<Enclosure>,
}

/// Why the proxy does not start. The text says what, where, and what to do.
#[derive(Debug)]
pub enum StartError {
    /// The operating system refuses something.
    System(String),
    /// A file that the plan names cannot be used.
    Material(MaterialError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(words) => f.write_str(words),
            Self::Material(error) => error.fmt(f),
        }
    }
}

impl From<MaterialError> for StartError {
    fn from(error: MaterialError) -> Self {
        Self::Material(error)
    }
}

fn system(error: impl ToString) -> StartError {
    StartError::System(error.to_string())
}

/// A running proxy: every worker accepts, every name has been asked for.
pub struct Started {
    pub(super) crew: Crew,
    pub(super) notices: UnboundedReceiver<Notice>,
    pub(super) context: Context,
    restarts: Restarts,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    pub(super) signals: Signals,
    pub(super) sink: SinkHandle,
    pub(super) outside: Outside,
    pub(super) basis: Basis,
    pub(super) watch: FileWatch,
    /// What the admin server asks; nothing ever where there is none.
    pub(super) commands: Commands,
    is_draining: bool,
    pub(super) succession: Succession,
    reach: Reach,
    admin: Option<Admin>,
}

/// Whether the process goes on after something has happened; else how it ends.
pub(super) type Turn = ControlFlow<Result<(), String>>;

/// What workers are started from, the first time and again.
pub(super) struct Context {
    body: Body,
    pub(super) shared: Arc<Shared>,
    /// `None`: it drains.
    pub(super) sockets: Option<Sockets>,
    driver: Driver,
    cpus: Vec<Option<usize>>,
    confinement: Option<Arc<Confinement>>,
}

/// What a worker's thread runs; the words of an error say why it cannot begin or go on.
pub(crate) type Body = Arc<dyn Fn(Arc<Shared>, Assignment) -> Result<(), String> + Send + Sync>;

/// Starts everything. Must be called within a tokio runtime (current thread).
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(checked: impl Into<Checked>, options: Options) -> Result<Started, StartError> {
    let body =
        |shared: Arc<Shared>, assignment| work(shared, assignment).map_err(|e| e.to_string());
    start_with(checked, options, Arc::new(body)).await
}

/// [`start`] with another body for the workers' threads, say one that dies.
pub(crate) async fn start_with(
    checked: impl Into<Checked>,
    mut options: Options,
    body: Body,
) -> Result<Started, StartError> {
    let Checked {
        plan,
        files,
        mut basis,
    } = checked.into();
    let plan = Arc::new(plan);
    let probe = probe();
    let driver = driver(&probe, options.allow_epoll)?;
    let cpus = cpus(&plan.runtime.workers, &allowed_cpus())?;
    let wanted = descriptors(&plan, cpus.len());
    let _ = raise_nofile(wanted);
    let metrics = Metrics::new(cpus.len(), driver == Driver::Epoll);
    let meters = metrics.meters(&plan);
    let shared = shared::first((&plan, &files), cpus.len(), probe.ktls.ok(), meters)?;
    let shared = Arc::new(shared);
    let enclosure = options.enclosure.take();
    let (succession, mut inherited) = Succession::begin(&shared, options).await.map_err(system)?;
    let nofile = raise_nofile(wanted + 2 * inherited.count() as u64);
    let sockets = Sockets::bind(&plan, cpus.len(), &mut inherited);
    let sockets = sockets.await.map_err(system)?;
    inherited.unclaimed().map_err(system)?;
    let confinement = enclosure.map(|it| it.close(&plan)).transpose();
    let confinement = confinement.map_err(system)?;
    let sink = SinkHandle::spawn(&plan.log).map_err(system)?;
    key_logs::open(&shared)?;
    let signals = Signals::new().map_err(system)?;
    say_banner(&plan, &probe, (driver, &cpus), (nofile, &sockets));
    confinement.iter().for_each(|it| it.say());

    let board = Board::default();
    board.begin(Arc::clone(&plan));
    let outside = Outside::start(&shared, &board).await;
    let _ = basis.warn_of_ends();

    let (crew, notices) = Crew::new();
    let context = Context {
        body,
        shared,
        sockets: Some(sockets),
        driver,
        cpus,
        confinement,
    };
    let (reach, commands) = reach(&board);
    // A process that follows another has to wait for its addresses.
    let admin = plan.admin.as_ref().filter(|_| !succession.is_following());
    let admin = admin.map(|plan| Admin::start(plan, &reach));
    let admin = admin.transpose().map_err(system)?;
    let restarts = Restarts::default();
    let mut started = Started {
        crew,
        notices,
        context,
        restarts,
        board,
        metrics,
        signals,
        sink,
        outside,
        basis,
        watch: FileWatch::default(),
        commands,
        is_draining: false,
        succession,
        reach,
        admin,
    };
    started.tell_metrics();
    started.succeed().await?;
    started.watch_files();
    Ok(started)
}

fn say_banner(
    plan: &Plan,
    probe: &Probe,
    (driver, cpus): (Driver, &[Option<usize>]),
    (nofile, sockets): (Nofile, &Sockets),
) {
    Banner {
        plan,
        probe,
        driver,
        cpus,
        nofile,
        sockets,
    }
    .say();
}

fn driver(probe: &Probe, allow_epoll: bool) -> Result<Driver, StartError> {
    match &probe.ring {
        Ok(features) => Ok(Driver::Ring(*features)),
        Err(_) if allow_epoll => Ok(Driver::Epoll),
        Err(refusal) => Err(StartError::System(format!(
            "no io_uring: {}: {}; or run on epoll, slower, with --allow-epoll",
            refusal.cause, refusal.cure
        ))),
    }
}

/// CPUs that this process may run on; none where the system would not tell.
fn allowed_cpus() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.iter().map(|core| core.id).collect()
}

/// One entry for each worker: the CPU it is pinned to.
fn cpus(workers: &Workers, allowed: &[usize]) -> Result<Vec<Option<usize>>, StartError> {
    let all = || match allowed {
        [] => vec![None],
        allowed => allowed.iter().copied().map(Some).collect(),
    };
    match workers {
        Workers::Auto => Ok(all()),
        Workers::Count(count) => Ok(all().into_iter().cycle().take(*count).collect()),
        Workers::Cpus(cpus) => {
            if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
                return Err(StartError::System(format!(
                    "this process may not run on CPU {cpu} of `cpus` in [runtime]: it has {allowed:?} \
                     (taskset -p, CPUAffinity=, the container's cpuset)"
                )));
            }
            Ok(cpus.iter().copied().map(Some).collect())
        }
    }
}

impl Started {
    /// Where each listener accepts, ports resolved.
    #[must_use]
    pub fn addresses(&self) -> Vec<(ListenerId, PeerAddress)> {
        let sockets = self.context.sockets.iter().flat_map(Sockets::addresses);
        sockets
            .map(|(listener, address)| (listener, address.clone()))
            .collect()
    }

    #[must_use]
    pub fn workers(&self) -> usize {
        self.context.cpus.len()
    }

    /// The plan in force is another.
    pub(super) fn tell_metrics(&self) {
        self.metrics.put(InUse {
            plan: Arc::clone(&self.context.shared.plan),
            since: unix_now(),
            ends: self.basis.ends.clone(),
            board: self.board.clone(),
            log: self.sink.counts(),
        });
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// No new connections any more.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// What new connections are served by.
    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.context.shared.plan
    }

    /// By listener: its connections on all cores.
    pub(super) fn connections(&self) -> Vec<usize> {
        let counts = self.context.shared.connections.iter();
        counts.map(|it| it.load(Ordering::Relaxed)).collect()
    }

    /// What the process has given up; `None`: nothing.
    #[must_use]
    pub fn confinement(&self) -> Option<&Confinement> {
        self.context.confinement.as_deref()
    }

    async fn start_workers(&mut self) -> Result<(), StartError> {
        for worker in 0..self.workers() {
            self.start_worker(worker).map_err(system)?;
        }
        let mut waiting = self.workers();
        while waiting > 0 {
            match self.notices.recv().await {
                Some(Notice::Ready { .. }) => waiting -= 1,
                Some(Notice::Failed { worker, words }) => {
                    return Err(StartError::System(format!("worker {worker}: {words}")));
                }
                _ => return Err(system("a worker ended before it was ready")),
            }
        }
        Ok(())
    }

    fn start_worker(&self, worker: usize) -> std::io::Result<()> {
        let Some(sockets) = &self.context.sockets else {
            return Ok(());
        };
        let listen = sockets.of_worker(worker)?;
        let (postbox, mailbox) = mailbox()?;
        self.board.enlist(worker, postbox);
        let reporter = self.hear(worker)?;
        let (body, shared) = (self.context.body.clone(), self.context.shared.clone());
        let log = self.sink.sender();
        let (driver, cpu) = (self.context.driver, self.context.cpus[worker]);
        let id = CoreId(u16::try_from(worker).unwrap_or(u16::MAX));
        let confinement = self.context.confinement.clone();
        self.crew.start(worker, move |on_ready| {
            if let Some(confinement) = confinement {
                confinement.enter_worker().map_err(|it| it.to_string())?;
            }
            let assignment = Assignment {
                id,
                cpu,
                driver,
                listen,
                mailbox,
                reporter,
                log,
                on_ready,
            };
            body(shared, assignment)
        })
    }

    /// A way for a worker to say how servers are, and a task that hears it.
    fn hear(&self, worker: usize) -> std::io::Result<Reporter> {
        let (reporter, reports) = reports(REPORTS_MAX)?;
        // Now, so that all is open once the proxy is ready.
        let bell = UnixStream::from_std(reports.bell()?)?;
        let board = self.board.clone();
        tokio::spawn(async move {
            if let Err(error) = follow((reports, bell), worker, board).await {
                tracing::error!(worker, %error, "its reports of servers are not heard");
            }
        });
        Ok(reporter)
    }
}

mod following;
mod running;
#[cfg(test)]
mod tests;
