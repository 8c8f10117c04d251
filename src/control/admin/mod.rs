//! The admin server: HTTP on the control thread, for those who operate the process.
//!
//! A route is one line of [`routes`]: GET looks, POST changes. What routes may ask of the process
//! is [`Reach`]. Whoever connects to a unix socket has been let in by the file's permissions; who
//! comes by TCP is unknown, and may only look.

mod answer;
mod connections;
mod listen;
pub mod model;
mod query;
mod reach;
mod reload;
mod routes;
mod serve;
mod servers;
mod status;

use std::fmt;

use tokio::task::JoinSet;

use super::board::Board;
use crate::config::{AdminPlan, BindAddress};
use listen::{Door, ListenError};

pub(super) use reach::{Command, Commands, Reach, reach};

/// The server at work. Dropping it closes its sockets and its connections.
pub(super) struct Admin {
    /// One for each unix socket.
    local: JoinSet<()>,
    /// One for each address of the network.
    network: JoinSet<()>,
}

impl Admin {
    /// Listens on all addresses of the plan. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left listening.
    pub(super) fn start(plan: &AdminPlan, reach: &Reach) -> Result<Self, ListenError> {
        Self::serve(plan, Door::open, reach)
    }

    /// The same, in the place of the process that this one has followed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) fn succeed(plan: &AdminPlan, reach: &Reach) -> Result<Self, ListenError> {
        Self::serve(plan, Door::succeed, reach)
    }

    fn serve(
        plan: &AdminPlan,
        open: impl Fn(&BindAddress, &AdminPlan) -> Result<Door, ListenError>,
        reach: &Reach,
    ) -> Result<Self, ListenError> {
        let opened = plan.listen.iter().map(|it| open(&it.value, plan));
        let opened: Vec<Door> = opened.collect::<Result<_, _>>()?;
        let mut admin = Self {
            local: JoinSet::new(),
            network: JoinSet::new(),
        };
        for door in opened {
            tracing::info!("admin address={door}");
            let doors = match &door {
                Door::Unix(..) => &mut admin.local,
                Door::Tcp(..) => &mut admin.network,
            };
            doors.spawn(serve::accept(door, reach.clone()));
        }
        Ok(admin)
    }

    /// Another process follows, which needs the addresses of the network free. The paths of unix
    /// sockets it takes by itself; until then this process is the one to be asked.
    pub(super) fn yield_network(&mut self) {
        self.network = JoinSet::new();
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({} doors)", self.local.len() + self.network.len())
    }
}
