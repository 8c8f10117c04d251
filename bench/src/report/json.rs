//! The same for machines, with every run and the latencies' quantiles.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::record::{Measured, Record};
use super::row::Row;
use super::spread::Spread;
use crate::args::RunOptions;
use crate::environment::Environment;
use crate::load::Latencies;
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
    proxy_cores: &'a [usize],
    unit: &'a str,
    proxies: Vec<ProxyReport<'a>>,
}

#[derive(Serialize)]
struct ProxyReport<'a> {
    label: &'a str,
    /// Why it sits this row out.
    lacks: Option<&'a str>,
    /// Open rows: arrivals a second.
    arrivals_per_second: Option<f64>,
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

pub(crate) fn write(
    file: &Path,
    options: &RunOptions,
    environment: &Environment,
    peers: &[Peer],
    rows: &[Row],
) -> anyhow::Result<()> {
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let report = Report {
        environment,
        seconds: options.seconds,
        warm_up: options.warm_up,
        rounds: options.rounds,
        in_flight: options.in_flight,
        rows: rows.iter().map(|row| row_report(row, peers)).collect(),
    };
    fs::write(file, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

fn row_report<'a>(row: &'a Row, peers: &'a [Peer]) -> RowReport<'a> {
    let proxy = |(index, peer): (usize, &'a Peer)| ProxyReport {
        label: &peer.label,
        lacks: row.lacks[index].as_deref(),
        arrivals_per_second: row.case.rate(index),
        figure: row.figure(index),
        ratio_to_first: row.ratio(index),
        latencies_us: latencies(&row.latencies(index)),
        runs: row.records[index].iter().map(run_report).collect(),
    };
    RowReport {
        work: &row.case.name,
        proxy_cores: &row.case.cores,
        unit: row.case.work.mode.unit(),
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

fn latencies(merged: &Latencies) -> BTreeMap<&'static str, Quantiles> {
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
