#![expect(unsafe_code, reason = "sysconf(3) is called by way of libc")]

/// Bytes of a page of memory. libc was told at the process's start: rustix would have to open
/// /proc/self/auxv, which the sandbox forbids, and panics.
#[must_use]
pub fn page_bytes() -> u64 {
    // SAFETY: it reads and writes nothing of ours.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}
