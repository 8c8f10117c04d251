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
use crate::config::AdminPlan;
use listen::{Door, ListenError};

pub(super) use reach::{Command, Commands, Reach, reach};

/// The server at work. Dropping it closes its sockets and its connections.
pub(super) struct Admin {
    /// One for each address.
    doors: JoinSet<()>,
}

impl Admin {
    /// Listens on all addresses of the plan. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left listening.
    pub(super) fn start(plan: &AdminPlan, reach: &Reach) -> Result<Self, ListenError> {
        let opened = plan.listen.iter().map(|it| Door::open(&it.value, plan));
        let opened: Vec<Door> = opened.collect::<Result<_, _>>()?;
        let mut doors = JoinSet::new();
        for door in opened {
            tracing::info!("admin address={door}");
            doors.spawn(serve::accept(door, reach.clone()));
        }
        Ok(Self { doors })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admin({} doors)", self.doors.len())
    }
}
