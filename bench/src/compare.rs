//! The order of the runs, and what each run is worth.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::CompareOptions;
use crate::environment::{self, Environment};
use crate::load::{self, Load, RunFigures, UpstreamSocket};
use crate::peer::{Kind, Peer, Setting, installed};
use crate::pki::Pki;
use crate::report::{self, Record, Row};
use crate::work::{self, Work};

/// Below the ephemeral ports, so that no connection's own port takes one away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

pub(crate) fn compare(options: &CompareOptions) -> anyhow::Result<()> {
    let works = work::select(&options.work)?;
    let peers = peers(options)?;
    let mut bench = Bench::prepare(options)?;
    if options.show_configs {
        return bench.show_configurations(&works, &peers);
    }
    let environment = Environment::look(&peers, options.proxy_core, bench.generator_core);
    raise_descriptor_limit(options.idle_connections)?;
    let rows = bench.measure(&works, &peers)?;
    report::print(&mut std::io::stdout().lock(), &environment, &peers, &rows)?;
    let file = report::write_json(&options.out, options, &environment, &peers, &rows)?;
    report::write_hgrm(&options.out, &peers, &rows)?;
    writeln!(
        std::io::stdout(),
        "\nwritten: {} and hgrm/ beside it",
        file.display()
    )?;
    let failed = rows.iter().flat_map(Row::failures).count();
    ensure!(failed == 0, "{failed} runs failed: see above");
    Ok(())
}

/// Ringway first, then those given by path, or else those installed.
fn peers(options: &CompareOptions) -> anyhow::Result<Vec<Peer>> {
    let own = options.proxy.clone().or_else(ringway_beside_this);
    let or_installed = |given: &[PathBuf], name: &str| match given {
        [] => installed(name).into_iter().collect(),
        given => given.to_vec(),
    };
    let candidates = [
        (Kind::Ringway, own.into_iter().collect()),
        (Kind::Nginx, or_installed(&options.nginx, "nginx")),
        (Kind::Haproxy, or_installed(&options.haproxy, "haproxy")),
    ];
    let mut peers: Vec<Peer> = Vec::new();
    for (kind, paths) in candidates {
        for path in paths {
            let mut peer = Peer::examine(kind, &path)?;
            if peers.iter().any(|other| other.label == peer.label) {
                peer.label = format!("{} #{}", peer.label, peers.len() + 1);
            }
            peers.push(peer);
        }
    }
    if peers.is_empty() {
        bail!("nothing to measure: give --proxy, --nginx or --haproxy a path, or install one");
    }
    Ok(peers)
}

fn ringway_beside_this() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("ringway");
    beside.is_file().then_some(beside)
}

/// Each idle connection takes two descriptors here and two in the proxy, which inherits the limit.
fn raise_descriptor_limit(idle_connections: u32) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .context("cannot raise the limit of open files")?;
    let needed = u64::from(idle_connections) * 2 + 1000;
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "{idle_connections} idle connections need {needed} open files, the hard limit is {}: \
         raise it (ulimit -Hn) or lower --idle-connections",
        limit.maximum.unwrap_or(0)
    );
    Ok(())
}

struct Bench<'a> {
    options: &'a CompareOptions,
    generator_core: usize,
    dir: tempfile::TempDir,
    pki: Rc<Pki>,
    next_port: u16,
    runs: usize,
}

impl<'a> Bench<'a> {
    fn prepare(options: &'a CompareOptions) -> anyhow::Result<Self> {
        let generator_core = options
            .generator_core
            .unwrap_or_else(environment::last_core);
        ensure!(
            generator_core != options.proxy_core,
            "the proxy and the generator would share core {generator_core}: two cores are needed \
             (--proxy-core, --generator-core)"
        );
        ensure!(
            options.seconds.is_finite() && options.seconds > 0.0 && options.warm_up >= 0.0,
            "--seconds must be positive and --warm-up not negative"
        );
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let pki = Rc::new(Pki::create(dir.path())?);
        // Two harnesses on one machine should not begin at the same port.
        let offset = u16::try_from(std::process::id() % 8000)?;
        let next_port = PORTS.start + offset;
        Ok(Self {
            options,
            generator_core,
            dir,
            pki,
            next_port,
            runs: 0,
        })
    }

    fn show_configurations(&self, works: &[Work], peers: &[Peer]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        for work in works {
            for peer in peers {
                let setting = self.setting(work, self.dir.path(), PORTS.start, PORTS.start + 1);
                writeln!(
                    out,
                    "# {} for {}\n{}",
                    peer.label,
                    work.name,
                    peer.configuration(&setting)
                )?;
            }
        }
        Ok(())
    }

    fn setting<'b>(
        &'b self,
        work: &'b Work,
        dir: &'b Path,
        listen_port: u16,
        upstream_port: u16,
    ) -> Setting<'b> {
        Setting {
            work,
            pki: &self.pki,
            listen_port,
            upstream_port,
            in_flight: self.options.in_flight,
            core: self.options.proxy_core,
            dir,
        }
    }

    /// Row by row; within a row round by round; within a round each proxy once, and another one
    /// first each time, so that a machine that drifts does so under all of them.
    fn measure(&mut self, works: &[Work], peers: &[Peer]) -> anyhow::Result<Vec<Row>> {
        let mut progress = Progress::new(works.len() * peers.len(), self.options);
        let mut rows = Vec::new();
        for work in works {
            let mut row = Row::new(*work, peers.len());
            for round in 0..self.options.rounds as usize {
                for turn in 0..peers.len() {
                    let index = (turn + round) % peers.len();
                    let record = match self.run(work, &peers[index]) {
                        Ok(figures) => Record::judge(work, figures),
                        Err(error) => Record::failed(format!("{error:#}")),
                    };
                    progress.show(work, &peers[index], round, &record);
                    row.add(index, record);
                }
            }
            rows.push(row);
        }
        Ok(rows)
    }

    fn run(&mut self, work: &Work, peer: &Peer) -> anyhow::Result<RunFigures> {
        self.runs += 1;
        let dir = self.dir.path().join(self.runs.to_string());
        fs::create_dir(&dir)?;
        let (upstream, upstream_port) = self.bind_somewhere()?;
        let (_, listen_port) = self.bind_somewhere()?;
        let setting = self.setting(work, &dir, listen_port, upstream_port);
        let proxy = peer.start(&setting, self.generator_core)?;
        let load = Load {
            work: *work,
            pki: Rc::clone(&self.pki),
            proxy_port: listen_port,
            in_flight: self.options.in_flight,
            idle_connections: self.options.idle_connections,
            warm_up: Duration::from_secs_f64(self.options.warm_up),
            measured: Duration::from_secs_f64(self.options.seconds),
        };
        load::run(load, upstream, proxy)
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
    done: usize,
    total: usize,
    rounds: u32,
}

impl Progress {
    fn new(cells: usize, options: &CompareOptions) -> Self {
        let total = cells * options.rounds as usize;
        Self {
            began: Instant::now(),
            done: 0,
            total,
            rounds: options.rounds,
        }
    }

    fn show(&mut self, work: &Work, peer: &Peer, round: usize, record: &Record) {
        self.done += 1;
        let left =
            self.began.elapsed().as_secs_f64() / self.done as f64 * (self.total - self.done) as f64;
        eprintln!(
            "[{:>3}/{}, {left:.0} s left] {:<34} {:<16} round {}/{}: {}",
            self.done,
            self.total,
            work.name,
            peer.label,
            round + 1,
            self.rounds,
            record.line(work)
        );
    }
}
