//! Kernel TLS, on a kernel that has it: `tests/kernel/run` boots one.
//!
//! Elsewhere every test here is skipped, says so, and does not count as passed. With REQUIRE_KTLS=1
//! a skip is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic in a test is a failed test"
)]

mod carry;
mod control;
mod endings;
mod random;
mod scene;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// What a test needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    KernelTls,
    /// Keys can be changed (Linux 6.14).
    Rekey,
    /// They cannot.
    NoRekey,
}

struct Test {
    name: &'static str,
    needs: Needs,
    body: fn(),
}

const fn test(name: &'static str, needs: Needs, body: fn()) -> Test {
    Test { name, needs, body }
}

fn tests() -> impl Iterator<Item = &'static Test> {
    let all = [carry::TESTS, control::TESTS, endings::TESTS, random::TESTS];
    all.into_iter().flatten()
}

/// Why a test cannot be run here.
fn missing(needs: Needs) -> Option<String> {
    match (ringway::sys::probe_ktls(), needs) {
        (Err(why), _) => Some(why.to_owned()),
        (Ok(_), Needs::KernelTls) => None,
        (Ok(ability), Needs::Rekey) if !ability.rekey => {
            Some("this kernel's TLS cannot change keys".to_owned())
        }
        (Ok(ability), Needs::NoRekey) if ability.rekey => {
            Some("this kernel's TLS can change keys".to_owned())
        }
        (Ok(_), Needs::Rekey | Needs::NoRekey) => None,
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One proxy and its peers at a time: the guest has one CPU, and the logs stay readable.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let required = std::env::var("REQUIRE_KTLS").is_ok_and(|value| value == "1");
    let trials = tests().map(|test| {
        let missing = missing(test.needs);
        if let Some(why) = &missing {
            eprintln!("SKIPPED: {}: {why}", test.name);
        }
        // A kernel that can change keys is not one that cannot: no kernel has both.
        let fails = required && missing.is_some() && test.needs == Needs::KernelTls;
        let body = test.body;
        let trial = Trial::test(test.name, move || {
            assert!(!fails, "REQUIRE_KTLS=1, and this kernel has no TLS");
            body();
            Ok(())
        });
        trial.with_ignored_flag(missing.is_some() && !fails)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
