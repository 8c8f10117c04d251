//! From a TOML file to a [`Plan`]: everything that can be said about the file is said at once.

mod plan;

pub use plan::*;
