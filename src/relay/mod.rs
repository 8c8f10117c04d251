//! Two directions of bytes between two legs, until both have ended or one has failed.
//!
//! A [`flow`] carries one direction and is written once: `fill` gets bytes from its source,
//! `outgoing` sends them to its sink. [`relay`] runs two of them and decides by the close table
//! (`pair`) what one direction's end means for the other.

mod fill;
mod flow;
mod leg;
mod outgoing;
mod pair;
mod path;
mod receiving;
mod seen;
mod slots;
mod throttle;

pub use flow::{Failure, Fault};
pub use leg::{Leg, Tools};
pub use pair::{Limits, RelayEnd, relay};
pub use seen::Seen;
