#![expect(unsafe_code, reason = "seccomp(2) takes a pointer to a filter program")]

use std::io;

/// Linux 4.17; libc does not have it on every architecture.
const SECCOMP_FILTER_FLAG_SPEC_ALLOW: libc::c_ulong = 1 << 2;

/// Puts a filter program on every thread of the process (SECCOMP_FILTER_FLAG_TSYNC, Linux 3.17), for
/// good. If it `logs`, the kernel logs what it refuses (SECCOMP_FILTER_FLAG_LOG, Linux 4.14).
///
/// Before Linux 5.16 a filter also turned the processor's store bypass off, which costs some
/// percent; that protects programs which run foreign code in themselves, and this is none.
///
/// # Errors
/// EINVAL: the kernel has no seccomp filters; EACCES: `no_new_privs` is off; EBUSY: another thread
/// has a filter of its own.
pub fn restrict_calls(program: &mut [libc::sock_filter], logs: bool) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    let mut flags = libc::SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if logs {
        flags |= libc::SECCOMP_FILTER_FLAG_LOG;
    }
    // SAFETY: `filter` and the program that it points to live until the call returns, and the
    // kernel copies both; it writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    match result {
        0 => Ok(()),
        // With TSYNC: the first thread that could not be given the filter.
        1.. => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        _ => Err(io::Error::last_os_error()),
    }
}
