//! Every pair of legs, every cipher: byte-exact, and on the path that was asked for.

use crate::rig::{AES12, AES13, BOTH_VERSIONS, LegPlan, MIB, Paths, Rig, SUITES, bulk};
use ringway_support::exchange::Finish;

tests! {
    Ktls: kernel_to_plain_carries_bulk_with_each_cipher,
    Ktls: plain_to_kernel_carries_bulk_with_each_cipher,
    Ktls: kernel_to_kernel_carries_bulk_with_each_cipher,
    Ktls: kernel_to_kernel_carries_bulk_between_each_two_ciphers,
    Ktls: a_leg_kept_in_user_space_beside_one_in_the_kernel_is_a_mixed_path,
    Ktls: a_tiny_direction_stays_in_user_space_beside_a_bulky_one_in_the_kernel,
    Ktls: two_tls_legs_go_to_the_kernel_each_at_its_own_time,
}

fn carry_in_both_closing_orders(rig: &Rig, paths: &Paths<'_>) {
    for finish in [Finish::First, Finish::AfterPeer] {
        let plan = bulk(2 * MIB, MIB);
        paths.expect(&rig.carry(&ringway_support::exchange::Exchange { finish, ..plan }));
    }
}

fn kernel_to_plain_carries_bulk_with_each_cipher() {
    for suite in SUITES {
        let rig = Rig::new(LegPlan::kernel(suite), LegPlan::plain());
        carry_in_both_closing_orders(&rig, &Paths("kernel", "kernel"));
    }
}

fn plain_to_kernel_carries_bulk_with_each_cipher() {
    for suite in SUITES {
        let rig = Rig::new(LegPlan::plain(), LegPlan::kernel(suite));
        carry_in_both_closing_orders(&rig, &Paths("kernel", "kernel"));
    }
}

fn kernel_to_kernel_carries_bulk_with_each_cipher() {
    for suite in SUITES {
        let rig = Rig::new(LegPlan::kernel(suite), LegPlan::kernel(suite));
        carry_in_both_closing_orders(&rig, &Paths("kernel", "kernel"));
    }
}

fn kernel_to_kernel_carries_bulk_between_each_two_ciphers() {
    let each = |from| SUITES.into_iter().map(move |to| (from, to));
    let plans = SUITES.into_iter().flat_map(each);
    let plans = plans.filter(|(from, to)| from != to);
    let plans = plans.map(|(from, to)| (LegPlan::kernel(from), LegPlan::kernel(to)));
    let rig = Rig::of(plans.collect());
    for route in 0..rig.plans.len() {
        let record = rig.carry_on(route, &bulk(MIB / 2, MIB / 2));
        Paths("kernel", "kernel").expect(&record);
    }
}

fn a_leg_kept_in_user_space_beside_one_in_the_kernel_is_a_mixed_path() {
    for user in BOTH_VERSIONS {
        for kernel in BOTH_VERSIONS {
            let rig = Rig::new(LegPlan::user(user), LegPlan::kernel(kernel));
            carry_in_both_closing_orders(&rig, &Paths("mixed", "mixed"));
            let rig = Rig::new(LegPlan::kernel(kernel), LegPlan::user(user));
            carry_in_both_closing_orders(&rig, &Paths("mixed", "mixed"));
        }
    }
}

fn a_tiny_direction_stays_in_user_space_beside_a_bulky_one_in_the_kernel() {
    for suite in BOTH_VERSIONS {
        for (downstream, upstream) in [
            (LegPlan::after(suite, "256KiB"), LegPlan::plain()),
            (LegPlan::plain(), LegPlan::after(suite, "256KiB")),
            (
                LegPlan::after(suite, "256KiB"),
                LegPlan::after(suite, "256KiB"),
            ),
        ] {
            let rig = Rig::new(downstream, upstream);
            Paths("kernel", "user").expect(&rig.carry(&bulk(4 * MIB, 0)));
            Paths("user", "kernel").expect(&rig.carry(&bulk(0, 4 * MIB)));
            Paths("user", "user").expect(&rig.carry(&bulk(0, 0)));
        }
    }
}

fn two_tls_legs_go_to_the_kernel_each_at_its_own_time() {
    for (early, late) in [(AES13, AES12), (AES12, AES13)] {
        let rig = Rig::of(vec![
            (LegPlan::after(early, "1B"), LegPlan::after(late, "1MiB")),
            (LegPlan::after(late, "1MiB"), LegPlan::after(early, "1B")),
        ]);
        for route in 0..2 {
            let record = rig.carry_on(route, &bulk(MIB / 4, 4 * MIB));
            Paths("mixed", "kernel").expect(&record);
        }
    }
}
