#![expect(unsafe_code, reason = "setsockopt with a pointer to a filter program")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends every connection of one source address to the same socket of a SO_REUSEPORT group.
///
/// The program hashes the source address and returns an index below `sockets`; sockets are
/// numbered in the order in which they were bound. Attached once, to any member of the group
/// (Linux, socket(7): SO_ATTACH_REUSEPORT_CBPF).
///
/// # Errors
/// What setsockopt reports; EINVAL from a kernel without the option.
pub fn steer_by_source(socket: BorrowedFd<'_>, sockets: u32, ipv6: bool) -> io::Result<()> {
    let mut program = if ipv6 { hash_of_ipv6() } else { hash_of_ipv4() };
    program.extend(spread(sockets));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(u16::MAX),
        filter: program.as_mut_ptr(),
    };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    // SAFETY: `filter` and the program it points to live until the call returns, and the kernel
    // copies both. `size` is the size of what the pointer points to.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves the choice of the socket to the kernel again, if a program has it.
///
/// # Errors
/// What setsockopt reports, except that there was no program.
pub fn stop_steering(socket: BorrowedFd<'_>) -> io::Result<()> {
    let ignored: libc::c_int = 0;
    let size = libc::socklen_t::try_from(size_of_val(&ignored)).unwrap_or(0);
    // SAFETY: `ignored` lives until the call returns, and `size` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const ignored).cast(),
            size,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // No program, or a kernel before 5.3, which could not take one away.
            none if matches!(none.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => Ok(()),
            error => Err(error),
        },
    }
}

/// Offset that makes a load relative to the network header (linux/filter.h: SKF_NET_OFF).
const NETWORK_HEADER: u32 = (-0x10_0000_i32).cast_unsigned();
const IPV4_SOURCE: u32 = 12; // RFC 791 3.1
const IPV6_SOURCE: u32 = 8; // RFC 8200 3
/// Knuth's multiplicative constant: 2^32 over the golden ratio.
const SPREAD: u32 = 2_654_435_769;

fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: 0,
        k,
    }
}

fn load(offset: u32) -> libc::sock_filter {
    op(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        NETWORK_HEADER.wrapping_add(offset),
    )
}

fn hash_of_ipv4() -> Vec<libc::sock_filter> {
    vec![load(IPV4_SOURCE)]
}

/// The four words of the address, xored together.
fn hash_of_ipv6() -> Vec<libc::sock_filter> {
    let mut program = vec![load(IPV6_SOURCE)];
    for word in 1..4 {
        program.push(op(libc::BPF_MISC | libc::BPF_TAX, 0));
        program.push(load(IPV6_SOURCE + 4 * word));
        program.push(op(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0));
    }
    program
}

fn spread(sockets: u32) -> [libc::sock_filter; 4] {
    [
        op(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, SPREAD),
        op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets.max(1)),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ]
}
