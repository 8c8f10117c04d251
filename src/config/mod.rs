//! From a TOML file to a [`Plan`]: everything that can be said about the file is said at once.

mod diagnostic;
mod plan;

pub use diagnostic::{Diagnostic, Severity};
pub use plan::*;
