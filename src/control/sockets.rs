use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::sleep;

use crate::config::{BindAddress, ListenerPlan, Plan, Steering};
use crate::net::{PeerAddress, bind, local_address, readjust};
use crate::sys::steer_by_source;
use crate::types::{ListenerId, SocketId};
use crate::worker::Listen;

/// Every listening socket of the process, kept open here so that a worker that is started again
/// finds its connections waiting.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    bound: Vec<Bound>,
    ids_given: u32,
}

/// What another plan needs: sockets that stay, and those that were bound for it.
#[derive(Debug)]
pub(super) struct Renewal {
    kept: BTreeMap<SocketId, ListenerId>,
    added: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    id: SocketId,
    listener: ListenerId,
    /// The listener's name and the address, as the plan has them.
    name: String,
    wanted: BindAddress,
    address: PeerAddress,
    /// One for each worker; a unix socket has but one, which all share.
    fds: Vec<OwnedFd>,
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
            _ => "see bind(2) and listen(2) for this error",
        };
        write!(
            f,
            "listener \"{listener}\" cannot listen on {address}: {error}: {cure}"
        )
    }
}

impl Sockets {
    pub(super) async fn bind(plan: &Plan, workers: usize) -> Result<Self, BindError> {
        let mut sockets = Self::default();
        let renewal = sockets.renewal(plan, workers).await?;
        sockets.renew(renewal, plan);
        Ok(sockets)
    }

    /// Binds what `plan` has and these have not. Nothing is kept of an error.
    pub(super) async fn renewal(
        &mut self,
        plan: &Plan,
        workers: usize,
    ) -> Result<Renewal, BindError> {
        let mut renewal = Renewal {
            kept: BTreeMap::new(),
            added: Vec::new(),
        };
        for (id, listener) in (0..).map(ListenerId).zip(&plan.listeners) {
            for address in &listener.binds {
                if let Some(known) = self.unclaimed(&listener.name, &address.value, &renewal) {
                    renewal.kept.insert(known, id);
                    continue;
                }
                let opened = open_patiently(listener, &address.value, workers).await;
                let (address_bound, fds) = opened.map_err(|error| BindError {
                    listener: listener.name.clone(),
                    address: written(&address.value),
                    error,
                })?;
                self.ids_given += 1;
                renewal.added.push(Bound {
                    id: SocketId(self.ids_given),
                    listener: id,
                    name: listener.name.clone(),
                    wanted: address.value.clone(),
                    address: address_bound,
                    fds,
                });
            }
        }
        Ok(renewal)
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
        let Renewal { kept, added } = renewal;
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
        let listen = self.bound.iter().map(|bound| bound.listen(worker));
        listen.collect()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (ListenerId, &PeerAddress)> {
        self.bound
            .iter()
            .map(|bound| (bound.listener, &bound.address))
    }
}

impl Renewal {
    /// The new sockets of one worker.
    pub(super) fn of_worker(&self, worker: usize) -> io::Result<Vec<Listen>> {
        let listen = self.added.iter().map(|bound| bound.listen(worker));
        listen.collect()
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
    fn listen(&self, worker: usize) -> io::Result<Listen> {
        Ok(Listen {
            socket: self.id,
            listener: self.listener,
            fd: self.fds[worker % self.fds.len()].try_clone()?,
            address: self.address.clone(),
        })
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

impl Drop for Bound {
    fn drop(&mut self) {
        if let PeerAddress::Unix(path) = &self.address {
            // Somebody may have removed it before us.
            let _ = std::fs::remove_file(path.as_path());
        }
    }
}

fn written(address: &BindAddress) -> String {
    match address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// A process that was killed holds its sockets until the kernel has taken its rings down, some
/// milliseconds after its end: whoever starts the next one at once should not have to wait.
const TAKEN_WAIT: Duration = Duration::from_millis(50);
const TAKEN_TRIES: u32 = 20;

async fn open_patiently(
    listener: &ListenerPlan,
    address: &BindAddress,
    workers: usize,
) -> io::Result<(PeerAddress, Vec<OwnedFd>)> {
    for _ in 1..TAKEN_TRIES {
        match open(listener, address, workers) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(TAKEN_WAIT).await,
            result => return result,
        }
    }
    open(listener, address, workers)
}

fn open(
    listener: &ListenerPlan,
    address: &BindAddress,
    workers: usize,
) -> io::Result<(PeerAddress, Vec<OwnedFd>)> {
    let one = |address: &BindAddress| bind(address, &listener.socket, listener.backlog);
    let BindAddress::Tcp(wanted) = address else {
        return open_unix(listener, address);
    };
    refuse_if_taken(address)?;
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
    remove_if_stale(path)?;
    let fd = bind(address, &listener.socket, listener.backlog)?;
    Ok((PeerAddress::Unix(Arc::new(PathBuf::from(path))), vec![fd]))
}

/// A socket file that nobody listens on any more is left over from a process that was killed.
/// Never waits: a listener whose queue is full answers EAGAIN (connect(2)), and is alive.
pub(super) fn remove_if_stale(path: &Path) -> io::Result<()> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // bind(2) says what is wrong, if anything is.
        _ => Ok(()),
    }
}
