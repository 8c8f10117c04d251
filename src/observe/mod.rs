//! What an operator sees of the data plane: one record per connection, written off the data plane.

mod record;

pub use record::{Address, LegTls, Record, RelayPath, Times, UpstreamSeen};
