//! When operations come that ask nobody for leave: a Poisson process from a seed.

use std::time::Duration;

/// Times from the start at which operations are due, in order, without end. The same seed gives the
/// same times, so that every proxy meets the same bursts.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    state: u64,
    gap_mean_secs: f64,
    due_secs: f64,
}

impl Arrivals {
    pub(super) fn new(seed: u64, per_second: f64) -> Self {
        Self {
            state: seed,
            gap_mean_secs: 1.0 / per_second,
            due_secs: 0.0,
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), of which the upper 53 bits fill a double: over 0, at
    /// most 1.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    /// Gaps of a Poisson process are exponential: -ln(u) times their mean.
    fn next(&mut self) -> Option<Duration> {
        self.due_secs -= self.uniform().ln() * self.gap_mean_secs;
        Duration::try_from_secs_f64(self.due_secs).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 100_000;

    fn gaps(seed: u64, per_second: f64) -> Vec<f64> {
        let due: Vec<_> = Arrivals::new(seed, per_second).take(MANY).collect();
        due.windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect()
    }

    #[test]
    fn one_seed_gives_one_schedule_and_another_another() {
        let first = |seed| Arrivals::new(seed, 1000.0).take(50).collect::<Vec<_>>();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn as_many_come_as_the_rate_says() {
        let last = Arrivals::new(1, 2000.0).nth(MANY - 1).unwrap();
        let rate = MANY as f64 / last.as_secs_f64();
        assert!((rate / 2000.0 - 1.0).abs() < 0.02, "{rate}");
    }

    /// A Poisson process has gaps as wide as their mean, and a share of 1/e beyond it. A steady
    /// drum has neither.
    #[test]
    fn gaps_are_exponential() {
        let gaps = gaps(3, 1000.0);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let beyond = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02);
        assert!((beyond - (-1.0_f64).exp()).abs() < 0.01, "{beyond}");
    }
}
