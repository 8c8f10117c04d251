//! One run's worth.

use std::collections::BTreeMap;

use serde::Serialize;

use super::spread::short;
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
/// Below that the proxy sleeps and wakes more than it works, and its cost is another one. Bulk
/// through splice keeps a proxy half idle and still costs what it costs.
const PROXY_STARVED: f64 = 0.33;
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
    /// Withheld when it would be the generator's figure.
    pub(crate) operations_per_second: Option<f64>,
    /// Why it is withheld.
    pub(crate) rate_withheld: Option<&'static str>,
    /// Operations for each second of CPU time: what a core that does nothing else would do.
    pub(crate) operations_per_core_second: Option<f64>,
    pub(crate) proxy_cpu_seconds: f64,
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
        let measured = measured(work, &figures);
        Self {
            refused: refusal(work, &figures.tally, &measured),
            measured: Some(measured),
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
    if work.mode == Mode::Idle {
        return format!("{} connections", measured.operations);
    }
    if let Some(why) = measured.rate_withheld {
        return format!("rate withheld ({why})");
    }
    if let Mode::Bulk(_) = work.mode {
        let rate = measured.bytes as f64 / GIB / measured.seconds;
        return format!("{} GiB/s", short(rate));
    }
    let rate = measured.operations as f64 / measured.seconds;
    format!("{rate:.0} op/s")
}

fn measured(work: &Work, figures: &RunFigures) -> Measured {
    let seconds = figures.elapsed.as_secs_f64();
    let (tally, cpu) = (&figures.tally, figures.proxy.running_seconds());
    let figure = match work.mode {
        Mode::Connect(_) | Mode::Pingpong { .. } => cpu * 1e6 / tally.operations as f64,
        Mode::Open(_) => tally.latencies.first_byte.value_at_quantile(0.99) as f64 / 1000.0,
        Mode::Bulk(_) => cpu * GIB / tally.bytes as f64,
        Mode::Idle => figures.bytes_per_connection.unwrap_or(f64::NAN) / 1024.0,
    };
    let counts = !matches!(work.mode, Mode::Bulk(_) | Mode::Idle);
    let proxy_load = cpu / seconds;
    let generator_load = (1.0 - figures.waiting.as_secs_f64() / seconds).max(0.0);
    let proxy_disturbed = figures.proxy.waiting_seconds() / seconds;
    let generator_bound =
        generator_load > GENERATOR_BUSY && proxy_load + proxy_disturbed < PROXY_BUSY;
    let rate_withheld = match (figures.shares_core, generator_bound) {
        (true, _) => Some("the generator shares a core"),
        (false, true) => Some("generator-bound"),
        (false, false) => None,
    };
    Measured {
        figure,
        operations: tally.operations,
        bytes: tally.bytes,
        seconds,
        operations_per_second: rate_withheld
            .is_none()
            .then(|| tally.operations as f64 / seconds),
        rate_withheld,
        operations_per_core_second: counts.then(|| tally.operations as f64 / cpu),
        proxy_cpu_seconds: cpu,
        proxy_load,
        generator_load,
        generator_bound,
        proxy_disturbed,
        generator_disturbed: figures.generator.waiting_seconds() / seconds,
        client_handshakes_resumed: tally.client_handshakes.resumed,
        client_handshakes_full: tally.client_handshakes.full,
        server_handshakes_resumed: tally.server_handshakes.resumed,
        server_handshakes_full: tally.server_handshakes.full,
        tasks_gone: figures.proxy.tasks_gone,
    }
}

/// Why a run does not count, if it does not.
fn refusal(work: &Work, tally: &Tally, measured: &Measured) -> Option<String> {
    bottleneck(work, measured)
        .or_else(|| too_little(work, tally))
        .or_else(|| wrong_handshakes(work, tally))
}

fn too_little(work: &Work, tally: &Tally) -> Option<String> {
    let (operations, failures) = (tally.operations, tally.failure_count());
    if failures as f64 > operations as f64 * FAILURES_MAX {
        return Some(format!("{failures} failures for {operations} operations"));
    }
    (operations < OPERATIONS_MIN && work.mode != Mode::Idle).then(|| {
        format!(
            "only {operations} operations were completed, {OPERATIONS_MIN} are needed: more \
             --seconds, or a quieter machine"
        )
    })
}

/// By the word of each end of TLS that the harness has in hand.
fn wrong_handshakes(work: &Work, tally: &Tally) -> Option<String> {
    let wanted = work.mode.handshake()?;
    let clients = (
        work.role.client_speaks_tls(),
        "the clients",
        tally.client_handshakes,
    );
    let servers = (
        work.role.server_speaks_tls(),
        "the upstream servers",
        tally.server_handshakes,
    );
    let ends = [clients, servers]
        .into_iter()
        .filter(|(has_tls, ..)| *has_tls);
    ends.into_iter().find_map(|(_, end, seen)| {
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

/// A generator without time left gives its own figures: all latencies of an open loop, and the cost
/// of an operation where the proxy is idle for most of the time.
fn bottleneck(work: &Work, measured: &Measured) -> Option<String> {
    let is_bottleneck = match work.mode {
        Mode::Open(_) => measured.generator_load > GENERATOR_BUSY,
        Mode::Idle => false,
        _ => {
            let wanted = measured.proxy_load + measured.proxy_disturbed;
            measured.generator_bound && wanted < PROXY_STARVED
        }
    };
    is_bottleneck.then(|| {
        format!(
            "the generator was the bottleneck: {:.0} % busy, the proxy {:.0} %",
            measured.generator_load * 100.0,
            measured.proxy_load * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::peer::Usage;
    use crate::work::{self, Role};

    fn row_named(name: &str) -> Work {
        work::select(&[name.to_owned()]).unwrap()[0]
    }

    /// What a run with this tally is refused for, both sides being half busy.
    fn refused(work: &Work, tally: &Tally) -> Option<String> {
        refusal(work, tally, &loaded(0.5, 0.5))
    }

    fn loaded(generator_load: f64, proxy_load: f64) -> Measured {
        let figures = RunFigures {
            tally: Tally::new(),
            elapsed: Duration::from_secs(1),
            waiting: Duration::ZERO,
            proxy: Usage::default(),
            generator: Usage::default(),
            bytes_per_connection: None,
            shares_core: false,
        };
        Measured {
            generator_load,
            proxy_load,
            generator_bound: generator_load > GENERATOR_BUSY && proxy_load < PROXY_BUSY,
            ..measured(&row_named("connect-plain"), &figures)
        }
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
        assert_eq!(refused(&work, &tally(1000, 10, 990)), None);
        let why = refused(&work, &tally(1000, 11, 989)).unwrap();
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
            refused(&work, &tally)
                .unwrap()
                .contains("the upstream servers")
        );
    }

    #[test]
    fn a_run_of_few_operations_is_refused() {
        let work = row_named("connect-plain");
        assert!(refused(&work, &tally(99, 0, 0)).is_some());
        assert_eq!(refused(&work, &tally(100, 0, 0)), None);
    }

    #[test]
    fn a_run_with_too_many_failures_is_refused() {
        let work = row_named("connect-plain");
        let mut tally = tally(100, 0, 0);
        tally.failed("connect: reset".into());
        assert_eq!(refused(&work, &tally), None);
        tally.failed("connect: reset".into());
        assert!(refused(&work, &tally).is_some());
    }

    #[test]
    fn an_open_run_is_refused_when_the_generator_has_no_time_left() {
        let open = Work::new(Role::Plain, Mode::Open(Handshake::Full));
        let tally = tally(1000, 0, 0);
        assert!(refusal(&open, &tally, &loaded(0.96, 0.99)).is_some());
        assert_eq!(refusal(&open, &tally, &loaded(0.90, 0.7)), None);
    }

    #[test]
    fn a_cost_is_refused_when_the_generator_starves_the_proxy() {
        let (work, tally) = (row_named("connect-plain"), tally(1000, 0, 0));
        let why = refusal(&work, &tally, &loaded(0.99, 0.3)).unwrap();
        assert!(
            why.contains("the generator was the bottleneck: 99 % busy, the proxy 30 %"),
            "{why}"
        );
        assert_eq!(refusal(&work, &tally, &loaded(0.99, 0.6)), None);
        assert_eq!(refusal(&work, &tally, &loaded(0.2, 0.2)), None);
    }
}
