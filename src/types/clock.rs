use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 00:00 UTC.
pub type UnixSeconds = u64;

/// The wall clock, for certificates and tickets. Zero when the clock stands before 1970.
#[must_use]
pub fn unix_now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
