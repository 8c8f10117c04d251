//! A little of everything, for a kernel that runs twenty times slower.

use std::thread;

use crate::rig::{AES12, AES13, BOTH_VERSIONS, LegPlan, Paths, Rig, SUITES, bulk};

tests! {
    Ktls: bulk_is_carried_by_way_of_the_kernel_between_each_kind_of_leg,
    Ktls: a_hand_over_amid_a_stream_loses_nothing,
    Ktls: tls_1_2_with_chacha20_goes_to_the_kernel,
    NoRekey: user_space_follows_a_key_update_where_the_kernel_cannot,
}

const BYTES: u64 = 200_000;

fn bulk_is_carried_by_way_of_the_kernel_between_each_kind_of_leg() {
    for suite in BOTH_VERSIONS {
        for (downstream, upstream) in [
            (LegPlan::kernel(suite), LegPlan::plain()),
            (LegPlan::plain(), LegPlan::kernel(suite)),
            (LegPlan::kernel(AES13), LegPlan::kernel(AES12)),
        ] {
            let rig = Rig::new(downstream, upstream);
            Paths("kernel", "kernel").expect(&rig.carry(&bulk(BYTES, BYTES)));
        }
    }
}

fn a_hand_over_amid_a_stream_loses_nothing() {
    for suite in BOTH_VERSIONS {
        let after = || LegPlan::after(suite, "70000B").with_records_of(5003);
        let rig = Rig::new(after(), after());
        Paths("kernel", "kernel").expect(&rig.carry(&bulk(BYTES, BYTES)));
    }
}

fn tls_1_2_with_chacha20_goes_to_the_kernel() {
    let rig = Rig::new(LegPlan::kernel(SUITES[5]), LegPlan::plain());
    Paths("kernel", "kernel").expect(&rig.carry(&bulk(BYTES, BYTES)));
}

fn user_space_follows_a_key_update_where_the_kernel_cannot() {
    let rig = Rig::new(LegPlan::user(AES13), LegPlan::user(AES13));
    let (mut client, mut server) = rig.pair();
    client.update_keys();
    server.update_keys();
    let plan = bulk(BYTES, BYTES);
    let mirrored = plan.mirrored();
    let server_end = thread::spawn(move || server.exchange(&mirrored));
    let ends = (client.exchange(&plan), server_end.join().unwrap());
    assert_eq!(ends, (Ok(()), Ok(())));
    Paths("user", "user").expect(&rig.record(&client));
}
