//! Whom this process follows and who follows it: sockets that come and go, and the service manager,
//! which is told.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};

use super::board::Board;
use super::inherited::Inherited;
use super::key_rings::adopt;
use super::notify::Notify;
use super::socket_file::NO_SOCKET_CURE;
use super::sockets::Sockets;
use super::supervisor::Options;
use super::takeover::{Door, Predecessor, Relieved, Request, Taken, TakeoverError, ask};
use super::watchdog::watch;
use crate::worker::Shared;

/// The process among those before and after it.
#[derive(Debug, Default)]
pub(super) struct Succession {
    notify: Notify,
    predecessor: Option<Predecessor>,
    has_taken_over: bool,
    has_yielded: bool,
    /// Ends when the process after this one needs it no more.
    released: Option<oneshot::Receiver<()>>,
    door: Option<Door>,
    /// What successors ask. `None`: there is no door, or it is not attended.
    asked: Option<mpsc::Receiver<Request>>,
    /// Of the last offer to a successor, while that may take it.
    pending: Weak<()>,
}

/// Why the process does not start.
#[derive(Debug)]
pub(super) struct SuccessionError(String);

impl fmt::Display for SuccessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TakeoverError> for SuccessionError {
    fn from(error: TakeoverError) -> Self {
        Self(error.to_string())
    }
}

fn unusable(door: &Path, error: &io::Error) -> SuccessionError {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process waits there: take its sockets with --take-over"
        }
        io::ErrorKind::AlreadyExists => NO_SOCKET_CURE,
        io::ErrorKind::NotFound => "its folder does not exist (systemd: RuntimeDirectory=)",
        _ => "it needs a folder that this user may write to",
    };
    let door = door.display();
    SuccessionError(format!("`takeover` cannot be unix:{door}: {error}: {cure}"))
}

impl Succession {
    /// Asks for what is there already: of the service manager, and of the running process.
    pub(super) async fn begin(
        shared: &Shared,
        options: Options,
    ) -> Result<(Self, Inherited), SuccessionError> {
        let mut succession = Self {
            notify: Notify::from_environment(),
            ..Self::default()
        };
        let mut inherited = Inherited::default();
        inherited
            .add_activated(options.activated)
            .map_err(|error| SuccessionError(error.to_string()))?;
        let Some(path) = &shared.plan.runtime.takeover else {
            return match options.take_over {
                false => Ok((succession, inherited)),
                true => Err(SuccessionError(
                    "--take-over needs `takeover` in [runtime]: the unix socket at which the running \
                     process waits"
                        .to_owned(),
                )),
            };
        };
        if options.take_over
            && let Some(estate) = ask(path, &mut inherited).await?
        {
            adopt(shared, estate.ticket_keys);
            succession.predecessor = Some(estate.predecessor);
            succession.door = estate.door;
        } else {
            let opened = Door::open(path).map_err(|error| unusable(path, &error));
            succession.door = Some(opened?);
        }
        Ok((succession, inherited))
    }

    pub(super) fn notify(&self) -> &Notify {
        &self.notify
    }

    /// There is a process before this one, which still has its addresses.
    pub(super) fn is_following(&self) -> bool {
        self.predecessor.is_some()
    }

    /// An error where the process before this goes on after all.
    pub(super) fn confirm(&self) -> Result<(), TakeoverError> {
        self.predecessor
            .as_ref()
            .map_or(Ok(()), Predecessor::confirm)
    }

    /// The workers accept: the process before this may stop.
    pub(super) async fn succeed(
        &mut self,
        sockets: &mut Sockets,
    ) -> Result<Option<Relieved>, TakeoverError> {
        let Some(predecessor) = self.predecessor.take() else {
            return Ok(None);
        };
        let relieved = predecessor.relieve(sockets.taken_over()).await?;
        sockets.own();
        self.has_taken_over = true;
        if let Some(door) = &mut self.door {
            door.set_own(true);
        }
        Ok(Some(relieved))
    }

    /// The service manager hears that this process serves, and successors are let in.
    pub(super) fn ready(&mut self, board: &Board, status: &str) {
        if self.has_taken_over {
            self.notify.ready_as_main(status);
        } else {
            self.notify.ready(status);
        }
        if let Some(time) = self.notify.watchdog() {
            let watch = watch(board.clone(), self.notify.clone(), time);
            tokio::spawn(watch);
        }
        match self.door.as_ref().map(Door::attend).transpose() {
            Ok(asked) => self.asked = asked,
            Err(error) => tracing::error!(%error, "no process can take over from this one"),
        }
    }

    /// What a successor asks next. Never, where none can.
    pub(super) async fn request(&mut self) -> Request {
        if let Some(asked) = &mut self.asked
            && let Some(asked) = asked.recv().await
        {
            return asked;
        }
        std::future::pending().await
    }

    /// A successor is given what there is now; the offer stands until what this returns is dropped.
    pub(super) fn offer(&mut self) -> Arc<()> {
        let pending = Arc::new(());
        self.pending = Arc::downgrade(&pending);
        pending
    }

    /// Another process has the sockets in hand: what is opened, closed or changed now it would not
    /// know of.
    pub(super) fn has_offered(&self) -> bool {
        self.pending.strong_count() > 0
    }

    /// The service manager may have both processes in one unit: this one has no say in its state any
    /// more.
    pub(super) fn yield_to(&mut self, taken: Taken) {
        self.has_yielded = true;
        if let Some(door) = &mut self.door {
            door.set_own(false);
        }
        let pid = taken.pid;
        self.notify.status(&format!("process {pid} has taken over"));
        self.released = Some(taken.released);
        // It may have ended meanwhile, and its sockets with it.
        let _ = taken.yielded.send(());
    }

    /// Waits, for a moment, until the process after this one is all there.
    pub(super) async fn released(&mut self) {
        if let Some(released) = self.released.take() {
            // Nothing is ever sent.
            let _ = released.await;
        }
    }

    /// No successor is let in any more. The watchdog is told on that all is well: in a unit of its
    /// own this process would be killed in its drain.
    pub(super) fn end(&mut self, status: &str) {
        self.asked = None;
        self.door = None;
        if !self.has_yielded {
            self.notify.stopping(status);
        }
    }
}
