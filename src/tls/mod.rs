//! TLS on both legs: what the files hold, who may connect, which sessions may be resumed.
//!
//! The room builds rustls's configurations and judges its errors; it moves no bytes. Building
//! happens once per listener ([`ServerTls`]) or upstream group ([`ClientTls`]) and is shared by all
//! cores; each core then takes its own configuration from it.
//!
//! Every call into rustls for one connection runs inside [`with_peer_bound`], so that what the
//! connection may leave behind (a ticket, a cached session) ends with the peer's certificate.

mod acceptor;
mod bound;
mod certificate;
mod connector;
mod describe;
mod ends;
mod files;
mod flight;
mod gate;
mod handoff;
mod handshake;
mod identity;
mod in_flight;
mod inspect;
mod key_file;
mod key_log;
mod material;
mod ocsp;
#[cfg(test)]
mod pair;
mod policy;
mod reason;
mod recheck;
mod record;
mod resolver;
mod sessions;
mod staple;
mod stream;
#[cfg(test)]
mod tests;
mod tickets;
mod verify;
mod writer;

pub use acceptor::ServerTls;
pub use bound::{PeerBound, with_peer_bound};
pub use connector::{ClientTls, Endpoint};
pub use describe::describe_leg;
pub use ends::{Ends, ends};
pub use files::{Digests, Files};
pub use gate::{Answer, FullHandshakeGate};
pub use handoff::{Drain, KernelError, Secrets};
pub use handshake::{
    ClientEngine, Engine, Handshake, HandshakeError, ServerEngine, Unsent, establish,
};
pub use identity::{Identity, PeerSeen};
pub use in_flight::{HandshakePlace, HandshakesInFlight};
pub use inspect::inspect;
pub use key_log::KeyTap;
pub use material::MaterialError;
pub use reason::{failure, foreign_protocol, refused_identity};
pub use recheck::{Shown, Standing, Withdrawn};
pub use record::{Exhausted, Shape};
pub use stream::{Opened, ReadError, Shared, TlsLeg, TlsReader};
pub use tickets::{KeyRing, PassedKeys};
pub use writer::{Control, TlsWriter, seals_in_place};
