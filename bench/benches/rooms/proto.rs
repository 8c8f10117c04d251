//! The sans-IO parsers.

use divan::{Bencher, black_box};
use ringway::proto::record::HEADER_BYTES;
use ringway::proto::{ClientHelloReader, Progress, record};
use rustls::crypto::aws_lc_rs::kx_group;

use crate::fixture::hello;

/// Some 250 bytes with X25519; some 1,450 with X25519MLKEM768.
#[divan::bench(args = ["x25519", "mlkem"])]
fn client_hello(bencher: Bencher<'_, '_>, group: &str) {
    let bytes = match group {
        "mlkem" => hello(vec![kx_group::X25519MLKEM768, kx_group::X25519]),
        _ => hello(vec![kx_group::X25519]),
    };
    assert!(matches!(
        ClientHelloReader::new().parse(&bytes),
        Progress::Complete(_)
    ));
    bencher.bench(|| ClientHelloReader::new().parse(black_box(&bytes)));
}

/// The worst of an honest network: a read for each hundred bytes.
#[divan::bench]
fn client_hello_in_pieces(bencher: Bencher<'_, '_>) {
    let bytes = hello(vec![kx_group::X25519MLKEM768, kx_group::X25519]);
    bencher.bench(|| {
        let mut reader = ClientHelloReader::new();
        let mut last = Progress::NeedMore;
        for end in (100..bytes.len()).step_by(100).chain([bytes.len()]) {
            last = reader.parse(black_box(&bytes[..end]));
        }
        last
    });
}

#[divan::bench]
fn not_tls(bencher: Bencher<'_, '_>) {
    let request = b"GET / HTTP/1.1\r\nHost: edge.ringway.test\r\n\r\n";
    bencher.bench(|| ClientHelloReader::new().parse(black_box(request)));
}

#[divan::bench]
fn record_header(bencher: Bencher<'_, '_>) {
    let bytes: [u8; HEADER_BYTES] = [23, 3, 3, 0x40, 0x11];
    bencher.bench(|| record::header(black_box(&bytes)));
}
