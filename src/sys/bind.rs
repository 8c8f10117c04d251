#![expect(unsafe_code, reason = "setsockopt for an option that no crate has")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets a bind(2) to port 0 leave the port to connect(2), which then takes one that is free towards
/// this server (IP_BIND_ADDRESS_NO_PORT, ip(7), Linux 4.2; for IPv6 sockets, too).
///
/// # Errors
/// What setsockopt reports.
pub fn leave_port_to_connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: `on` lives until the call returns, the kernel copies it, and `size` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
