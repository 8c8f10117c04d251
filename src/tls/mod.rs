//! TLS on either leg.
mod handshake;
mod record;
mod stream;
pub mod tickets;
pub use handshake::{Engine, Handshake, HandshakeError, ServerEngine, establish};
pub use record::{Exhausted, Shape};
pub use stream::{Opened, ReadError, Renewal, TlsLeg, TlsReader, TlsWriter, seals_in_place};
