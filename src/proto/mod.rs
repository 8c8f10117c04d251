//! Wire formats that Ringway reads itself, sans-IO: bytes in, meaning out.
//!
//! Every byte here comes from a stranger, so nothing indexes, and no sum can overflow unseen.
//! The folder `fuzz/` has a target for each module.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bytes;
pub mod client_hello;
pub mod proxy;
pub mod record;

pub use client_hello::{ClientHello, ClientHelloReader, HelloError, NotTls, Progress};
pub use proxy::{ProxyError, ProxyHeader};
pub use record::{ContentType, Header, Protection, RecordError};
