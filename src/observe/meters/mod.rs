//! What each core counts, for the metrics: one core alone writes a meter, any thread may read it.
//!
//! A meter is allocated for one core, so that no two cores write to one cache line. It belongs to a
//! listener, a group or a server by its name, and a next plan goes on with what is there.

mod core;
mod count;
mod group;
mod handshakes;
mod histogram;
mod listener;
mod registry;

pub use core::CoreMeters;
pub use count::Count;
pub use group::{Discard, GroupMeters, GroupShare, ServerMeters, Setbacks};
pub use handshakes::{HANDSHAKE_CAUSES, Handshakes};
pub use histogram::{Histogram, Scale};
pub use listener::{Carried, Ended, ListenerMeters, TIMED};
pub use registry::{PerCore, PlanMeters, Registry};
