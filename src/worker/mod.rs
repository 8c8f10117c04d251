//! One core: its thread, its ring, its listening sockets, its connections.

mod mailbox;
mod reports;
mod serve;
mod thread;

pub use mailbox::{Letter, Mailbox, Postbox, mailbox};
pub use reports::{Reporter, Reports, reports};
pub use thread::{Assignment, Driver, Listen, Shared, WorkerError, work};
