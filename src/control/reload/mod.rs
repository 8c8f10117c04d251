//! From the plan in force to the next one, while connections go on
//! (docs/decisions/0013-reload.md).

mod diff;
mod ends;
mod load;
mod switch;

pub use diff::{Change, Changes, Version, diff};
pub(super) use load::Basis;
pub use load::{Checked, Examined, examine};
