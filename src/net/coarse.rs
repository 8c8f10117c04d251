use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment of CLOCK_MONOTONIC_COARSE: off by at most a kernel tick (1 to 10 ms) and five times
/// cheaper than the exact clock. Good for idle times, not for latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant {
    since_boot: Duration,
}

impl CoarseInstant {
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Self {
            since_boot: Duration::new(seconds, nanos),
        }
    }

    /// Zero when `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.since_boot.saturating_sub(earlier.since_boot)
    }
}
