use std::time::Duration;

use crate::sys::coarse_clock;

/// A moment of CLOCK_MONOTONIC_COARSE: off by at most a kernel tick (1 to 10 ms) and five times
/// cheaper than the exact clock. Good for idle times, not for latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant {
    since_boot: Duration,
}

impl CoarseInstant {
    #[must_use]
    pub fn now() -> Self {
        Self {
            since_boot: coarse_clock(),
        }
    }

    /// Zero when `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.since_boot.saturating_sub(earlier.since_boot)
    }
}
