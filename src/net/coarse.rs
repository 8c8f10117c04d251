use std::time::Duration;

use crate::sys::coarse_clock;

/// A moment of CLOCK_MONOTONIC_COARSE: off by at most a kernel tick (1 to 10 ms) and five times
/// cheaper than the exact clock. Good for idle times, not for latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant {
    /// 584 years of them.
    nanos_since_boot: u64,
}

impl CoarseInstant {
    #[cfg(test)]
    pub(crate) const ZERO: Self = Self {
        nanos_since_boot: 0,
    };

    #[must_use]
    pub fn now() -> Self {
        Self {
            nanos_since_boot: nanos(coarse_clock()),
        }
    }

    /// Zero when `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(
            self.nanos_since_boot
                .saturating_sub(earlier.nanos_since_boot),
        )
    }

    #[must_use]
    pub fn after(self, length: Duration) -> Self {
        Self {
            nanos_since_boot: self.nanos_since_boot.saturating_add(nanos(length)),
        }
    }
}

fn nanos(length: Duration) -> u64 {
    length
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(length.subsec_nanos().into())
}
