//! What the control thread watches beside the workers, by one plan: the names of servers, and their
//! checks.

use std::sync::{Arc, OnceLock};

use super::board::Board;
use super::prober::Prober;
use super::reports::say;
use super::resolver::{Memory, NameKey, Resolver, Source, SystemFiles, questions};
use crate::upstream::{Change, Found};
use crate::worker::Shared;

pub(super) struct Outside {
    prober: Prober,
    /// Dropped with it: its names are not asked for any more.
    resolver: Resolver,
    /// Of no plan: what was once read of them outlives each.
    files: SystemFiles,
}

/// Names of a plan that is not in force yet.
pub(super) struct Names {
    resolver: Resolver,
    files: SystemFiles,
    prober: Arc<OnceLock<Prober>>,
}

impl Outside {
    /// Returns once names have their first answers, or after a while.
    pub(super) async fn start(shared: &Arc<Shared>, board: &Board) -> Self {
        let names = Names::ask(shared, board, Default::default()).await;
        let (plan, client_tls) = (Arc::clone(&shared.plan), shared.client_tls.clone());
        let prober = Prober::start(plan, client_tls, publish(shared, board));
        for (key, addresses) in board.known() {
            prober.resolved(key, &addresses);
        }
        names.checked_by(prober)
    }

    /// Asks for the names of the next plan; those that are known keep their answers. Nothing is
    /// borrowed while the answers come.
    pub(super) fn names(
        &self,
        shared: &Arc<Shared>,
        board: &Board,
    ) -> impl Future<Output = Names> + use<> {
        let (shared, board) = (Arc::clone(shared), board.clone());
        let known = (self.resolver.memory(), self.files.clone());
        async move { Names::ask(&shared, &board, known).await }
    }

    /// The next plan is in force. Checks of servers that stay go on.
    pub(super) fn switch(&mut self, shared: &Arc<Shared>, names: Names, board: &Board) {
        let plan = (Arc::clone(&shared.plan), shared.client_tls.clone());
        let prober = Prober::succeeding(Some(&self.prober), plan, publish(shared, board));
        for (key, addresses) in board.known() {
            prober.resolved(key, &addresses);
        }
        prober.settle();
        *self = names.checked_by(prober);
    }

    pub(super) fn end(&self) {
        self.prober.end();
    }
}

impl Names {
    async fn ask(
        shared: &Arc<Shared>,
        board: &Board,
        (before, files): (Memory, SystemFiles),
    ) -> Self {
        let prober = Arc::new(OnceLock::<Prober>::new());
        let (checked, posted) = (Arc::clone(&prober), board.clone());
        let generation = shared.generation;
        let publish = move |key: NameKey, found: Vec<Found>| {
            // First, so that no check speaks of an address that the board has forgotten.
            if let Some(prober) = checked.get() {
                let addresses: Vec<_> = found.iter().map(|it| it.address).collect();
                prober.resolved(key, &addresses);
            }
            posted.publish(generation, key, found);
        };
        let source = Source::of(&shared.plan.runtime.resolver, &files);
        let questions = questions(&shared.plan);
        if !questions.is_empty() {
            files.remember();
        }
        let resolver = Resolver::succeeding(before, (source, questions), publish).await;
        Self {
            resolver,
            files,
            prober,
        }
    }

    fn checked_by(self, prober: Prober) -> Outside {
        // Set once, here.
        let _ = self.prober.set(prober.clone());
        Outside {
            prober,
            resolver: self.resolver,
            files: self.files,
        }
    }
}

/// What the checks find is logged here once, and told to all workers.
fn publish(shared: &Shared, board: &Board) -> impl Fn(Change) + Send + Sync + 'static {
    let (plan, board) = (Arc::clone(&shared.plan), board.clone());
    move |change| {
        // What a line says is so: the workers have been told.
        board.on_check(&change);
        say(&plan, &change);
    }
}
