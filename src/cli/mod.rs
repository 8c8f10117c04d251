//! What a user types, one file a command.

mod args;
mod ask;
pub mod check;
pub mod completions;
mod demo;
mod drain;
pub mod explain;
pub mod man;
mod operate;
mod reload;
mod run;

pub use args::{command, main};

use std::io::{self, IsTerminal as _, Write as _};

use crate::config::{Loaded, Paint};

/// What was asked for is done.
pub const EXIT_DONE: u8 = 0;
/// The command line is not understood; clap says so, too.
pub const EXIT_COMMAND_LINE: u8 = 2;
/// The configuration is refused: EX_USAGE of sysexits.h.
pub const EXIT_REFUSED: u8 = 64;
/// A defect of Ringway ended the process: EX_SOFTWARE.
pub const EXIT_INTERNAL: u8 = 70;
/// The operating system refused something: EX_OSERR.
pub const EXIT_SYSTEM: u8 = 71;

/// Prints everything that is to be said about a configuration to stderr.
pub fn report(loaded: &Loaded) {
    let stderr = io::stderr();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = if stderr.is_terminal() && !plain {
        Paint::Colour
    } else {
        Paint::Plain
    };
    // A closed stderr has nobody to tell that it is closed.
    let _ = stderr.lock().write_all(loaded.report(paint).as_bytes());
}
