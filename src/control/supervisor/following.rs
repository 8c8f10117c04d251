//! How the supervisor follows another process, and lets itself be followed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{StartError, Started, Turn, system};
use crate::config::Plan;
use crate::control::admin::{Admin, Followed};
use crate::control::key_rings::passed_on;
use crate::control::sockets::Sockets;
use crate::control::takeover::{Offer, Relieved, Request, Taken};

/// From a drain that is over to the process's end: closing takes 4 s, and the word of the process
/// after it 5 s.
const ENDING_TIME_MAX: Duration = Duration::from_secs(10);

impl Started {
    /// Workers begin, and where there is a process before this one, it ends.
    pub(super) async fn succeed(&mut self) -> Result<(), StartError> {
        let plan = Arc::clone(&self.context.shared.plan);
        self.succession.confirm().map_err(system)?;
        if let Some(sockets) = &self.context.sockets {
            sockets.begin(&plan).map_err(system)?;
        }
        self.start_workers().await?;
        let relieved = match &mut self.context.sockets {
            Some(sockets) => self.succession.succeed(sockets).await.map_err(system)?,
            None => None,
        };
        if let Some(relieved) = &relieved {
            self.open_admin(&plan, relieved);
        }
        // The process before this had to be there until commands come here.
        drop(relieved);
        self.succession.ready(&self.board, &self.status());
        Ok(())
    }

    pub(in crate::control) fn tell_reloading(&self) {
        self.succession.notify().reloading();
    }

    /// A reload is over, whatever came of it.
    pub(in crate::control) fn tell_reloaded(&self) {
        self.succession.notify().ready(&self.status());
    }

    fn status(&self) -> String {
        let listeners = self.context.shared.plan.listeners.len();
        format!("{listeners} listeners on {} workers", self.workers())
    }

    /// Where the process before this has given its addresses up. Without them this one still serves.
    fn open_admin(&mut self, plan: &Plan, relieved: &Relieved) {
        let followed = Followed {
            pid: relieved.pid,
            time: plan.runtime.drain_timeout + ENDING_TIME_MAX,
        };
        let admin = plan.admin.as_ref();
        self.admin = admin.map(|plan| Admin::succeed(plan, followed, &self.reach));
    }

    pub(super) fn on_request(&mut self, request: Request) -> Turn {
        match request {
            Request::Offer(answer) => {
                self.offer(answer);
                ControlFlow::Continue(())
            }
            Request::Taken(taken) => {
                self.yield_to(taken);
                ControlFlow::Break(Ok(()))
            }
        }
    }

    /// Another process would take over, and is given all that it needs.
    fn offer(&mut self, answer: oneshot::Sender<Offer>) {
        let sockets = self.context.sockets.as_ref();
        let offer = Offer {
            sockets: sockets.map_or_else(Vec::new, Sockets::offered),
            ticket_keys: passed_on(&self.context.shared),
            pending: self.succession.offer(),
        };
        // It may have gone meanwhile.
        let _ = answer.send(offer);
    }

    /// Another process accepts: what waits in the queues is its own.
    fn yield_to(&mut self, taken: Taken) {
        tracing::info!("process {} has taken over", taken.pid);
        if let Some(sockets) = &mut self.context.sockets {
            sockets.release(&taken.addresses);
        }
        self.board.leave(&taken.addresses);
        self.reach.yield_to(taken.pid);
        // Free before the other process hears of it.
        self.admin.iter_mut().for_each(Admin::yield_network);
        self.succession.yield_to(taken);
    }
}
