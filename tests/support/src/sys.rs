//! The calls into the kernel that std does not have; all the unsafe code of the tests.

#![expect(
    unsafe_code,
    reason = "poll, kill, setrlimit and seccomp have no safe form in std"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    pub read: bool,
    pub write: bool,
}

/// Waits until `fd` is ready for one of `wanted`; neither is set when `limit` is over.
///
/// # Errors
/// What poll(2) says, except EINTR.
pub fn poll(fd: RawFd, wanted: Ready, limit: Duration) -> io::Result<Ready> {
    let mut events = 0;
    if wanted.read {
        events |= libc::POLLIN;
    }
    if wanted.write {
        events |= libc::POLLOUT;
    }
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `entry` is one pollfd that lives over the call, and the count is 1.
    let count = unsafe { libc::poll(&raw mut entry, 1, limit_ms) };
    if count < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(Ready::default()),
            _ => Err(error),
        };
    }
    let broken = entry.revents & (libc::POLLHUP | libc::POLLERR) != 0;
    Ok(Ready {
        read: entry.revents & libc::POLLIN != 0 || broken,
        write: entry.revents & libc::POLLOUT != 0 || broken,
    })
}

/// Bytes sent on `fd` that the other side's kernel has not acknowledged.
///
/// # Errors
/// What ioctl(2) says.
pub fn unacknowledged_bytes(fd: RawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: with this request ioctl(2) writes one int, which lives over the call (tcp(7)).
    match unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) } {
        0 => usize::try_from(bytes).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks the kernel for a system call by its number, with no pointer among its arguments: to see
/// whether it is allowed.
///
/// # Errors
/// What the kernel answers.
pub fn call(number: i64, arguments: [u32; 4]) -> io::Result<()> {
    let [first, second, third, fourth] = arguments.map(libc::c_long::from);
    // SAFETY: what is passed as an address is less than 4 GiB, where nothing is mapped for reading or
    // writing in a 64-bit position-independent program, and a null pointer reaches no memory.
    match unsafe { libc::syscall(number, first, second, third, fourth, -1, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A copy of another process's descriptor, to ask the kernel about what it stands for.
///
/// # Errors
/// What pidfd_open(2) and pidfd_getfd(2) say: EPERM where this user may not trace the process.
pub fn copy_descriptor(pid: u32, descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers and touches no memory of ours.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let process = owned(process)?;
    // SAFETY: pidfd_getfd(2) takes numbers and touches no memory of ours.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) };
    owned(copy)
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(descriptor).map_err(io::Error::other)? {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just opened it for the caller, and nobody else knows its number.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// How many connections may wait to be accepted on a socket that listens.
///
/// # Errors
/// What getsockopt(2) says.
pub fn backlog(socket: RawFd) -> io::Result<u32> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut bytes =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes no more than `bytes` to `info`, and both live over the call.
    let done = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of it is integers, which were zero before the kernel wrote some.
    let info = unsafe { info.assume_init() };
    // Of a listening socket this is sk_max_ack_backlog (tcp_get_info in the kernel's net/ipv4/tcp.c).
    Ok(info.tcpi_sacked)
}

/// Sends `signal` to the process that the caller started as `pid` and has not yet reaped.
///
/// # Errors
/// What kill(2) says.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill(2) touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises this process's limit of open files to what it may have, and returns it.
///
/// # Panics
/// When the kernel refuses.
#[must_use]
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is one rlimit that the call fills.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(got, 0, "getrlimit: {}", io::Error::last_os_error());
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is one rlimit that the call reads.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "setrlimit: {}", io::Error::last_os_error());
    limit.rlim_cur
}

/// Makes a named pipe.
///
/// # Errors
/// What mkfifo(3) says.
pub fn make_fifo(path: &std::path::Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that lives over the call.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// RLIMIT_NOFILE of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFilesLimit {
    pub soft: u64,
    pub hard: u64,
}

/// Starts the child under this limit, and with no right to raise the hard one.
pub fn limit_open_files(command: &mut Command, limit: OpenFilesLimit) {
    let limit = libc::rlimit {
        rlim_cur: limit.soft,
        rlim_max: limit.hard,
    };
    let set = move || {
        drop_right_to_raise_limits()?;
        // SAFETY: setrlimit(2) is async-signal-safe and reads one rlimit of this frame.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// Takes CAP_SYS_RESOURCE from what exec(2) may give to root (capabilities(7)). EPERM: this is
/// not root, and has nothing to give.
fn drop_right_to_raise_limits() -> io::Result<()> {
    // SAFETY: prctl(2) with this option takes numbers and touches no memory.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
            error => Err(error),
        },
    }
}

/// linux/capability.h; libc does not have it.
const CAP_SYS_RESOURCE: libc::c_ulong = 24;

/// Has the kernel kill the child when the thread that started it is gone, so that a test that
/// is killed leaves no process behind.
pub fn die_with_parent(command: &mut Command) {
    let set = || {
        // SAFETY: prctl(2) with this option takes a number and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// Gives the child these descriptors under the numbers from 3 on.
pub fn pass_descriptors(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let pass = move || {
        // First out of the way of the numbers that they shall have.
        let beyond = 3 + i32::try_from(descriptors.len()).unwrap_or(i32::MAX);
        for (number, fd) in (3..).zip(&descriptors) {
            // SAFETY: fcntl(2) with this command takes numbers and touches no memory.
            let moved = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, beyond) };
            // SAFETY: dup2(2) takes numbers. What it closes in the child is the parent's copy of
            // whatever had the number there, which this program does not use between fork and exec.
            if unsafe { libc::dup2(moved, number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
    unsafe { command.pre_exec(pass) };
}

/// Runs `body` on a thread of another user.
///
/// # Errors
/// What setresuid(2) says: the process must be root's.
///
/// # Panics
/// When `body` does.
pub fn as_user<T: Send>(uid: u32, body: impl FnOnce() -> T + Send) -> io::Result<T> {
    let run = || {
        // SAFETY: the system call takes numbers. Past libc's wrapper it changes this thread alone,
        // which ends with `body`.
        match unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } {
            0 => Ok(body()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("the body does not panic"))
}

/// Puts `folder` in the place of /etc, in a mount namespace of the child's own. Needs CAP_SYS_ADMIN.
///
/// # Panics
/// When the folder's name holds a zero byte.
pub fn replace_etc(command: &mut Command, folder: &std::path::Path) {
    let folder = CString::new(folder.as_os_str().as_encoded_bytes()).expect("no zero byte");
    let done = |result: i32| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let mount = move |source: *const libc::c_char, target: &CStr, flags| {
        let none = std::ptr::null();
        // SAFETY: both paths live until the call returns, the source may be null with these flags,
        // and so may type and data.
        done(unsafe { libc::mount(source, target.as_ptr(), none, flags, none.cast()) })
    };
    let set = move || {
        // SAFETY: unshare(2) takes a number and touches no memory.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        mount(std::ptr::null(), c"/", libc::MS_REC | libc::MS_PRIVATE)?;
        mount(folder.as_ptr(), c"/etc", libc::MS_BIND)
    };
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// Whether this process may have [`replace_etc`] do so.
#[must_use]
pub fn may_mount() -> bool {
    let new_namespace = libc::CLONE_NEWNS.cast_unsigned();
    // On a thread of its own, which ends with its namespace.
    let tried = std::thread::spawn(move || call(libc::SYS_unshare, [new_namespace, 0, 0, 0]));
    tried.join().is_ok_and(|it| it.is_ok())
}

/// Gives the child memory in pages of 4 KiB alone, so that its use can be told in less than the
/// 2 MiB of a transparent huge page.
pub fn refuse_huge_pages(command: &mut Command) {
    let set = || {
        // SAFETY: prctl(2) with this option takes numbers and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// Makes `io_uring_setup` fail with EPERM in the child, as container runtimes do.
pub fn deny_io_uring(command: &mut Command) {
    let set = || {
        // One comparison of the call's number; numbers of other ABIs are not of interest here.
        let mut program = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                0,
                1,
                IO_URING_SETUP,
            ),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, RETURN_EPERM),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: 4,
            filter: program.as_mut_ptr(),
        };
        no_new_privileges()?;
        // SAFETY: `filter` and `program` live over the call; the kernel copies both.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// An unprivileged process may set a filter only after this (seccomp(2)).
fn no_new_privileges() -> io::Result<()> {
    // SAFETY: prctl(2) with this option takes numbers and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// 425 on every architecture (the numbers are shared since Linux 5.1).
const IO_URING_SETUP: u32 = 425;
const RETURN_EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();

fn statement(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: jump_true,
        jf: jump_false,
        k,
    }
}
