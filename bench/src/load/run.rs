//! One measured run: warm up, take the proxy's CPU time, measure, take it again.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::carousel::{self, turn};
use super::client::{self, Held};
use super::connect::Client;
use super::open::Crowd;
use super::scene::{Gauge, Scene};
use super::socket::{PATIENCE, Socket};
use super::tally::Tally;
use super::team::Team;
use super::tls;
use super::upstream::{self, UpstreamSocket};
use crate::peer::{Running, Usage, family_usage};
use crate::pki::Pki;
use crate::work::{Mode, Work};

/// Operations before the measured ones, for each client and for each server: the first of either is
/// always a full handshake, and so a resumed row must not begin earlier.
const WARM_OPERATIONS: u64 = 4;
/// More of the warm-up's time for each connection that has to be opened first.
const OPENING_TIME_MAX: Duration = Duration::from_millis(4);
/// For the allocator and the kernel to come to rest before memory is read.
const SETTLING: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) pki: Arc<Pki>,
    pub(crate) proxy_port: u16,
    pub(crate) in_flight: u16,
    pub(crate) idle_connections: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Open rows only.
    pub(crate) arrivals_per_second: f64,
    /// Tells the bursts of rounds and threads apart.
    pub(crate) seed: u64,
    /// The generator's cores; the leading thread is on the first.
    pub(crate) cores: Vec<usize>,
    /// The generator is pinned to one of the proxy's cores.
    pub(crate) shares_core: bool,
}

impl Load {
    /// A part of the load for each core, as far as there are connections to hand out. The leading
    /// thread's is the first. Memory is not measured faster by more threads.
    fn shares(&self) -> Vec<(usize, Self)> {
        let threads = match self.work.mode {
            Mode::Idle => 1,
            _ => self.cores.len().min(usize::from(self.in_flight)),
        };
        let count = u16::try_from(threads).unwrap_or(self.in_flight);
        let share = |(index, core): (u16, &usize)| {
            let load = Self {
                in_flight: self.in_flight * (index + 1) / count - self.in_flight * index / count,
                arrivals_per_second: self.arrivals_per_second / f64::from(count),
                seed: self.seed.wrapping_mul(1000) + u64::from(index),
                ..self.clone()
            };
            (*core, load)
        };
        (0..count).zip(&self.cores).map(share).collect()
    }
}

#[derive(Debug)]
pub(crate) struct RunFigures {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    /// Time in which a turn over all tasks moved nothing, on the average of the threads.
    pub(crate) waiting: Duration,
    pub(crate) proxy: Usage,
    pub(crate) generator: Usage,
    /// Bytes of the proxy's memory for each idle connection; idle rows only.
    pub(crate) bytes_per_connection: Option<f64>,
    /// Of the load: what the proxy did not get is the generator's.
    pub(crate) shares_core: bool,
}

/// Drives `load` through `proxy`, which has just been started.
pub(crate) fn run(
    load: Load,
    upstream: UpstreamSocket,
    mut proxy: Running,
) -> anyhow::Result<RunFigures> {
    in_runtime(async move {
        let figures = story(load, upstream, &mut proxy).await;
        figures.map_err(|error| proxy.explain(error))
    })
}

/// Runs a story among its tasks, and drops what still runs at its end.
pub(super) fn in_runtime<T: 'static>(
    story: impl Future<Output = anyhow::Result<T>> + 'static,
) -> anyhow::Result<T> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
        .build()
        .context("cannot start the generator's runtime")?;
    // The main future of `block_on` is polled only when no task is left: so the story is a task.
    let told = runtime.block_on(async move {
        carousel::start();
        monoio::spawn(story).await
    });
    carousel::stop();
    drop(runtime);
    told
}

async fn story(
    load: Load,
    upstream: UpstreamSocket,
    proxy: &mut Running,
) -> anyhow::Result<RunFigures> {
    let scene = Rc::new(Scene::new());
    let tls = match load.work.role.server_speaks_tls() {
        true => Some(Arc::new(tls::server_config(&load.work, &load.pki)?)),
        false => None,
    };
    await_ready(load.proxy_port, proxy, &scene).await?;
    let mut shares = load.shares();
    let (_, load) = shares.remove(0);
    let team = Team::start(shares, &upstream, tls.as_ref())?;
    monoio::spawn(upstream::serve(upstream, load.work, tls, Rc::clone(&scene)));
    match load.work.mode {
        Mode::Idle => measure_idle(&load, &scene, proxy).await,
        Mode::Open(_) => measure_open(&load, &scene, proxy, team).await,
        _ => measure_cpu(&load, &scene, proxy, team).await,
    }
}

/// Waits for the proxy's port to accept a connection, or for the proxy to have given up.
async fn await_ready(port: u16, proxy: &mut Running, scene: &Rc<Scene>) -> anyhow::Result<()> {
    let began = Instant::now();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    while Socket::connect(address, Rc::clone(scene)).await.is_err() {
        ensure!(proxy.is_alive()?, "it ended at once");
        ensure!(
            began.elapsed() < PATIENCE,
            "it does not listen after {PATIENCE:?}"
        );
        turn().await;
    }
    Ok(())
}

fn clients(load: &Load, scene: &Rc<Scene>) -> anyhow::Result<Vec<Client>> {
    let count = match load.work.mode {
        Mode::Bulk(_) => load.in_flight.div_ceil(4),
        _ => load.in_flight,
    };
    let client = |_| Client::new(&load.work, &load.pki, load.proxy_port, scene);
    (0..count).map(client).collect()
}

async fn measure_cpu(
    load: &Load,
    scene: &Rc<Scene>,
    proxy: &mut Running,
    team: Team,
) -> anyhow::Result<RunFigures> {
    begin_clients(load, scene)?;
    warm_up(load, scene).await?;
    team.begin().await;
    let watch = Watch::begin(load, scene, proxy)?;
    let mut gauge = Gauge::new(scene);
    while gauge.tick() - watch.began < load.measured {
        turn().await;
    }
    watch.end(&gauge, scene, proxy, team)
}

/// Lets every client of this thread go.
pub(super) fn begin_clients(load: &Load, scene: &Rc<Scene>) -> anyhow::Result<()> {
    for client in clients(load, scene)? {
        match load.work.mode {
            Mode::Pingpong { bytes } => {
                let connections = u64::from(load.in_flight);
                monoio::spawn(client::pingpong(client, bytes, connections))
            }
            Mode::Bulk(toward) => monoio::spawn(client::bulk(client, toward)),
            Mode::Connect(_) | Mode::Open(_) | Mode::Idle => {
                monoio::spawn(client::connect_again_and_again(client))
            }
        };
    }
    Ok(())
}

/// Goes on for the load's time of warming up, and until every client and server has had its
/// operations and all connections that stay are open.
pub(super) async fn warm_up(load: &Load, scene: &Scene) -> anyhow::Result<()> {
    let servers = upstream::server_count(&load.work, load.in_flight);
    let operations = WARM_OPERATIONS * u64::from(load.in_flight.max(servers));
    let settled = match load.work.mode {
        Mode::Pingpong { .. } => u64::from(load.in_flight),
        _ => 0,
    };
    let patience = PATIENCE + OPENING_TIME_MAX * u32::from(load.in_flight);
    let began = Instant::now();
    while began.elapsed() < load.warm_up
        || scene.warm_operations() < operations
        || scene.settled_connections() < settled
    {
        if began.elapsed() > load.warm_up + patience {
            let failure = scene
                .last_failure()
                .unwrap_or_else(|| "no failure seen".into());
            bail!(
                "the load did not get going: {} of {operations} operations in the warm-up, \
                 {} of {settled} connections, last failure: {failure}",
                scene.warm_operations(),
                scene.settled_connections()
            );
        }
        turn().await;
    }
    Ok(())
}

/// What both sides had used when the measured time began.
struct Watch {
    began: Instant,
    proxy: Usage,
    own: Usage,
    shares_core: bool,
}

impl Watch {
    fn begin(load: &Load, scene: &Scene, proxy: &mut Running) -> anyhow::Result<Self> {
        proxy.note_processes()?;
        let watch = Self {
            proxy: proxy.usage()?,
            own: family_usage(&[std::process::id()])?,
            began: Instant::now(),
            shares_core: load.shares_core,
        };
        scene.begin_measuring();
        Ok(watch)
    }

    fn end(
        self,
        gauge: &Gauge<'_>,
        scene: &Scene,
        proxy: &Running,
        team: Team,
    ) -> anyhow::Result<RunFigures> {
        team.stop();
        let elapsed = self.began.elapsed();
        let (proxy, own) = (proxy.usage()?, family_usage(&[std::process::id()])?);
        let (mut tally, mut waiting, mut threads) = (scene.take_tally(), gauge.waiting, 1);
        for part in team.join()? {
            tally.add(part.tally);
            waiting += part.waiting;
            threads += 1;
        }
        Ok(RunFigures {
            tally,
            elapsed,
            waiting: waiting / threads,
            proxy: proxy.since(&self.proxy),
            generator: own.since(&self.own),
            bytes_per_connection: None,
            shares_core: self.shares_core,
        })
    }
}

async fn measure_open(
    load: &Load,
    scene: &Rc<Scene>,
    proxy: &mut Running,
    team: Team,
) -> anyhow::Result<RunFigures> {
    let crowd = Crowd::gather(load, scene).await?;
    crowd.warm_up().await;
    team.begin().await;
    let watch = Watch::begin(load, scene, proxy)?;
    let mut gauge = Gauge::new(scene);
    crowd.measure(&mut gauge).await;
    team.await_answers().await;
    watch.end(&gauge, scene, proxy, team)
}

async fn measure_idle(
    load: &Load,
    scene: &Rc<Scene>,
    proxy: &mut Running,
) -> anyhow::Result<RunFigures> {
    let connections = u32::from(load.in_flight);
    let again = clients(load, scene)?;
    let warm = clients(load, scene)?
        .into_iter()
        .map(|c| client::connect_times(c, connections));
    all(warm).await;
    settle().await;
    proxy.note_processes()?;
    let (memory_before, before) = (proxy.memory_bytes()?, proxy.usage()?);
    let (began, held) = (Instant::now(), Held::default());
    scene.begin_measuring();
    let each = load.idle_connections.div_ceil(connections);
    all(again
        .into_iter()
        .map(|c| client::hold(c, each, Rc::clone(&held))))
    .await;
    settle().await;
    let memory = proxy.memory_bytes()?.saturating_sub(memory_before);
    let count = held.borrow().len();
    ensure!(
        count > 0,
        "no connection could be held: {:?}",
        scene.last_failure()
    );
    let mut tally = scene.take_tally();
    tally.operations = count as u64;
    Ok(RunFigures {
        tally,
        elapsed: began.elapsed(),
        waiting: Duration::ZERO,
        proxy: proxy.usage()?.since(&before),
        generator: Usage::default(),
        bytes_per_connection: Some(memory as f64 / count as f64),
        shares_core: load.shares_core,
    })
}

pub(super) async fn all<T: 'static>(
    tasks: impl Iterator<Item = impl Future<Output = T> + 'static>,
) {
    let handles: Vec<_> = tasks.map(monoio::spawn).collect();
    for handle in handles {
        handle.await;
    }
}

async fn settle() {
    let began = Instant::now();
    while began.elapsed() < SETTLING {
        turn().await;
    }
}
