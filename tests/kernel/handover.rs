//! The switch-over at any record boundary and with any state of the buffers.

use std::thread;

use crate::rig::{AES12, AES13, BOTH_VERSIONS, LegPlan, MIB, Paths, Plan, Rig, bulk};
use ringway_support::exchange::Exchange;
use ringway_support::pattern::Pattern;

tests! {
    Ktls: a_hand_over_at_any_number_of_bytes_loses_nothing,
    Ktls: a_hand_over_amid_records_of_odd_sizes_loses_nothing,
    Ktls: a_hand_over_while_what_was_received_is_more_than_the_next_record_loses_nothing,
    Ktls: connections_that_are_handed_over_at_once_keep_apart,
    Ktls: a_direction_whose_other_one_has_ended_before_is_carried_to_its_end,
}

/// From nothing to the default, with one byte less and more than a record among them.
const HAND_OVERS: [&str; 9] = [
    "0B", "1B", "777B", "16383B", "16384B", "16385B", "70000B", "131072B", "256KiB",
];

/// Longest records of the peers: tiny, odd, and as long as they can be.
const RECORDS: [usize; 4] = [333, 4097, 10_007, 16_389];

fn all_pairs(leg: impl Fn() -> LegPlan) -> [Plan; 3] {
    [
        (leg(), LegPlan::plain()),
        (LegPlan::plain(), leg()),
        (leg(), leg()),
    ]
}

fn a_hand_over_at_any_number_of_bytes_loses_nothing() {
    for suite in BOTH_VERSIONS {
        let plans = HAND_OVERS
            .iter()
            .flat_map(|after| all_pairs(|| LegPlan::after(suite, after)));
        let rig = Rig::of(plans.collect());
        for route in 0..rig.plans.len() {
            let record = rig.carry_on(route, &bulk(MIB, MIB));
            Paths("kernel", "kernel").expect(&record);
        }
    }
}

fn a_hand_over_amid_records_of_odd_sizes_loses_nothing() {
    for suite in BOTH_VERSIONS {
        let plans = RECORDS.iter().flat_map(|records| {
            ["1B", "20000B", "70000B"].into_iter().flat_map(|after| {
                all_pairs(|| LegPlan::after(suite, after).with_records_of(*records))
            })
        });
        let rig = Rig::of(plans.collect());
        for route in 0..rig.plans.len() {
            let record = rig.carry_on(route, &bulk(MIB / 2, MIB / 2));
            Paths("kernel", "kernel").expect(&record);
        }
    }
}

/// The proxy stands still until the whole of it is there: the first receive takes many records and
/// a piece of one.
fn a_hand_over_while_what_was_received_is_more_than_the_next_record_loses_nothing() {
    for suite in BOTH_VERSIONS {
        for after in ["0B", "1B", "5000B", "40000B"] {
            let leg = || LegPlan::after(suite, after).with_records_of(3001);
            for (downstream, upstream) in all_pairs(leg) {
                let rig = Rig::new(downstream, upstream);
                let (mut client, mut server) = rig.pair();
                for length in [30_001_usize, 60_003, 7] {
                    let up = vec![length.to_le_bytes()[0]; length];
                    let down = vec![length.to_le_bytes()[1]; length];
                    rig.proxy.while_stopped(|| {
                        client.send(&up).unwrap();
                        server.send(&down).unwrap();
                        client.wait_delivered();
                        server.wait_delivered();
                    });
                    assert!(server.receive(length) == up, "{:?}", rig.plans);
                    assert!(client.receive(length) == down, "{:?}", rig.plans);
                }
                client.finish().unwrap();
                assert!(server.expect_end().looks_complete());
                server.finish().unwrap();
                assert!(client.expect_end().looks_complete());
                Paths("kernel", "kernel").expect(&rig.record(&client));
            }
        }
    }
}

fn connections_that_are_handed_over_at_once_keep_apart() {
    const AT_ONCE: usize = 12;
    let plan = |number: usize| {
        let after = HAND_OVERS[number % HAND_OVERS.len()];
        let suite = BOTH_VERSIONS[number % 2];
        let [first, second, third] =
            all_pairs(|| LegPlan::after(suite, after).with_records_of(1000 + 977 * number));
        match number % 3 {
            0 => first,
            1 => second,
            _ => third,
        }
    };
    let rig = &Rig::of((0..AT_ONCE).map(plan).collect());
    thread::scope(|scope| {
        for route in 0..AT_ONCE {
            scope.spawn(move || {
                let number = route as u64;
                let plan = Exchange {
                    send_seed: 100 + number,
                    receive_seed: 200 + number,
                    ..bulk(MIB + 991 * number, MIB + 313 * number)
                };
                Paths("kernel", "kernel").expect(&rig.carry_on(route, &plan));
            });
        }
    });
}

/// The kernel takes no keys on a connection that is half closed: that direction stays in user space
/// if it comes there so late, and goes on as well.
fn a_direction_whose_other_one_has_ended_before_is_carried_to_its_end() {
    for (downstream, upstream) in [(AES13, AES13), (AES12, AES12), (AES13, AES12)] {
        let after = |suite| LegPlan::after(suite, "128KiB");
        let rig = Rig::new(after(downstream), after(upstream));
        let (mut client, mut server) = rig.pair();
        client.finish().unwrap();
        assert!(server.expect_end().looks_complete());
        let sent = Pattern::new(3).take(2_000_003);
        let expected = sent.clone();
        let sender = thread::spawn(move || {
            server.send(&sent).unwrap();
            server.finish().unwrap();
            server
        });
        let (came, ending) = client.receive_to_end();
        assert!(
            came == expected && ending.looks_complete(),
            "{:?}: {} bytes, then {ending:?}",
            rig.plans,
            came.len()
        );
        drop(sender.join().unwrap());
        rig.record(&client).expect(&[
            ("end", "finished"),
            ("path_down", "user"),
            ("fallback_down", "half_closed"),
        ]);
    }
}
