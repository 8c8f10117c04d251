//! More cores for the generator: threads that do what the leading one does, at its signals, each
//! with its share of the load and all with the same upstream servers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail};
use rustls::ServerConfig;

use super::carousel::turn;
use super::open::Crowd;
use super::run::{Load, begin_clients, in_runtime, warm_up};
use super::scene::{Gauge, Scene};
use super::tally::Tally;
use super::upstream::{self, UpstreamSocket};
use crate::peer::pin;
use crate::work::Mode;

const WARM_UP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// What one thread contributes.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) tally: Tally,
    pub(super) waiting: Duration,
}

#[derive(Debug, Default)]
struct Signals {
    phase: AtomicU8,
    ready: AtomicUsize,
    /// Threads of an open loop whose arrivals are all answered.
    answered: AtomicUsize,
    has_failed: AtomicBool,
}

impl Signals {
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    async fn left(&self, phase: u8) {
        while self.phase() == phase {
            turn().await;
        }
    }
}

/// The threads beside the leading one; none where the generator has one core.
pub(super) struct Team {
    signals: Arc<Signals>,
    threads: Vec<JoinHandle<anyhow::Result<Part>>>,
}

impl Team {
    /// One thread for each load, pinned to the core beside it.
    pub(super) fn start(
        shares: Vec<(usize, Load)>,
        upstream: &UpstreamSocket,
        tls: Option<&Arc<ServerConfig>>,
    ) -> anyhow::Result<Self> {
        let mut team = Self {
            signals: Arc::default(),
            threads: Vec::new(),
        };
        for (core, load) in shares {
            let upstream = upstream.try_clone()?;
            let (tls, signals) = (tls.cloned(), Arc::clone(&team.signals));
            let thread = std::thread::Builder::new().spawn(move || {
                let told = Arc::clone(&signals);
                let part =
                    pin(&[core]).and_then(|()| in_runtime(assist(load, upstream, tls, signals)));
                told.has_failed.fetch_or(part.is_err(), Ordering::AcqRel);
                part
            })?;
            team.threads.push(thread);
        }
        Ok(team)
    }

    /// Waits until all are warm, and lets them measure.
    pub(super) async fn begin(&self) {
        self.wait_for(&self.signals.ready).await;
        self.signals.phase.store(MEASURED, Ordering::Release);
    }

    /// Waits until no thread has an arrival left without its answer.
    pub(super) async fn await_answers(&self) {
        self.wait_for(&self.signals.answered).await;
    }

    async fn wait_for(&self, count: &AtomicUsize) {
        while count.load(Ordering::Acquire) < self.threads.len()
            && !self.signals.has_failed.load(Ordering::Acquire)
        {
            turn().await;
        }
    }

    /// Ends the measured time of all. To be called with the clock: joining comes later.
    pub(super) fn stop(&self) {
        self.signals.phase.store(OVER, Ordering::Release);
    }

    pub(super) fn join(mut self) -> anyhow::Result<Vec<Part>> {
        self.stop();
        let parts = self.threads.drain(..).map(|thread| {
            let part = thread.join();
            part.unwrap_or_else(|_| Err(anyhow!("a thread of the generator panicked")))
        });
        parts.collect()
    }
}

impl Drop for Team {
    /// A leader that gives up takes its team along.
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            // The leader's own error is the one that is told.
            let _ = thread.join();
        }
    }
}

async fn assist(
    load: Load,
    upstream: UpstreamSocket,
    tls: Option<Arc<ServerConfig>>,
    signals: Arc<Signals>,
) -> anyhow::Result<Part> {
    let scene = Rc::new(Scene::new());
    monoio::spawn(upstream::serve(upstream, load.work, tls, Rc::clone(&scene)));
    let crowd = match load.work.mode {
        Mode::Open(_) => Some(Crowd::gather(&load, &scene).await?),
        _ => None,
    };
    match &crowd {
        Some(crowd) => crowd.warm_up().await,
        None => {
            begin_clients(&load, &scene)?;
            warm_up(&load, &scene).await?;
        }
    }
    signals.ready.fetch_add(1, Ordering::AcqRel);
    signals.left(WARM_UP).await;
    if signals.phase() == OVER {
        bail!("the run ended before it was measured");
    }
    scene.begin_measuring();
    let mut gauge = Gauge::new(&scene);
    if let Some(crowd) = &crowd {
        crowd.measure(&mut gauge).await;
        signals.answered.fetch_add(1, Ordering::AcqRel);
    }
    while signals.phase() == MEASURED {
        gauge.tick();
        turn().await;
    }
    Ok(Part {
        tally: scene.take_tally(),
        waiting: gauge.waiting,
    })
}
