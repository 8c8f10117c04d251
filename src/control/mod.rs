//! The control thread: sockets, workers, names, signals. Nothing here moves a byte.

mod banner;
mod board;
mod crew;
mod reports;
pub mod resolver;
mod signals;
mod sockets;
mod supervisor;

#[cfg(test)]
pub(crate) use supervisor::start_with;
pub use supervisor::{Options, StartError, Started, start};
