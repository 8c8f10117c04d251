//! The tables, in Markdown: they read well on a terminal and in docs/benchmarks.md.

use std::io::{self, Write};

use super::record::{Measured, rate};
use super::row::Row;
use super::spread::{Spread, short};
use crate::environment::Environment;
use crate::peer::Peer;
use crate::work::Mode;

/// What a table says of one row and one proxy.
type Cell = fn(&Row, usize) -> String;

pub(crate) fn print(
    out: &mut impl Write,
    environment: &Environment,
    peers: &[Peer],
    rows: &[Row],
) -> io::Result<()> {
    machine(out, environment)?;
    costs(out, peers, rows)?;
    writeln!(
        out,
        "\nLoad of the proxy's core / of the generator, and the rate in the last round; in \
         parentheses the operations for each second of the proxy's CPU time, median:\n"
    )?;
    table(out, peers, rows.iter(), load)?;
    writeln!(
        out,
        "\n* other work had one of the cores for over 5 % of the time: read the ratio, not the figure."
    )?;
    let timed: Vec<_> = rows.iter().filter(|row| has_latencies(row)).collect();
    if !timed.is_empty() {
        writeln!(
            out,
            "\nFirst byte in microseconds, p50 / p99 / p99.9 / p99.99 over all rounds; in open rows \
             from the intended start:\n"
        )?;
        table(out, peers, timed.into_iter(), latency)?;
    }
    absences(out, peers, rows)?;
    failures(out, peers, rows)
}

fn machine(out: &mut impl Write, environment: &Environment) -> io::Result<()> {
    let proxies = environment.proxies.iter();
    let libraries: Vec<_> = proxies
        .map(|proxy| format!("{} ({})", proxy.label, proxy.library))
        .collect();
    writeln!(
        out,
        "\n{}, kernel {}, {} cores; proxy on {:?}, clients and upstream servers on {:?}; {}\n",
        environment.cpu,
        environment.kernel,
        environment.cores,
        environment.proxy_cores,
        environment.generator_cores,
        libraries.join(", ")
    )
}

/// What each costs; the last column is what the best of the others costs beside the first.
fn costs(out: &mut impl Write, peers: &[Peer], rows: &[Row]) -> io::Result<()> {
    let labels: Vec<_> = peers.iter().map(|peer| peer.label.as_str()).collect();
    writeln!(
        out,
        "| work | unit | {} | best other / {} |",
        labels.join(" | "),
        labels[0]
    )?;
    writeln!(out, "|---|---|{}---|", "---|".repeat(peers.len()))?;
    for row in rows {
        let cells: Vec<_> = (0..peers.len()).map(|peer| cost(row, peer)).collect();
        let ratio = row.best_other().and_then(|best| row.ratio(best));
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            row.case.name,
            row.case.work.mode.unit(),
            cells.join(" | "),
            ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string())
        )?;
    }
    Ok(())
}

fn cost(row: &Row, peer: usize) -> String {
    if row.lacks[peer].is_some() {
        return "-".to_owned();
    }
    let Some(spread) = row.figure(peer) else {
        return "failed".to_owned();
    };
    let disturbed = measured(row, peer).any(Measured::is_disturbed);
    format!("{spread}{}", if disturbed { " *" } else { "" })
}

fn table<'a>(
    out: &mut impl Write,
    peers: &[Peer],
    rows: impl Iterator<Item = &'a Row>,
    cell: Cell,
) -> io::Result<()> {
    let labels: Vec<_> = peers.iter().map(|peer| peer.label.as_str()).collect();
    writeln!(out, "| work | {} |", labels.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(peers.len()))?;
    for row in rows {
        let cells: Vec<_> = (0..peers.len()).map(|peer| cell(row, peer)).collect();
        writeln!(out, "| {} | {} |", row.case.name, cells.join(" | "))?;
    }
    Ok(())
}

fn measured(row: &Row, peer: usize) -> impl Iterator<Item = &Measured> {
    row.records[peer]
        .iter()
        .filter_map(|record| record.measured.as_ref())
}

/// How busy either side was: a cost is at its best when the proxy's core is full.
fn load(row: &Row, peer: usize) -> String {
    let percent = |share: fn(&Measured) -> f64| {
        Spread::of(measured(row, peer).map(|measured| share(measured) * 100.0))
    };
    let (Some(proxy), Some(generator), Some(last)) = (
        percent(|measured| measured.proxy_load),
        percent(|measured| measured.generator_load),
        measured(row, peer).last(),
    ) else {
        return "-".to_owned();
    };
    let rate = rate(&row.case.work, last);
    if row.case.work.mode == Mode::Idle {
        return rate;
    }
    let per_core = measured(row, peer).filter_map(|measured| measured.operations_per_core_second);
    let per_core = Spread::of(per_core).map_or_else(String::new, |spread| {
        format!(" ({:.0} a core)", spread.median)
    });
    format!(
        "{:.0} % / {:.0} %, {rate}{per_core}",
        proxy.median, generator.median
    )
}

fn has_latencies(row: &Row) -> bool {
    (0..row.records.len()).any(|peer| !row.latencies(peer).first_byte.is_empty())
}

fn latency(row: &Row, peer: usize) -> String {
    let latencies = row.latencies(peer);
    if latencies.first_byte.is_empty() {
        return "-".to_owned();
    }
    let at = |quantile| short(latencies.first_byte.value_at_quantile(quantile) as f64 / 1000.0);
    let mut cell = format!(
        "{} / {} / {} / {}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999)
    );
    if !latencies.start_delay.is_empty() {
        let delay = latencies.start_delay.value_at_quantile(0.99) as f64 / 1000.0;
        cell += &format!(" (the generator's own delay: p99 {})", short(delay));
    }
    cell
}

/// Each reason once, with the rows that it holds for.
fn absences(out: &mut impl Write, peers: &[Peer], rows: &[Row]) -> io::Result<()> {
    for (index, peer) in peers.iter().enumerate() {
        let mut said: Vec<&str> = Vec::new();
        for why in rows.iter().filter_map(|row| row.lacks[index].as_deref()) {
            if !said.contains(&why) {
                said.push(why);
            }
        }
        for why in said {
            let lacks = |row: &&Row| row.lacks[index].as_deref() == Some(why);
            let names: Vec<_> = rows
                .iter()
                .filter(lacks)
                .map(|row| row.case.name.as_str())
                .collect();
            writeln!(out, "- {}: {why} ({})", peer.label, names.join(", "))?;
        }
    }
    Ok(())
}

fn failures(out: &mut impl Write, peers: &[Peer], rows: &[Row]) -> io::Result<()> {
    for row in rows {
        for (peer, records) in peers.iter().zip(&row.records) {
            for record in records {
                if let Some(why) = &record.refused {
                    writeln!(out, "FAILED {} {}: {why}", row.case.name, peer.label)?;
                }
                for (class, count) in &record.failures {
                    writeln!(
                        out,
                        "errors {} {}: {count} x {class}",
                        row.case.name, peer.label
                    )?;
                }
            }
        }
    }
    Ok(())
}
