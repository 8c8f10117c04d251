#![expect(unsafe_code, reason = "clock_gettime(2) is called by way of libc")]

use std::time::Duration;

/// CLOCK_MONOTONIC_COARSE: the time of the kernel's last tick, a few milliseconds old at most,
/// for a fifth of a precise clock's price.
#[must_use]
pub fn coarse_clock() -> Duration {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// CLOCK_MONOTONIC, as other processes of this machine see it.
#[must_use]
pub fn monotonic_clock() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// CPU time of all threads of the process.
#[must_use]
pub fn process_cpu_time() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// By way of libc: rustix looks up functions of the vDSO that some kernels have not got (User-mode
/// Linux has no getcpu there), and panics.
fn clock(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec to where the pointer points.
    let result = unsafe { libc::clock_gettime(clock, &raw mut now) };
    // These clocks exist on every Linux that has io_uring.
    debug_assert_eq!(result, 0, "clock_gettime");
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(now.tv_sec.unsigned_abs(), nanos)
}
