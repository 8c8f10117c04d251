//! The control thread: sockets, workers, names, signals. Nothing here moves a byte.

mod banner;
mod crew;
pub mod resolver;
mod sockets;
mod supervisor;

pub use supervisor::{Options, StartError, Started, start};
