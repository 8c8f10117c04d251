//! The system calls of `sys` that tell what kernel TLS has sealed.

use std::os::fd::AsFd as _;

use ringway::sys::{
    KtlsCipher, KtlsHalf, KtlsKeys, KtlsSuite, ktls_attach, ktls_next_sequence, ktls_send_record,
    ktls_set_keys, tcp_bytes_taken,
};
use ringway_support::{Link, Peer};

tests! {
    Ktls: the_kernel_tells_how_many_records_it_has_sealed,
}

/// What the limit of records and the end of a stream are reckoned with.
fn the_kernel_tells_how_many_records_it_has_sealed() {
    const RECORD_OVERHEAD: u64 = 22;
    let suite = KtlsSuite {
        tls13: true,
        cipher: KtlsCipher::Aes128Gcm,
    };
    let peer = Peer::plain();
    let sender = Link::connect(peer.address()).unwrap();
    let _receiver = peer.accept();
    let socket = sender.socket().as_fd();
    let keys = KtlsKeys {
        suite,
        key: &[1; 16],
        nonce: [2; 12],
        sequence: 16_000_000,
    };
    let taken_before = tcp_bytes_taken(socket).unwrap();
    ktls_attach(socket).unwrap();
    ktls_set_keys(socket, KtlsHalf::Transmit, &keys).unwrap();
    assert_eq!(ktls_next_sequence(socket, suite).unwrap(), 16_000_000);
    // One record, two, and a control record.
    sender.send_raw(&[0; 100]).unwrap();
    sender.send_raw(&[0; 20_000]).unwrap();
    ktls_send_record(socket, 21, &[1, 0]).unwrap();
    assert_eq!(ktls_next_sequence(socket, suite).unwrap(), 16_000_004);
    let taken = tcp_bytes_taken(socket).unwrap() - taken_before;
    assert_eq!(taken, 100 + 20_000 + 2 + 4 * RECORD_OVERHEAD);
}
