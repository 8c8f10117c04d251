//! One connection's story from top to bottom: hello, handshake, route, upstream, relay, end.

mod access;
mod announce;
mod core;
mod generation;
mod greet;
mod journal;
mod limit;
mod live;
mod proofs;
mod proxied;
mod relaying;
mod route;
mod served;
mod story;
mod watch;

pub use access::Access;
pub use core::{Core, Parts};
pub use generation::{Generation, ListenerState, ListenerTls};
pub use live::{Connection, Listed, Wanted};
pub use story::serve;
pub use watch::{RunState, Seat, Watch};
