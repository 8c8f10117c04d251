//! The next plan, prepared on every core and then put in place on all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::diff::{Changes, Version, diff, in_force};
use super::load::{Basis, Checked, load};
use crate::config::{LogPlan, Plan, RuntimePlan};
use crate::control::key_logs;
use crate::control::outside::Names;
use crate::control::shared::{self, descriptors};
use crate::control::sockets::Renewal;
use crate::control::supervisor::{Started, Turn};
use crate::sys::raise_nofile;
use crate::tls::Files;
use crate::worker::{Answer, Letter, Preparation, Shared, Switch};

/// A core answers between two turns of its ring; this bounds a defect.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// What came of a reload.
#[derive(Debug, Serialize)]
pub(in crate::control) struct Reloaded {
    /// Counts the plans that were in force, from 0.
    generation: u64,
    #[serde(flatten)]
    changes: Changes,
}

impl Reloaded {
    fn say(&self) {
        for change in &self.changes.live {
            tracing::info!("{change}");
        }
        for change in &self.changes.needs_restart {
            tracing::warn!("{change}: needs a restart, stays as it was");
        }
        tracing::info!("reloaded, generation {}", self.generation);
    }
}

/// All that a switch needs, so that it cannot fail.
struct Prepared {
    shared: Arc<Shared>,
    renewal: Renewal,
    names: Names,
}

impl Started {
    /// Reads the configuration anew, goes over to it, and says on stderr what came of it.
    ///
    /// # Errors
    /// What `ringway check` says of it, or why the machine refuses; everything is as it was.
    pub(in crate::control) async fn reload(&mut self) -> Result<Reloaded, String> {
        let reloaded = self.try_reload(false).await;
        self.metrics.on_reload(reloaded.is_ok());
        match &reloaded {
            Ok(reloaded) => reloaded.say(),
            Err(words) => tracing::error!("not reloaded, everything stays as it was:\n{words}"),
        }
        reloaded
    }

    /// The same, after files have changed. A refusal is said once, and nothing of no change.
    pub(in crate::control) async fn follow_files(&mut self) -> Turn {
        match self.try_reload(true).await {
            Ok(reloaded) if reloaded.changes.is_empty() => {}
            Ok(reloaded) => {
                self.metrics.on_reload(true);
                reloaded.say();
            }
            Err(words) => {
                if self.watch.complaint.as_ref() != Some(&words) {
                    self.metrics.on_reload(false);
                    tracing::error!(
                        "files have changed, but not reloaded, everything stays as it was:\n{words}"
                    );
                }
                self.watch.complaint = Some(words);
                self.watch.retry();
            }
        }
        Turn::Continue(())
    }

    /// What a reload would change, and what it could not.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub(in crate::control) fn preview(&self) -> Result<Changes, String> {
        let Checked { plan, files, basis } = self.load()?;
        Ok(self.changes(&plan, &basis, &files))
    }

    /// Watches the files of the plan in force, if that says so.
    pub(in crate::control) fn watch_files(&mut self) {
        let plan = &self.context.shared.plan;
        let files = plan.files();
        let named = files.iter().map(|it| it.file.value.as_path());
        let own = self.basis.file.iter().map(PathBuf::as_path);
        match plan.runtime.watch {
            true => self.watch.watch(own.chain(named)),
            false => self.watch.watch([]),
        }
    }

    fn load(&self) -> Result<Checked, String> {
        let Some(file) = &self.basis.file else {
            return Err("it was not started from a file".to_owned());
        };
        load(file, self.confinement(), &self.context.shared.plan)
    }

    /// The service manager hears that it begins, and that it is over, whatever came of it.
    async fn try_reload(&mut self, only_changes: bool) -> Result<Reloaded, String> {
        self.tell_reloading();
        let reloaded = Box::pin(self.go_over(only_changes)).await;
        self.tell_reloaded();
        reloaded
    }

    /// `only_changes`: a configuration that is the same is left alone.
    async fn go_over(&mut self, only_changes: bool) -> Result<Reloaded, String> {
        let Checked {
            mut plan,
            files,
            basis,
        } = self.load()?;
        let changes = self.changes(&plan, &basis, &files);
        if !only_changes || !changes.is_empty() {
            keep_what_cannot_change(&self.context.shared.plan, &mut plan);
            let plan = Arc::new(plan);
            let before = &self.context.shared;
            let meters = self.metrics.meters(&plan);
            let shared = shared::next(before, (&plan, &files), self.workers(), meters)
                .map_err(|error| error.to_string())?;
            drop(files);
            key_logs::open(&shared).map_err(|error| error.to_string())?;
            let prepared = self.prepare(Arc::new(shared)).await?;
            self.switch(prepared).await;
            self.basis = Basis {
                effective: in_force(&self.basis.effective, basis.effective),
                ..basis
            };
            let _ = self.basis.warn_of_ends();
            self.tell_metrics();
        }
        self.watch_files();
        self.watch.complaint = None;
        Ok(Reloaded {
            generation: self.context.shared.generation,
            changes,
        })
    }

    /// By what a configuration differs from the one in force.
    fn changes(&self, plan: &Plan, basis: &Basis, files: &Files) -> Changes {
        let shared = &self.context.shared;
        let before = Version {
            plan: &shared.plan,
            effective: &self.basis.effective,
            digests: &shared.digests,
        };
        let after = Version {
            plan,
            effective: &basis.effective,
            digests: &files.digests(),
        };
        diff(before, after)
    }

    /// Everything that may fail. On an error nothing of it is left.
    async fn prepare(&mut self, shared: Arc<Shared>) -> Result<Prepared, String> {
        self.board.stage(Some(shared.generation));
        let prepared = self.prepare_staged(shared).await;
        if prepared.is_err() {
            self.board.stage(None);
            self.board.post_all(|_| Letter::Forget);
        }
        prepared
    }

    async fn prepare_staged(&mut self, shared: Arc<Shared>) -> Result<Prepared, String> {
        let Some(sockets) = &mut self.context.sockets else {
            return Err("ringway drains".to_owned());
        };
        if self.succession.has_offered() {
            return Err("another process is about to take over: reload that one".to_owned());
        }
        let renewal = sockets
            .renewal(&shared.plan)
            .await
            .map_err(|error| error.to_string())?;
        let names = self.names(&shared).await?;
        self.prepare_workers(&shared, &renewal).await?;
        Ok(Prepared {
            shared,
            renewal,
            names,
        })
    }

    async fn prepare_workers(&self, shared: &Arc<Shared>, renewal: &Renewal) -> Result<(), String> {
        let mut listen = Vec::new();
        for worker in 0..self.workers() {
            let sockets = renewal.of_worker(worker);
            listen.push(sockets.map_err(|error| error.to_string())?);
        }
        let mut answers = Answers::default();
        self.board.post_all(|worker| {
            Letter::Prepare(Preparation {
                shared: Arc::clone(shared),
                listen: listen
                    .get_mut(worker)
                    .map(std::mem::take)
                    .unwrap_or_default(),
                answer: answers.expect(),
            })
        });
        answers.all().await
    }

    async fn switch(&mut self, prepared: Prepared) {
        let Prepared {
            shared,
            renewal,
            names,
        } = prepared;
        let listeners = Arc::new(renewal.listeners());
        for (listener, address) in renewal.added() {
            let name = &shared.plan.listener(listener).name;
            tracing::info!("listening name={name} address={address}");
        }
        if let Some(sockets) = &mut self.context.sockets {
            sockets.renew(renewal, &shared.plan);
        }
        let mut answers = Answers::default();
        self.board.switch(&shared.plan, |known| {
            Letter::Switch(Switch {
                listeners: Arc::clone(&listeners),
                known,
                answer: answers.expect(),
            })
        });
        self.outside.switch(&shared, names, &self.board);
        self.warn_of_files(&shared.plan);
        self.context.shared = shared;
        if let Err(words) = answers.all().await {
            // It died: whoever starts it again gives it the plan in force.
            tracing::error!("a worker did not switch: {words}");
        }
    }

    /// More listeners may need more descriptors.
    fn warn_of_files(&self, plan: &Plan) {
        let nofile = raise_nofile(descriptors(plan, self.workers()));
        if nofile.granted < nofile.wanted {
            tracing::warn!(
                "{} open files allowed, the configured limits need {}: raise the hard limit \
                 (LimitNOFILE=, ulimit -Hn), or lower max_connections",
                nofile.granted,
                nofile.wanted
            );
        }
    }
}

/// [`diff`] says of these that they need a restart.
fn keep_what_cannot_change(before: &Plan, plan: &mut Plan) {
    let next = plan.runtime.clone();
    plan.runtime = RuntimePlan {
        drain_timeout: next.drain_timeout,
        handshakes_max: next.handshakes_max,
        accept_batch: next.accept_batch,
        pipes_max: next.pipes_max,
        resolver: next.resolver,
        watch: next.watch,
        ..before.runtime.clone()
    };
    plan.log = LogPlan {
        refused_max: plan.log.refused_max,
        sample: plan.log.sample,
        ..before.log.clone()
    };
    plan.admin.clone_from(&before.admin);
    plan.sandbox.clone_from(&before.sandbox);
}

/// What workers answer to a letter.
#[derive(Default)]
struct Answers {
    expected: Vec<oneshot::Receiver<Result<(), String>>>,
}

impl Answers {
    fn expect(&mut self) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.expected.push(receiver);
        Box::new(move |answer| {
            // Nobody waits any more.
            let _ = sender.send(answer);
        })
    }

    /// The first error, if there is one. A worker that dies does not answer.
    async fn all(self) -> Result<(), String> {
        let all = async {
            let mut first = Ok(());
            for answer in self.expected {
                let answer = answer.await;
                let answer = answer.unwrap_or_else(|_| Err("a worker died".to_owned()));
                first = first.and(answer);
            }
            first
        };
        timeout(ANSWER_WAIT_MAX, all)
            .await
            .unwrap_or_else(|_| Err("a worker does not answer".to_owned()))
    }
}
