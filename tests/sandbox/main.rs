//! What the process gives up: tried from inside, and looked at from outside.
//!
//! The tests run this program again for a process that gives up its rights and tries to do what it
//! should not (`inside`). A test that this system cannot run is reported as ignored, with the reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic in a test is a failed test, and what is inside speaks by its stdout"
)]

mod attempts;
mod check;
mod inside;
mod keys;
mod logs;
mod names;
mod proxy;
mod scene;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// What a test needs of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Landlock,
    Root,
    /// Landlock, and root with the right to mount.
    Mounts,
    /// Root with the right to bind to the addresses of others.
    RawSockets,
}

type Test = (Needs, &'static str, fn());

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(inside::FILE) {
        return inside::run(Path::new(&file));
    }
    let trials = [
        attempts::TESTS,
        proxy::TESTS,
        check::TESTS,
        keys::TESTS,
        logs::TESTS,
        names::TESTS,
    ]
    .concat();
    let trials = trials.into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial((needs, name, run): Test) -> Trial {
    let trial = Trial::test(name, move || {
        run();
        Ok(())
    });
    match needs.lacking() {
        Some(reason) => {
            println!("SKIPPED: {name}: {reason}");
            trial.with_kind(reason).with_ignored_flag(true)
        }
        None => trial,
    }
}

impl Needs {
    fn lacking(self) -> Option<&'static str> {
        let root = rustix::process::geteuid().is_root();
        match self {
            Self::Landlock | Self::Mounts if !scene::has_landlock() => {
                Some("this kernel has no Landlock")
            }
            Self::Root if !root => Some("only root can become another user"),
            Self::Mounts if !root || !ringway_support::sys::may_mount() => Some("no CAP_SYS_ADMIN"),
            Self::RawSockets if !root || !scene::has_raw_sockets() => Some("no CAP_NET_RAW"),
            _ => None,
        }
    }
}
