//! Sockets, buffers, pipes and time limits: the narrow room through which all I/O goes.
//!
//! Readiness comes from the ring (one POLL_ADD a wait), bytes move by direct non-blocking
//! system calls. `docs/decisions/0005-io.md` says why.

mod buffers;
mod coarse;
mod dial;
mod inbound;
mod listen;
mod local;
mod pipes;
mod socket;
mod waits;

pub use buffers::{Buffer, Buffers, LARGE_BYTES, SMALL_BYTES};
pub use coarse::CoarseInstant;
pub use dial::{PeerAddress, dial, dial_from};
pub use inbound::{Expect, Inbound, PARTS_MAX, Parts, ReceiveError};
pub use listen::{Accepted, Listening, bind, local_address, readjust, reserve};
pub use local::{Origin, inspect, origin};
pub use pipes::{Pipe, Pipes};
pub use socket::{Socket, apply_first_options, apply_options};
pub use waits::count_waits;
