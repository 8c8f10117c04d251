//! What happened between two scrapes. Pure.

use std::time::Duration;

use super::scrape::Scrape;
use crate::types::Side;

/// Rates are a second's.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) accepted: f64,
    pub(super) connections: f64,
    /// With clients, and with servers.
    pub(super) downstream: Handshakes,
    pub(super) upstream: Handshakes,
    /// Bytes to servers, and to clients.
    pub(super) up: f64,
    pub(super) down: f64,
    pub(super) cores: Vec<Core>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Handshakes {
    pub(super) full: f64,
    pub(super) resumed: f64,
    /// By reason, the most frequent first; those that did not occur are not there.
    pub(super) failed: Vec<(String, f64)>,
    /// `None`: there were none.
    pub(super) p99: Option<Duration>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Core {
    pub(super) name: String,
    /// Share of the time that its thread ran; `None`: the kernel does not tell.
    pub(super) busy: Option<f64>,
    pub(super) connections: f64,
}

/// The part of handshakes that may take longer.
const SLOWEST: f64 = 0.01;

/// Two looks at the process and the time between them.
struct Span<'a> {
    before: &'a Scrape,
    after: &'a Scrape,
    secs: f64,
}

impl Figures {
    pub(super) fn between(before: &Scrape, after: &Scrape, passed: Duration) -> Self {
        let span = Span {
            before,
            after,
            secs: passed.as_secs_f64().max(0.001),
        };
        let bytes = |direction| span.rate("ringway_bytes_total", &[("direction", direction)]);
        Self {
            accepted: span.rate("ringway_connections_accepted_total", &[]),
            connections: after.sum("ringway_connections", &[]),
            downstream: span.handshakes(Side::Downstream),
            upstream: span.handshakes(Side::Upstream),
            up: bytes("up"),
            down: bytes("down"),
            cores: span.cores(),
        }
    }
}

impl Handshakes {
    pub(super) fn failures(&self) -> f64 {
        // Not `sum`: that of nothing is -0.
        self.failed.iter().fold(0.0, |sum, (_, rate)| sum + rate)
    }
}

impl Span<'_> {
    fn rate(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        self.per_second(self.before.sum(name, wanted), self.after.sum(name, wanted))
    }

    /// A counter that has become less has begun anew.
    fn per_second(&self, before: f64, after: f64) -> f64 {
        let more = if after < before {
            after
        } else {
            after - before
        };
        more / self.secs
    }

    fn handshakes(&self, side: Side) -> Handshakes {
        let side = side.name();
        let finished = format!("ringway_{side}_handshakes_total");
        let failures = format!("ringway_{side}_handshake_failures_total");
        let before = self.before.by(&failures, "reason", &[]);
        let after = self.after.by(&failures, "reason", &[]);
        let mut failed: Vec<(String, f64)> = after
            .into_iter()
            .map(|(reason, after)| {
                let before = before.get(reason).copied().unwrap_or_default();
                (reason.to_owned(), self.per_second(before, after))
            })
            .filter(|(_, rate)| *rate > 0.0)
            .collect();
        failed.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Handshakes {
            full: self.rate(&finished, &[("kind", "full")]),
            resumed: self.rate(&finished, &[("kind", "resumed")]),
            failed,
            p99: self.p99(&format!("{side}_handshake")),
        }
    }

    /// The upper bound of the bucket in which the slowest begin.
    fn p99(&self, phase: &str) -> Option<Duration> {
        const NAME: &str = "ringway_phase_seconds_bucket";
        let wanted = [("phase", phase)];
        let before = self.before.by(NAME, "le", &wanted);
        let buckets = self.after.by(NAME, "le", &wanted).into_iter();
        let mut buckets: Vec<(f64, f64)> = buckets
            .filter_map(|(bound, after)| {
                let before = before.get(bound).copied().unwrap_or_default();
                Some((bound.parse().ok()?, (after - before).max(0.0)))
            })
            .collect();
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let all = buckets
            .last()
            .map(|(_, count)| *count)
            .filter(|it| *it > 0.0)?;
        let most = all * (1.0 - SLOWEST);
        let longest_known = buckets.iter().rfind(|(bound, _)| bound.is_finite())?.0;
        let (bound, _) = buckets.iter().find(|(_, count)| *count >= most)?;
        Some(Duration::from_secs_f64(bound.min(longest_known)))
    }

    fn cores(&self) -> Vec<Core> {
        const BUSY: &str = "ringway_core_busy_seconds_total";
        let before = self.before.by(BUSY, "core", &[]);
        let busy = self.after.by(BUSY, "core", &[]);
        let live = self.after.by("ringway_core_connections", "core", &[]);
        let mut cores: Vec<Core> = live
            .into_iter()
            .map(|(name, connections)| Core {
                name: name.to_owned(),
                busy: busy.get(name).map(|after| {
                    let before = before.get(name).copied().unwrap_or_default();
                    self.per_second(before, *after).min(1.0)
                }),
                connections,
            })
            .collect();
        cores.sort_by_key(|core| core.name.parse::<u32>().unwrap_or(u32::MAX));
        cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(text: &str) -> Scrape {
        Scrape::parse(text).unwrap()
    }

    #[test]
    fn counters_become_rates_of_the_interval() {
        let before = scrape(
            "ringway_downstream_handshakes_total{listener=\"a\",kind=\"full\"} 100\n\
             ringway_downstream_handshake_failures_total{listener=\"a\",reason=\"alert\"} 7\n\
             ringway_bytes_total{listener=\"a\",direction=\"up\",path=\"copy\"} 1000\n\
             ringway_core_busy_seconds_total{core=\"0\"} 5\n\
             ringway_connections_accepted_total{listener=\"a\"} 50\n",
        );
        let after = scrape(
            "ringway_downstream_handshakes_total{listener=\"a\",kind=\"full\"} 120\n\
             ringway_downstream_handshakes_total{listener=\"b\",kind=\"resumed\"} 6\n\
             ringway_downstream_handshake_failures_total{listener=\"a\",reason=\"alert\"} 7\n\
             ringway_downstream_handshake_failures_total{listener=\"a\",reason=\"timeout\"} 2\n\
             ringway_bytes_total{listener=\"a\",direction=\"up\",path=\"copy\"} 3000\n\
             ringway_core_busy_seconds_total{core=\"0\"} 6\n\
             ringway_core_connections{core=\"0\"} 3\n\
             ringway_core_connections{core=\"10\"} 5\n\
             ringway_core_connections{core=\"2\"} 4\n\
             ringway_connections{listener=\"a\",phase=\"relay\"} 12\n\
             ringway_connections_accepted_total{listener=\"a\"} 10\n",
        );
        let figures = Figures::between(&before, &after, Duration::from_secs(2));
        assert_eq!(figures.downstream.full, 10.0);
        assert_eq!(figures.downstream.resumed, 3.0);
        assert_eq!(figures.downstream.failed, [("timeout".to_owned(), 1.0)]);
        assert_eq!(figures.downstream.failures(), 1.0);
        assert_eq!((figures.up, figures.down), (1000.0, 0.0));
        assert_eq!(figures.connections, 12.0);
        assert_eq!(figures.accepted, 5.0, "the counter has begun anew");
        let cores: Vec<_> = figures
            .cores
            .iter()
            .map(|it| (it.name.as_str(), it.busy))
            .collect();
        assert_eq!(cores, [("0", Some(0.5)), ("2", None), ("10", None)]);
        assert_eq!(figures.upstream, Handshakes::default());
    }

    #[test]
    fn the_slowest_hundredth_begins_in_the_bucket_that_is_told() {
        let histogram = |counts: [u32; 3]| {
            let bounds = ["0.001", "0.002", "+Inf"];
            let line = |(bound, count): (&str, u32)| {
                format!(
                    "ringway_phase_seconds_bucket{{phase=\"downstream_handshake\",le=\"{bound}\"}} {count}\n"
                )
            };
            scrape(&bounds.into_iter().zip(counts).map(line).collect::<String>())
        };
        let p99 = |before, after| {
            let (before, after) = (histogram(before), histogram(after));
            Figures::between(&before, &after, Duration::from_secs(1))
                .downstream
                .p99
        };
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(p99([10, 10, 10], [110, 110, 110]), millis(1));
        assert_eq!(p99([10, 10, 10], [100, 110, 110]), millis(2));
        assert_eq!(
            p99([0, 0, 0], [0, 0, 5]),
            millis(2),
            "longer than is told apart"
        );
        assert_eq!(p99([7, 8, 9], [7, 8, 9]), None);
    }
}
