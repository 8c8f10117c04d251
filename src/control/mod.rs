//! The control thread: sockets, workers, names, checks, signals. Nothing here moves a byte.

mod admin;
mod banner;
mod board;
mod crew;
mod prober;
mod reports;
pub mod resolver;
mod signals;
mod sockets;
mod supervisor;

#[cfg(test)]
pub(crate) use supervisor::start_with;
pub use supervisor::{Options, StartError, Started, start};
