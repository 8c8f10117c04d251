//! Whole handshakes in memory, both ends together: Ringway's server and rustls's client.

use divan::Bencher;
use ringway::tls::{Engine, Unsent, establish};
use rustls::{HandshakeKind, SupportedProtocolVersion};

use crate::fixture::{Edge, connection, shake};

fn version(name: &str) -> &'static SupportedProtocolVersion {
    match name {
        "1.2" => &rustls::version::TLS12,
        _ => &rustls::version::TLS13,
    }
}

/// A client that has never been here each time.
#[divan::bench(args = ["1.3", "1.2"])]
fn full(bencher: Bencher<'_, '_>, tls: &str) {
    let edge = Edge::new();
    bencher
        .with_inputs(|| connection(&edge.client(version(tls))))
        .bench_local_values(|mut client| {
            let engine = shake(&edge.server, &mut client);
            debug_assert_eq!(engine.common().handshake_kind(), Some(HandshakeKind::Full));
            establish(engine, Unsent::default(), false).unwrap()
        });
}

/// Each comes back with the ticket of a handshake of its own.
#[divan::bench(args = ["1.3", "1.2"])]
fn resumed(bencher: Bencher<'_, '_>, tls: &str) {
    let edge = Edge::new();
    let returning = || {
        let config = edge.client(version(tls));
        shake(&edge.server, &mut connection(&config));
        connection(&config)
    };
    let mut probe = returning();
    let kind = shake(&edge.server, &mut probe).common().handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    bencher
        .with_inputs(returning)
        .bench_local_values(|mut client| {
            establish(shake(&edge.server, &mut client), Unsent::default(), false).unwrap()
        });
}
