use std::ops::RangeInclusive;
use std::time::Duration;

use super::Count;

/// Each octave has 2^2 buckets of the same width.
const LINEAR_BITS: u32 = 2;
const LINEAR: usize = 1 << LINEAR_BITS;

/// The last octave ends at 2^36 us: 19 hours.
const OCTAVE_MAX: u32 = 35;

/// The last one is for all that is longer.
const BUCKETS: usize = (OCTAVE_MAX as usize + 1 - LINEAR_BITS as usize + 1) * LINEAR + 1;

/// Log-linear: a time is known to a quarter of its octave, from 4 us to 19 hours.
#[derive(Debug)]
pub struct Histogram {
    /// In nanoseconds.
    sum: Count,
    buckets: [Count; BUCKETS],
}

/// Powers of two, in microseconds, that a histogram is shown with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale(RangeInclusive<u32>);

impl Scale {
    /// 64 us to 67 s: what comes before the first byte.
    pub const PHASE: Self = Self(6..=26);
    /// 1 ms to 19 hours: a connection's whole life.
    pub const LIFE: Self = Self(10..=OCTAVE_MAX + 1);

    /// Each bound in seconds, with the number that stands for it.
    pub fn bounds(&self) -> impl Iterator<Item = (u32, f64)> + use<> {
        let seconds = |octave: u32| Duration::from_micros(1 << octave).as_secs_f64();
        self.0.clone().map(move |octave| (octave, seconds(octave)))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            sum: Count::new(),
            buckets: [const { Count::new() }; BUCKETS],
        }
    }
}

impl Histogram {
    pub fn note(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum.add(nanos);
        self.buckets[bucket(nanos)].add(1);
    }

    /// In nanoseconds.
    #[must_use]
    pub fn sum(&self) -> &Count {
        &self.sum
    }

    /// Times of at most 2^`octave` us.
    pub(in crate::observe) fn up_to(&self, octave: u32) -> u64 {
        let end = first_bucket(octave).min(BUCKETS - 1);
        self.buckets[..end].iter().map(Count::value).sum()
    }

    pub(in crate::observe) fn count(&self) -> u64 {
        self.buckets.iter().map(Count::value).sum()
    }
}

/// A bucket holds its upper bound and not its lower one, as `le` has it.
fn bucket(nanos: u64) -> usize {
    let micros = nanos.saturating_sub(1) / 1000;
    let Some(octave) = micros.checked_ilog2().filter(|it| *it >= LINEAR_BITS) else {
        return (micros & (LINEAR as u64 - 1)) as usize;
    };
    if octave > OCTAVE_MAX {
        return BUCKETS - 1;
    }
    let within = (micros >> (octave - LINEAR_BITS)) & (LINEAR as u64 - 1);
    first_bucket(octave) + within as usize
}

fn first_bucket(octave: u32) -> usize {
    (octave.saturating_sub(LINEAR_BITS) as usize + 1) * LINEAR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_a_bound_is_within_it_and_one_that_is_longer_is_not() {
        for (octave, seconds) in Scale::PHASE.bounds().chain(Scale::LIFE.bounds()) {
            let bound = Duration::from_secs_f64(seconds);
            for (took, within) in [
                (bound, 1),
                (bound - Duration::from_nanos(1), 1),
                (bound + Duration::from_nanos(1), 0),
            ] {
                let histogram = Histogram::default();
                histogram.note(took);
                assert_eq!(histogram.up_to(octave), within, "{took:?} in {bound:?}");
                assert_eq!(histogram.count(), 1);
                let nanos = u64::try_from(took.as_nanos()).unwrap();
                assert_eq!(histogram.sum().value(), nanos);
            }
        }
    }

    #[test]
    fn longer_times_never_come_to_a_lower_bucket_and_none_is_lost() {
        let mut last = 0;
        let ends = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        let mut times: Vec<u64> = ends.chain([u64::MAX]).collect();
        times.extend((0..4000).map(|micros| micros * 1000));
        times.sort_unstable();
        for nanos in times {
            let bucket = bucket(nanos);
            assert!((last..BUCKETS).contains(&bucket), "{nanos} ns");
            last = bucket;
        }
        assert_eq!(last, BUCKETS - 1);
    }
}
