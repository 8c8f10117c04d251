//! The record layer at a message of 64 bytes and at the longest record (RFC 8446 5.1).

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use divan::Bencher;
use divan::counter::BytesCount;
use ringway::net::{Buffers, Inbound, Parts, Socket};
use ringway::tls::{Opened, TlsLeg, Unsent, establish};
use rustls::ClientConnection;

use crate::fixture::{Edge, connection, sealed_by, shake};

const SIZES: [usize; 2] = [64, 16 * 1024];

fn leg() -> (TlsLeg, ClientConnection) {
    let edge = Edge::new();
    let mut client = connection(&edge.client(&rustls::version::TLS13));
    let engine = shake(&edge.server, &mut client);
    (establish(engine, Unsent::default(), false).unwrap(), client)
}

#[divan::bench(args = SIZES)]
fn seal(bencher: Bencher<'_, '_>, bytes: usize) {
    let mut writer = leg().0.writer;
    let shape = writer.shape().unwrap();
    let place = shape.head_bytes()..shape.head_bytes() + bytes;
    let mut buffer = vec![0x5a; place.end + shape.tail_bytes()];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        writer
            .seal(&mut buffer, &mut Parts::one(place.clone()))
            .unwrap();
    });
}

/// Records come in the order in which the client sealed them: divan makes the inputs in turn, and
/// takes them in turn.
#[divan::bench(args = SIZES, sample_size = 1)]
fn open(bencher: Bencher<'_, '_>, bytes: usize) {
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
        .build()
        .unwrap();
    // Sockets of ours are made within a runtime; nothing here waits on it.
    runtime.block_on(async { open_within_runtime(bencher, bytes) });
}

fn open_within_runtime(bencher: Bencher<'_, '_>, bytes: usize) {
    let (mut leg, mut client) = leg();
    let (mut near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let socket = Socket::new(OwnedFd::from(far)).unwrap();
    let (buffers, data) = (Buffers::default(), vec![0x5a; bytes]);
    let received = || {
        near.write_all(&sealed_by(&mut client, &data)).unwrap();
        let mut inbound = Inbound::default();
        inbound.try_receive(&socket, &buffers, false).unwrap();
        inbound
    };
    bencher
        .counter(BytesCount::new(bytes))
        .with_inputs(received)
        .bench_local_values(|mut inbound| {
            let mut parts = Parts::default();
            let opened = leg.reader.open(&mut inbound, &mut parts, &leg.shared);
            assert_eq!(opened, Ok(Opened::Data));
            inbound
        });
}
