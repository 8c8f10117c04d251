//! Records that a peer may send, and that rustls and OpenSSL do not.

use ringway_support::Ending;

use crate::forger::{BOTH_ROLES, DATA, Forged, HANDSHAKE};

tests! {
    Ktls: empty_records_lose_nothing_and_end_nothing,
    Ktls: padded_records_lose_nothing,
    Ktls: a_flood_of_empty_records_loses_nothing,
    Ktls: a_handshake_message_in_pieces_is_put_together,
    Ktls: a_handshake_message_that_has_no_place_is_a_protocol_error,
}

fn empty_records_lose_nothing_and_end_nothing() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        for round in 0..20_u8 {
            let mut records = Vec::new();
            for _ in 0..3 {
                records.extend(forged.forger.record(DATA, &[]));
            }
            records.extend(forged.forger.record(DATA, &[round; 1000]));
            records.extend(forged.forger.padded(DATA, &[], 300));
            forged.own.send_raw(&records).unwrap();
            assert_eq!(forged.other.receive(1000), [round; 1000], "{role:?}");
        }
        forged.expect_service();
    }
}

fn padded_records_lose_nothing() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        let mut expected = Vec::new();
        let mut records = Vec::new();
        for (content, padding) in [(1, 1), (1000, 255), (3, 16_380), (16_384, 0), (8000, 8000)] {
            for round in 1..6_u8 {
                // Content that ends in zeroes is no padding.
                let mut bytes = vec![round; content];
                bytes[content / 2..].fill(0);
                records.extend(forged.forger.padded(DATA, &bytes, padding));
                expected.extend(bytes);
            }
        }
        forged.own.send_raw(&records).unwrap();
        let came = forged.other.receive(expected.len());
        assert!(came == expected, "{role:?}: other bytes than were sealed");
        forged.expect_service();
    }
}

/// The kernel passes over them by itself: it is not told how many there were.
fn a_flood_of_empty_records_loses_nothing() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        for _ in 0..10 {
            let flood: Vec<_> = (0..50)
                .flat_map(|_| forged.forger.record(DATA, &[]))
                .collect();
            forged.own.send_raw(&flood).unwrap();
            forged.send(b"data");
            assert_eq!(forged.other.receive(4), b"data", "{role:?}");
        }
        forged.expect_service();
    }
}

/// A ticket that nobody will use: lifetime, age_add, nonce, ticket, no extensions.
fn ticket(filled_with: u8) -> Vec<u8> {
    let mut ticket = vec![4, 0, 0, 0, 0, 0, 0, 60, 1, 2, 3, 4, 1, 7, 0, 200];
    ticket.extend([filled_with; 200]);
    ticket.extend([0, 0]);
    ticket[3] = u8::try_from(ticket.len() - 4).unwrap();
    ticket
}

/// A kernel that can change keys takes every handshake record that begins with 24 for a KeyUpdate.
fn a_handshake_message_in_pieces_is_put_together() {
    const KEY_UPDATE: u8 = 24;
    for filled_with in [9, KEY_UPDATE] {
        let mut forged = Forged::start(crate::forger::Role::Server);
        for piece in ticket(filled_with).chunks(50) {
            let record = forged.forger.record(HANDSHAKE, piece);
            forged.own.send_raw(&record).unwrap();
        }
        forged.expect_service();
    }
}

fn a_handshake_message_that_has_no_place_is_a_protocol_error() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        // A ClientHello.
        let hello = forged.forger.record(HANDSHAKE, &[1, 0, 0, 1, 0]);
        forged.own.send_raw(&hello).unwrap();
        let told = forged.own.expect_end();
        assert!(
            matches!(&told, Ending::Broken(words) if words.contains("UnexpectedMessage")),
            "{role:?}: {told:?}"
        );
        assert!(!forged.other.expect_end().looks_complete());
        let record = forged.record();
        record.expect(&[("end", "protocol_error"), ("alert", "unexpected_message")]);
    }
}
