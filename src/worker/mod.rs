//! One core: its thread, its ring, its listening sockets, its connections.

mod mailbox;
mod news;
mod next;
mod reports;
mod serve;
mod thread;

pub use mailbox::{Census, Letter, Mailbox, Postbox, Reply, mailbox};
pub use next::{Answer, Preparation, Switch};
pub use reports::{Reporter, Reports, Told, reports};
pub use thread::{Assignment, Driver, Listen, Shared, WorkerError, work};
