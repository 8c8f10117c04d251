//! What goes on beside the data plane, on a thread of its own.

pub mod resolver;
