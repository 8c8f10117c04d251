//! What single rooms of Ringway cost, without a socket and without another thread.
//!
//! `cargo bench -p ringway-bench --bench rooms`; a word behind `--` selects by name.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot begin has nothing else to say"
)]

mod balance;
mod config;
mod fixture;
mod handshake;
mod meters;
mod proto;
mod record;
mod tickets;

/// As in Ringway's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}
