//! ClientHellos as bytes, well-formed and not.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection};

use crate::link::client_connection;

/// A client's connection and the record that holds its ClientHello.
///
/// # Panics
/// Never: a new connection has a hello to send.
#[must_use]
pub fn hello_of(config: &Arc<ClientConfig>, name: &str) -> (ClientConnection, Vec<u8>) {
    let mut connection = client_connection(config, name);
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection
            .write_tls(&mut hello)
            .expect("a vector takes all");
    }
    (connection, hello)
}

/// The same hello with another name of the same length, which need not be a valid one.
///
/// # Panics
/// When the name is not in the hello, or the lengths differ.
#[must_use]
pub fn with_name(hello: &[u8], name: &str, other: &[u8]) -> Vec<u8> {
    assert_eq!(name.len(), other.len(), "lengths stand in the hello");
    let at = hello
        .windows(name.len())
        .position(|window| window == name.as_bytes())
        .expect("the name stands in the hello");
    let mut changed = hello.to_vec();
    changed[at..at + other.len()].copy_from_slice(other);
    changed
}

/// The hello's one record cut into records of at most `piece` bytes (RFC 8446 5.1 allows it).
///
/// # Panics
/// When `hello` is no record.
#[must_use]
pub fn in_records_of(hello: &[u8], piece: usize) -> Vec<u8> {
    let pieces = hello[5..].chunks(piece);
    pieces.flat_map(handshake_record).collect()
}

/// A ClientHello of 64 KiB, almost all of it padding (RFC 7685), in records of 16 KiB.
#[must_use]
pub fn oversized_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x5A; 32]);
    // No session ID, one suite, no compression.
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    let padding = 65_536 - 4 - body.len() - 2 - 4;
    body.extend(u16_bytes(padding + 4));
    body.extend([0, 21]);
    body.extend(u16_bytes(padding));
    body.extend(vec![0; padding]);
    let mut message = vec![1, 0];
    message.extend(u16_bytes(body.len()));
    message.extend(body);
    message.chunks(16_384).flat_map(handshake_record).collect()
}

/// The hello of SSL 2.0 that browsers sent until 2005: two bytes of length with the top bit set.
#[must_use]
pub fn sslv2_hello() -> Vec<u8> {
    let mut hello = vec![0x80, 0x2E, 1, 0, 2, 0, 21, 0, 0, 0, 16];
    hello.extend([
        1, 0, 0x80, 2, 0, 0x80, 3, 0, 0x80, 4, 0, 0x80, 5, 0, 0x80, 6, 0, 0x40,
    ]);
    hello.extend([7, 0, 0xC0]);
    hello.extend([0x5A; 16]);
    hello
}

fn handshake_record(piece: &[u8]) -> Vec<u8> {
    let mut record = vec![22, 3, 1];
    record.extend(u16_bytes(piece.len()));
    record.extend(piece);
    record
}

fn u16_bytes(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("fits two bytes").to_be_bytes()
}
