//! From a TOML file to a [`Plan`]: everything that can be said about the file is said at once.
//!
//! `file` mirrors the text, `read` fills it and reports what does not fit, `resolve` turns it
//! into the [`Plan`]. Nothing after that sees the file's structs.

mod access;
mod defaults;
mod diagnostic;
mod explain;
mod file;
mod keys;
mod load;
mod plan;
mod read;
mod resolve;
mod source;
mod syntax;
mod value;

pub use access::{AccessPlan, LocalAddress, Pace, Rate, SourcePrefix};
pub use defaults::ADMIN_SOCKET;
pub use diagnostic::{Diagnostic, Diagnostics, Paint, Severity};
pub use explain::{Effective, Origin, explain};
pub use load::{FILE_BYTES_MAX, Loaded, load, parse};
pub use plan::*;
pub use source::{Position, Source};
pub(crate) use value::{Refusal, cidr, duration, show_duration};
