//! From the plan in force to the next one, while connections go on
//! (docs/decisions/0013-reload.md).

mod diff;
mod ends;
mod load;
mod names;
mod switch;
mod watch;

pub use diff::{Change, Changes};
pub(super) use load::Basis;
pub use load::{Checked, Examined, compare, examine};
pub(super) use switch::Reloaded;
pub(super) use watch::FileWatch;
