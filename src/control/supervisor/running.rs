//! What the supervisor does from the start of its workers to their end.

use std::future::Future;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Started, Turn};
use crate::control::admin::Command;
use crate::control::crew::Notice;
use crate::control::signals::Asked;
use crate::session::RunState;

/// Longer than a worker allows its connections to close.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(4);

impl Started {
    /// Runs until a signal or `stop` ends it and every connection has drained or was closed.
    ///
    /// # Errors
    /// When a worker has died too often: the words for the last line.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let mut stop = std::pin::pin!(stop);
        let running = loop {
            let turn = tokio::select! {
                // What has happened before what is asked for: a worker that serves again is said to
                // do so, also where the end comes at the same time.
                biased;
                Some(notice) = self.notices.recv() => self.on_notice(&notice),
                () = &mut stop => ControlFlow::Break(Ok(())),
                asked = self.signals.next() => self.on_asked(asked).await,
                () = self.watch.changed() => self.follow_files().await,
                () = self.basis.look_due() => self.basis.warn_of_ends(),
                Some(command) = self.commands.next() => self.on_command(command).await,
                request = self.succession.request() => self.on_request(request),
            };
            if let ControlFlow::Break(running) = turn {
                break running;
            }
        };
        self.drain().await;
        running
    }

    async fn on_asked(&mut self, asked: Asked) -> Turn {
        match asked {
            Asked::Stop => return ControlFlow::Break(Ok(())),
            Asked::Reopen => self.reopen_logs(),
            // What came of it is said.
            Asked::Reload => drop(self.reload().await),
        }
        ControlFlow::Continue(())
    }

    async fn on_command(&mut self, command: Command) -> Turn {
        match command {
            Command::Look(look) => look(self),
            Command::Drain => return ControlFlow::Break(Ok(())),
            Command::Reload(reply) => {
                // Who asked may have left.
                let _ = reply.send(self.reload().await);
            }
        }
        ControlFlow::Continue(())
    }

    pub(in crate::control) fn on_notice(&mut self, notice: &Notice) -> Turn {
        let (worker, why) = match notice {
            Notice::Ready { worker } => {
                tracing::info!("worker {worker} serves again");
                return ControlFlow::Continue(());
            }
            Notice::Finished { worker } => (*worker, "it ended unasked"),
            Notice::Failed { worker, words } => (*worker, words.as_str()),
            Notice::Panicked { worker } => (*worker, "it panicked"),
        };
        self.board.strike(worker);
        if !self.restarts.on_death(worker, std::time::Instant::now()) {
            return ControlFlow::Break(Err(format!("worker {worker} keeps dying: {why}")));
        }
        self.metrics.on_restart(worker);
        tracing::error!("worker {worker} died with its connections: {why}; it is started again");
        match self.start_worker(worker) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(format!("worker {worker}: {error}"))),
        }
    }

    async fn drain(&mut self) {
        let limit = self.context.shared.plan.runtime.drain_timeout;
        tracing::info!("draining for at most {limit:?}; a second signal closes at once");
        self.is_draining = true;
        self.succession
            .end(&format!("draining for at most {limit:?}"));
        self.context.sockets = None;
        self.outside.end();
        self.board.advance(RunState::Draining);
        if !self.all_finished(limit, true).await {
            tracing::warn!("closing the connections that are left");
            self.board.advance(RunState::Closing);
            self.all_finished(CLOSE_WAIT_MAX, false).await;
        }
        self.succession.released().await;
        tracing::info!("ringway has ended");
    }

    /// Waits for every worker's end. False: time is up, or a signal came.
    async fn all_finished(&mut self, limit: Duration, interruptible: bool) -> bool {
        let deadline = Instant::now() + limit;
        while !self.board.is_empty() {
            tokio::select! {
                () = sleep_until(deadline) => return false,
                asked = self.signals.next() => match asked {
                    Asked::Reopen => self.reopen_logs(),
                    Asked::Reload => tracing::warn!("no reload: ringway drains"),
                    Asked::Stop if interruptible => return false,
                    Asked::Stop => {}
                },
                Some(command) = self.commands.next() => match command {
                    Command::Look(look) => look(self),
                    // It is under way.
                    Command::Drain => {}
                    Command::Reload(reply) => {
                        let _ = reply.send(Err("ringway drains".to_owned()));
                    }
                },
                Some(notice) = self.notices.recv() => {
                    if let Notice::Finished { worker }
                        | Notice::Failed { worker, .. }
                        | Notice::Panicked { worker } = notice
                    {
                        self.board.strike(worker);
                    }
                }
            }
        }
        true
    }
}
