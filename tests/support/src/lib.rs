//! What Ringway's end-to-end tests share: a test CA, real and faulty peers, a running proxy.
//!
//! Everything here waits with a deadline, binds to port 0 on loopback, and panics with words that
//! say what was expected and what was seen: a panic here is a failed test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in this crate is a failed test, and that is what it is for"
)]

pub mod bridge;
pub mod curl;
pub mod dns;
pub mod exchange;
pub mod haproxy;
pub mod hello;
mod lines;
pub mod link;
pub mod metrics;
pub mod nginx;
pub mod ocsp;
pub mod openssl;
pub mod pattern;
pub mod peer;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod record;
pub mod redis;
pub mod reload;
pub mod scenario;
pub mod server;
pub mod sys;
pub mod tls;
pub mod toml;
mod visit;
pub mod wait;
pub mod witness;

pub use bridge::{Bridge, Leg};
pub use link::{Ending, Link};
pub use metrics::Scrape;
pub use peer::Peer;
pub use pki::{Authority, Credential, House};
pub use proxy::{Proxy, Ringway};
pub use record::Record;
pub use wait::{DEADLINE, until};
pub use witness::{Bystander, Witness};

/// The proxy under test, which only the test's own crate knows the path of.
#[macro_export]
macro_rules! ringway {
    () => {
        $crate::Ringway::new(env!("CARGO_BIN_EXE_ringway"))
    };
}
