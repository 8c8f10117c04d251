//! Ringway: a TLS stream proxy for bare-metal Linux.
//!
//! The rooms, from the lowest layer to the highest. A room imports from lower layers or from
//! itself; `tests/architecture.rs` fails on an upward import.
//!
//! | layer | rooms |
//! |---|---|
//! | 0 | [`types`], [`sys`] |
//! | 1 | [`config`], [`proto`], [`observe`] |
//! | 2 | [`net`] |
//! | 3 | [`tls`] |
//! | 4 | [`upstream`], [`relay`] |
//! | 5 | [`session`] |
//! | 6 | [`worker`] |
//! | 7 | [`control`] |
//! | 8 | [`cli`] |

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
