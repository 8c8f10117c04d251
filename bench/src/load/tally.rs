//! What a run counts.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Three digits: a relative error of a thousandth, at some 100 KiB a histogram.
const DIGITS: u8 = 3;
/// No operation is let go on longer than this, see `socket::PATIENCE`.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Handshakes {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
}

impl Handshakes {
    pub(crate) fn total(self) -> u64 {
        self.full + self.resumed
    }

    fn add(&mut self, other: Self) {
        self.full += other.full;
        self.resumed += other.resumed;
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    /// How late the generator itself began an operation that came at its own time.
    pub(crate) start_delay: Histogram<u64>,
    pub(crate) connect: Histogram<u64>,
    pub(crate) handshake: Histogram<u64>,
    pub(crate) first_byte: Histogram<u64>,
}

impl Latencies {
    #[expect(
        clippy::expect_used,
        reason = "constant bounds, which every run exercises"
    )]
    pub(crate) fn new() -> Self {
        let empty = Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).expect("valid bounds");
        Self {
            start_delay: empty.clone(),
            connect: empty.clone(),
            handshake: empty.clone(),
            first_byte: empty,
        }
    }

    /// What was recorded at all, by the phase's name.
    pub(crate) fn phases(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        [
            ("start_delay", &self.start_delay),
            ("connect", &self.connect),
            ("handshake", &self.handshake),
            ("first_byte", &self.first_byte),
        ]
        .into_iter()
        .filter(|(_, histogram)| !histogram.is_empty())
    }

    /// All have the same bounds, so adding cannot fail.
    pub(crate) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.start_delay, &other.start_delay),
            (&mut self.connect, &other.connect),
            (&mut self.handshake, &other.handshake),
            (&mut self.first_byte, &other.first_byte),
        ];
        for (sum, part) in pairs {
            let _ = sum.add(part);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    /// As the clients' own TLS stack names them.
    pub(crate) client_handshakes: Handshakes,
    /// As the upstream servers' TLS stack names them.
    pub(crate) server_handshakes: Handshakes,
    /// Failures, each as "stage: what happened".
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) latencies: Latencies,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            operations: 0,
            bytes: 0,
            client_handshakes: Handshakes::default(),
            server_handshakes: Handshakes::default(),
            failures: BTreeMap::new(),
            latencies: Latencies::new(),
        }
    }

    pub(crate) fn failed(&mut self, class: String) {
        *self.failures.entry(class).or_default() += 1;
    }

    /// Another thread's share of the same run.
    pub(crate) fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.client_handshakes.add(other.client_handshakes);
        self.server_handshakes.add(other.server_handshakes);
        for (class, count) in other.failures {
            *self.failures.entry(class).or_default() += count;
        }
        self.latencies.add(&other.latencies);
    }

    pub(crate) fn failure_count(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Records without losing what is out of bounds: it counts as the bound.
pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LATENCY_MAX_NS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_merged_without_losing_errors_or_latencies() {
        let part = |us| {
            let mut tally = Tally::new();
            tally.operations = 1;
            tally.client_handshakes.resumed = 1;
            tally.failed("connect: reset".into());
            record(&mut tally.latencies.first_byte, Duration::from_micros(us));
            tally
        };
        let mut sum = part(10);
        sum.add(part(1000));
        assert_eq!((sum.operations, sum.failure_count()), (2, 2));
        assert_eq!(sum.client_handshakes.total(), 2);
        let first_byte = &sum.latencies.first_byte;
        assert_eq!(first_byte.len(), 2);
        assert!(first_byte.equivalent(first_byte.max(), 1_000_000));
    }
}
