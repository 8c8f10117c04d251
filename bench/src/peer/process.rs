//! A proxy's process, from start to a certain end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::usage::{Usage, family, family_usage, memory_bytes};
use super::{Peer, Setting};

/// Longer than the drain that the configurations allow.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
const STOP_LOOK: Duration = Duration::from_millis(5);
/// Lines of the proxy's own words that an error shows.
const LAST_WORDS: usize = 12;

pub(crate) struct Running {
    child: Child,
    label: String,
    log_file: PathBuf,
    /// The process and its children, as they were when it had become ready.
    pids: Vec<u32>,
}

impl Peer {
    /// Starts it on the proxy's cores. The child inherits the affinity of the thread that starts it.
    pub(crate) fn start(
        &self,
        setting: &Setting<'_>,
        generator_core: usize,
    ) -> anyhow::Result<Running> {
        let configuration = setting.dir.join("proxy.conf");
        fs::write(&configuration, self.configuration(setting))?;
        let log_file = setting.dir.join("proxy.log");
        let log = File::create(&log_file)?;
        pin(setting.cores)?;
        let child = self
            .command(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()));
        pin(&[generator_core])?;
        let child = child?;
        let pids = vec![child.id()];
        Ok(Running {
            child,
            label: self.label.clone(),
            log_file,
            pids,
        })
    }
}

/// Pins this thread, and what it starts from now on, to these cores.
pub(crate) fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        ensure!(*core < CpuSet::MAX_CPU, "there is no core {core}");
        set.set(*core);
    }
    sched_setaffinity(None, &set).with_context(|| {
        format!("cannot pin to cores {cores:?}: do they exist, and may this process use them?")
    })
}

impl Running {
    pub(crate) fn is_alive(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// To be called when it has served something: nginx's master listens before it has a worker.
    pub(crate) fn note_processes(&mut self) -> anyhow::Result<()> {
        self.pids = family(self.child.id())?;
        Ok(())
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        family_usage(&self.pids)
    }

    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        self.pids.iter().map(|pid| memory_bytes(*pid)).sum()
    }

    /// The error, with the proxy's name and its last words.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let said = fs::read_to_string(&self.log_file).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n    ");
        let said = if last.is_empty() {
            String::new()
        } else {
            format!("; it said:\n    {last}")
        };
        anyhow!("{}: {error:#}{said}", self.label)
    }

    fn signal(pid: u32, signal: Signal) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself: that is what is wanted.
            let _ = kill_process(pid, signal);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "between runs no connection is open here"
    )]
    fn ended_within(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(STOP_LOOK);
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        Self::signal(self.child.id(), Signal::TERM);
        if !self.ended_within(STOP_TIME_MAX) {
            self.pids
                .iter()
                .for_each(|pid| Self::signal(*pid, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}
