//! The same for machines, with every run and the latencies' quantiles.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::record::{Measured, Record, Row, merged_latencies};
use super::spread::Spread;
use crate::args::CompareOptions;
use crate::environment::Environment;
use crate::peer::Peer;

#[derive(Serialize)]
struct Report<'a> {
    environment: &'a Environment,
    seconds: f64,
    warm_up: f64,
    rounds: u32,
    in_flight: u16,
    rows: Vec<RowReport<'a>>,
}

#[derive(Serialize)]
struct RowReport<'a> {
    work: &'a str,
    unit: &'a str,
    proxies: Vec<ProxyReport<'a>>,
}

#[derive(Serialize)]
struct ProxyReport<'a> {
    label: &'a str,
    figure: Option<Spread>,
    /// This proxy's figure for each unit of the first one's.
    ratio_to_first: Option<Spread>,
    /// In microseconds, over all runs that count.
    latencies_us: BTreeMap<&'static str, Quantiles>,
    runs: Vec<RunReport<'a>>,
}

#[derive(Serialize)]
struct RunReport<'a> {
    measured: Option<&'a Measured>,
    refused: Option<&'a str>,
    failures: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Quantiles {
    count: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    p99_99: f64,
    max: f64,
}

pub(crate) fn write_json(
    dir: &Path,
    options: &CompareOptions,
    environment: &Environment,
    peers: &[Peer],
    rows: &[Row],
) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let report = Report {
        environment,
        seconds: options.seconds,
        warm_up: options.warm_up,
        rounds: options.rounds,
        in_flight: options.in_flight,
        rows: rows.iter().map(|row| row_report(row, peers)).collect(),
    };
    let file = dir.join("compare.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn row_report<'a>(row: &'a Row, peers: &'a [Peer]) -> RowReport<'a> {
    let proxy = |(index, peer): (usize, &'a Peer)| ProxyReport {
        label: &peer.label,
        figure: row.figure(index),
        ratio_to_first: row.ratio(index),
        latencies_us: latencies(&row.records[index]),
        runs: row.records[index].iter().map(run_report).collect(),
    };
    RowReport {
        work: row.work.name,
        unit: row.work.mode.unit(),
        proxies: peers.iter().enumerate().map(proxy).collect(),
    }
}

fn run_report(record: &Record) -> RunReport<'_> {
    RunReport {
        measured: record.measured.as_ref(),
        refused: record.refused.as_deref(),
        failures: &record.failures,
    }
}

fn latencies(records: &[Record]) -> BTreeMap<&'static str, Quantiles> {
    let merged = merged_latencies(records);
    merged
        .phases()
        .map(|(phase, histogram)| (phase, Quantiles::of(histogram)))
        .collect()
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: at(1.0),
        }
    }
}
