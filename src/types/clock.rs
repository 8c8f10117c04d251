use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 00:00 UTC.
pub type UnixSeconds = u64;

/// The wall clock, for certificates and tickets. Zero when the clock stands before 1970.
#[must_use]
pub fn unix_now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A time that a phase took, in nanoseconds, at most 584 years. With `None` beside it it takes eight
/// bytes, half of what a [`Duration`] does: every connection keeps half a dozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(NonZeroU64);

impl From<Duration> for Elapsed {
    fn from(duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }
}

impl From<Elapsed> for Duration {
    fn from(elapsed: Elapsed) -> Self {
        Self::from_nanos(elapsed.0.get() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_as_it_went_in() {
        let longest = Duration::from_nanos(u64::MAX - 1);
        for time in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(60),
            longest,
        ] {
            assert_eq!(Duration::from(Elapsed::from(time)), time);
        }
        assert_eq!(Duration::from(Elapsed::from(Duration::MAX)), longest);
        assert_eq!(size_of::<Option<Elapsed>>(), 8);
    }
}
