//! Session tickets of a listener, sealed and opened under its policy.

use divan::Bencher;

use crate::fixture::Edge;

/// What rustls keeps of a TLS 1.3 session without a client certificate is about this long.
const SESSION_BYTES: usize = 120;

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let edge = Edge::new();
    let session = [0x5a; SESSION_BYTES];
    bencher.bench_local(|| edge.server.ticketer.encrypt(&session).unwrap());
}

#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let edge = Edge::new();
    let ticket = edge
        .server
        .ticketer
        .encrypt(&[0x5a; SESSION_BYTES])
        .unwrap();
    bencher.bench_local(|| edge.server.ticketer.decrypt(&ticket).unwrap());
}
