//! `ringway-bench`: what a proxied connection costs, beside other proxies, in one run.
//!
//! | room | what it holds |
//! |---|---|
//! | `args` | the command line |
//! | `work` | the rows of the table: role, mode, TLS profile |
//! | `pki` | throw-away certificates |
//! | `load` | clients and upstream servers, polled busily on one core |
//! | `peer` | each proxy's configuration, its process, its CPU time and memory |
//! | `compare` | the order of the runs, and what a run is worth |
//! | `report` | medians, ratios, the table, JSON |

mod args;
mod compare;
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
    match args::Args::parse().command {
        args::Command::Compare(options) => compare::compare(&options),
    }
}
