//! Waiting for a condition with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that should happen at once. Long, because builds without
/// optimisation run beside other work; a test that passes never waits this long.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Between two looks at a condition that nothing wakes us for.
const PAUSE: Duration = Duration::from_millis(3);

/// Looks until `probe` finds something; panics with `what` after [`DEADLINE`].
///
/// # Panics
/// After the deadline.
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, probe).unwrap_or_else(|| panic!("waited {DEADLINE:?} in vain: {what}"))
}

/// Looks until `probe` finds something or `limit` is over.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        pause(PAUSE);
    }
}

/// Lets time pass where time itself is what is tested (an idle limit, CPU use over a second).
pub fn pause(length: Duration) {
    let start = Instant::now();
    while let Some(rest) = length.checked_sub(start.elapsed()).filter(|r| !r.is_zero()) {
        thread::park_timeout(rest);
    }
}
