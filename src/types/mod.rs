//! Words that every room shares: ids, sides, phases and the reasons a connection ends.

mod alert;
mod clock;
mod end;
mod ids;
pub mod log_fields;

pub use alert::Alert;
pub use clock::{Elapsed, UnixSeconds, unix_now};
pub use end::{Cause, End, Order, Phase};
pub use ids::{CoreId, Direction, GroupId, ListenerId, ServerId, Side, SocketId};
pub use log_fields::LogField;

/// Largest plaintext of one TLS record: 2^14 bytes (RFC 8446 5.1, RFC 5246 6.2.1).
pub const TLS_PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
