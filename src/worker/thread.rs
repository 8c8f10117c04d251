use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monoio::time::sleep;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::mailbox::{Inbox, Letter, Mailbox};
use super::next::{Duty, generation, tell};
use super::reports::Reporter;
use crate::config::Plan;
use crate::net::{Listening, PeerAddress, count_waits};
use crate::observe::RecordSender;
use crate::observe::meters::PlanMeters;
use crate::session::{Access, Core, Parts, RunState};
use crate::sys::{KtlsAbility, RingFeatures, ring_builder};
use crate::tls::{ClientTls, Digests, KeyRing, MaterialError, ServerTls};
use crate::types::{CoreId, ListenerId, SocketId};
use crate::upstream::{Group, ServerCounts, WARMING_AT_ONCE, WarmMeans};

/// What all cores are built from: made once for each plan, never changed.
pub struct Shared {
    /// Counts the plans that were in force, from 0.
    pub generation: u64,
    pub plan: Arc<Plan>,
    /// By listener; `None` where it terminates no TLS.
    pub server_tls: Vec<Option<Arc<ServerTls>>>,
    /// By listener: its ticket keys, where it terminates TLS.
    pub key_rings: Vec<Option<Arc<KeyRing>>>,
    /// By upstream group; `None` where it originates no TLS.
    pub client_tls: Vec<Option<Arc<ClientTls>>>,
    /// By listener: its connections on all cores.
    pub connections: Vec<Arc<AtomicUsize>>,
    /// By upstream group: connections of its servers on all cores.
    pub server_counts: Vec<Arc<ServerCounts>>,
    /// By listener; `None` where it serves every client.
    pub access: Vec<Option<Arc<Access>>>,
    /// What the kernel's TLS can do, if it has one.
    pub kernel_tls: Option<KtlsAbility>,
    /// What the files held that TLS was made of.
    pub digests: Digests,
    pub meters: PlanMeters,
}

/// What one core is given.
pub struct Assignment {
    pub id: CoreId,
    /// The CPU to run on; `None` where the system would not tell.
    pub cpu: Option<usize>,
    pub driver: Driver,
    pub listen: Vec<Listen>,
    pub mailbox: Mailbox,
    pub reporter: Reporter,
    pub log: RecordSender,
    /// Called when every listening socket accepts.
    pub on_ready: Box<dyn FnOnce() + Send>,
}

/// A listening socket, bound by the control thread.
pub struct Listen {
    pub socket: SocketId,
    pub listener: ListenerId,
    pub fd: OwnedFd,
    pub address: PeerAddress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Ring(RingFeatures),
    /// monoio's epoll driver, for machines that forbid `io_uring`.
    Epoll,
}

/// Why a worker could not begin or go on.
#[derive(Debug)]
pub enum WorkerError {
    Runtime(io::Error),
    Socket(io::Error),
    Material(MaterialError),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "its ring could not be set up: {error}"),
            Self::Socket(error) => write!(f, "a socket could not be put on its ring: {error}"),
            Self::Material(error) => error.fmt(f),
        }
    }
}

/// Runs a core to its end on the calling thread.
///
/// # Errors
/// [`WorkerError`]; the core served nothing.
pub fn work(shared: Arc<Shared>, assignment: Assignment) -> Result<(), WorkerError> {
    if let Some(cpu) = assignment.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
    {
        tracing::warn!(core = %assignment.id, cpu, "the worker could not be pinned to its CPU");
    }
    match assignment.driver {
        Driver::Ring(features) => RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(ring_builder(features))
            .enable_timer()
            .build()
            .map_err(WorkerError::Runtime)?
            .block_on(run(shared, assignment)),
        Driver::Epoll => RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()
            .map_err(WorkerError::Runtime)?
            .block_on(run(shared, assignment)),
    }
}

async fn run(shared: Arc<Shared>, assignment: Assignment) -> Result<(), WorkerError> {
    let Assignment {
        id,
        listen,
        mailbox,
        reporter,
        log,
        on_ready,
        ..
    } = assignment;
    let reporter = Rc::new(RefCell::new(reporter));
    let core = core(&shared, id, log, &reporter).map_err(WorkerError::Material)?;
    // A plan that others follow is not kept for the thread's life.
    drop(shared);
    count_waits(Arc::clone(&core.meters));
    let duty = Duty::new(Rc::new(core), reporter);
    for Listen {
        socket,
        listener,
        fd,
        address,
    } in listen
    {
        let listening = Listening::new(fd, address).map_err(WorkerError::Socket)?;
        duty.serve(socket, listener, listening);
    }
    for group in duty.core.generation().groups() {
        keep_warm(&duty.core, group);
    }
    duty.core.watch_proofs();
    let inbox = mailbox.open().map_err(WorkerError::Socket)?;
    on_ready();
    let ended = read_letters(&duty, &inbox).await;
    duty.core.flush_journal();
    ended.map_err(WorkerError::Socket)
}

fn core(
    shared: &Shared,
    id: CoreId,
    log: RecordSender,
    reporter: &Rc<RefCell<Reporter>>,
) -> Result<Core, MaterialError> {
    let tell = tell(reporter, shared.generation);
    let (generation, _) = generation(shared, id, &tell, None)?;
    Ok(Core::new(Parts {
        id,
        generation,
        log,
        kernel_tls: shared.kernel_tls,
        meters: shared.meters.core(id),
    }))
}

/// How often a draining core looks whether its last connection has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// Connections that are told to close do it at once; this bounds a defect.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Makes connections ready where the group wants some, until the core drains.
pub(super) fn keep_warm(core: &Rc<Core>, group: &Rc<Group>) {
    if group.plan.warm.connections_max == 0 {
        return;
    }
    for _ in 0..WARMING_AT_ONCE {
        let (core, group) = (Rc::clone(core), Rc::clone(group));
        monoio::spawn(async move {
            let means = WarmMeans {
                buffers: &core.tools.buffers,
                handshakes: &core.handshakes,
                keep_secrets: core.keeps_secrets(group.plan.carriage),
            };
            let is_wanted = || core.watch.state() == RunState::Running;
            group.keep_warm(means, is_wanted).await;
        });
    }
}

/// Follows the control thread's letters until the core has drained or closed.
async fn read_letters(duty: &Duty, inbox: &Inbox) -> io::Result<()> {
    let core = &duty.core;
    while core.watch.state() == RunState::Running {
        let Some(letters) = inbox.wait().await? else {
            return Ok(());
        };
        letters.into_iter().for_each(|letter| follow(duty, letter));
    }
    // Connections that were still in the kernel's queue become live in the accept loops' next turn.
    sleep(DRAIN_LOOK).await;
    while core.live() > 0 && core.watch.state() == RunState::Draining {
        sleep(DRAIN_LOOK).await;
        inbox
            .received()
            .into_iter()
            .for_each(|letter| follow(duty, letter));
    }
    core.watch.advance(RunState::Closing);
    let mut waited = Duration::ZERO;
    while core.live() > 0 && waited < CLOSE_WAIT_MAX {
        sleep(DRAIN_LOOK).await;
        waited += DRAIN_LOOK;
    }
    // One more turn of the ring, which sends off the last closes.
    sleep(Duration::from_millis(1)).await;
    Ok(())
}

fn follow(duty: &Duty, letter: Letter) {
    let core = &duty.core;
    match letter {
        Letter::Prepare(preparation) => duty.prepare(preparation),
        Letter::Switch(switch) => duty.switch(switch),
        Letter::Forget => duty.forget(),
        Letter::Advance(state) => core.watch.advance(state),
        Letter::Leave(addresses) => core.watch.leave(addresses),
        Letter::Answer(answered) => answered.store(true, Ordering::Relaxed),
        Letter::Server {
            group,
            server,
            address,
            state,
        } => duty.told((group, server), &address, state),
        Letter::Hold {
            group,
            server,
            address,
            hold,
        } => duty.hold((group, server), address.as_ref(), hold),
        Letter::List { wanted, max, reply } => reply.send(core.list(&wanted, max)),
        Letter::Census(reply) => reply.send(duty.census()),
        Letter::End {
            wanted,
            order,
            reply,
        } => reply.send(core.end(&wanted, order)),
        Letter::Resolved {
            group,
            server,
            found,
        } => duty.resolved((group, server), &found),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;

    use ringway_support::link::Address;
    use ringway_support::toml::{listener, upstream};
    use ringway_support::{Ending, Link, Peer, until};

    use super::*;
    use crate::config::parse;
    use crate::net::{bind, local_address};
    use crate::observe::SinkHandle;
    use crate::sys::probe;
    use crate::worker::{mailbox, reports};

    /// Listener `sound`, and listener `broken`, whose group the core will not have.
    fn plan(server: &Address, log: &Path) -> Arc<Plan> {
        let text = format!("[log]\naccess = \"{}\"\n", log.display())
            + &listener("sound", "a", "", "")
            + &listener("broken", "b", "", "")
            + &upstream("a", &[server], "")
            + &upstream("b", &[server], "");
        Arc::new(parse("x.toml", text).into_plan().unwrap())
    }

    /// A core with a defect that no plan could bring about: the second group is not there, and
    /// whoever asks for it panics.
    fn defective(plan: &Arc<Plan>) -> Shared {
        assert_eq!(plan.upstreams.len(), 2);
        Shared {
            generation: 0,
            plan: Arc::clone(plan),
            server_tls: vec![None, None],
            key_rings: vec![None, None],
            client_tls: vec![None],
            server_counts: vec![Arc::new(ServerCounts::new(&plan.upstreams[0], 1))],
            connections: vec![Arc::default(), Arc::default()],
            access: vec![None, None],
            kernel_tls: None,
            digests: Digests::default(),
            meters: PlanMeters::unread(plan, 1),
        }
    }

    /// The worker's sockets and where each of them listens.
    fn bound(plan: &Plan) -> (Vec<Listen>, Vec<Address>) {
        let bind = |(listener, plan): (ListenerId, &crate::config::ListenerPlan)| {
            let fd = bind(&plan.binds[0].value, &plan.socket, plan.backlog).unwrap();
            let address: SocketAddr = local_address(&fd).unwrap().unwrap();
            let listen = Listen {
                socket: SocketId(u32::from(listener.0)),
                listener,
                fd,
                address: PeerAddress::Ip(address),
            };
            (listen, Address::Ip(address))
        };
        (0..).map(ListenerId).zip(&plan.listeners).map(bind).unzip()
    }

    /// Made on the worker's thread: the end of the probe's ring interrupts the thread's next call.
    fn assignment(listen: Vec<Listen>, mailbox: Mailbox, log: RecordSender) -> Assignment {
        Assignment {
            id: CoreId(0),
            cpu: None,
            driver: probe().ring.map_or(Driver::Epoll, Driver::Ring),
            listen,
            mailbox,
            reporter: reports(1).unwrap().0,
            log,
            on_ready: Box::new(|| ()),
        }
    }

    #[test]
    fn a_panic_ends_its_connection_alone_and_the_record_says_internal_error() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("access.log");
        let echo = Peer::plain().echo();
        let plan = plan(echo.address(), &log);
        let sink = SinkHandle::spawn(&plan.log).unwrap();
        let (listen, addresses) = bound(&plan);
        let (postbox, mailbox) = mailbox().unwrap();
        let (shared, sender) = (defective(&plan), sink.sender());
        let worker = std::thread::spawn(move || {
            let assignment = assignment(listen, mailbox, sender);
            work(Arc::new(shared), assignment).is_ok()
        });

        let mut before = Link::connect(&addresses[0]).unwrap();
        before.ping(b"before the panic");
        let mut broken: Vec<_> = (0..3)
            .map(|_| Link::connect(&addresses[1]).unwrap())
            .collect();
        for link in &mut broken {
            let ending = link.expect_end();
            assert_eq!(
                ending,
                Ending::Reset,
                "no clean end of what was not finished"
            );
        }
        before.ping(b"after the panic");
        Link::connect(&addresses[0]).unwrap().ping(b"a new one");
        let lines = until("every panic has its line", || {
            let text = std::fs::read_to_string(&log).unwrap();
            let of_broken = text.lines().filter(|line| line.contains("\"broken\""));
            let lines: Vec<String> = of_broken.map(str::to_owned).collect();
            (lines.len() == broken.len()).then_some(lines)
        });
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["end"], "internal_error");
            assert_eq!(line["phase"], "connect");
            assert_eq!(line["ended_by"], "ringway");
        }

        before.finish().unwrap();
        assert_eq!(before.expect_end(), Ending::Clean);
        postbox.post(Letter::Advance(RunState::Draining));
        assert!(
            worker.join().unwrap(),
            "the core has drained: no panic is counted as alive"
        );
    }
}
