//! The table, in Markdown: it reads well on a terminal and in docs/benchmarks.md.

use std::io::{self, Write};

use super::record::{Row, rate};
use super::spread::Spread;
use crate::environment::Environment;
use crate::peer::Peer;
use crate::work::Mode;

pub(crate) fn print(
    out: &mut impl Write,
    environment: &Environment,
    peers: &[Peer],
    rows: &[Row],
) -> io::Result<()> {
    writeln!(
        out,
        "\n{}, kernel {}, {} cores; proxy on core {}, clients and upstream servers on core {}\n",
        environment.cpu,
        environment.kernel,
        environment.cores,
        environment.proxy_core,
        environment.generator_core
    )?;
    costs(out, peers, rows)?;
    writeln!(out)?;
    loads(out, peers, rows)?;
    failures(out, peers, rows)
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
            row.work.name,
            row.work.mode.unit(),
            cells.join(" | "),
            ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string())
        )?;
    }
    Ok(())
}

fn cost(row: &Row, peer: usize) -> String {
    let Some(spread) = row.figure(peer) else {
        return "failed".to_owned();
    };
    let disturbed = row.records[peer].iter().any(|record| {
        record
            .measured
            .as_ref()
            .is_some_and(|measured| measured.is_disturbed())
    });
    format!("{spread}{}", if disturbed { " *" } else { "" })
}

/// How busy either side was: a cost is at its best when the proxy's core is full.
fn loads(out: &mut impl Write, peers: &[Peer], rows: &[Row]) -> io::Result<()> {
    let labels: Vec<_> = peers.iter().map(|peer| peer.label.as_str()).collect();
    writeln!(
        out,
        "Load of the proxy's core / of the generator, and the rate (last round):\n"
    )?;
    writeln!(out, "| work | {} |", labels.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(peers.len()))?;
    for row in rows {
        let cells: Vec<_> = (0..peers.len()).map(|peer| load(row, peer)).collect();
        writeln!(out, "| {} | {} |", row.work.name, cells.join(" | "))?;
    }
    writeln!(
        out,
        "\n* other work had one of the cores for over 5 % of the time: read the ratio, not the figure."
    )
}

fn load(row: &Row, peer: usize) -> String {
    let measured: Vec<_> = row.records[peer]
        .iter()
        .filter_map(|record| record.measured.as_ref())
        .collect();
    let (Some(proxy), Some(generator), Some(last)) = (
        Spread::of(measured.iter().map(|measured| measured.proxy_load * 100.0)),
        Spread::of(
            measured
                .iter()
                .map(|measured| measured.generator_load * 100.0),
        ),
        measured.last(),
    ) else {
        return "-".to_owned();
    };
    let rate = rate(&row.work, last);
    if row.work.mode == Mode::Idle {
        return rate;
    }
    format!("{:.0} % / {:.0} %, {rate}", proxy.median, generator.median)
}

fn failures(out: &mut impl Write, peers: &[Peer], rows: &[Row]) -> io::Result<()> {
    for row in rows {
        for (peer, records) in peers.iter().zip(&row.records) {
            for record in records {
                if let Some(why) = &record.refused {
                    writeln!(out, "FAILED {} {}: {why}", row.work.name, peer.label)?;
                }
                for (class, count) in &record.failures {
                    writeln!(
                        out,
                        "errors {} {}: {count} x {class}",
                        row.work.name, peer.label
                    )?;
                }
            }
        }
    }
    Ok(())
}
