//! Two directions of bytes between two legs, until both have ended or one has failed.
//!
//! A [`flow`] carries one direction and is written once. [`relay`] runs two of them and decides
//! by the close table (`pair`) what one direction's end means for the other.

mod flow;
mod pair;
mod plain;
mod user;

pub use flow::{Failure, Fault, Leg, Seen, Tools};
pub use pair::{RelayEnd, relay};
