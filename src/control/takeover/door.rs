use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::message::{Introduction, Message, OfferedSockets};
use super::wire::{DESCRIPTORS_MAX, Wire};
use crate::control::socket_file::remove_if_stale;
use crate::control::sockets::Offered;
use crate::net::PeerAddress;
use crate::tls::PassedKeys;

/// Where successors knock: a unix socket.
#[derive(Debug)]
pub(in crate::control) struct Door {
    socket: Arc<OwnedFd>,
    path: PathBuf,
    /// The file is ours to remove.
    is_own: bool,
}

/// What a successor asks of the supervisor.
#[derive(Debug)]
pub(in crate::control) enum Request {
    Offer(oneshot::Sender<Offer>),
    Taken(Taken),
}

/// All that another process needs to go on.
#[derive(Debug)]
pub(in crate::control) struct Offer {
    pub(in crate::control) sockets: Vec<Offered>,
    pub(in crate::control) ticket_keys: Vec<(String, PassedKeys)>,
    /// Kept for as long as the other process may take it.
    pub(in crate::control) pending: Arc<()>,
}

/// Another process accepts.
#[derive(Debug)]
pub(in crate::control) struct Taken {
    pub(in crate::control) pid: u32,
    /// Where it does.
    pub(in crate::control) addresses: Vec<PeerAddress>,
    /// To be told that this process does not any more.
    pub(in crate::control) yielded: oneshot::Sender<()>,
    /// Ends when the other process needs nothing of this one any more.
    pub(in crate::control) released: oneshot::Receiver<()>,
}

/// Successors that wait to be let in: one is, at a time.
const BACKLOG: i32 = 4;

/// A successor that has connected has its question ready.
const ASK_WAIT_MAX: Duration = Duration::from_secs(5);
/// From the offer to the workers' start: the successor may wait 5 s for names.
const TAKE_WAIT_MAX: Duration = Duration::from_secs(60);
/// From the other process's accepting to its admin server's.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(5);
/// After an accept that failed: descriptors have run out.
const REST: Duration = Duration::from_millis(100);

impl Door {
    /// # Errors
    /// Another process waits there, or the file cannot be made.
    pub(in crate::control) fn open(path: &Path) -> io::Result<Self> {
        remove_if_stale(path, Type::SEQPACKET)?;
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before listen(2).
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: Arc::new(socket.into()),
            path: path.to_owned(),
            is_own: true,
        })
    }

    /// The door of the process before this, which still has it.
    pub(super) fn inherited(socket: OwnedFd, path: &Path) -> Self {
        Self {
            socket: Arc::new(socket),
            path: path.to_owned(),
            is_own: false,
        }
    }

    /// The file is this process's from now on, or no more.
    pub(in crate::control) fn set_own(&mut self, is_own: bool) {
        self.is_own = is_own;
    }

    /// Lets successors in. What they ask comes through the channel, until it is dropped.
    pub(in crate::control) fn attend(&self) -> io::Result<mpsc::Receiver<Request>> {
        // Its accept(2) asks nothing of the socket's type.
        let listening = UnixListener::from_std(self.socket.try_clone()?.into())?;
        let (asks, asked) = mpsc::channel(1);
        let socket = Arc::clone(&self.socket);
        tokio::spawn(async move { serve(&listening, &socket, &asks).await });
        Ok(asked)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.is_own {
            // Somebody may have removed it before us.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One successor after the other, until one has taken over or nobody hears what they ask.
async fn serve(listening: &UnixListener, door: &OwnedFd, asks: &mpsc::Sender<Request>) {
    loop {
        let wire = tokio::select! {
            () = asks.closed() => return,
            wire = admit(listening) => wire,
        };
        let mut conversation = Conversation {
            wire,
            door,
            asks,
            pid: 0,
            pending: None,
        };
        let taken = tokio::select! {
            () = asks.closed() => Err(ENDING.to_owned()),
            taken = conversation.run() => taken,
        };
        let concluded = match taken {
            Ok(taken) => conversation.conclude(taken).await,
            Err(words) => Err(words),
        };
        match concluded {
            Ok(()) => return,
            Err(words) => conversation.withdraw(&words).await,
        }
    }
}

async fn admit(listening: &UnixListener) -> Wire {
    loop {
        match listening.accept().await {
            Ok((socket, _)) => return Wire::over(socket),
            Err(error) => {
                tracing::warn!(%error, "a process that would take over cannot be let in");
                sleep(REST).await;
            }
        }
    }
}

struct Conversation<'a> {
    wire: Wire,
    door: &'a OwnedFd,
    asks: &'a mpsc::Sender<Request>,
    /// Of the successor, once it is known.
    pid: u32,
    /// Of the offer that was made.
    pending: Option<Arc<()>>,
}

impl Conversation<'_> {
    /// Where another process accepts; else why nothing came of it.
    async fn run(&mut self) -> Result<Vec<PeerAddress>, String> {
        self.look()?;
        let asked = timeout(ASK_WAIT_MAX, self.introduced()).await;
        asked.map_err(|_| "it asked for nothing")??;
        tracing::info!("process {} asks for the sockets", self.pid);
        let (answer, offer) = oneshot::channel();
        self.ask(Request::Offer(answer)).await?;
        let offer = offer.await.map_err(|_| ENDING)?;
        self.pending = Some(Arc::clone(&offer.pending));
        let taken = async {
            self.give(&offer).await.map_err(|error| error.to_string())?;
            self.taken().await
        };
        let ids = timeout(TAKE_WAIT_MAX, taken)
            .await
            .map_err(|_| format!("it was not ready in {TAKE_WAIT_MAX:?}"))??;
        let sockets = (0..).zip(offer.sockets);
        let taken = sockets.filter(|(id, _)| ids.contains(id));
        Ok(taken.map(|(_, it)| it.address).collect())
    }

    /// Who it is, by the kernel: root, or the user that this process runs as.
    fn look(&mut self) -> Result<(), String> {
        let peer = self.wire.peer().map_err(|error| error.to_string())?;
        self.pid = peer.pid;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid != own && peer.uid != 0 {
            return Err(format!(
                "it runs as user {}, and only user {own} or root may",
                peer.uid
            ));
        }
        Ok(())
    }

    async fn introduced(&mut self) -> Result<(), String> {
        match self.received().await? {
            Message::Ask(introduction) => {
                // By its own word: in another namespace the kernel has another number, or none.
                self.pid = introduction.pid;
                Ok(())
            }
            _ => Err("it did not ask".to_owned()),
        }
    }

    async fn give(&self, offer: &Offer) -> io::Result<()> {
        let own = Introduction::own();
        self.wire.send(&Message::Offer(own), &[]).await?;
        for (id, sockets) in (0..).zip(&offer.sockets) {
            for fds in sockets.fds.chunks(DESCRIPTORS_MAX) {
                let message = Message::Sockets(OfferedSockets {
                    id,
                    listener: sockets.listener.clone(),
                    bind: sockets.bind.clone(),
                    keeps_file: sockets.keeps_file,
                });
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                self.wire.send(&message, &fds).await?;
            }
        }
        for (listener, keys) in &offer.ticket_keys {
            let message = Message::TicketKeys {
                listener: listener.clone(),
                keys: keys.clone(),
            };
            self.wire.send(&message, &[]).await?;
        }
        let door = [self.door.as_fd()];
        self.wire.send(&Message::Door, &door).await?;
        self.wire.send(&Message::Complete, &[]).await
    }

    async fn taken(&self) -> Result<Vec<u32>, String> {
        match self.received().await? {
            Message::Taken { ids } => Ok(ids),
            _ => Err("it has answered something else".to_owned()),
        }
    }

    /// The other process accepts: whatever happens here, nothing is withdrawn any more.
    async fn conclude(&self, addresses: Vec<PeerAddress>) -> Result<(), String> {
        let (yielded, done) = oneshot::channel();
        let (_release, released) = oneshot::channel();
        let taken = Taken {
            pid: self.pid,
            addresses,
            yielded,
            released,
        };
        self.ask(Request::Taken(taken)).await?;
        // This process is at its end if nobody answers.
        let _ = done.await;
        let _ = self.wire.send(&Message::Yielded, &[]).await;
        // It hangs up when the operator's commands come to it.
        let _ = timeout(RELEASE_WAIT_MAX, self.wire.receive()).await;
        Ok(())
    }

    async fn ask(&self, asked: Request) -> Result<(), String> {
        self.asks.send(asked).await.map_err(|_| ENDING.to_owned())
    }

    async fn received(&self) -> Result<Message, String> {
        match self.wire.receive().await {
            Ok(Some((message, _))) => Ok(message),
            Ok(None) => Err("it has ended".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn withdraw(&mut self, words: &str) {
        let pid = self.pid;
        self.pending = None;
        tracing::warn!("process {pid} has not taken over: {words}; this process goes on");
        let words = words.to_owned();
        let message = Message::Withdrawn { words };
        // It may be gone, and then needs no answer.
        let _ = timeout(ASK_WAIT_MAX, self.wire.send(&message, &[])).await;
    }
}

const ENDING: &str = "the process that has the sockets is about to end";
