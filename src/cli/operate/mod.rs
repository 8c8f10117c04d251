//! Commands to a process that runs, by its admin socket.

mod connections;
mod show;
mod status;
mod table;
mod top;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::ask::{AskError, Socket};
use connections::Filter;

#[derive(Subcommand)]
pub(super) enum Operate {
    /// Show how a running proxy is: listeners, upstreams, servers, cores.
    Status {
        #[command(flatten)]
        socket: Socket,
        /// The answer as it comes, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Watch a running proxy: handshakes, throughput, cores, servers.
    Top {
        #[command(flatten)]
        socket: Socket,
        /// How often to look, and what rates are measured over.
        #[arg(long, value_name = "TIME", default_value = top::INTERVAL_DEFAULT, value_parser = top::interval)]
        interval: Duration,
        /// Print one interval as lines and end, for scripts.
        #[arg(long)]
        once: bool,
    },
    /// List connections of a running proxy, the oldest first.
    Connections {
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        filter: Filter,
        /// How many to show.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// The answer as it comes, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Close connections of a running proxy: each that fits all that is given.
    Close {
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        filter: Filter,
        /// Every connection there is.
        #[arg(long)]
        all: bool,
    },
    /// Hold a server of a running proxy, or let it go.
    Server {
        /// The name of its group.
        upstream: String,
        /// The server as the configuration names it, or one of its addresses.
        address: String,
        /// What it shall do: `drain` gives it no new connections, `down` ends those it has, too, `up`
        /// lets it go.
        state: ServerState,
        #[command(flatten)]
        socket: Socket,
    },
    /// Show every value that a running proxy works with, and where it comes from.
    Plan {
        #[command(flatten)]
        socket: Socket,
        /// Each value by itself, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Show or change the level of what a running proxy says on stderr.
    LogLevel {
        /// error, warn, info, debug, trace, or a filter by module.
        level: Option<String>,
        #[command(flatten)]
        socket: Socket,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ServerState {
    /// No new connections; those that it has go on.
    Drain,
    /// No new connections, and those that it has are closed.
    Down,
    /// As its checks and its connections find it.
    Up,
}

impl ServerState {
    fn word(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

#[must_use]
pub(super) fn run(operate: &Operate) -> ExitCode {
    match answer(operate) {
        Ok(text) => {
            // `ringway connections | head` closes stdout early, and that is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => error.exit(),
    }
}

/// What is to be shown.
fn answer(operate: &Operate) -> Result<String, AskError> {
    match operate {
        Operate::Status { socket, json } => {
            let answer = socket.get("/status")?;
            show::shown(socket, answer, *json, status::table)
        }
        Operate::Top {
            socket,
            interval,
            once: true,
        } => top::once(socket, *interval),
        Operate::Top {
            socket, interval, ..
        } => top::live(socket, *interval).map(|()| String::new()),
        Operate::Connections {
            socket,
            filter,
            limit,
            json,
        } => {
            let limit = limit.to_string();
            let answer = socket.get(&filter.target("/connections", &[("limit", &limit)]))?;
            show::shown(socket, answer, *json, connections::table)
        }
        Operate::Close {
            socket,
            filter,
            all,
        } => {
            let all: &[(&str, &str)] = if *all { &[("all", "true")] } else { &[] };
            let answer = socket.post(&filter.target("/connections/close", all), "")?;
            show::shown(socket, answer, false, show::closed)
        }
        Operate::Server {
            upstream,
            address,
            state,
            socket,
        } => {
            let parameters = [
                ("upstream", upstream.as_str()),
                ("server", address),
                ("state", state.word()),
            ];
            let answer = socket.post(&show::target("/server", parameters), "")?;
            show::shown(socket, answer, false, show::held)
        }
        Operate::Plan { socket, json } => {
            let format = if *json { "json" } else { "text" };
            socket.get(&show::target("/plan", [("format", format)]))
        }
        Operate::LogLevel { level, socket } => {
            let answer = match level {
                Some(level) => {
                    let target = show::target("/log-level", [("level", level.as_str())]);
                    socket.post(&target, "")
                }
                None => socket.get("/log-level"),
            };
            show::shown(socket, answer?, false, show::level)
        }
    }
}
