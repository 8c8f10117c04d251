//! Groups of servers: which one is next, and a connection to it.

mod balance;
mod connect;
mod group;

pub use connect::{Attempts, Connected, Request, connect};
pub use group::{Endpoint, Group};
