//! Ends of legs in the kernel that `abort.rs` and `half_close.rs` do not have.

use ringway_support::{Ending, Link};

use crate::forger::{ALERT, BOTH_ROLES, DATA, Forged, Role};
use crate::rig::{AES13, BOTH_VERSIONS, LegPlan, Rig, warm_up};

tests! {
    Ktls: an_alert_of_the_peer_is_named_and_is_no_clean_end_for_the_other_side,
    Ktls: a_record_with_a_flipped_bit_is_told_as_bad_record_mac_after_all_before_it,
    Ktls: bytes_that_are_no_record_are_refused,
    Ktls: bytes_that_are_no_record_are_refused_behind_data_too,
    Ktls: a_stream_cut_off_amid_a_record_is_an_abort_on_the_other_leg,
    Ktls: a_stream_cut_off_between_records_is_an_abort_after_every_byte,
    Ktls: an_end_of_the_peer_with_data_behind_it_is_the_end,
    Ktls: a_reset_amid_bulk_is_an_abort_on_the_other_leg,
    Ktls: both_ends_closing_at_once_end_cleanly,
    Ktls: a_unix_server_with_tls_stays_in_user_space_and_says_why,
}

fn expect_abort(told: &Ending) {
    assert!(
        !told.looks_complete() && *told != Ending::Silence,
        "expected an abort, got {told:?}"
    );
}

fn side(role: Role) -> &'static str {
    match role {
        Role::Client => "downstream",
        Role::Server => "upstream",
    }
}

fn an_alert_of_the_peer_is_named_and_is_no_clean_end_for_the_other_side() {
    for role in BOTH_ROLES {
        for (code, name) in [(80, "internal_error"), (20, "bad_record_mac")] {
            let mut forged = Forged::start(role);
            let mut records = forged.forger.record(DATA, b"last words");
            records.extend(forged.forger.record(ALERT, &[2, code]));
            forged.own.send_raw(&records).unwrap();
            let (came, told) = forged.other.receive_to_end();
            assert!(
                b"last words".starts_with(&came),
                "{role:?}: other bytes than sent"
            );
            expect_abort(&told);
            let record = forged.record();
            record.expect(&[("end", "alert"), ("alert", name), ("ended_by", side(role))]);
        }
    }
}

fn a_record_with_a_flipped_bit_is_told_as_bad_record_mac_after_all_before_it() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        let mut records = forged.forger.record(DATA, b"all before it");
        forged.own.send_raw(&records).unwrap();
        assert_eq!(forged.other.receive(13), b"all before it");
        records = forged.forger.record(DATA, &[7; 5000]);
        records[2000] ^= 1;
        forged.own.send_raw(&records).unwrap();
        let told = forged.own.expect_end();
        assert!(
            matches!(&told, Ending::Broken(words) if words.contains("BadRecordMac")),
            "{role:?}: {told:?}"
        );
        expect_abort(&forged.other.expect_end());
        let record = forged.record();
        record.expect(&[
            ("end", "protocol_error"),
            ("alert", "bad_record_mac"),
            ("ended_by", side(role)),
        ]);
    }
}

fn bytes_that_are_no_record_are_refused() {
    for suite in BOTH_VERSIONS {
        for header in [
            b"GET /",
            // Longer than any record, of another version.
            &[23, 3, 3, 0xFF, 0xFF],
            &[23, 9, 9, 0, 40],
        ] {
            // The kernel looks when an explicit nonce has come, too.
            let bytes = [&header[..], &[0; 40]].concat();
            let rig = Rig::new(LegPlan::kernel(suite), LegPlan::plain());
            let (mut client, mut server) = rig.pair();
            warm_up(&mut client, &mut server);
            client.send_raw(&bytes).unwrap();
            expect_abort(&server.expect_end());
            let record = rig.record(&client);
            record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
        }
    }
}

/// One splice takes the data and meets what comes behind it, which the socket tells once.
fn bytes_that_are_no_record_are_refused_behind_data_too() {
    for header in [[23, 5, 5, 0, 64], [23, 3, 3, 0xFF, 0xFF]] {
        let rig = Rig::new(LegPlan::kernel(AES13), LegPlan::plain());
        let (mut client, mut server) = rig.pair();
        warm_up(&mut client, &mut server);
        rig.proxy.while_stopped(|| {
            client.send(b"before it").unwrap();
            let forged = [&header[..], &[0xAA; 64]].concat();
            client.send_raw(&forged).unwrap();
        });
        let record = rig.record(&client);
        record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
        assert_eq!(record.count("bytes_up"), 2 * 2 + 9, "{record}");
    }
}

fn a_stream_cut_off_amid_a_record_is_an_abort_on_the_other_leg() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        let record = forged.forger.record(DATA, &[7; 5000]);
        forged.own.send_raw(&record[..3000]).unwrap();
        forged.own.cut().unwrap();
        expect_abort(&forged.other.expect_end());
        let record = forged.record();
        record.expect(&[("end", "truncated"), ("ended_by", side(role))]);
    }
}

/// What one end does to a connection, or what comes of it at the other: the ends in their order.
fn each_way(rig: &Rig, test: impl Fn(Link, Link) -> (Link, Link), end: &str) {
    for up in [true, false] {
        let (mut client, mut server) = rig.pair();
        warm_up(&mut client, &mut server);
        let address = client.local();
        let ends = if up {
            test(client, server)
        } else {
            test(server, client)
        };
        let record = rig.proxy.record_of(address);
        let ended_by = if up { "downstream" } else { "upstream" };
        record.expect(&[("end", end), ("ended_by", ended_by)]);
        drop(ends);
    }
}

fn kernel_pairs() -> impl Iterator<Item = Rig> {
    let suites = BOTH_VERSIONS.into_iter();
    suites.map(|suite| Rig::new(LegPlan::kernel(suite), LegPlan::kernel(suite)))
}

fn a_stream_cut_off_between_records_is_an_abort_after_every_byte() {
    for rig in kernel_pairs() {
        let cut = |mut from: Link, mut to: Link| {
            from.send(&[7; 70_000]).unwrap();
            assert!(to.receive(70_000) == [7; 70_000]);
            from.cut().unwrap();
            expect_abort(&to.expect_end());
            (from, to)
        };
        each_way(&rig, cut, "truncated");
    }
}

fn an_end_of_the_peer_with_data_behind_it_is_the_end() {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        let mut records = forged.forger.record(DATA, b"all");
        records.extend(forged.forger.record(ALERT, &crate::forger::CLOSE_NOTIFY));
        records.extend(forged.forger.record(DATA, b"too late"));
        forged.own.send_raw(&records).unwrap();
        let (came, told) = forged.other.receive_to_end();
        assert_eq!((came.as_slice(), told), (&b"all"[..], Ending::Clean));
        forged.other.send(b"answer").unwrap();
        assert_eq!(forged.own.receive(6), b"answer");
        forged.other.finish().unwrap();
        let (came, _) = forged.own.receive_to_end();
        assert!(came.is_empty());
        let record = forged.record();
        let field = match role {
            Role::Client => "bytes_up",
            Role::Server => "bytes_down",
        };
        assert_eq!(record.count(field), 2 * 6 + 3, "{record}");
    }
}

fn a_reset_amid_bulk_is_an_abort_on_the_other_leg() {
    for rig in kernel_pairs() {
        for up in [true, false] {
            let (mut client, mut server) = rig.pair();
            warm_up(&mut client, &mut server);
            let address = client.local();
            let (mut from, mut to) = if up {
                (client, server)
            } else {
                (server, client)
            };
            from.send(&[7; 300_000]).unwrap();
            from.reset();
            let (came, told) = to.receive_to_end();
            assert!(came.iter().all(|byte| *byte == 7) && came.len() <= 300_000);
            expect_abort(&told);
            let record = rig.proxy.record_of(address);
            let ended_by = if up { "downstream" } else { "upstream" };
            record.expect(&[("end", "reset"), ("ended_by", ended_by)]);
        }
    }
}

fn both_ends_closing_at_once_end_cleanly() {
    for rig in kernel_pairs() {
        for length in [0, 1, 20_000, 100_000] {
            let (mut client, mut server) = rig.pair();
            warm_up(&mut client, &mut server);
            for end in [&mut client, &mut server] {
                end.send(&vec![7; length]).unwrap();
            }
            for end in [&mut client, &mut server] {
                end.finish().unwrap();
            }
            for end in [&mut client, &mut server] {
                let (came, ending) = end.receive_to_end();
                assert!(came == vec![7; length], "{} of {length} bytes", came.len());
                assert_eq!(ending, Ending::Clean);
            }
            rig.record(&client).expect(&[("end", "finished")]);
        }
    }
}

fn a_unix_server_with_tls_stays_in_user_space_and_says_why() {
    use ringway_support::tls::ServerTls;
    use ringway_support::{House, Peer, ringway, toml};
    let house = House::new();
    let directory = tempfile::tempdir().unwrap();
    let config = ServerTls::with(&house.backend).config();
    let peer = Peer::unix(&directory.path().join("server.sock"));
    let back = format!("relay_path = \"splice\"\n{}", house.originate("back"));
    let toml =
        toml::listener("front", "back", "", "") + &toml::upstream("back", &[peer.address()], &back);
    let proxy = ringway!().start(&toml);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    let mut server = peer.accept_raw().accept_tls(&config).unwrap();
    warm_up(&mut client, &mut server);
    crate::rig::cross(&mut client, &mut server, &vec![1; 100_000]);
    crate::rig::cross(&mut server, &mut client, &vec![2; 100_000]);
    client.finish().unwrap();
    assert!(server.expect_end().looks_complete());
    server.finish().unwrap();
    assert!(client.expect_end().looks_complete());
    let record = proxy.record_of(client.local());
    record.expect(&[
        ("end", "finished"),
        ("path_up", "user"),
        ("path_down", "user"),
        ("fallback_up", "not_tcp"),
        ("fallback_down", "not_tcp"),
    ]);
}
