//! Ringway: a TLS stream proxy for bare-metal Linux.
//!
//! The rooms, from the lowest layer to the highest. A room imports from lower layers or from
//! itself, never from its own layer's neighbour; `tests/architecture.rs` reads this table and
//! fails on any other import.
//!
//! | layer | rooms |
//! |---|---|
//! | 0 | [`types`], [`sys`] |
//! | 1 | [`config`], [`proto`] |
//! | 2 | [`observe`] |
//! | 3 | [`net`] |
//! | 4 | [`tls`] |
//! | 5 | [`upstream`], [`relay`] |
//! | 6 | [`session`] |
//! | 7 | [`worker`] |
//! | 8 | [`control`] |
//! | 9 | [`cli`] |

pub mod cli;
pub mod config;
pub mod control;
pub mod net;
pub mod observe;
pub mod proto;
pub mod relay;
pub mod session;
pub mod sys;
pub mod tls;
pub mod types;
pub mod upstream;
pub mod worker;
