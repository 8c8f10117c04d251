use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::door::Door;
use super::message::{Introduction, Message, OfferedSockets, PROTOCOL};
use super::wire::Wire;
use crate::control::inherited::{Inherited, Origin, SocketSet};
use crate::tls::PassedKeys;

/// The process whose sockets this one takes over; it waits for the word that this one accepts.
#[derive(Debug)]
pub(in crate::control) struct Predecessor {
    wire: Wire,
    pid: u32,
}

/// A process that accepts no more, and does not end before this is dropped.
#[derive(Debug)]
pub(in crate::control) struct Relieved {
    _wire: Wire,
    pub(in crate::control) pid: u32,
}

/// What a predecessor has given.
#[derive(Debug)]
pub(in crate::control) struct Estate {
    pub(in crate::control) predecessor: Predecessor,
    pub(in crate::control) door: Option<Door>,
    pub(in crate::control) ticket_keys: Vec<(String, PassedKeys)>,
}

/// Why nothing is taken over, though somebody is there.
#[derive(Debug)]
pub(in crate::control) struct TakeoverError(String);

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The predecessor has nothing to wait for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Listeners are at most 1,024, with some addresses each.
const PACKETS_MAX: usize = 65_536;

/// Asks the process at `path` for all that it has; its sockets go to `inherited`. `None`: nobody is
/// there.
pub(in crate::control) async fn ask(
    path: &Path,
    inherited: &mut Inherited,
) -> Result<Option<Estate>, TakeoverError> {
    let shown = path.display();
    let wire = match Wire::connect(path) {
        Ok(wire) => wire,
        Err(error) if is_nobody(&error) => {
            tracing::info!("nobody waits at unix:{shown}: there is nothing to take over");
            return Ok(None);
        }
        Err(error) => {
            return Err(TakeoverError(format!(
                "the process at unix:{shown} cannot be asked for its sockets: {error}: start this one \
                 as the same user, or as root; if it hangs, stop it first"
            )));
        }
    };
    let asked = timeout(ANSWER_WAIT_MAX, receive_all(wire, path, inherited)).await;
    let estate = asked.unwrap_or_else(|_| {
        Err(format!(
            "no answer in {ANSWER_WAIT_MAX:?}; if it hangs, stop it first"
        ))
    });
    estate.map(Some).map_err(|words| {
        TakeoverError(format!(
            "the process at unix:{shown} has not given its sockets: {words}"
        ))
    })
}

fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error.kind(), ConnectionRefused | NotFound)
}

async fn receive_all(wire: Wire, path: &Path, inherited: &mut Inherited) -> Result<Estate, String> {
    trust(&wire)?;
    let ask = Message::Ask(Introduction::own());
    wire.send(&ask, &[]).await.map_err(|it| it.to_string())?;
    let (Message::Offer(other), _) = received(&wire).await? else {
        return Err("it answers something else".to_owned());
    };
    // A later process lowers itself to the protocol that it was asked in.
    if other.protocol > PROTOCOL {
        return Err(format!(
            "it speaks protocol {}, this one {PROTOCOL}",
            other.protocol
        ));
    }
    let mut estate = Estate {
        predecessor: Predecessor {
            wire,
            pid: other.pid,
        },
        door: None,
        ticket_keys: Vec::new(),
    };
    let mut gathered = Gathered::default();
    for _ in 0..PACKETS_MAX {
        match received(&estate.predecessor.wire).await? {
            (Message::Sockets(sockets), fds) => gathered.add(sockets, fds)?,
            (Message::TicketKeys { listener, keys }, _) => {
                estate.ticket_keys.push((listener, keys))
            }
            (Message::Door, fds) => {
                let socket = fds.into_iter().next();
                estate.door = socket.map(|socket| Door::inherited(socket, path));
            }
            (Message::Complete, _) => {
                gathered.deliver(inherited);
                let (count, version) = (inherited.count(), other.version);
                tracing::info!(
                    "{count} sockets come from process {} (ringway {version})",
                    other.pid
                );
                return Ok(estate);
            }
            (Message::Withdrawn { words }, _) => return Err(words),
            _ => return Err("it answers something else".to_owned()),
        }
    }
    Err("it does not come to an end".to_owned())
}

/// Whoever listens there knows the ticket keys that come from there, and could have any address:
/// root, or the user that this process runs as.
fn trust(wire: &Wire) -> Result<(), String> {
    let peer = wire.peer().map_err(|error| error.to_string())?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid != own && peer.uid != 0 {
        return Err(format!(
            "it was started by user {}, and this process trusts only user {own} and root",
            peer.uid
        ));
    }
    Ok(())
}

async fn received(wire: &Wire) -> Result<(Message, Vec<OwnedFd>), String> {
    match wire.receive().await {
        Ok(Some((Message::Withdrawn { words }, _))) => Err(words),
        Ok(Some(received)) => Ok(received),
        Ok(None) => Err("it has ended".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Sockets as they come, packet by packet.
#[derive(Default)]
struct Gathered {
    sets: Vec<(u32, SocketSet)>,
}

impl Gathered {
    fn add(&mut self, offered: OfferedSockets, fds: Vec<OwnedFd>) -> Result<(), String> {
        if fds.is_empty() {
            return Err(format!("no socket came for {}", offered.bind));
        }
        match self.sets.last_mut() {
            Some((id, set)) if *id == offered.id => set.fds.extend(fds),
            _ => {
                let origin = Origin::Predecessor {
                    id: offered.id,
                    keeps_file: offered.keeps_file,
                };
                let set = SocketSet {
                    name: offered.listener,
                    bind: offered.bind,
                    origin,
                    fds,
                };
                self.sets.push((offered.id, set));
            }
        }
        Ok(())
    }

    fn deliver(self, inherited: &mut Inherited) {
        self.sets
            .into_iter()
            .for_each(|(_, set)| inherited.add(set));
    }
}

impl Predecessor {
    /// An error where it has changed its mind: this process must not begin to accept.
    pub(in crate::control) fn confirm(&self) -> Result<(), TakeoverError> {
        match self.wire.try_receive() {
            Ok(Some((Message::Withdrawn { words }, _))) => Err(TakeoverError(words)),
            _ => Ok(()),
        }
    }

    /// Tells it that this process accepts on the sockets of these ids; returns when it does not any
    /// more, or is gone.
    pub(in crate::control) async fn relieve(
        self,
        ids: Vec<u32>,
    ) -> Result<Relieved, TakeoverError> {
        let pid = self.pid;
        // Where it has said something before it ended, that is what counts.
        let _ = self.wire.send(&Message::Taken { ids }, &[]).await;
        match timeout(ANSWER_WAIT_MAX, self.wire.receive()).await {
            Ok(Ok(Some((Message::Withdrawn { words }, _)))) => {
                return Err(TakeoverError(format!(
                    "process {pid} keeps its sockets: {words}"
                )));
            }
            Ok(Ok(Some(_))) => {
                tracing::info!("took over from process {pid}, which accepts no more and drains");
            }
            Ok(Ok(None) | Err(_)) => {
                tracing::warn!("process {pid} has ended; its sockets are served on");
            }
            // It hangs: what it does not accept, this process does.
            Err(_) => tracing::warn!("process {pid} does not say that it accepts no more"),
        }
        Ok(Relieved {
            _wire: self.wire,
            pid,
        })
    }
}
