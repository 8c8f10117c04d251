#![expect(
    unsafe_code,
    reason = "descriptors that come by their numbers, and changes of the process's environment"
)]

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A descriptor that a service manager has opened for this process.
#[derive(Debug)]
pub struct Activated {
    pub fd: OwnedFd,
    /// `FileDescriptorName=`; the name of the socket unit unless it says otherwise.
    pub name: String,
}

/// sd_listen_fds(3): the first is always this one.
const FIRST: RawFd = 3;

/// More than a unit has `ListenStream=` lines.
const ACTIVATED_MAX: RawFd = 1024;

const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Takes what the service manager has opened (sd_listen_fds(3)), and the variables that say so out
/// of the environment. Nothing where they are meant for another process.
///
/// # Errors
/// The variables make no sense, or this process has more than one thread already; in words.
pub fn take_activated() -> Result<Vec<Activated>, String> {
    let [pid, count, names] = VARIABLES.map(|name| env::var(name).ok());
    if pid.is_none() && count.is_none() {
        return Ok(Vec::new());
    }
    forget_variables()?;
    if pid != Some(std::process::id().to_string()) {
        return Ok(Vec::new());
    }
    let count = count.unwrap_or_default();
    let count = count.parse::<RawFd>().ok();
    let count = count
        .filter(|count| (0..=ACTIVATED_MAX).contains(count))
        .ok_or("LISTEN_FDS is no number of descriptors: the service manager sets it")?;
    let names = names.unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    (FIRST..FIRST + count)
        .map(|number| {
            let fd = take(number).map_err(|error| {
                format!("LISTEN_FDS has {count} descriptors, and number {number} cannot be used: {error}")
            })?;
            let name = names.next().unwrap_or_default();
            Ok(Activated { fd, name })
        })
        .collect()
}

fn forget_variables() -> Result<(), String> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err("the environment can be changed only while there is one thread".to_owned());
    }
    for name in VARIABLES {
        // SAFETY: this is the process's only thread, as was just counted, so that nobody else
        // reads or writes the environment.
        unsafe { env::remove_var(name) };
    }
    Ok(())
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with this command takes a number and touches no memory.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, as the call above has shown. LISTEN_PID says that it was so
    // when this program began, so that the kernel gave its number to nothing that this program
    // has opened; and the variables are gone, so that it is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
