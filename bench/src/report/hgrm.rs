//! Latencies in the percentile format of HdrHistogram's plotters.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use hdrhistogram::Histogram;

use super::row::Row;
use crate::peer::Peer;

/// Steps for each halving of the distance to 100 %, as HdrHistogram's own tools take.
const STEPS_PER_HALVING: u32 = 5;
const NS_PER_US: f64 = 1000.0;

/// One file for each row, proxy and phase, in microseconds.
pub(crate) fn write(dir: &Path, peers: &[Peer], rows: &[Row]) -> anyhow::Result<PathBuf> {
    let dir = dir.join("hgrm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for row in rows {
        for (index, peer) in peers.iter().enumerate() {
            for (phase, histogram) in row.latencies(index).phases() {
                let name = format!("{}.{}.{phase}.hgrm", row.case.name, peer.label);
                let file = dir.join(name.replace([' ', '/', ','], "-"));
                File::create(&file)
                    .and_then(|file| percentiles(&mut BufWriter::new(file), histogram))
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    Ok(dir)
}

fn percentiles(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "       Value     Percentile TotalCount 1/(1-Percentile)\n"
    )?;
    let mut total = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:.12} {total:10}")?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US);
    writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    )?;
    let max = histogram.max() as f64 / NS_PER_US;
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {total:12}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_percentiles_holds_every_value() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=100).for_each(|us| histogram.record(us * 1000).unwrap());
        let mut text = Vec::new();
        percentiles(&mut text, &histogram).unwrap();
        let text = String::from_utf8(text).unwrap();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<_> = last.split_whitespace().collect();
        assert_eq!(fields[1..], ["1.000000000000", "100"], "{text}");
    }
}
