//! What an operator sees of the data plane: one record per connection, written off the data plane.

pub mod events;
mod format;
mod line;
pub mod meters;
pub mod metrics;
mod printer;
mod record;
#[cfg(test)]
pub(crate) mod sample;
pub mod sink;

pub use crate::types::log_fields as names;
pub use printer::Printer;
pub use record::{
    Address, CorePlan, Fallback, LegTls, Proxied, Record, RelayPath, Times, UpstreamSeen,
};
pub use sink::{RecordSender, SinkHandle};
