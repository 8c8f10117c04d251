//! `ringway-bench`: what a proxied connection costs, beside other proxies, in one run.
//!
//! | room | what it holds |
//! |---|---|
//! | `args` | the command line |
//! | `work` | the rows of the table: role, mode, TLS profile |
//! | `pki` | throw-away certificates |
//! | `load` | clients and upstream servers, polled busily on one core |
//! | `peer` | each proxy's configuration, its process, its CPU time and memory |
//! | `commands` | what each subcommand measures |
//! | `case` | a row as it is measured: the work, the cores, the rates |
//! | `bench` | the order of the runs, one after the other |
//! | `report` | what a run is worth; medians, ratios, the table, JSON, the plot |

mod args;
mod bench;
mod case;
mod commands;
mod environment;
mod load;
mod peer;
mod pki;
mod report;
mod work;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    commands::run(&args::Args::parse().command)
}
