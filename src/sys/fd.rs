#![expect(unsafe_code, reason = "a borrowed descriptor is made from a raw one")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// The descriptor of a monoio stream, which itself gives only the raw number.
#[must_use]
pub fn borrow_stream(stream: &monoio::net::UnixStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns an open descriptor until it is dropped, and the result borrows the
    // stream, so the number cannot be closed or reused while the result lives.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
