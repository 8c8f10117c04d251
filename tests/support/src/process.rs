//! What the kernel tells of a running proxy: files, memory, CPU, threads.

use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use socket2::Socket;

use crate::proxy::Proxy;
use crate::sys::{OpenFilesLimit, copy_descriptor};
use crate::wait::{DEADLINE, until, within};

/// What `/proc/PID/fd` holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenFiles {
    pub sockets: usize,
    pub pipes: usize,
    pub others: usize,
}

/// Two ends of each spare pipe that two cores keep by default: more would be a leak.
pub const SPARE_PIPE_ENDS_MAX: usize = 2 * 2 * 64;

/// When the kernel will send the first keepalive probe on a TCP socket of this machine; `None`
/// where keepalive is off. The connection must be idle: any other timer hides this one.
///
/// # Panics
/// When there is no such socket.
#[must_use]
pub fn keepalive_due(local: SocketAddrV4, remote: SocketAddrV4) -> Option<Duration> {
    // proc_net_tcp of the kernel's documentation: address in the machine's byte order, port.
    let hex = |it: SocketAddrV4| {
        let ip = u32::from_ne_bytes(it.ip().octets());
        format!("{ip:08X}:{:04X}", it.port())
    };
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let ends = format!(" {} {} ", hex(local), hex(remote));
    let line = table.lines().find(|line| line.contains(&ends));
    let line = line.unwrap_or_else(|| panic!("no socket{ends}in:\n{table}"));
    let timer = line
        .split_whitespace()
        .nth(5)
        .expect("the column `tr tm->when`");
    let due = timer.strip_prefix("02:")?;
    let ticks = u64::from_str_radix(due, 16).expect("a time in hex");
    Some(Duration::from_millis(ticks * 1000 / USER_HZ))
}

/// Ticks a second, as the kernel tells times to programs on all of its architectures but Alpha.
const USER_HZ: u64 = 100;

impl Proxy {
    /// Copies of the TCP sockets that the process has on the address `local`, with `remote` at the
    /// other end; `None`: those that listen there.
    ///
    /// # Errors
    /// EPERM where this user may not trace the process.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn sockets_at(
        &self,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> io::Result<Vec<Socket>> {
        let directory = format!("/proc/{}/fd", self.pid());
        let mut sockets = Vec::new();
        for entry in fs::read_dir(directory).expect("the proxy runs").flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let number = entry.file_name().to_string_lossy().parse();
            let (true, Ok(number)) = (target.to_string_lossy().starts_with("socket:"), number)
            else {
                continue;
            };
            let socket = match copy_descriptor(self.pid(), number) {
                Ok(copy) => Socket::from(copy),
                // Closed meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => continue,
                Err(error) => return Err(error),
            };
            let own = socket.local_addr().ok().and_then(|it| it.as_socket());
            let other = socket.peer_addr().ok().and_then(|it| it.as_socket());
            if own == Some(local) && other == remote {
                sockets.push(socket);
            }
        }
        Ok(sockets)
    }

    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn open_files(&self) -> OpenFiles {
        let directory = format!("/proc/{}/fd", self.pid());
        let mut open = OpenFiles::default();
        for entry in fs::read_dir(directory).expect("the proxy runs").flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            match target.split(':').next() {
                Some("socket") => open.sockets += 1,
                Some("pipe") => open.pipes += 1,
                _ => open.others += 1,
            }
        }
        open
    }

    /// Waits until the proxy has no more sockets and other files than in `before`, and no more
    /// pipe ends than its pools may keep.
    ///
    /// # Panics
    /// When it does not come down in time.
    pub fn wait_no_more_files(&self, before: OpenFiles, pooled_pipe_ends: usize) {
        let down = within(DEADLINE, || {
            let now = self.open_files();
            let pipes_max = before.pipes + pooled_pipe_ends;
            (now.sockets <= before.sockets && now.others <= before.others && now.pipes <= pipes_max)
                .then_some(())
        });
        assert!(
            down.is_some(),
            "files leaked: before {before:?}, now {:?} (up to {pooled_pipe_ends} more pipe ends \
             may be pooled){}",
            self.open_files(),
            self.story()
        );
    }

    /// Runs `meanwhile` while no thread of the proxy does anything, so that what peers send lies
    /// ready when the proxy goes on.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub fn while_stopped<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.signal(libc::SIGSTOP);
        until("all threads of the proxy stop", || {
            let mut tasks = self.tasks().into_iter();
            // T: stopped, t: stopped under a tracer (proc_pid_stat(5)).
            let is_stopped = |task: PathBuf| {
                let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
                let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                state.starts_with(['T', 't'])
            };
            tasks.all(is_stopped).then_some(())
        });
        let result = meanwhile();
        self.signal(libc::SIGCONT);
        result
    }

    /// RLIMIT_NOFILE as the process has it now.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn open_files_limit(&self) -> OpenFilesLimit {
        let limits = self.read_proc("limits");
        let line = limits
            .lines()
            .find_map(|l| l.strip_prefix("Max open files"));
        let mut numbers = line.into_iter().flat_map(str::split_whitespace);
        let mut number = || numbers.next().and_then(|n| n.parse().ok());
        match (number(), number()) {
            (Some(soft), Some(hard)) => OpenFilesLimit { soft, hard },
            _ => panic!("no open files in /proc/PID/limits:\n{limits}"),
        }
    }

    /// Anonymous memory in use, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let status = self.read_proc("status");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let line = line.expect("RssAnon in /proc/PID/status");
        let kib = line.trim().trim_end_matches("kB").trim();
        kib.parse::<u64>().expect("a number of kB") * 1024
    }

    /// CPU time of all threads of the process that live.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let spent = self.tasks().into_iter().map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            let first = text.split(' ').next().unwrap_or_default().to_owned();
            first.parse().unwrap_or(0)
        });
        Duration::from_nanos(spent.sum())
    }

    /// Name and CPUs of each thread.
    #[must_use]
    pub fn threads(&self) -> Vec<(String, String)> {
        let threads = self.tasks().into_iter().map(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let cpus = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            let cpus = cpus.unwrap_or_default().trim().to_owned();
            (name.trim().to_owned(), cpus)
        });
        threads.collect()
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let directory = format!("/proc/{}/task", self.pid());
        let entries = fs::read_dir(directory).expect("the proxy runs");
        entries.flatten().map(|entry| entry.path()).collect()
    }

    fn read_proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("the proxy runs")
    }
}
