//! One connection's story from top to bottom: hello, handshake, route, upstream, relay, end.

mod core;
mod greet;
mod limit;
mod route;
mod story;
mod watch;

pub use core::{Core, ListenerState, Parts as CoreParts};
pub use story::serve;
pub use watch::{RunState, Watch};
