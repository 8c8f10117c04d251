//! The load: clients and upstream servers in this process, on cores of their own, polled busily.
//!
//! Every socket is non-blocking and asked again each turn; nothing here ever sleeps in the kernel
//! and no poll or ring entry hangs on a socket. So the proxy is charged neither for waking a
//! sleeper on another core nor for running somebody's readiness callback. monoio is the executor;
//! its ring is not used for I/O, for that very reason. monoio-rustls is not used either: it sends
//! each record in two pieces, which the proxy would pay for, and does not tell the handshake's
//! kind while the stream lives.

mod arrivals;
mod carousel;
mod client;
mod connect;
mod open;
mod run;
mod scene;
mod socket;
mod stream;
mod tally;
mod team;
mod tls;
mod upstream;

pub(crate) use open::ARRIVALS_IN_FLIGHT_MAX;
pub(crate) use run::{Load, RunFigures, run};
pub(crate) use tally::{Latencies, Tally};
pub(crate) use upstream::{UpstreamSocket, server_addresses, server_count};
