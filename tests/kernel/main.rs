//! Kernel TLS, end to end. docs/testing.md says how to run this where the kernel has none.
//!
//! A test that this kernel cannot run is reported as ignored, never as passed. With `REQUIRE_KTLS=1`
//! a kernel without TLS is a failure. `RINGWAY_TEST_KERNEL_CONNECTIONS` sets how many random
//! connections there are (500), `RINGWAY_TEST_SEED` repeats a run of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

/// The tests of a module, each with what it needs of the kernel.
macro_rules! tests {
    ($($needs:ident: $name:ident,)*) => {
        pub(crate) const TESTS: &[crate::Test] = &[$(
            crate::Test {
                name: stringify!($name),
                needs: crate::Needs::$needs,
                run: $name,
            },
        )*];
    };
}

mod drains;
mod ends;
mod forger;
mod handover;
mod keys;
mod openssl;
mod pairs;
mod random;
mod records;
mod rig;
mod sealed;
mod small;
mod tickets;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use ringway::sys::{KtlsAbility, probe_ktls};

/// What a test needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Ktls,
    /// Keys that can be set again after a KeyUpdate (Linux 6.14).
    Rekey,
    /// Keys that cannot.
    NoRekey,
}

#[derive(Clone, Copy)]
struct Test {
    name: &'static str,
    needs: Needs,
    run: fn(),
}

impl Needs {
    /// Why this kernel cannot run the test.
    fn lacking(self, ability: Option<&KtlsAbility>) -> Option<&'static str> {
        match (self, ability) {
            (_, None) => Some("no kernel TLS"),
            (Self::Rekey, Some(kernel)) if !kernel.rekey => Some("no rekey: Linux before 6.14"),
            (Self::NoRekey, Some(kernel)) if kernel.rekey => Some("rekey: Linux 6.14 or newer"),
            _ => None,
        }
    }
}

const MODULES: &[(&str, &[Test])] = &[
    ("pairs", pairs::TESTS),
    ("handover", handover::TESTS),
    ("keys", keys::TESTS),
    ("tickets", tickets::TESTS),
    ("records", records::TESTS),
    ("ends", ends::TESTS),
    ("drains", drains::TESTS),
    ("openssl", openssl::TESTS),
    ("random", random::TESTS),
    ("sealed", sealed::TESTS),
    ("small", small::TESTS),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The guest has one CPU: more threads only lengthen what each test waits for.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let probed = probe_ktls();
    if let Err(reason) = &probed {
        eprintln!("SKIPPED: {reason}");
        if std::env::var("REQUIRE_KTLS").is_ok_and(|value| value == "1") {
            eprintln!("REQUIRE_KTLS=1: without kernel TLS nothing here can be tested");
            return ExitCode::FAILURE;
        }
    }
    let ability = probed.as_ref().ok();
    let tests = MODULES
        .iter()
        .flat_map(|(module, tests)| tests.iter().map(move |test| trial(module, test, ability)));
    libtest_mimic::run(&arguments, tests.collect()).exit_code()
}

fn trial(module: &str, test: &Test, ability: Option<&KtlsAbility>) -> Trial {
    let run = test.run;
    let trial = Trial::test(format!("{module}::{}", test.name), move || {
        run();
        Ok(())
    });
    match test.needs.lacking(ability) {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}
