use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::time::sleep;

use super::inherited::{Inherited, Origin, SocketSet, inspect, may_have_more};
use super::socket_file::{NO_SOCKET_CURE, remove_if_stale};
use crate::config::{BindAddress, ListenerPlan, Plan, Steering};
use crate::net::{PeerAddress, bind, local_address, readjust, reserve};
use crate::sys::{steer_by_source, stop_steering};
use crate::types::{ListenerId, SocketId};
use crate::worker::Listen;

/// Every listening socket of the process, kept open here so that a worker that is started again
/// finds its connections waiting.
#[derive(Debug)]
pub(super) struct Sockets {
    bound: Vec<Bound>,
    ids_given: u32,
    workers: usize,
}

/// What another plan needs: sockets that stay, and those that were bound for it.
#[derive(Debug)]
pub(super) struct Renewal {
    kept: BTreeMap<SocketId, ListenerId>,
    added: Vec<Bound>,
    workers: usize,
}

#[derive(Debug)]
struct Bound {
    id: SocketId,
    listener: ListenerId,
    /// The listener's name and the address, as the plan has them.
    name: String,
    wanted: BindAddress,
    address: PeerAddress,
    /// In the order in which they joined their SO_REUSEPORT group.
    fds: Vec<Arc<OwnedFd>>,
    /// Who opened them, where it was not this process.
    origin: Option<Origin>,
}

/// The sockets of one address on their way to another process.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) listener: String,
    pub(super) bind: String,
    pub(super) address: PeerAddress,
    pub(super) keeps_file: bool,
    pub(super) fds: Vec<Arc<OwnedFd>>,
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub(super) struct BindError {
    listener: String,
    address: String,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listener,
            address,
            error,
        } = self;
        let cure = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; `ss -ltnxp` names it",
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), a \
                 unix socket needs a folder that this user may write to"
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has the address",
            io::ErrorKind::NotFound => "the folder of the unix socket does not exist",
            io::ErrorKind::AlreadyExists => NO_SOCKET_CURE,
            _ => "see bind(2) and listen(2) for this error",
        };
        write!(
            f,
            "listener \"{listener}\" cannot listen on {address}: {error}: {cure}"
        )
    }
}

impl Sockets {
    /// Binds what the plan names, and takes what is there already. No connection comes to a socket
    /// of an inherited address that is new before [`begin`](Self::begin).
    pub(super) async fn bind(
        plan: &Plan,
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let mut sockets = Self {
            bound: Vec::new(),
            ids_given: 0,
            workers,
        };
        let renewal = sockets.obtain_all(plan, inherited).await?;
        sockets.bound = renewal.added;
        Ok(sockets)
    }

    /// Binds what `plan` has and these have not. Nothing is kept of an error.
    pub(super) async fn renewal(&mut self, plan: &Plan) -> Result<Renewal, BindError> {
        self.obtain_all(plan, &mut Inherited::default()).await
    }

    async fn obtain_all(
        &mut self,
        plan: &Plan,
        inherited: &mut Inherited,
    ) -> Result<Renewal, BindError> {
        let mut renewal = Renewal {
            kept: BTreeMap::new(),
            added: Vec::new(),
            workers: self.workers,
        };
        for (id, listener) in (0..).map(ListenerId).zip(&plan.listeners) {
            for address in &listener.binds {
                if let Some(known) = self.unclaimed(&listener.name, &address.value, &renewal) {
                    renewal.kept.insert(known, id);
                    continue;
                }
                let bound = self.obtain((id, listener), &address.value, inherited);
                renewal.added.push(bound.await.map_err(|error| BindError {
                    listener: listener.name.clone(),
                    address: written(&address.value),
                    error,
                })?);
            }
        }
        Ok(renewal)
    }

    async fn obtain(
        &mut self,
        (id, listener): (ListenerId, &ListenerPlan),
        wanted: &BindAddress,
        inherited: &mut Inherited,
    ) -> io::Result<Bound> {
        let claimed = inherited.claim(&listener.name, wanted);
        let origin = claimed.as_ref().map(|set| set.origin);
        let (address, fds) = match claimed {
            Some(set) => extend(set, listener, wanted, self.workers)?,
            None => {
                let is_shared = |address| inherited.overlaps(address);
                open_patiently(listener, wanted, self.workers, is_shared).await?
            }
        };
        self.ids_given += 1;
        Ok(Bound {
            id: SocketId(self.ids_given),
            listener: id,
            name: listener.name.clone(),
            wanted: wanted.clone(),
            address,
            fds: fds.into_iter().map(Arc::new).collect(),
            origin,
        })
    }

    /// Lets connections come to every socket, and puts the plan's options on those that others have
    /// opened. Until then nothing has changed for whoever listens on them.
    pub(super) fn begin(&self, plan: &Plan) -> io::Result<()> {
        for bound in self.bound.iter().filter(|bound| bound.origin.is_some()) {
            let listener = plan.listener(bound.listener);
            for fd in &bound.fds {
                readjust(fd, &listener.socket, listener.backlog)?;
            }
            bound.steer(listener.steering)?;
        }
        Ok(())
    }

    /// A socket of that address which no listener of the renewal has yet: one of the same listener,
    /// or of another that has given it up. Port 0 is any port, so there the listener decides.
    fn unclaimed(&self, name: &str, wanted: &BindAddress, renewal: &Renewal) -> Option<SocketId> {
        let fits = |it: &&Bound| it.wanted == *wanted && !renewal.kept.contains_key(&it.id);
        let is_any = matches!(wanted, BindAddress::Tcp(address) if address.port() == 0);
        let mut own = self.bound.iter().filter(|it| it.name == name);
        let mut others = self.bound.iter().filter(|_| !is_any);
        own.find(fits).or_else(|| others.find(fits)).map(|it| it.id)
    }

    /// Takes the place of what was there: sockets without a listener are closed here, and go with
    /// the workers' copies.
    pub(super) fn renew(&mut self, renewal: Renewal, plan: &Plan) {
        let Renewal { kept, added, .. } = renewal;
        self.bound.retain(|bound| kept.contains_key(&bound.id));
        for bound in &mut self.bound {
            if let Some(listener) = kept.get(&bound.id) {
                let plan = plan.listener(*listener);
                (bound.listener, bound.name) = (*listener, plan.name.clone());
                bound.adjust(plan);
            }
        }
        self.bound.extend(added);
    }

    /// The sockets of one worker.
    pub(super) fn of_worker(&self, worker: usize) -> io::Result<Vec<Listen>> {
        let bound = self.bound.iter();
        bound
            .flat_map(|bound| bound.listen(worker, self.workers))
            .collect()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (ListenerId, &PeerAddress)> {
        self.bound
            .iter()
            .map(|bound| (bound.listener, &bound.address))
    }

    /// All of them, for the process that follows this one.
    pub(super) fn offered(&self) -> Vec<Offered> {
        let offered = |bound: &Bound| Offered {
            listener: bound.name.clone(),
            bind: written(&bound.wanted),
            address: bound.address.clone(),
            keeps_file: bound.origin.is_some_and(Origin::keeps_file),
            fds: bound.fds.clone(),
        };
        self.bound.iter().map(offered).collect()
    }

    /// What the process before this has to stop accepting on.
    pub(super) fn taken_over(&self) -> Vec<u32> {
        let id = |bound: &Bound| match bound.origin {
            Some(Origin::Predecessor { id, .. }) => Some(id),
            _ => None,
        };
        self.bound.iter().filter_map(id).collect()
    }

    /// The process before this has stopped: what it had is ours.
    pub(super) fn own(&mut self) {
        for bound in &mut self.bound {
            let keeps_file = bound.origin.is_some_and(Origin::keeps_file);
            bound.origin = keeps_file.then_some(Origin::Systemd);
        }
    }

    /// Another process accepts on these addresses: their files stay when the sockets are closed.
    pub(super) fn release(&mut self, addresses: &[PeerAddress]) {
        for bound in &mut self.bound {
            if addresses.contains(&bound.address) {
                bound.origin = Some(Origin::Systemd);
            }
        }
        self.bound
            .retain(|bound| !addresses.contains(&bound.address));
    }
}

impl Renewal {
    /// The new sockets of one worker.
    pub(super) fn of_worker(&self, worker: usize) -> io::Result<Vec<Listen>> {
        let added = self.added.iter();
        added
            .flat_map(|bound| bound.listen(worker, self.workers))
            .collect()
    }

    /// Every socket that accepts, and for which listener.
    pub(super) fn listeners(&self) -> BTreeMap<SocketId, ListenerId> {
        let added = self.added.iter().map(|bound| (bound.id, bound.listener));
        self.kept
            .iter()
            .map(|(id, it)| (*id, *it))
            .chain(added)
            .collect()
    }

    pub(super) fn added(&self) -> impl Iterator<Item = (ListenerId, &PeerAddress)> {
        let added = self.added.iter();
        added.map(|bound| (bound.listener, &bound.address))
    }
}

impl Bound {
    /// The sockets of one worker: each socket of an address has one, or as many share one as there
    /// are too few.
    fn listen(&self, worker: usize, workers: usize) -> Vec<io::Result<Listen>> {
        let first = worker % self.fds.len();
        let fds = self.fds.iter().skip(first).step_by(workers);
        let listen = |fd: &Arc<OwnedFd>| {
            Ok(Listen {
                socket: self.id,
                listener: self.listener,
                fd: fd.try_clone()?,
                address: self.address.clone(),
            })
        };
        fds.map(listen).collect()
    }

    /// Sockets may have been steered by the plan of another process.
    fn steer(&self, steering: Steering) -> io::Result<()> {
        let PeerAddress::Ip(address) = self.address else {
            return Ok(());
        };
        let Some(first) = self.fds.first().filter(|fd| may_have_more(fd.as_fd())) else {
            return Ok(());
        };
        let first = first.as_fd();
        match steering {
            Steering::SourceAddress => {
                let sockets = u32::try_from(self.fds.len()).unwrap_or(u32::MAX);
                steer_by_source(first, sockets, address.is_ipv6())
            }
            Steering::Kernel => stop_steering(first),
        }
    }

    /// Gives a socket that stays the options of its listener's next plan.
    fn adjust(&self, plan: &ListenerPlan) {
        for fd in &self.fds {
            let adjusted = readjust(fd, &plan.socket, plan.backlog);
            if let Err(error) = adjusted {
                let (listener, address) = (&self.name, &self.address);
                tracing::warn!(
                    "listener \"{listener}\" keeps the socket options that it had on {address}: {error}"
                );
            }
        }
    }
}

/// Takes inherited sockets, and binds more to their address if there are fewer than workers.
fn extend(
    set: SocketSet,
    listener: &ListenerPlan,
    address: &BindAddress,
    workers: usize,
) -> io::Result<(PeerAddress, Vec<OwnedFd>)> {
    let resolved = inspect(&set, address)?;
    let SocketSet { mut fds, bind, .. } = set;
    let resolved = match address {
        BindAddress::Tcp(wanted) => resolved.unwrap_or(*wanted),
        BindAddress::Unix(path) => {
            return Ok((PeerAddress::Unix(Arc::new(path.clone())), fds));
        }
    };
    let is_group = fds.first().is_some_and(|fd| may_have_more(fd.as_fd()));
    let more = (fds.len()..workers).filter(|_| is_group);
    let more = more.map_while(|_| reserve(&BindAddress::Tcp(resolved), &listener.socket).ok());
    fds.extend(more.collect::<Vec<_>>());
    if fds.len() < workers {
        tracing::warn!(
            "{workers} workers share {} sockets of {bind}: for a queue of its own each needs a \
             ListenStream= with ReusePort=yes, or a start by the user that opened those sockets",
            fds.len()
        );
    }
    Ok((PeerAddress::Ip(resolved), fds))
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let PeerAddress::Unix(path) = &self.address
            && self.origin.is_none()
        {
            // Somebody may have removed it before us.
            let _ = std::fs::remove_file(path.as_path());
        }
    }
}

pub(super) fn written(address: &BindAddress) -> String {
    match address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// A process that was killed holds its sockets until the kernel has taken its rings down, some
/// milliseconds after its end: whoever starts the next one at once should not have to wait.
const TAKEN_WAIT: Duration = Duration::from_millis(50);
const TAKEN_TRIES: u32 = 20;

/// `is_shared`: whether the process before this listens on an address that overlaps.
async fn open_patiently(
    listener: &ListenerPlan,
    address: &BindAddress,
    workers: usize,
    is_shared: impl Fn(SocketAddr) -> bool,
) -> io::Result<(PeerAddress, Vec<OwnedFd>)> {
    for _ in 1..TAKEN_TRIES {
        match open(listener, address, workers, &is_shared) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(TAKEN_WAIT).await,
            result => return result,
        }
    }
    open(listener, address, workers, &is_shared)
}

fn open(
    listener: &ListenerPlan,
    address: &BindAddress,
    workers: usize,
    is_shared: impl Fn(SocketAddr) -> bool,
) -> io::Result<(PeerAddress, Vec<OwnedFd>)> {
    let one = |address: &BindAddress| bind(address, &listener.socket, listener.backlog);
    let BindAddress::Tcp(wanted) = address else {
        return open_unix(listener, address);
    };
    if !is_shared(*wanted) {
        refuse_if_taken(address)?;
    }
    let first = one(address)?;
    let resolved = local_address(&first)?.unwrap_or(*wanted);
    let mut fds = vec![first];
    for _ in 1..workers {
        fds.push(one(&BindAddress::Tcp(resolved))?);
    }
    if listener.steering == Steering::SourceAddress {
        let sockets = u32::try_from(workers).unwrap_or(u32::MAX);
        steer_by_source(fds[0].as_fd(), sockets, resolved.is_ipv6())?;
    }
    Ok((PeerAddress::Ip(resolved), fds))
}

/// SO_REUSEPORT would let two processes of one user share an address without a word: a bind
/// without it is refused if anybody listens there.
fn refuse_if_taken(address: &BindAddress) -> io::Result<()> {
    let BindAddress::Tcp(address) = address else {
        return Ok(());
    };
    let probe = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
    probe.set_reuse_address(true)?;
    if address.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    probe.bind(&(*address).into())
}

fn open_unix(
    listener: &ListenerPlan,
    address: &BindAddress,
) -> io::Result<(PeerAddress, Vec<OwnedFd>)> {
    let BindAddress::Unix(path) = address else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    remove_if_stale(path, Type::STREAM)?;
    let fd = bind(address, &listener.socket, listener.backlog)?;
    Ok((PeerAddress::Unix(Arc::new(PathBuf::from(path))), vec![fd]))
}
