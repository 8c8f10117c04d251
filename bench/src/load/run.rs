//! One measured run: warm up, take the proxy's CPU time, measure, take it again.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustls::pki_types::ServerName;

use super::carousel::{self, turn};
use super::client::{self, Held};
use super::connect::Client;
use super::scene::{Gauge, Scene};
use super::socket::{PATIENCE, Socket};
use super::tally::Tally;
use super::tls;
use super::upstream::{self, UpstreamSocket};
use crate::peer::{Running, Usage, family_usage};
use crate::pki::{EDGE_NAME, Pki};
use crate::work::{Mode, Work};

/// Operations before the measured ones, for each client and for each server: the first of either is
/// always a full handshake, and so a resumed row must not begin earlier.
const WARM_OPERATIONS: u64 = 4;
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
    let tls = match load.work.role.originates() {
        true => Some(Arc::new(tls::server_config(&load.work, &load.pki)?)),
        false => None,
    };
    monoio::spawn(upstream::serve(
        upstream,
        load.work.mode,
        tls,
        Rc::clone(&scene),
    ));
    await_ready(load.proxy_port, proxy, &scene).await?;
    let clients = clients(&load, &scene)?;
    match load.work.mode {
        Mode::Idle => measure_idle(&load, clients, &scene, proxy).await,
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
    let name = ServerName::try_from(EDGE_NAME)?;
    let client = |_| {
        let terminated = load.work.role.terminates();
        let tls = terminated
            .then(|| tls::client_config(&load.work, &load.pki))
            .transpose()?;
        Ok(Client::new(load.proxy_port, name.clone(), tls, scene))
    };
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
            Mode::Pingpong { bytes } => monoio::spawn(client::pingpong(client, bytes)),
            Mode::Bulk(toward) => monoio::spawn(client::bulk(client, toward)),
            Mode::Connect(_) | Mode::Idle => monoio::spawn(client::connect_again_and_again(client)),
        };
    }
    warm_up(load.warm_up, warm, scene).await?;
    proxy.note_processes()?;
    let own = [std::process::id()];
    let (proxy_before, own_before) = (proxy.usage()?, family_usage(&own)?);
    let mut gauge = Gauge::new(scene);
    let began = Instant::now();
    scene.begin_measuring();
    while gauge.tick() - began < load.measured {
        turn().await;
    }
    let elapsed = began.elapsed();
    let (proxy_after, own_after) = (proxy.usage()?, family_usage(&own)?);
    Ok(RunFigures {
        tally: scene.take_tally(),
        elapsed,
        waiting: gauge.waiting,
        proxy: proxy_after.since(&proxy_before),
        generator: own_after.since(&own_before),
        bytes_per_connection: None,
    })
}

/// Goes on for `least`, and until `operations` are complete.
async fn warm_up(least: Duration, operations: u64, scene: &Scene) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < least || scene.warm_operations() < operations {
        if began.elapsed() > least + PATIENCE {
            let failure = scene
                .last_failure()
                .unwrap_or_else(|| "no failure seen".into());
            bail!(
                "the load did not get going: {} of {operations} operations in the warm-up, last failure: {failure}",
                scene.warm_operations()
            );
        }
        turn().await;
    }
    Ok(())
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
    })
}

async fn all(tasks: impl Iterator<Item = impl Future<Output = ()> + 'static>) {
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
