use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::control::Options;

use super::ask::Socket;
use super::operate::Operate;
use super::reload::Process;
use super::{check, completions, demo, drain, explain, man, operate, reload, run};

/// A TLS stream proxy for bare-metal Linux: one io_uring thread per core, rustls, TOML.
///
/// Ringway takes connections on TCP ports and unix sockets and passes their bytes on to groups of
/// servers. It puts TLS and mutual TLS on either side or both. One TOML file says what it does;
/// what cannot be proved, such as the certificate of a server, is refused unless that file says
/// otherwise.
#[derive(Parser)]
#[command(name = "ringway", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or SIGINT.
    ///
    /// Says everything that `ringway check` says and starts nothing where that is an error. Stays in
    /// the foreground and writes lines about itself to stderr. The first SIGTERM or SIGINT drains:
    /// no new connections, and `drain_timeout` for those that live. The second closes them at once.
    /// SIGHUP has the configuration read anew, SIGUSR1 the log files opened anew.
    Run {
        /// The configuration, a TOML file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Run on epoll where io_uring is forbidden, instead of refusing to start.
        #[arg(long)]
        allow_epoll: bool,
        /// Take the listening sockets of the process that waits at `takeover` in [runtime], which
        /// then drains. Start as usual if there is none.
        #[arg(long)]
        take_over: bool,
        /// Return once the proxy serves, in a process of its own in the background, or with its exit
        /// code when it does not start. Output goes on to where it went: redirect it where somebody
        /// waits for its end.
        #[arg(long)]
        background: bool,
    },
    /// Say everything that is wrong or unsafe in a configuration and the files it names.
    ///
    /// Each finding has its place, the line itself, and what to do about it. Certificates, keys and
    /// lists are opened: run it as the user that will run the proxy. One line of summary goes to
    /// stdout, the findings to stderr.
    Check {
        /// The configuration, a TOML file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Show every effective value and where it comes from.
    ///
    /// One line for each key: its value, and the line of the file or the default that it is from.
    Explain {
        /// The configuration, a TOML file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
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
    ///
    /// Needs no file and no rights. Afterwards it stays up and prints commands to try by hand.
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
    /// Print the completions for a shell.
    ///
    /// For bash: `ringway completions bash > ~/.local/share/bash-completion/completions/ringway`.
    Completions {
        /// The shell that will read them.
        shell: Shell,
    },
    /// Print a man page.
    ///
    /// To read one that is not installed: `ringway man run | man -l -`.
    Man {
        /// The command that it is about; without one it is about all of them.
        command: Vec<String>,
    },
}

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            file,
            allow_epoll,
            take_over,
            background,
        } => {
            let options = Options {
                allow_epoll,
                take_over,
                ..Options::default()
            };
            run::run(&file, options, background)
        }
        Command::Check { file } => check::run(&file),
        Command::Explain { file } => explain::run(&file),
        Command::Drain { socket } => drain::run(&socket),
        Command::Reload { process } => reload::run(&process),
        Command::Diff { socket, files } => reload::run_diff(&socket, &files),
        Command::Operate(command) => operate::run(&command),
        Command::Demo { once, allow_epoll } => demo::run(once, allow_epoll),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { command } => man::run(&command),
    }
}

/// All commands and options as the process takes them, for what is made from them.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}
