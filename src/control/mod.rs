//! The control thread: sockets, workers, names, checks, signals. Nothing here moves a byte.

pub mod admin;
mod banner;
mod board;
pub mod confine;
mod crew;
mod inherited;
mod key_logs;
mod key_rings;
mod metrics;
pub mod notify;
mod outside;
mod prober;
mod reload;
mod reports;
pub mod resolver;
mod shared;
mod signals;
mod socket_file;
mod sockets;
mod succession;
mod supervisor;
mod takeover;
mod watchdog;

pub use confine::Enclosure;
pub use reload::{Change, Changes, Checked, Examined, compare, examine};
#[cfg(test)]
pub(crate) use supervisor::start_with;
pub use supervisor::{Options, StartError, Started, start};
