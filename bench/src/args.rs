//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// What a proxied connection costs: CPU of the proxy's process, beside other proxies.
#[derive(Debug, Parser)]
#[command(name = "ringway-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The same work through each proxy in turn: medians, ratios and their spread.
    Compare(CompareOptions),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareOptions {
    /// Ringway's binary. Default: `ringway` beside this one, if it is there.
    #[arg(long, value_name = "PATH")]
    pub(crate) proxy: Option<PathBuf>,
    /// An nginx with the stream module; may be given several times. Default: the one installed.
    #[arg(long, value_name = "PATH")]
    pub(crate) nginx: Vec<PathBuf>,
    /// A HAProxy; may be given several times. Default: the one installed.
    #[arg(long, value_name = "PATH")]
    pub(crate) haproxy: Vec<PathBuf>,
    /// Rows to measure: names or beginnings of names (`terminate`, `bulk-down`), comma-separated.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) work: Vec<String>,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Seconds of load before the measured ones; sessions to resume are made in this time.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up: f64,
    /// Runs of each row and proxy; the proxies take turns within a round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Operations in flight (bulk: a quarter of it streams).
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: u16,
    /// Connections held by the idle rows.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle_connections: u32,
    /// The core that the proxy is pinned to.
    #[arg(long, default_value_t = 0)]
    pub(crate) proxy_core: usize,
    /// The core of the clients and upstream servers. Default: the last one.
    #[arg(long)]
    pub(crate) generator_core: Option<usize>,
    /// Directory for compare.json and the latencies' .hgrm files.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Print the configurations that the proxies would get for this work, and end.
    #[arg(long)]
    pub(crate) show_configs: bool,
}
