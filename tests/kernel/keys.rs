//! Key updates of a leg in the kernel.

use std::thread;

use ringway_support::pattern::Pattern;
use ringway_support::{Ending, Link};

use crate::forger::{BOTH_ROLES, DATA, Forged};
use crate::rig::{AES13, LegPlan, Rig, SUITES, cross, warm_up};

tests! {
    Rekey: key_updates_from_both_sides_between_messages_lose_nothing,
    Rekey: key_updates_amid_bulk_both_ways_lose_nothing,
    Rekey: a_key_update_before_the_hand_over_and_one_after_it_are_followed,
    Rekey: key_updates_that_ask_for_no_answer_are_followed,
    Rekey: key_updates_that_ask_for_an_answer_get_one_with_the_next_data,
    Rekey: a_key_update_right_behind_data_does_not_stop_what_comes_after,
    Rekey: a_key_update_right_before_the_end_keeps_the_end_clean,
    Rekey: a_flood_of_key_updates_is_a_protocol_error,
    NoRekey: a_key_update_of_the_peer_ends_the_connection_and_names_the_kernel_that_could,
}

fn key_updates_from_both_sides_between_messages_lose_nothing() {
    for suite in &SUITES[..3] {
        let kernel = || LegPlan::kernel(*suite);
        for (downstream, upstream) in [
            (kernel(), LegPlan::plain()),
            (LegPlan::plain(), kernel()),
            (kernel(), kernel()),
            (kernel(), LegPlan::user(AES13)),
        ] {
            let rig = Rig::new(downstream, upstream);
            let (mut client, mut server) = rig.pair();
            for round in 0..14_u8 {
                let tls = [&rig.plans[0].0, &rig.plans[0].1].map(|leg| leg.suite.is_some());
                if tls[0] && round % 3 != 1 {
                    client.update_keys();
                }
                if tls[1] && round % 3 != 2 {
                    server.update_keys();
                }
                cross(&mut client, &mut server, &[round; 5000]);
                cross(&mut server, &mut client, &[round; 70_000]);
            }
            finish(&rig, client, server);
        }
    }
}

fn finish(rig: &Rig, mut client: Link, mut server: Link) {
    client.finish().unwrap();
    assert!(server.expect_end().looks_complete());
    server.finish().unwrap();
    assert!(client.expect_end().looks_complete());
    rig.record(&client).expect(&[("end", "finished")]);
}

/// One end's bulk with new keys now and then. The peer never reads, so that no answer is due to it.
fn send_with_new_keys(mut from: Link, seed: u64) -> thread::JoinHandle<Link> {
    thread::spawn(move || {
        let mut pattern = Pattern::new(seed);
        for round in 0..200 {
            if round % 20 == 10 {
                from.update_keys();
            }
            from.send(&pattern.take(10_007)).unwrap();
        }
        from.finish().unwrap();
        from
    })
}

fn key_updates_amid_bulk_both_ways_lose_nothing() {
    for (downstream, upstream) in [
        (LegPlan::kernel(AES13), LegPlan::kernel(SUITES[2])),
        (LegPlan::after(AES13, "300KiB"), LegPlan::after(AES13, "1B")),
        (LegPlan::kernel(AES13), LegPlan::plain()),
        (LegPlan::plain(), LegPlan::kernel(AES13)),
    ] {
        for up in [true, false] {
            let rig = Rig::new(downstream.clone(), upstream.clone());
            let (client, server) = rig.pair();
            let (from, mut to) = if up {
                (client, server)
            } else {
                (server, client)
            };
            let plan = if up { &rig.plans[0].0 } else { &rig.plans[0].1 };
            if plan.suite.is_none() {
                continue;
            }
            let client = if up { from.local() } else { to.local() };
            let sender = send_with_new_keys(from, 5);
            let (came, ending) = to.receive_to_end();
            assert!(
                came == Pattern::new(5).take(200 * 10_007) && ending.looks_complete(),
                "{:?}: {} bytes, then {ending:?}",
                rig.plans,
                came.len()
            );
            // Its keys are new, too: the answers to the requests go before the data.
            let mut from = sender.join().unwrap();
            to.send(&came[..300_000]).unwrap();
            assert!(from.receive(300_000) == came[..300_000], "the way back");
            to.finish().unwrap();
            assert!(from.expect_end().looks_complete());
            let record = rig.proxy.record_of(client);
            record.expect(&[("end", "finished")]);
        }
    }
}

fn a_key_update_before_the_hand_over_and_one_after_it_are_followed() {
    let after = || LegPlan::after(AES13, "100000B");
    for (downstream, upstream) in [
        (after(), LegPlan::plain()),
        (LegPlan::plain(), after()),
        (after(), after()),
    ] {
        let rig = Rig::new(downstream, upstream);
        let (mut client, mut server) = rig.pair();
        for round in 0..12_u8 {
            if rig.plans[0].0.suite.is_some() {
                client.update_keys();
            }
            if rig.plans[0].1.suite.is_some() {
                server.update_keys();
            }
            cross(&mut client, &mut server, &vec![round; 30_011]);
            cross(&mut server, &mut client, &vec![round; 40_013]);
        }
        client.finish().unwrap();
        assert!(server.expect_end().looks_complete());
        server.finish().unwrap();
        assert!(client.expect_end().looks_complete());
        let record = rig.record(&client);
        record.expect(&[("path_up", "kernel"), ("path_down", "kernel")]);
        record.expect(&[("end", "finished")]);
    }
}

fn forged_updates(requested: bool) {
    for role in BOTH_ROLES {
        let mut forged = Forged::start(role);
        for round in 0..20_u8 {
            let mut records = forged.forger.key_update(requested);
            records.extend(forged.forger.record(DATA, &[round; 3000]));
            forged.own.send_raw(&records).unwrap();
            assert_eq!(forged.other.receive(3000), [round; 3000], "{role:?}");
            forged.other.send(&[round; 20_000]).unwrap();
            assert_eq!(forged.own.receive(20_000), [round; 20_000], "{role:?}");
        }
        forged.expect_service();
    }
}

fn key_updates_that_ask_for_no_answer_are_followed() {
    forged_updates(false);
}

fn key_updates_that_ask_for_an_answer_get_one_with_the_next_data() {
    forged_updates(true);
}

/// poll(2) hides a KeyUpdate that the kernel has opened, and all behind it.
fn a_key_update_right_behind_data_does_not_stop_what_comes_after() {
    for role in BOTH_ROLES {
        for (leg, other) in [
            (LegPlan::kernel(AES13), LegPlan::plain()),
            (LegPlan::after(AES13, "0B"), LegPlan::plain()),
            (LegPlan::kernel(AES13), LegPlan::user(AES13)),
            (LegPlan::kernel(AES13), LegPlan::kernel(SUITES[2])),
        ] {
            let mut forged = Forged::start_on(role, leg, other);
            for round in 0..10_u8 {
                let mut records = forged.forger.record(DATA, &[round; 3000]);
                records.extend(forged.forger.key_update(false));
                forged.own.send_raw(&records).unwrap();
                assert_eq!(forged.other.receive(3000), [round; 3000], "{role:?}");
                forged.send(&[round; 70]);
                assert_eq!(forged.other.receive(70), [round; 70], "{role:?}");
            }
            forged.expect_service();
        }
    }
}

fn a_key_update_right_before_the_end_keeps_the_end_clean() {
    for role in BOTH_ROLES {
        for requested in [false, true] {
            let mut forged = Forged::start(role);
            let mut last = forged.forger.record(DATA, &[7; 9000]);
            last.extend(forged.forger.key_update(requested));
            forged.own.send_raw(&last).unwrap();
            forged.finish();
            let (came, ending) = forged.other.receive_to_end();
            assert!(came == [7; 9000] && ending == Ending::Clean, "{ending:?}");
            forged.other.send(&vec![8; 500_000]).unwrap();
            forged.other.finish().unwrap();
            let (came, ending) = forged.own.receive_to_end();
            assert!(came == vec![8; 500_000], "{} bytes", came.len());
            assert_eq!(ending, Ending::Clean);
            forged.record().expect(&[("end", "finished")]);
        }
    }
}

fn a_flood_of_key_updates_is_a_protocol_error() {
    for role in BOTH_ROLES {
        for leg in [LegPlan::kernel(AES13), LegPlan::user(AES13)] {
            let mut forged = Forged::start_on(role, leg, LegPlan::plain());
            // The data between them keeps them from being records without data in a row.
            let mut update = || {
                let mut records = forged.forger.key_update(true);
                records.extend(forged.forger.record(DATA, b"x"));
                records
            };
            let flood: Vec<_> = (0..60).flat_map(|_| update()).collect();
            // The proxy may have ended it before all is sent.
            let _ = forged.own.send_raw(&flood);
            let (_, told) = forged.other.receive_to_end();
            assert!(
                !told.looks_complete() && told != Ending::Silence,
                "{told:?}"
            );
            forged.record().expect(&[
                ("end", "protocol_error"),
                ("detail", "too many key updates"),
            ]);
        }
    }
}

fn a_key_update_of_the_peer_ends_the_connection_and_names_the_kernel_that_could() {
    for client_updates in [true, false] {
        let rig = Rig::new(LegPlan::kernel(AES13), LegPlan::kernel(AES13));
        let (mut client, mut server) = rig.pair();
        warm_up(&mut client, &mut server);
        let from = if client_updates {
            &mut client
        } else {
            &mut server
        };
        from.update_keys();
        from.send(b"under new keys").unwrap();
        for end in [&mut client, &mut server] {
            let (came, ending) = end.receive_to_end();
            assert!(came.is_empty() && !ending.looks_complete(), "{ending:?}");
        }
        let record = rig.record(&client);
        record.expect(&[("end", "system_error")]);
        record.expect_reason(&["linux 6.14"]);
    }
}
