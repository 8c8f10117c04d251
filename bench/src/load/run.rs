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
    pub(crate) pki: Rc<Pki>,
    pub(crate) proxy_port: u16,
    pub(crate) in_flight: u16,
    pub(crate) idle_connections: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Open rows only.
    pub(crate) arrivals_per_second: f64,
    /// The generator is pinned to one of the proxy's cores.
    pub(crate) shares_core: bool,
}

#[derive(Debug)]
pub(crate) struct RunFigures {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    /// Time in which a turn over all tasks moved nothing.
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
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
        .build()
        .context("cannot start the generator's runtime")?;
    // The main future of `block_on` is polled only when no task is left: the story is a task among
    // the others. What still runs at its end is dropped with the runtime.
    let figures = runtime.block_on(async move {
        carousel::start();
        monoio::spawn(async move {
            let figures = story(load, upstream, &mut proxy).await;
            figures.map_err(|error| proxy.explain(error))
        })
        .await
    });
    carousel::stop();
    drop(runtime);
    figures
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
    monoio::spawn(upstream::serve(upstream, load.work, tls, Rc::clone(&scene)));
    await_ready(load.proxy_port, proxy, &scene).await?;
    let clients = clients(&load, &scene)?;
    match load.work.mode {
        Mode::Idle => measure_idle(&load, clients, &scene, proxy).await,
        Mode::Open(_) => measure_open(&load, &scene, proxy).await,
        _ => measure_cpu(&load, clients, &scene, proxy).await,
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
    clients: Vec<Client>,
    scene: &Rc<Scene>,
    proxy: &mut Running,
) -> anyhow::Result<RunFigures> {
    let parties = load
        .in_flight
        .max(upstream::server_count(&load.work, load.in_flight));
    let warm = WARM_OPERATIONS * u64::from(parties);
    for client in clients {
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
    warm_up(load, warm, scene).await?;
    let watch = Watch::begin(load, scene, proxy)?;
    let mut gauge = Gauge::new(scene);
    while gauge.tick() - watch.began < load.measured {
        turn().await;
    }
    watch.end(&gauge, scene, proxy)
}

/// Goes on for the load's time of warming up, and until `operations` are complete and all
/// connections that stay are open.
async fn warm_up(load: &Load, operations: u64, scene: &Scene) -> anyhow::Result<()> {
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

    fn end(self, gauge: &Gauge<'_>, scene: &Scene, proxy: &Running) -> anyhow::Result<RunFigures> {
        let elapsed = self.began.elapsed();
        Ok(RunFigures {
            tally: scene.take_tally(),
            elapsed,
            waiting: gauge.waiting,
            proxy: proxy.usage()?.since(&self.proxy),
            generator: family_usage(&[std::process::id()])?.since(&self.own),
            bytes_per_connection: None,
            shares_core: self.shares_core,
        })
    }
}

async fn measure_open(
    load: &Load,
    scene: &Rc<Scene>,
    proxy: &mut Running,
) -> anyhow::Result<RunFigures> {
    let crowd = Crowd::gather(load, scene).await?;
    crowd.warm_up().await;
    let watch = Watch::begin(load, scene, proxy)?;
    let mut gauge = Gauge::new(scene);
    crowd.measure(&mut gauge).await;
    watch.end(&gauge, scene, proxy)
}

async fn measure_idle(
    load: &Load,
    clients: Vec<Client>,
    scene: &Rc<Scene>,
    proxy: &mut Running,
) -> anyhow::Result<RunFigures> {
    let connections = u32::from(load.in_flight);
    let again = self::clients(load, scene)?;
    let warm = clients
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
