//! How the control thread speaks to a core: a queue, and a byte on a socket pair that wakes the
//! core's ring. No lock is taken on the core's side.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::net::{SendFlags, send};

use super::next::{Preparation, Switch};
use crate::net::{PeerAddress, Socket};
use crate::session::{Listed, RunState, Wanted};
use crate::types::{CoreId, GroupId, Order, ServerId};
use crate::upstream::{EndpointSeen, Found, Hold, ServerState};

/// What a core is told.
#[derive(Debug)]
pub enum Letter {
    /// Make what another plan needs; nothing changes yet.
    Prepare(Preparation),
    /// Serve new connections by what was prepared.
    Switch(Switch),
    /// What was prepared is not wanted any more.
    Forget,
    /// A server's name has these addresses now.
    Resolved {
        group: GroupId,
        server: ServerId,
        found: Arc<[Found]>,
    },
    /// A server is down, or up, as another core has found or a check of it.
    Server {
        group: GroupId,
        server: ServerId,
        address: PeerAddress,
        state: ServerState,
    },
    /// The operator holds a server, or lets it go; one address of it, or all.
    Hold {
        group: GroupId,
        server: ServerId,
        address: Option<PeerAddress>,
        hold: Option<Hold>,
    },
    /// Whoever asks is answered, and nothing changes.
    List {
        wanted: Arc<Wanted>,
        max: usize,
        reply: Reply<Listed>,
    },
    Census(Reply<Census>),
    /// End these connections; the answer is how many were told.
    End {
        wanted: Arc<Wanted>,
        order: &'static Order,
        reply: Reply<usize>,
    },
    /// Drain, or close.
    Advance(RunState),
    /// Another process accepts on these addresses: what waits there is left to it.
    Leave(Arc<[PeerAddress]>),
    /// Say that this core is alive.
    Answer(Arc<AtomicBool>),
}

/// How a core is.
#[derive(Debug, Clone)]
pub struct Census {
    pub core: CoreId,
    /// Connections that live.
    pub live: usize,
    /// The members of each group, in the order of the plan.
    pub groups: Vec<Vec<EndpointSeen>>,
}

/// Takes a core's answer. It must not wait.
pub struct Reply<T>(Arc<dyn Fn(T) + Send + Sync>);

impl<T> Reply<T> {
    pub fn new(take: impl Fn(T) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(super) fn send(&self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The control thread's end.
#[derive(Debug)]
pub struct Postbox {
    letters: Sender<Letter>,
    bell: UnixStream,
}

/// The core's end, before it is on its thread.
#[derive(Debug)]
pub struct Mailbox {
    letters: Receiver<Letter>,
    bell: UnixStream,
}

/// # Errors
/// What socketpair reports: out of files.
pub fn mailbox() -> io::Result<(Postbox, Mailbox)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let (sender, receiver) = channel();
    let postbox = Postbox {
        letters: sender,
        bell: ours,
    };
    Ok((
        postbox,
        Mailbox {
            letters: receiver,
            bell: theirs,
        },
    ))
}

impl Postbox {
    /// Never waits. A core that has died gets no letters; its end is reported elsewhere.
    pub fn post(&self, letter: Letter) {
        if self.letters.send(letter).is_ok() {
            // A full bell has rung already.
            let _ = send(&self.bell, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

/// The core's end, on its thread.
pub(super) struct Inbox {
    letters: Receiver<Letter>,
    bell: Socket,
}

impl Mailbox {
    /// Letters that have come, without the bell.
    #[cfg(test)]
    pub(crate) fn received(&self) -> Vec<Letter> {
        self.letters.try_iter().collect()
    }

    pub(super) fn open(self) -> io::Result<Inbox> {
        Ok(Inbox {
            letters: self.letters,
            bell: Socket::new(OwnedFd::from(self.bell))?,
        })
    }
}

impl Inbox {
    /// Letters that have come, without waiting.
    pub(super) fn received(&self) -> Vec<Letter> {
        self.letters.try_iter().collect()
    }

    /// Waits for letters. `Ok(None)`: the control thread is gone.
    pub(super) async fn wait(&self) -> io::Result<Option<Vec<Letter>>> {
        let mut rings = [0; 64];
        loop {
            let letters = self.received();
            if !letters.is_empty() {
                return Ok(Some(letters));
            }
            match self.bell.try_recv(&mut rings) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.bell.readable().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
