use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::ask::Socket;
use super::{EXIT_REFUSED, EXIT_SYSTEM, report};
use crate::config;
use crate::control::{Changes, Checked, compare, examine};

/// Which process reads its configuration anew.
#[derive(Debug, Args)]
pub(super) struct Process {
    #[command(flatten)]
    socket: Socket,
    /// Send SIGHUP to this process instead: what comes of it stands in its log.
    #[arg(long, value_name = "PID", conflicts_with = "path")]
    pid: Option<i32>,
}

/// `ringway reload`: waits until every core serves by the new configuration, and says what has
/// changed; or says what `ringway check` says.
#[must_use]
pub(super) fn run(process: &Process) -> ExitCode {
    if let Some(pid) = process.pid {
        return hang_up(pid);
    }
    match process.socket.post("/reload", "") {
        Ok(answer) => say(&answer),
        Err(error) => error.exit(),
    }
}

fn hang_up(pid: i32) -> ExitCode {
    let process = Pid::from_raw(pid).filter(|_| pid > 0);
    let sent = process
        .ok_or_else(|| Errno::SRCH.to_string())
        .and_then(|process| {
            is_ringway(pid)?;
            kill_process(process, Signal::HUP).map_err(|error| error.to_string())
        });
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr has nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "ringway: process {pid} cannot be told to reload: {error}\n  cure: name the process \
                 of `ringway run`, as its own user or as root"
            );
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

/// Most programs end by SIGHUP, so none is sent to who is known to be another one.
fn is_ringway(pid: i32) -> Result<(), String> {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) if !name.contains("ringway") => Err(format!("it is `{}`", name.trim_end())),
        _ => Ok(()),
    }
}

/// `ringway diff`: what a reload of the running process would change; or what the second file has
/// that the first has not.
#[must_use]
pub(super) fn run_diff(socket: &Socket, files: &[PathBuf]) -> ExitCode {
    if files.is_empty() {
        return match socket.get("/diff") {
            Ok(answer) => say(&answer),
            Err(error) => error.exit(),
        };
    }
    let checked: Vec<Option<Checked>> = files.iter().map(|file| checked(file)).collect();
    let [Some(before), Some(after)] = &checked[..] else {
        return ExitCode::from(EXIT_REFUSED);
    };
    print(&compare(before, after))
}

fn checked(file: &Path) -> Option<Checked> {
    let examined = examine(config::load(file));
    report(&examined.loaded);
    examined.checked(file)
}

fn say(answer: &str) -> ExitCode {
    match serde_json::from_str::<Changes>(answer) {
        Ok(changes) => print(&changes),
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "ringway: the answer is not understood: {error}\n  cure: use the ringway that runs"
            );
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

fn print(changes: &Changes) -> ExitCode {
    // A closed stdout does not change what the exit code says.
    let _ = write!(io::stdout(), "{changes}");
    ExitCode::SUCCESS
}
