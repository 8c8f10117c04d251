//! How a process takes the listening sockets of the running one over, so that a new binary serves
//! without a connection refused or reset.
//!
//! The running process waits at a unix socket, its [`Door`]. The successor knocks, is given copies
//! of all listening sockets (SCM_RIGHTS), prepares everything, and says so when its workers accept.
//! Only then the predecessor stops accepting and drains. Connections that wait in a queue belong to
//! the socket, which both have: none is lost, whichever process ends when. Until the predecessor has
//! heard that word it goes on as if nothing had happened.
//!
//! The door itself is handed on, too: neither process has to make a file while the other uses it.

mod door;
mod message;
mod taking;
mod wire;

pub(super) use door::{Door, Offer, Request, Taken};
pub(super) use taking::{Predecessor, Relieved, TakeoverError, ask};
