//! What each subcommand measures.

use std::io::Write;

use anyhow::{bail, ensure};

use crate::args::{
    Command, CompareOptions, LadderOptions, OpenOptions, PathsOptions, RunOptions, WorkersOptions,
};
use crate::bench::{Bench, peers};
use crate::case::Case;
use crate::environment;
use crate::peer::{Kind, Peer};
use crate::report::{self, Row};
use crate::work::{self, Handshake, Mode, Role, Work};

const RINGWAY: &[Kind] = &[Kind::Ringway];
const ALL: &[Kind] = &Kind::ALL;

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Compare(options) => compare(options),
        Command::Rows => list_rows(),
        Command::Full(options) => {
            let work = options.work(Handshake::Full);
            single("full", work, &options.run)
        }
        Command::Resumed(options) => {
            let work = options.work(Handshake::Resumed);
            single("resumed", work, &options.run)
        }
        Command::Connect(options) => {
            let work = Work::new(Role::Plain, Mode::Connect(Handshake::Full));
            single("connect", work, &options.run)
        }
        Command::Pingpong(options) => single("pingpong", options.work(), &options.run),
        Command::Bulk(options) => single("bulk", options.work(), &options.run),
        Command::Idle(options) => single("idle", options.work(), &options.run),
        Command::Open(options) => open(options),
        Command::Ladder(options) => ladder(options),
        Command::Workers(options) => workers(options),
        Command::Paths(options) => paths(options),
    }
}

fn compare(options: &CompareOptions) -> anyhow::Result<()> {
    let peers = peers(&options.run, ALL)?;
    let works = work::select(&options.work)?;
    closed("compare", &works, &options.run, &peers)
}

fn list_rows() -> anyhow::Result<()> {
    let table = work::table();
    let mut out = std::io::stdout().lock();
    for work in work::all_rows() {
        let place = if table.contains(&work) {
            "table"
        } else {
            "matrix"
        };
        writeln!(out, "{place:<7} {}", work.name())?;
    }
    Ok(())
}

fn single(name: &'static str, work: Work, options: &RunOptions) -> anyhow::Result<()> {
    ensure!(
        work.is_possible(),
        "{}: X25519MLKEM768 is of TLS 1.3 only",
        work.name()
    );
    let peers = peers(options, RINGWAY)?;
    closed(name, &[work], options, &peers)
}

fn ladder(options: &LadderOptions) -> anyhow::Result<()> {
    let peers = peers(&options.run, ALL)?;
    let mode = Mode::Pingpong {
        bytes: options.bytes,
    };
    let step = |role: Role, connections: u16| Work {
        connections: Some(connections),
        ..Work::new(role, mode)
    };
    let works: Vec<_> = options
        .role
        .iter()
        .flat_map(|role| options.connections.iter().map(|n| step(*role, *n)))
        .collect();
    closed("ladder", &works, &options.run, &peers)
}

fn closed(
    name: &'static str,
    works: &[Work],
    options: &RunOptions,
    peers: &[Peer],
) -> anyhow::Result<()> {
    let mut bench = Bench::prepare(options, peers)?;
    bench.refuse_shared_core()?;
    let cases: Vec<_> = works
        .iter()
        .map(|work| Case::closed(*work, &options.proxy_cores))
        .collect();
    if options.show_configs {
        return bench.show_configurations(&cases);
    }
    let rows = bench.measure(cases)?;
    finish(name, &bench, &rows)
}

/// The same work with one worker and with two. Where the machine has no core left for the
/// generator, only the cost of an operation is said, and no rate.
fn workers(options: &WorkersOptions) -> anyhow::Result<()> {
    let run = &options.run;
    let peers = peers(run, RINGWAY)?;
    let mut bench = Bench::prepare(run, &peers)?;
    let cores = match run.proxy_cores.as_slice() {
        [_] => environment::first_cores(2),
        several => several.to_vec(),
    };
    ensure!(cores.len() >= 2, "two workers need two cores");
    if bench.shares_core(&cores) {
        eprintln!(
            "the generator shares a core with a worker: rates are withheld, and what an operation \
             costs holds the cold caches of that core"
        );
    }
    let mut cases = Vec::new();
    for work in work::select(&options.work)? {
        for count in [1, cores.len()] {
            let case = Case::closed(work, &cores[..count]);
            let name = format!("{}, workers: {count}", case.name);
            cases.push(Case { name, ..case });
        }
    }
    if run.show_configs {
        return bench.show_configurations(&cases);
    }
    let rows = bench.measure(cases)?;
    finish("workers", &bench, &rows)
}

/// The same proxy with TLS in the kernel from the first byte on, and with TLS in user space alone.
fn paths(options: &PathsOptions) -> anyhow::Result<()> {
    let run = &options.run;
    if let Err(why) = ringway::sys::probe_ktls() {
        bail!("the paths would be the same: {why}");
    }
    let found = peers(run, RINGWAY)?;
    let ringways = found.iter().filter(|peer| peer.kind == Kind::Ringway);
    let peers: Vec<_> = ringways
        .flat_map(|peer| ["splice", "user"].map(|path| peer.on_path(path)))
        .collect();
    ensure!(
        !peers.is_empty(),
        "no ringway to measure: give --proxy a path"
    );
    closed("paths", &work::select(&options.work)?, run, &peers)
}

/// Arrivals at the rate that is given, or at a share of what each proxy does at most.
fn open(options: &OpenOptions) -> anyhow::Result<()> {
    let run = &options.run;
    ensure!(
        options.open().is_possible(),
        "X25519MLKEM768 is of TLS 1.3 only"
    );
    let peers = peers(run, ALL)?;
    let mut bench = Bench::prepare(run, &peers)?;
    bench.refuse_shared_core()?;
    let closed = Case::closed(options.closed(), &run.proxy_cores);
    if run.show_configs {
        let open = Case::closed(options.open(), &run.proxy_cores);
        return bench.show_configurations(&[open]);
    }
    let mut rows = Vec::new();
    let cases = match options.rate {
        Some(rate) => {
            let name = format!("{} at {rate}/s", options.open().name());
            vec![paced(options, name, vec![Some(rate); peers.len()])]
        }
        None => {
            rows = bench.measure(vec![closed])?;
            at_a_share(options, &peers, &rows[0])?
        }
    };
    rows.extend(bench.measure(cases)?);
    finish("open", &bench, &rows)
}

fn paced(options: &OpenOptions, name: String, rates: Vec<Option<f64>>) -> Case {
    Case {
        name,
        rates: Some(rates),
        ..Case::closed(options.open(), &options.run.proxy_cores)
    }
}

/// Each proxy at a share of its own maximum: how long its clients wait when it is as full as the
/// others. And all at the share of the lowest maximum: how long they wait for the same load.
fn at_a_share(options: &OpenOptions, peers: &[Peer], closed: &Row) -> anyhow::Result<Vec<Case>> {
    let own: Vec<_> = (0..peers.len())
        .map(|proxy| Some(closed.attained(proxy)? * options.share))
        .collect();
    let Some(lowest) = own.iter().flatten().copied().min_by(f64::total_cmp) else {
        bail!("no closed-loop run counted: {:?}", closed.failures().next());
    };
    let (name, percent) = (options.open().name(), options.share * 100.0);
    let same = own.iter().map(|rate| rate.map(|_| lowest)).collect();
    let own_name = format!("{name} at {percent:.0} % of its own maximum");
    let same_name = format!("{name} at {percent:.0} % of the lowest maximum");
    Ok(vec![
        paced(options, own_name, own),
        paced(options, same_name, same),
    ])
}

/// Prints what was measured, writes it down, and fails if a run has.
fn finish(name: &'static str, bench: &Bench<'_>, rows: &[Row]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    report::print(&mut out, &bench.environment, bench.peers, rows)?;
    let files = report::write(name, bench.options, &bench.environment, bench.peers, rows)?;
    for file in files {
        writeln!(out, "written: {}", file.display())?;
    }
    let failed = rows.iter().flat_map(Row::failures).count();
    ensure!(failed == 0, "{failed} runs failed: see above");
    Ok(())
}
