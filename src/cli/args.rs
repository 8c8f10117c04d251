use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::control::Options;

use super::ask::Socket;
use super::operate::Operate;
use super::reload::Process;
use super::{check, demo, drain, explain, operate, reload, run};

/// A TLS stream proxy for bare-metal Linux: one io_uring thread per core, rustls, TOML.
#[derive(Parser)]
#[command(name = "ringway", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or SIGINT.
    Run {
        file: PathBuf,
        /// Run on epoll where io_uring is forbidden, instead of refusing to start.
        #[arg(long)]
        allow_epoll: bool,
        /// Take the listening sockets of the process that waits at `takeover` in [runtime], which
        /// then drains. Start as usual if there is none.
        #[arg(long)]
        take_over: bool,
    },
    /// Say everything that is wrong or unsafe in a configuration and the files it names.
    Check { file: PathBuf },
    /// Show every effective value and where it comes from.
    Explain { file: PathBuf },
    /// Let a running proxy end: no new connections, and drain_timeout for those that live.
    Drain {
        #[command(flatten)]
        socket: Socket,
    },
    /// Let a running proxy read its configuration anew; connections go on.
    Reload {
        #[command(flatten)]
        process: Process,
    },
    /// Say what a reload would change, and what needs a restart.
    Diff {
        #[command(flatten)]
        socket: Socket,
        /// Compare these two configurations instead of a running proxy with its own.
        #[arg(num_args = 2, value_names = ["BEFORE", "AFTER"])]
        files: Vec<PathBuf>,
    },
    /// Show the proxy at work on loopback with a throw-away PKI: TLS in, mutual TLS out.
    Demo {
        /// End after the show instead of staying up until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// Run on epoll where io_uring is forbidden, instead of refusing to start.
        #[arg(long)]
        allow_epoll: bool,
    },
    #[command(flatten)]
    Operate(Operate),
}

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            file,
            allow_epoll,
            take_over,
        } => {
            let options = Options {
                allow_epoll,
                take_over,
                ..Options::default()
            };
            run::run(&file, options)
        }
        Command::Check { file } => check::run(&file),
        Command::Explain { file } => explain::run(&file),
        Command::Drain { socket } => drain::run(&socket),
        Command::Reload { process } => reload::run(&process),
        Command::Diff { socket, files } => reload::run_diff(&socket, &files),
        Command::Operate(command) => operate::run(&command),
        Command::Demo { once, allow_epoll } => demo::run(once, allow_epoll),
    }
}
