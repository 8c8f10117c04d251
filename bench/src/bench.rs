//! The order of the runs, and what each run is worth.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::RunOptions;
use crate::case::Case;
use crate::environment::{self, Environment};
use crate::load::{self, Load, RunFigures, UpstreamSocket};
use crate::peer::{Kind, Peer, Setting, installed};
use crate::pki::Pki;
use crate::report::{Record, Row};

/// Below the ephemeral ports, so that no connection's own port takes one away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Open files beside those of the connections.
const DESCRIPTORS_SPARE: u64 = 1000;

/// What the peers are, found and asked for their versions. Ringway is the first.
pub(crate) fn peers(options: &RunOptions, default: &[Kind]) -> anyhow::Result<Vec<Peer>> {
    let mut peers: Vec<Peer> = Vec::new();
    for kind in Kind::ALL {
        for path in paths(options, default, kind)? {
            let mut peer = Peer::examine(kind, &path)?;
            if peers.iter().any(|other| other.label == peer.label) {
                peer.label = format!("{} #{}", peer.label, peers.len() + 1);
            }
            peers.push(peer);
        }
    }
    if peers.is_empty() {
        bail!("nothing to measure: give --proxy, --nginx or another a path, or install one");
    }
    Ok(peers)
}

/// Given by path, or else the one installed if it is wanted.
fn paths(options: &RunOptions, default: &[Kind], kind: Kind) -> anyhow::Result<Vec<PathBuf>> {
    let given = options.paths(kind);
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let found = match kind {
        Kind::Ringway => ringway_beside_this(),
        _ => installed(kind.program()),
    };
    if options.peers.contains(&kind) {
        let program = kind.program();
        let found = found.with_context(|| {
            format!("--peers {program}: it is not installed, and no path is given")
        })?;
        return Ok(vec![found]);
    }
    let is_wanted = options.peers.is_empty() && default.contains(&kind);
    Ok(found.filter(|_| is_wanted).into_iter().collect())
}

fn ringway_beside_this() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("ringway");
    beside.is_file().then_some(beside)
}

pub(crate) struct Bench<'a> {
    pub(crate) options: &'a RunOptions,
    pub(crate) peers: &'a [Peer],
    pub(crate) generator_cores: Vec<usize>,
    /// As it was before the first run pins this process to a core.
    pub(crate) environment: Environment,
    dir: tempfile::TempDir,
    pki: Arc<Pki>,
    next_port: u16,
    runs: u64,
}

impl<'a> Bench<'a> {
    pub(crate) fn prepare(options: &'a RunOptions, peers: &'a [Peer]) -> anyhow::Result<Self> {
        ensure!(
            options.seconds.is_finite() && options.seconds > 0.0 && options.warm_up >= 0.0,
            "--seconds must be positive and --warm-up not negative"
        );
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let pki = Arc::new(Pki::create(dir.path())?);
        // Two harnesses on one machine should not begin at the same port.
        let offset = u16::try_from(std::process::id() % 8000)?;
        let generator_cores = match options.generator_cores.as_slice() {
            [] => vec![environment::last_core()],
            given => given.to_vec(),
        };
        Ok(Self {
            options,
            peers,
            environment: Environment::look(peers, &options.proxy_cores, &generator_cores),
            generator_cores,
            dir,
            pki,
            next_port: PORTS.start + offset,
            runs: 0,
        })
    }

    /// The proxy would be charged for what the generator's busy polling takes from it.
    pub(crate) fn refuse_shared_core(&self) -> anyhow::Result<()> {
        ensure!(
            !self.shares_core(&self.options.proxy_cores),
            "the proxy on {:?} and the generator on {:?} would share a core: two are needed \
             (--proxy-cores, --generator-cores)",
            self.options.proxy_cores,
            self.generator_cores
        );
        Ok(())
    }

    pub(crate) fn shares_core(&self, cores: &[usize]) -> bool {
        cores.iter().any(|core| self.generator_cores.contains(core))
    }

    pub(crate) fn show_configurations(&self, cases: &[Case]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        for case in cases {
            for peer in self.peers {
                write!(out, "# {} for {}", peer.label, case.name)?;
                if let Some(why) = peer.lacks(&case.work) {
                    writeln!(out, ": {why}\n")?;
                    continue;
                }
                let setting = self.setting(case, self.dir.path(), PORTS.start, PORTS.start + 1);
                writeln!(out, "\n{}", peer.configuration(&setting))?;
            }
        }
        Ok(())
    }

    fn setting<'b>(
        &'b self,
        case: &'b Case,
        dir: &'b Path,
        listen_port: u16,
        upstream_port: u16,
    ) -> Setting<'b> {
        Setting {
            work: &case.work,
            pki: &self.pki,
            listen_port,
            upstream_port,
            in_flight: self.options.in_flight,
            cores: &case.cores,
            dir,
        }
    }

    /// Row by row; within a row round by round; within a round each proxy once, and another one
    /// first each time, so that a machine that drifts does so under all of them.
    pub(crate) fn measure(&mut self, cases: Vec<Case>) -> anyhow::Result<Vec<Row>> {
        self.raise_descriptor_limit(&cases)?;
        let peers = self.peers;
        let rows: Vec<_> = cases
            .into_iter()
            .map(|case| Row::new(case, peers))
            .collect();
        let cells = rows.iter().map(Row::cells).sum();
        let mut progress = Progress::new(cells, self.options.rounds);
        let mut measured = Vec::new();
        for mut row in rows {
            for round in 0..self.options.rounds {
                for turn in 0..peers.len() {
                    let index = (turn + round as usize) % peers.len();
                    if row.lacks[index].is_some() {
                        continue;
                    }
                    let record = match self.run(&row.case, index, round) {
                        Ok(figures) => Record::judge(&row.case.work, figures),
                        Err(error) => Record::failed(format!("{error:#}")),
                    };
                    progress.show(&row.case, &peers[index], round, &record);
                    row.add(index, record);
                }
            }
            measured.push(row);
        }
        Ok(measured)
    }

    /// Each connection takes two descriptors here and two in the proxy, which inherits the limit.
    fn raise_descriptor_limit(&self, cases: &[Case]) -> anyhow::Result<()> {
        let RunOptions {
            in_flight,
            idle_connections,
            ..
        } = *self.options;
        let limit = getrlimit(Resource::Nofile);
        for case in cases {
            let connections = case.connections(in_flight, idle_connections);
            let needed = u64::from(connections) * 2 + DESCRIPTORS_SPARE;
            let maximum = limit.maximum.unwrap_or(u64::MAX);
            ensure!(
                maximum >= needed,
                "{}: {connections} connections need {needed} open files, the hard limit is \
                 {maximum}: raise it (ulimit -Hn), or ask for at most {} connections",
                case.name,
                maximum.saturating_sub(DESCRIPTORS_SPARE) / 2
            );
        }
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
    }

    fn run(&mut self, case: &Case, proxy: usize, round: u32) -> anyhow::Result<RunFigures> {
        self.runs += 1;
        let dir = self.dir.path().join(self.runs.to_string());
        fs::create_dir(&dir)?;
        let (upstream, upstream_port) = self.bind_somewhere()?;
        let (_, listen_port) = self.bind_somewhere()?;
        let setting = self.setting(case, &dir, listen_port, upstream_port);
        let running = self.peers[proxy].start(&setting, self.generator_cores[0])?;
        let load = Load {
            work: case.work,
            pki: Arc::clone(&self.pki),
            proxy_port: listen_port,
            in_flight: case.work.connections.unwrap_or(self.options.in_flight),
            idle_connections: self.options.idle_connections,
            warm_up: Duration::from_secs_f64(self.options.warm_up),
            measured: Duration::from_secs_f64(self.options.seconds),
            arrivals_per_second: case.rate(proxy).unwrap_or(f64::NAN),
            seed: u64::from(round),
            cores: self.generator_cores.clone(),
            shares_core: self.shares_core(&case.cores),
        };
        load::run(load, upstream, running)
    }

    /// A port that nobody has; each is used once, so that no run meets another's TIME_WAIT.
    fn bind_somewhere(&mut self) -> anyhow::Result<(UpstreamSocket, u16)> {
        for _ in PORTS {
            let port = self.next_port;
            self.next_port = if port + 1 == PORTS.end {
                PORTS.start
            } else {
                port + 1
            };
            if let Ok(socket) = UpstreamSocket::bind(port) {
                return Ok((socket, port));
            }
        }
        bail!("no free port from {} to {}", PORTS.start, PORTS.end)
    }
}

/// One line a run on stderr, with what is left to do.
struct Progress {
    began: Instant,
    done: u32,
    total: u32,
    rounds: u32,
}

impl Progress {
    fn new(cells: u32, rounds: u32) -> Self {
        Self {
            began: Instant::now(),
            done: 0,
            total: cells * rounds,
            rounds,
        }
    }

    fn show(&mut self, case: &Case, peer: &Peer, round: u32, record: &Record) {
        self.done += 1;
        let each = self.began.elapsed() / self.done;
        let left = each * self.total.saturating_sub(self.done);
        eprintln!(
            "[{:>3}/{}, {} s left] {:<38} {:<16} round {}/{}: {}",
            self.done,
            self.total,
            left.as_secs(),
            case.name,
            peer.label,
            round + 1,
            self.rounds,
            record.line(&case.work)
        );
    }
}
