//! A client that uses the same runtime and TLS library as Ringway, as its users write them:
//! monoio with monoio-rustls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio_rustls::TlsConnector;
use ringway_support::link::Address;
use ringway_support::pattern::Pattern;
use ringway_support::peer::Peer;
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::{House, ringway};
use rustls::pki_types::ServerName;

/// Several records and several relay buffers.
const BYTES: usize = 1 << 20;

#[test]
fn a_monoio_rustls_client_gets_back_every_byte_it_sends_and_a_clean_end() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let proxy = ringway!().start(&front_to_back("", &house.terminate(), echo.address()));
    let Address::Ip(front) = proxy.address("front").clone() else {
        panic!("a TCP listener was asked for");
    };
    let connector = TlsConnector::from(ClientTls::trusting(&house.ca).config());

    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .build()
        .unwrap();
    let local = runtime.block_on(async move {
        let stream = TcpStream::connect(front).await.unwrap();
        let local = stream.local_addr().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = connector.connect(name, stream).await.unwrap();
        let sent = Pattern::new(11).take(BYTES);
        for piece in sent.chunks(64 * 1024) {
            let (written, piece) = tls.write_all(piece.to_vec()).await;
            written.unwrap();
            let (read, back) = tls.read_exact(vec![0; piece.len()]).await;
            read.unwrap();
            assert!(back == piece, "the echo differs");
        }
        tls.shutdown().await.unwrap();
        let (rest, _) = tls.read(vec![0; 16]).await;
        assert_eq!(rest.unwrap(), 0, "nothing but the end");
        local
    });
    let record = proxy.record_of(local);
    record.expect(&[("end", "finished"), ("path_up", "user")]);
    assert_eq!(record.count("bytes_down"), BYTES as u64);
}
