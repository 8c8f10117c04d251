//! What needs `unsafe`, and what asks the kernel about itself. Nothing else may use `unsafe`.

mod fd;
mod probe;
mod reuseport;
mod rlimit;

pub use fd::borrow_stream;
pub use probe::{Probe, RingFeatures, RingRefusal, probe, ring_builder};
pub use reuseport::steer_by_source;
pub use rlimit::{Nofile, raise_nofile};
