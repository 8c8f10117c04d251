use rustls::SupportedCipherSuite;

use super::super::pair::{Pair, TLS12, TLS13, all, deliver, pair, records, sealed_by};
use super::*;
use crate::types::{Alert, Side};

const SIZES: [usize; 6] = [0, 1, 2, 1000, 16_383, 16_384];

fn text(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn sealer(pair: &Pair) -> Sealer {
    let (sequence, secrets) = &pair.secrets.tx;
    Sealer::new(secrets, *sequence, pair.tls13).unwrap()
}

/// One record around a copy of `plaintext`, in a buffer with no byte too many.
fn seal(sealer: &mut Sealer, content_type: ContentType, plaintext: &[u8]) -> Vec<u8> {
    let shape = sealer.shape();
    let place = shape.head_bytes()..shape.head_bytes() + plaintext.len();
    let mut buffer = vec![0xee; place.end + shape.tail_bytes()];
    buffer[place.clone()].copy_from_slice(plaintext);
    let record = sealer.seal(content_type, &mut buffer, place).unwrap();
    assert_eq!(record, 0..buffer.len());
    buffer
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<(ContentType, Vec<u8>), RecordError> {
    let mut record = record.to_vec();
    let (content_type, place) = opener.open(&mut record)?;
    Ok((content_type, record[place].to_vec()))
}

#[test]
fn rustls_reads_the_records_we_seal() {
    for (side, suite) in all() {
        let mut pair = pair(side, suite);
        let mut sealer = sealer(&pair);
        for bytes in SIZES.into_iter().chain(SIZES) {
            let record = seal(&mut sealer, ContentType::ApplicationData, &text(bytes));
            let read = deliver(&mut pair.peer, &record);
            assert!(read == text(bytes), "{suite:?} {side:?} {bytes}");
        }
    }
}

#[test]
fn we_read_the_records_rustls_seals() {
    for (side, suite) in all() {
        let mut pair = pair(side, suite);
        let mut opener = pair.opener();
        for record in records(&pair.received) {
            assert_eq!(
                open(&mut opener, &record).unwrap().0,
                ContentType::Handshake
            );
        }
        for bytes in [1, 2, 1000, 16_383, 16_384, 40_000] {
            let sent = sealed_by(&mut pair.peer, &text(bytes));
            let mut read = Vec::new();
            for record in records(&sent) {
                let (content_type, plaintext) = open(&mut opener, &record).unwrap();
                assert_eq!(content_type, ContentType::ApplicationData);
                read.extend(plaintext);
            }
            assert!(read == text(bytes), "{suite:?} {side:?} {bytes}");
        }
    }
}

#[test]
fn a_record_is_opened_as_the_standard_says_it_is_sealed() {
    for (side, suite) in all() {
        let pair = pair(side, suite);
        let (mut opener, mut forger) = (pair.opener(), pair.forger());
        for bytes in SIZES {
            for (code, content_type) in [
                (21, ContentType::Alert),
                (22, ContentType::Handshake),
                (23, ContentType::ApplicationData),
            ] {
                let record = forger.record(code, &text(bytes));
                let opened = open(&mut opener, &record);
                assert_eq!(opened, Ok((content_type, text(bytes))), "{suite:?} {bytes}");
            }
        }
    }
}

#[test]
fn nothing_beside_the_record_is_touched() {
    for suite in TLS13.into_iter().chain(TLS12) {
        let pair = pair(Side::Downstream, suite);
        let mut sealer = sealer(&pair);
        let mut buffer = vec![0xee; 200];
        let record = sealer
            .seal(ContentType::ApplicationData, &mut buffer, 60..100)
            .unwrap();
        let shape = sealer.shape();
        assert_eq!(record, 60 - shape.head_bytes()..100 + shape.tail_bytes());
        let beside = [&buffer[..record.start], &buffer[record.end..]].concat();
        assert!(beside.iter().all(|byte| *byte == 0xee), "{suite:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_but_in_the_length_is_refused() {
    for suite in TLS13.into_iter().chain(TLS12) {
        let pair = pair(Side::Downstream, suite);
        let record = pair.forger().record(23, b"forty-two");
        for bit in 0..record.len() * 8 {
            let at = bit / 8;
            // The length decides where the record ends: `stream` has the test of that.
            if at == 3 || at == 4 {
                continue;
            }
            let mut flipped = record.clone();
            flipped[at] ^= 1 << (bit % 8);
            let refused = open(&mut pair.opener(), &flipped).unwrap_err();
            let expected = if at == 0 {
                matches!(refused, RecordError::BadMac | RecordError::UnexpectedType)
            } else {
                refused == RecordError::BadMac
            };
            assert!(expected, "{suite:?}, bit {bit}: {refused:?}");
        }
        assert!(open(&mut pair.opener(), &record).is_ok());
    }
}

#[test]
fn a_record_cut_short_is_refused() {
    for suite in TLS13.into_iter().chain(TLS12) {
        let pair = pair(Side::Downstream, suite);
        let record = pair.forger().record(23, b"forty-two");
        for bytes in 0..record.len() {
            assert!(
                open(&mut pair.opener(), &record[..bytes]).is_err(),
                "{suite:?} {bytes}"
            );
        }
    }
}

#[test]
fn replayed_and_reordered_records_are_refused() {
    for suite in TLS13.into_iter().chain(TLS12) {
        let pair = pair(Side::Upstream, suite);
        let mut forger = pair.forger();
        let (first, second) = (forger.record(23, b"first"), forger.record(23, b"second"));
        let mut opener = pair.opener();
        assert!(open(&mut opener, &first).is_ok());
        assert_eq!(open(&mut opener, &first), Err(RecordError::BadMac));
        assert_eq!(
            open(&mut pair.opener(), &second),
            Err(RecordError::BadMac),
            "{suite:?}"
        );
    }
}

#[test]
fn padding_is_stripped_and_a_record_of_padding_alone_is_refused() {
    for suite in TLS13 {
        let pair = pair(Side::Downstream, suite);
        let (mut opener, mut forger) = (pair.opener(), pair.forger());
        for (content, padding) in [
            (&b"data"[..], 1),
            (&b"ends in zeros\0\0\0"[..], 300),
            (&b""[..], 16_384),
        ] {
            let opened = open(&mut opener, &forger.padded(23, content, padding));
            assert_eq!(
                opened,
                Ok((ContentType::ApplicationData, content.to_vec())),
                "{padding}"
            );
        }
        for padding in [0, 1, 16_384] {
            let record = pair.forger().padded(0, b"", padding);
            let refused = open(&mut pair.opener(), &record);
            assert_eq!(refused, Err(RecordError::NoContent), "{padding}");
        }
    }
}

#[test]
fn a_record_longer_than_its_version_allows_is_refused() {
    let refused = |suite: SupportedCipherSuite, content: usize, padding: usize| {
        let pair = pair(Side::Downstream, suite);
        let record = pair.forger().padded(23, &text(content), padding);
        open(&mut pair.opener(), &record).err()
    };
    for suite in TLS13 {
        assert_eq!(refused(suite, 16_384, 0), None);
        // RFC 8446 5.4: content, type and padding together are 2^14 + 1 at most.
        for (content, padding) in [(16_385, 0), (16_384, 1), (0, 16_385), (16_700, 0)] {
            let refused = refused(suite, content, padding);
            assert_eq!(refused, Some(RecordError::Overflow), "{content} {padding}");
        }
    }
    for suite in TLS12 {
        assert_eq!(refused(suite, 16_384, 0), None);
        assert_eq!(refused(suite, 16_385, 0), Some(RecordError::Overflow));
        assert_eq!(refused(suite, 18_000, 0), Some(RecordError::Overflow));
    }
}

#[test]
fn types_that_have_no_place_after_the_handshake_are_refused() {
    for suite in TLS13.into_iter().chain(TLS12) {
        let pair = pair(Side::Upstream, suite);
        for code in [0, 1, 20, 24, 255] {
            if suite.tls13().is_some() && code == 0 {
                continue; // A record of padding, above.
            }
            let record = pair.forger().record(code, &[1]);
            let refused = open(&mut pair.opener(), &record);
            assert_eq!(
                refused,
                Err(RecordError::UnexpectedType),
                "{suite:?} {code}"
            );
        }
    }
    for suite in TLS13 {
        let pair = pair(Side::Upstream, suite);
        for code in [20, 21, 22, 24] {
            let mut record = pair.forger().record(23, &[1]);
            record[0] = code;
            let refused = open(&mut pair.opener(), &record);
            assert_eq!(refused, Err(RecordError::UnexpectedType), "outer {code}");
        }
    }
}

#[test]
fn the_length_of_a_record_is_known_from_its_header_alone() {
    assert_eq!(record_bytes(&[]), Ok(None));
    assert_eq!(record_bytes(&[23, 3, 3, 0]), Ok(None));
    for foreign in [&b"G"[..], b"GET / HTTP/1.1", &[23, 2], &[19, 3, 3, 0, 0]] {
        assert_eq!(record_bytes(foreign), Err(RecordError::UnexpectedType));
    }
    assert_eq!(record_bytes(&[23, 3, 3, 0, 0]), Ok(Some(5)));
    assert_eq!(record_bytes(&[23, 3, 3, 1, 2, 99]), Ok(Some(5 + 258)));
    let longest = u16::try_from(16_384 + 2048).unwrap().to_be_bytes();
    assert_eq!(
        record_bytes(&[23, 3, 3, longest[0], longest[1]]),
        Ok(Some(RECORD_BYTES_MAX))
    );
    assert_eq!(
        record_bytes(&[23, 3, 3, longest[0], longest[1] + 1]),
        Err(RecordError::Overflow)
    );
}

#[test]
fn an_aes_key_ends_after_2_to_the_24_records_and_a_chacha_key_does_not() {
    for suite in TLS13.into_iter().chain(TLS12) {
        let pair = pair(Side::Downstream, suite);
        let sealer_at = |sequence| Sealer::new(&pair.secrets.tx.1, sequence, pair.tls13).unwrap();
        let chacha = matches!(
            pair.secrets.tx.1,
            ConnectionTrafficSecrets::Chacha20Poly1305 { .. }
        );
        assert!(!sealer_at((1 << 24) - 1025).nearly_exhausted());
        assert_eq!(
            sealer_at((1 << 24) - 1024).nearly_exhausted(),
            !chacha,
            "{suite:?}"
        );
        let mut last = sealer_at((1 << 24) - 1);
        let mut buffer = [0; 64];
        let kind = ContentType::ApplicationData;
        assert!(last.seal(kind, &mut buffer, 20..30).is_ok());
        let before = buffer;
        let beyond = last.seal(kind, &mut buffer, 20..30);
        assert_eq!(beyond.is_ok(), chacha, "{suite:?}");
        assert!(
            chacha || buffer == before,
            "what cannot be sealed is left alone"
        );
    }
}

#[test]
fn every_error_has_words_and_its_alert() {
    let errors = [
        (RecordError::BadMac, Alert::BAD_RECORD_MAC),
        (RecordError::Overflow, Alert::RECORD_OVERFLOW),
        (RecordError::UnexpectedType, Alert::UNEXPECTED_MESSAGE),
        (RecordError::NoContent, Alert::UNEXPECTED_MESSAGE),
    ];
    for (error, alert) in errors {
        assert_eq!(error.alert(), alert);
        assert!(!error.words().is_empty());
    }
}
