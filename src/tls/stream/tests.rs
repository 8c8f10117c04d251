use rustls::{Connection, SupportedCipherSuite};

use super::super::pair::{
    Pair, TLS12, TLS13, all, deliver, leg, open_all, pair, records, sealed_by, sent_by,
};
use super::super::record::RECORD_BYTES_MAX;
use super::super::writer::{Control, Sealing, TlsWriter, seals_in_place, small};
use super::*;
use crate::net::PARTS_MAX;
use crate::types::Side;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

type End = Result<Opened, ReadError>;

fn every_suite() -> impl Iterator<Item = SupportedCipherSuite> {
    TLS13.into_iter().chain(TLS12)
}

/// What a fresh reader makes of these records, which the peer seals in this order.
fn read(pair: &Pair, contents: &[(u8, &[u8])]) -> (Vec<u8>, End) {
    let mut forger = pair.forger();
    let mut wire = Vec::new();
    for (content_type, content) in contents {
        wire.extend(forger.record(*content_type, content));
    }
    open_all(&mut pair.reader(), &pair.shared, &wire)
}

fn refusal(end: &End) -> Alert {
    match end {
        Err(ReadError::Unexpected(words, alert)) if !words.is_empty() => *alert,
        other => panic!("expected a refusal with words, got {other:?}"),
    }
}

fn sealed(control: &Control) -> &[u8] {
    match control {
        Control::Sealed(records) => records,
        Control::ForKernel(..) => panic!("nothing was handed to the kernel"),
    }
}

/// Sends `data` to rustls, a key update first where one is due. What rustls read of it.
fn send(writer: &mut TlsWriter, shared: &Shared, peer: &mut Connection, data: &[u8]) -> Vec<u8> {
    let mut wire = writer.before_data(shared).unwrap();
    let shape = writer.shape().unwrap();
    let place = shape.head_bytes()..shape.head_bytes() + data.len();
    let mut buffer = vec![0; place.end + shape.tail_bytes()];
    buffer[place.clone()].copy_from_slice(data);
    let mut parts = Parts::one(place);
    writer.seal(&mut buffer, &mut parts).unwrap();
    wire.extend_from_slice(&buffer[parts.ranges()[0].clone()]);
    deliver(peer, &wire)
}

#[test]
fn an_established_leg_speaks_with_rustls_both_ways() {
    for (side, suite) in all() {
        let (mut ours, mut peer, received) = leg(side, suite);
        let tickets = open_all(&mut ours.reader, &ours.shared, &received);
        assert_eq!(tickets, (Vec::new(), Ok(Opened::NeedMore)));
        for round in 0..20_u8 {
            let data = vec![round; usize::from(round) * 700 + 1];
            let sent = sealed_by(&mut peer, &data);
            let (read, end) = open_all(&mut ours.reader, &ours.shared, &sent);
            assert!(
                read == data && end == Ok(Opened::NeedMore),
                "{suite:?} {end:?}"
            );
            let heard = send(&mut ours.writer, &ours.shared, &mut peer, &data);
            assert!(heard == data, "{suite:?}, round {round}");
        }
    }
}

#[test]
fn no_more_records_are_opened_at_once_than_parts_have_room_for() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let (mut reader, mut forger) = (pair.reader(), pair.forger());
        let wire: Vec<u8> = (0..20).flat_map(|n| forger.record(DATA, &[n])).collect();
        let mut inbound = Inbound::holding(&wire);
        let mut looks = Vec::new();
        loop {
            let mut parts = Parts::default();
            match reader.open(&mut inbound, &mut parts, &pair.shared) {
                Ok(Opened::Data) => looks.push(parts.ranges().len()),
                end => break assert_eq!(end, Ok(Opened::NeedMore)),
            }
        }
        assert_eq!(looks, [PARTS_MAX, PARTS_MAX, 20 - 2 * PARTS_MAX]);
        assert!(inbound.is_empty());
    }
}

#[test]
fn each_part_keeps_the_room_that_its_record_had_around_it() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let mut forger = pair.forger();
        let wire = [forger.record(DATA, b"one"), forger.record(DATA, b"another")].concat();
        let (mut inbound, mut parts) = (Inbound::holding(&wire), Parts::default());
        let mut reader = pair.reader();
        let opened = reader.open(&mut inbound, &mut parts, &pair.shared);
        assert_eq!(opened, Ok(Opened::Data));
        let (head, tail) = (
            reader.shape().unwrap().head_bytes(),
            reader.shape().unwrap().tail_bytes(),
        );
        let [one, another] = parts.ranges() else {
            panic!("{parts:?}")
        };
        assert_eq!(one.start, head);
        assert_eq!(another.start - head, one.end + tail);
        assert_eq!(another.end + tail, wire.len());
    }
}

#[test]
fn a_part_of_a_record_waits_for_the_rest() {
    for suite in every_suite() {
        let pair = pair(Side::Upstream, suite);
        let record = pair.forger().record(DATA, b"the whole of it");
        let mut reader = pair.reader();
        for bytes in 0..record.len() {
            let opened = open_all(&mut reader, &pair.shared, &record[..bytes]);
            assert_eq!(opened, (Vec::new(), Ok(Opened::NeedMore)), "{bytes}");
        }
        let (data, _) = open_all(&mut reader, &pair.shared, &record);
        assert_eq!(data, b"the whole of it");
    }
}

#[test]
fn no_altered_record_gives_a_byte_of_data() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let mut forger = pair.forger();
        let wire = [forger.record(DATA, b"forty-two"), forger.record(DATA, b"!")].concat();
        let first_bytes = record_bytes(&wire).unwrap().unwrap();
        for bit in 0..first_bytes * 8 {
            let mut altered = wire.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let (data, end) = open_all(&mut pair.reader(), &pair.shared, &altered);
            assert!(data.is_empty(), "{suite:?}, bit {bit}");
            // A longer record may not have come whole yet; it never will be one.
            let waits = end == Ok(Opened::NeedMore) && (3..5).contains(&(bit / 8));
            assert!(
                waits || matches!(end, Err(ReadError::Record(_))),
                "{suite:?}, bit {bit}: {end:?}"
            );
        }
    }
}

#[test]
fn data_before_a_broken_record_is_given_first() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let mut forger = pair.forger();
        let good = forger.record(DATA, b"good");
        let mut bad = forger.record(DATA, b"bad");
        *bad.last_mut().unwrap() ^= 1;
        let mut reader = pair.reader();
        let mut inbound = Inbound::holding(&[good, bad].concat());
        let mut parts = Parts::default();
        let mut look = |parts: &mut Parts| reader.open(&mut inbound, parts, &pair.shared);
        assert_eq!(look(&mut parts), Ok(Opened::Data));
        let refused = Err(ReadError::Record(RecordError::BadMac));
        for _ in 0..2 {
            assert_eq!(look(&mut Parts::default()), refused, "and stays so");
        }
    }
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_its_body_comes() {
    let [high, low] = u16::try_from(RECORD_BYTES_MAX - HEADER_BYTES + 1)
        .unwrap()
        .to_be_bytes();
    let pair = pair(Side::Downstream, TLS12[0]);
    let (_, end) = open_all(&mut pair.reader(), &pair.shared, &[23, 3, 3, high, low]);
    assert_eq!(end, Err(ReadError::Record(RecordError::Overflow)));
}

#[test]
fn close_notify_ends_the_stream_and_what_follows_it_is_not_read() {
    for (side, suite) in all() {
        let mut pair = pair(side, suite);
        let mut reader = pair.reader();
        let tickets = std::mem::take(&mut pair.received);
        open_all(&mut reader, &pair.shared, &tickets).1.unwrap();
        let mut wire = sealed_by(&mut pair.peer, b"bye");
        pair.peer.send_close_notify();
        wire.extend(sent_by(&mut pair.peer));
        wire.extend_from_slice(b"anything");
        let opened = open_all(&mut reader, &pair.shared, &wire);
        assert_eq!(opened, (b"bye".to_vec(), Ok(Opened::Closed)), "{suite:?}");
    }
}

#[test]
fn rustls_takes_our_close_notify_and_our_alerts() {
    for (side, suite) in all() {
        let (mut ours, mut peer, _) = leg(side, suite);
        let record = ours.writer.close_notify(&ours.shared).unwrap();
        deliver(&mut peer, sealed(&record));
        assert!(peer.process_new_packets().unwrap().peer_has_closed());

        let (mut ours, mut peer, _) = leg(side, suite);
        let record = ours
            .writer
            .last_alert(Alert::BAD_RECORD_MAC, &ours.shared)
            .unwrap();
        peer.read_tls(&mut sealed(&record)).unwrap();
        let received = peer.process_new_packets().unwrap_err();
        let expected = rustls::AlertDescription::BadRecordMac;
        assert_eq!(
            received,
            rustls::Error::AlertReceived(expected),
            "{suite:?}"
        );
    }
}

#[test]
fn alerts_mean_what_their_version_says() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let end = |content: &[u8]| read(&pair, &[(ALERT, content)]).1;
        assert_eq!(end(&[1, 0]), Ok(Opened::Closed));
        assert_eq!(end(&[2, 0]), Ok(Opened::Closed));
        assert_eq!(end(&[1, 90]), Ok(Opened::NeedMore), "user_canceled");
        assert_eq!(end(&[2, 40]), Err(ReadError::Alert(Alert(40))));
        let warning = if pair.tls13 {
            Err(ReadError::Alert(Alert::NO_RENEGOTIATION))
        } else {
            Ok(Opened::NeedMore)
        };
        assert_eq!(end(&[1, 100]), warning, "{suite:?}");
        assert_eq!(refusal(&end(&[2])), Alert::DECODE_ERROR);
        assert_eq!(refusal(&end(&[2, 40, 0])), Alert::DECODE_ERROR);
    }
}

#[test]
fn handshake_and_alert_records_without_content_are_refused() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        for content_type in [ALERT, HANDSHAKE] {
            let (_, end) = read(&pair, &[(content_type, b"")]);
            assert_eq!(refusal(&end), Alert::UNEXPECTED_MESSAGE, "{suite:?}");
        }
    }
}

#[test]
fn a_flood_of_records_without_data_ends_and_data_makes_room_for_more() {
    let flood = IDLE_RECORDS_MAX as usize;
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        for idle in [(DATA, &b""[..]), (ALERT, &[1, 90])] {
            let mut contents = vec![idle; flood];
            contents.push((DATA, b"data"));
            contents.extend(vec![idle; flood]);
            let (data, end) = read(&pair, &contents);
            assert_eq!((data, end), (b"data".to_vec(), Ok(Opened::NeedMore)));
            contents.push(idle);
            let (_, end) = read(&pair, &contents);
            assert_eq!(refusal(&end), Alert::UNEXPECTED_MESSAGE, "{suite:?}");
        }
    }
}

#[test]
fn a_key_update_of_the_peer_is_followed_and_answered_before_the_next_data() {
    for suite in TLS13 {
        for side in [Side::Downstream, Side::Upstream] {
            let (mut ours, mut peer, received) = leg(side, suite);
            open_all(&mut ours.reader, &ours.shared, &received)
                .1
                .unwrap();
            for _ in 0..3 {
                // rustls asks for an update of ours with each of its own.
                peer.refresh_traffic_keys().unwrap();
                let wire = sealed_by(&mut peer, b"new keys");
                let (data, _) = open_all(&mut ours.reader, &ours.shared, &wire);
                assert_eq!(data, b"new keys");
                assert!(ours.shared.requested.get());
                let heard = send(&mut ours.writer, &ours.shared, &mut peer, b"mine too");
                assert_eq!(heard, b"mine too");
                assert_eq!(ours.writer.before_data(&ours.shared), Ok(Vec::new()));
            }
        }
    }
}

#[test]
fn a_key_update_that_asks_for_none_is_not_answered() {
    for suite in TLS13 {
        let (mut ours, mut peer, _) = leg(Side::Downstream, suite);
        // We ask once, which only a test does, and rustls answers without asking back.
        let ask = [HANDSHAKE_KEY_UPDATE, 0, 0, 1, 1];
        let Sealing::User(sealer) = &mut ours.writer.sealing else {
            panic!("nothing was handed to the kernel");
        };
        let record = small(sealer, ContentType::Handshake, &ask).unwrap();
        *sealer = ours.shared.next_sealer().unwrap();
        deliver(&mut peer, &record);
        let wire = sealed_by(&mut peer, b"answer");
        assert_eq!(
            records(&wire).len(),
            2,
            "the key update and the data behind it"
        );
        let (data, _) = open_all(&mut ours.reader, &ours.shared, &wire);
        assert_eq!(data, b"answer");
        assert_eq!(ours.writer.before_data(&ours.shared), Ok(Vec::new()));
        assert_eq!(
            send(&mut ours.writer, &ours.shared, &mut peer, b"on"),
            b"on"
        );
    }
}

#[test]
fn a_key_near_its_limit_is_renewed_and_before_tls_1_3_ends_the_connection() {
    const NEAR: u64 = (1 << 24) - 1024;
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let sealer = Sealer::new(&pair.secrets.tx.1, NEAR, pair.tls13).unwrap();
        let chacha = !sealer.nearly_exhausted();
        let mut writer = TlsWriter::new(sealer);
        let update = writer.before_data(&pair.shared);
        match (chacha, pair.tls13) {
            (true, _) => assert_eq!(update, Ok(Vec::new())),
            (false, true) => assert!(!update.unwrap().is_empty()),
            (false, false) => assert_eq!(update, Err(Exhausted)),
        }
        if pair.tls13 {
            assert_eq!(writer.before_data(&pair.shared), Ok(Vec::new()));
        }
        // The last words still go out.
        assert!(
            writer
                .last_alert(Alert::INTERNAL_ERROR, &pair.shared)
                .is_ok(),
            "{suite:?}"
        );
    }
}

#[test]
fn a_malformed_key_update_is_refused() {
    for suite in TLS13 {
        let pair = pair(Side::Downstream, suite);
        let end = |content: &[u8]| refusal(&read(&pair, &[(HANDSHAKE, content)]).1);
        assert_eq!(end(&[24, 0, 0, 1, 2]), Alert::ILLEGAL_PARAMETER);
        assert_eq!(end(&[24, 0, 0, 0]), Alert::ILLEGAL_PARAMETER);
        assert_eq!(end(&[24, 0, 0, 2, 0, 0]), Alert::ILLEGAL_PARAMETER);
        // The next record has new keys, so nothing may follow in this one.
        let two = [KEY_UPDATE, KEY_UPDATE].concat();
        assert_eq!(end(&two), Alert::UNEXPECTED_MESSAGE);
        let one_and_a_bit = [&KEY_UPDATE[..], &[24]].concat();
        assert_eq!(end(&one_and_a_bit), Alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn a_handshake_message_may_come_in_pieces() {
    for suite in TLS13 {
        let pair = pair(Side::Downstream, suite);
        let (mut reader, mut forger) = (pair.reader(), pair.forger());
        for byte in KEY_UPDATE {
            let record = forger.record(HANDSHAKE, &[byte]);
            let opened = open_all(&mut reader, &pair.shared, &record);
            assert_eq!(opened, (Vec::new(), Ok(Opened::NeedMore)));
        }
        assert_eq!(reader.message.capacity(), 0, "nothing is kept of it");
        let old_key = forger.record(DATA, b"late");
        let (_, end) = open_all(&mut reader, &pair.shared, &old_key);
        assert_eq!(end, Err(ReadError::Record(RecordError::BadMac)));
    }
}

#[test]
fn nothing_may_interrupt_a_handshake_message() {
    for suite in TLS13 {
        let pair = pair(Side::Downstream, suite);
        let interruptions = [(DATA, &b"data"[..]), (DATA, b""), (ALERT, &[1, 0])];
        for interruption in interruptions {
            let (data, end) = read(&pair, &[(HANDSHAKE, &KEY_UPDATE[..3]), interruption]);
            assert!(data.is_empty());
            assert_eq!(refusal(&end), Alert::UNEXPECTED_MESSAGE, "{interruption:?}");
        }
    }
}

#[test]
fn a_handshake_message_without_end_is_refused() {
    for suite in TLS13 {
        let pair = pair(Side::Upstream, suite);
        let mut start = vec![0; 16_384];
        start[..4].copy_from_slice(&[HANDSHAKE_NEW_SESSION_TICKET, 0xff, 0xff, 0xff]);
        let (mut reader, mut forger) = (pair.reader(), pair.forger());
        let fits = HANDSHAKE_BYTES_MAX / start.len();
        for _ in 0..fits {
            let record = forger.record(HANDSHAKE, &start);
            assert!(open_all(&mut reader, &pair.shared, &record).1.is_ok());
        }
        let (_, end) = open_all(&mut reader, &pair.shared, &forger.record(HANDSHAKE, &[0]));
        assert_eq!(refusal(&end), Alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn a_message_that_has_no_place_is_refused_at_its_first_byte() {
    for suite in every_suite() {
        let pair = pair(Side::Downstream, suite);
        let (_, end) = read(&pair, &[(HANDSHAKE, &[HANDSHAKE_NEW_SESSION_TICKET])]);
        let expected = if pair.tls13 {
            Alert::UNEXPECTED_MESSAGE
        } else {
            Alert::NO_RENEGOTIATION
        };
        assert_eq!(refusal(&end), expected, "{suite:?}");
    }
}

#[test]
fn a_ticket_is_kept_from_a_server_and_refused_from_a_client() {
    let ticket = [HANDSHAKE_NEW_SESSION_TICKET, 0, 0, 3, 1, 2, 3];
    for suite in TLS13 {
        let client = pair(Side::Upstream, suite);
        assert!(!client.received.is_empty(), "rustls sends tickets");
        let mut reader = client.reader();
        let (_, end) = open_all(&mut reader, &client.shared, &client.received);
        assert_eq!(end, Ok(Opened::NeedMore));
        // One that makes no sense costs the ticket, not the connection.
        let (_, end) = read(&client, &[(HANDSHAKE, &ticket)]);
        assert_eq!(end, Ok(Opened::NeedMore));
        let server = pair(Side::Downstream, suite);
        let (_, end) = read(&server, &[(HANDSHAKE, &ticket)]);
        assert_eq!(refusal(&end), Alert::UNEXPECTED_MESSAGE);
    }
}

#[test]
fn other_messages_after_the_handshake_are_refused() {
    for suite in TLS13 {
        for side in [Side::Downstream, Side::Upstream] {
            let pair = pair(side, suite);
            for kind in [0, 1, 2, 11, 13, 20, 255] {
                let (_, end) = read(&pair, &[(HANDSHAKE, &[kind, 0, 0, 0])]);
                assert_eq!(refusal(&end), Alert::UNEXPECTED_MESSAGE, "{side:?} {kind}");
            }
        }
    }
}

#[test]
fn renegotiation_is_ignored_where_a_client_may_and_refused_elsewhere() {
    let (hello_request, client_hello) = ([0, 0, 0, 0], [1, 0, 0, 0]);
    for suite in TLS12 {
        let client = pair(Side::Upstream, suite);
        let contents = [(HANDSHAKE, &hello_request[..]), (DATA, b"goes on")];
        assert_eq!(
            read(&client, &contents),
            (b"goes on".to_vec(), Ok(Opened::NeedMore))
        );
        let (_, end) = read(&client, &[(HANDSHAKE, &KEY_UPDATE)]);
        assert_eq!(refusal(&end), Alert::NO_RENEGOTIATION);
        let server = pair(Side::Downstream, suite);
        for message in [hello_request, client_hello] {
            let (_, end) = read(&server, &[(HANDSHAKE, &message)]);
            assert_eq!(refusal(&end), Alert::NO_RENEGOTIATION);
        }
    }
}

#[test]
fn records_are_sealed_where_they_were_opened_if_the_room_around_them_is_enough() {
    let shapes = [Shape::Tls13, Shape::Tls12Gcm, Shape::Tls12Chacha];
    let table = shapes.map(|from| shapes.map(|to| seals_in_place(from, to)));
    // 1.3 has 5 before and 17 after the plaintext; 1.2 with GCM 13 and 16; with ChaCha 5 and 16.
    assert_eq!(
        table,
        [
            [true, false, true],
            [false, true, true],
            [false, false, true],
        ]
    );
}

#[test]
fn what_is_opened_in_one_leg_is_sealed_in_place_for_the_other() {
    for from in every_suite() {
        for to in every_suite() {
            let (mut client, mut server) = (leg(Side::Downstream, from), leg(Side::Upstream, to));
            let from = client.0.reader.shape().unwrap();
            if !seals_in_place(from, server.0.writer.shape().unwrap()) {
                continue;
            }
            let sent: Vec<u8> = (0..=250).cycle().take(40_000).collect();
            let wire = sealed_by(&mut client.1, &sent);
            let mut inbound = Inbound::holding(&wire);
            let mut parts = Parts::default();
            let opened = client
                .0
                .reader
                .open(&mut inbound, &mut parts, &client.0.shared);
            assert_eq!(opened, Ok(Opened::Data));
            let buffer = inbound.whole().0;
            server.0.writer.seal(buffer, &mut parts).unwrap();
            let out = parts.ranges().iter().map(|range| &buffer[range.clone()]);
            let heard = deliver(&mut server.1, &out.collect::<Vec<_>>().concat());
            assert!(heard == sent, "{from:?} to {to:?}");
        }
    }
}

/// A small generator, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    /// Fewer than `count_max`, each below `bound`: small values are message types and lengths.
    fn bytes(&mut self, count_max: usize, bound: usize) -> Vec<u8> {
        (0..self.below(count_max))
            .map(|_| u8::try_from(self.below(bound)).unwrap())
            .collect()
    }
}

#[test]
fn no_bytes_at_all_make_the_reader_panic_or_lie() {
    let mut random = Random(20_260);
    for (side, suite) in all() {
        let pair = pair(side, suite);
        for _ in 0..150 {
            let mut forger = pair.forger();
            let mut wire = Vec::new();
            for _ in 0..1 + random.below(4) {
                let content_type = [20, ALERT, HANDSHAKE, DATA][random.below(4)];
                let content = random.bytes(40, 30);
                wire.extend(forger.padded(content_type, &content, random.below(3)));
            }
            for _ in 0..random.below(3) {
                let at = random.below(wire.len());
                wire[at] ^= 1 << random.below(8);
            }
            wire.truncate(random.below(wire.len() + 1));
            let (data, _) = open_all(&mut pair.reader(), &pair.shared, &wire);
            assert!(data.len() <= wire.len());
        }
        for _ in 0..150 {
            let noise = random.bytes(100, 256);
            let (data, _) = open_all(&mut pair.reader(), &pair.shared, &noise);
            assert!(data.is_empty());
        }
    }
}
