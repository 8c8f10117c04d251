//! One run's worth, and the runs of one row.

use std::collections::BTreeMap;

use serde::Serialize;

use super::spread::{Spread, short};
use crate::load::{Latencies, RunFigures, Tally};
use crate::work::{Handshake, Mode, Work};

const GIB: f64 = (1_u64 << 30) as f64;
/// Handshakes that must be of the row's kind, by the word of each end that the harness owns.
const HANDSHAKES_RIGHT_MIN: f64 = 0.99;
/// Fewer operations than this are an anecdote.
const OPERATIONS_MIN: u64 = 100;
/// Failures for each operation beyond which a run says nothing.
const FAILURES_MAX: f64 = 0.01;
/// The generator is the bottleneck when it has no time left while the proxy has.
const GENERATOR_BUSY: f64 = 0.95;
const PROXY_BUSY: f64 = 0.90;
/// Share of the time that a core was somebody else's although a task wanted to run.
const DISTURBED: f64 = 0.05;

/// What was measured, as shares and rates.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// In the row's unit.
    pub(crate) figure: f64,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Withheld when the generator was the bottleneck: it would be the generator's figure.
    pub(crate) operations_per_second: Option<f64>,
    /// The proxy's CPU time for each second that passed.
    pub(crate) proxy_load: f64,
    pub(crate) generator_load: f64,
    pub(crate) generator_bound: bool,
    pub(crate) proxy_disturbed: f64,
    pub(crate) generator_disturbed: f64,
    pub(crate) client_handshakes_resumed: u64,
    pub(crate) client_handshakes_full: u64,
    pub(crate) server_handshakes_resumed: u64,
    pub(crate) server_handshakes_full: u64,
    /// Tasks that ended during the run: their last CPU time is not in the figure.
    pub(crate) tasks_gone: usize,
}

impl Measured {
    pub(crate) fn is_disturbed(&self) -> bool {
        self.proxy_disturbed.max(self.generator_disturbed) > DISTURBED
    }
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) measured: Option<Measured>,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Why this run does not count.
    pub(crate) refused: Option<String>,
    pub(crate) latencies: Option<Latencies>,
}

impl Record {
    pub(crate) fn failed(why: String) -> Self {
        Self {
            measured: None,
            failures: BTreeMap::new(),
            refused: Some(why),
            latencies: None,
        }
    }

    pub(crate) fn judge(work: &Work, figures: RunFigures) -> Self {
        let refused = refusal(work, &figures.tally);
        Self {
            measured: Some(measured(work, &figures)),
            refused,
            failures: figures.tally.failures,
            latencies: Some(figures.tally.latencies),
        }
    }

    /// The figure, if this run counts.
    pub(crate) fn figure(&self) -> Option<f64> {
        let measured = self.measured.as_ref().filter(|_| self.refused.is_none())?;
        Some(measured.figure)
    }

    /// One line of progress.
    pub(crate) fn line(&self, work: &Work) -> String {
        let mut line = match (&self.measured, &self.refused) {
            (_, Some(why)) => format!("FAILED: {why}"),
            (Some(measured), None) => {
                let rate = rate(work, measured);
                format!(
                    "{} {}, {rate}{}",
                    short(measured.figure),
                    work.mode.unit(),
                    loads(work, measured)
                )
            }
            (None, None) => "nothing measured".to_owned(),
        };
        for (class, count) in &self.failures {
            line += &format!("; {count} x {class}");
        }
        line
    }
}

/// An idle row has no load to speak of.
fn loads(work: &Work, measured: &Measured) -> String {
    if work.mode == Mode::Idle {
        return String::new();
    }
    let (proxy, generator) = (measured.proxy_load * 100.0, measured.generator_load * 100.0);
    format!(", proxy {proxy:.0} %, generator {generator:.0} %")
}

pub(crate) fn rate(work: &Work, measured: &Measured) -> String {
    match (work.mode, measured.operations_per_second) {
        (Mode::Idle, _) => format!("{} connections", measured.operations),
        (_, None) => "rate withheld (generator-bound)".to_owned(),
        (Mode::Bulk(_), _) => {
            format!(
                "{} GiB/s",
                short(measured.bytes as f64 / GIB / measured.seconds)
            )
        }
        (_, Some(rate)) => format!("{rate:.0} op/s"),
    }
}

fn measured(work: &Work, figures: &RunFigures) -> Measured {
    let seconds = figures.elapsed.as_secs_f64();
    let (tally, cpu) = (&figures.tally, figures.proxy.running_seconds());
    let figure = match work.mode {
        Mode::Connect(_) | Mode::Pingpong { .. } => cpu * 1e6 / tally.operations as f64,
        Mode::Bulk(_) => cpu * GIB / tally.bytes as f64,
        Mode::Idle => figures.bytes_per_connection.unwrap_or(f64::NAN) / 1024.0,
    };
    let proxy_load = cpu / seconds;
    let generator_load = (1.0 - figures.waiting.as_secs_f64() / seconds).max(0.0);
    let generator_bound = generator_load > GENERATOR_BUSY && proxy_load < PROXY_BUSY;
    Measured {
        figure,
        operations: tally.operations,
        bytes: tally.bytes,
        seconds,
        operations_per_second: (!generator_bound).then(|| tally.operations as f64 / seconds),
        proxy_load,
        generator_load,
        generator_bound,
        proxy_disturbed: figures.proxy.waiting_seconds() / seconds,
        generator_disturbed: figures.generator.waiting_seconds() / seconds,
        client_handshakes_resumed: tally.client_handshakes.resumed,
        client_handshakes_full: tally.client_handshakes.full,
        server_handshakes_resumed: tally.server_handshakes.resumed,
        server_handshakes_full: tally.server_handshakes.full,
        tasks_gone: figures.proxy.tasks_gone,
    }
}

/// Why a run does not count, if it does not.
fn refusal(work: &Work, tally: &Tally) -> Option<String> {
    if tally.operations < OPERATIONS_MIN && work.mode != Mode::Idle {
        return Some(format!(
            "only {} operations were completed, {OPERATIONS_MIN} are needed: more --seconds, or a quieter machine",
            tally.operations
        ));
    }
    let failures = tally.failure_count();
    if failures as f64 > tally.operations as f64 * FAILURES_MAX {
        return Some(format!(
            "{failures} failures for {} operations",
            tally.operations
        ));
    }
    let Mode::Connect(wanted) = work.mode else {
        return None;
    };
    let ends = [
        (
            work.role.terminates(),
            "the clients",
            tally.client_handshakes,
        ),
        (
            work.role.originates(),
            "the upstream servers",
            tally.server_handshakes,
        ),
    ];
    ends.into_iter()
        .filter(|(has_tls, ..)| *has_tls)
        .find_map(|(_, end, seen)| {
            let (right, kind) = match wanted {
                Handshake::Full => (seen.full, "full"),
                Handshake::Resumed => (seen.resumed, "resumed"),
            };
            let share = right as f64 / seen.total().max(1) as f64;
            (share < HANDSHAKES_RIGHT_MIN).then(|| {
                format!(
                    "{end} saw only {:.1} % of the handshakes {kind} ({} full, {} resumed)",
                    share * 100.0,
                    seen.full,
                    seen.resumed
                )
            })
        })
}

/// The latencies of all runs that count.
pub(crate) fn merged_latencies(records: &[Record]) -> Latencies {
    let mut merged = Latencies::new();
    let counted = records.iter().filter(|record| record.refused.is_none());
    counted
        .filter_map(|record| record.latencies.as_ref())
        .for_each(|part| merged.add(part));
    merged
}

/// All runs of one row, by proxy.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) work: Work,
    pub(crate) records: Vec<Vec<Record>>,
}

impl Row {
    pub(crate) fn new(work: Work, proxies: usize) -> Self {
        Self {
            work,
            records: (0..proxies).map(|_| Vec::new()).collect(),
        }
    }

    pub(crate) fn add(&mut self, proxy: usize, record: Record) {
        self.records[proxy].push(record);
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.records
            .iter()
            .flatten()
            .filter_map(|record| record.refused.as_deref())
    }

    pub(crate) fn figure(&self, proxy: usize) -> Option<Spread> {
        Spread::of(self.records[proxy].iter().filter_map(Record::figure))
    }

    /// The best of the others, by its median.
    pub(crate) fn best_other(&self) -> Option<usize> {
        let others = (1..self.records.len()).filter_map(|proxy| Some((proxy, self.figure(proxy)?)));
        others
            .min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
            .map(|(proxy, _)| proxy)
    }

    /// What `other` takes for each unit that the first one takes: round by round, since the rounds
    /// are what ran close together.
    pub(crate) fn ratio(&self, other: usize) -> Option<Spread> {
        let rounds = self.records[0].iter().zip(&self.records[other]);
        Spread::of(rounds.filter_map(|(own, other)| Some(other.figure()? / own.figure()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work;

    fn row_named(name: &str) -> Work {
        work::select(&[name.to_owned()]).unwrap()[0]
    }

    fn tally(operations: u64, full: u64, resumed: u64) -> Tally {
        let mut tally = Tally::new();
        tally.operations = operations;
        tally.client_handshakes.full = full;
        tally.client_handshakes.resumed = resumed;
        tally
    }

    #[test]
    fn a_resumed_run_under_99_percent_is_refused_and_says_what_was_seen() {
        let work = row_named("terminate-resumed-1.3");
        assert_eq!(refusal(&work, &tally(1000, 10, 990)), None);
        let why = refusal(&work, &tally(1000, 11, 989)).unwrap();
        assert!(
            why.contains("the clients") && why.contains("11 full, 989 resumed"),
            "{why}"
        );
    }

    #[test]
    fn the_upstream_servers_word_counts_where_the_proxy_originates() {
        let work = row_named("both-resumed-1.3");
        let mut tally = tally(100, 0, 100);
        tally.server_handshakes.full = 100;
        assert!(
            refusal(&work, &tally)
                .unwrap()
                .contains("the upstream servers")
        );
    }

    #[test]
    fn a_run_of_few_operations_is_refused() {
        let work = row_named("connect-plain");
        assert!(refusal(&work, &tally(99, 0, 0)).is_some());
        assert_eq!(refusal(&work, &tally(100, 0, 0)), None);
    }

    #[test]
    fn a_run_with_too_many_failures_is_refused() {
        let work = row_named("connect-plain");
        let mut tally = tally(100, 0, 0);
        tally.failed("connect: reset".into());
        assert_eq!(refusal(&work, &tally), None);
        tally.failed("connect: reset".into());
        assert!(refusal(&work, &tally).is_some());
    }
}
