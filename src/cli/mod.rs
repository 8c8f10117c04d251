//! The command line.

mod args;
mod run;

pub use args::main;
