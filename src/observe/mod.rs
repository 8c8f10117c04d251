//! What an operator sees of the data plane: one record per connection, written off the data plane.

pub mod events;
pub mod format;
mod line;
pub mod names;
mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod sink;

pub use record::{
    Address, CorePlan, Fallback, LegTls, Proxied, Record, RelayPath, Times, UpstreamSeen,
};
pub use sink::{RecordSender, SinkHandle};
