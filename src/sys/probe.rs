use std::fmt;
use std::io;

use super::ktls::{KtlsAbility, probe_ktls};

/// What this kernel can do for us.
#[derive(Debug, Clone)]
pub struct Probe {
    pub kernel: String,
    pub ring: Result<RingFeatures, RingRefusal>,
    /// `Err` holds why kernel TLS cannot be used, with the cure.
    pub ktls: Result<KtlsAbility, &'static str>,
}

/// Ring set-up flags, from the best set that this kernel took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFeatures {
    /// SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN, SUBMIT_ALL (Linux 6.1).
    Deferred,
    /// COOP_TASKRUN, SUBMIT_ALL (Linux 5.19).
    Cooperative,
    /// No flag (Linux 5.6).
    Plain,
}

impl RingFeatures {
    const BEST_FIRST: [Self; 3] = [Self::Deferred, Self::Cooperative, Self::Plain];
}

impl fmt::Display for RingFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deferred => "single_issuer, defer_taskrun, coop_taskrun, submit_all",
            Self::Cooperative => "coop_taskrun, submit_all",
            Self::Plain => "no flags",
        })
    }
}

/// Why no ring can be set up, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingRefusal {
    pub cause: String,
    pub cure: &'static str,
}

/// Asks the kernel; opens nothing that stays open.
#[must_use]
pub fn probe() -> Probe {
    Probe {
        kernel: kernel_release(),
        ring: probe_ring(),
        ktls: probe_ktls(),
    }
}

/// A builder for the features that [`probe`] found.
#[must_use]
pub fn ring_builder(features: RingFeatures) -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    match features {
        RingFeatures::Deferred => {
            builder.setup_single_issuer().setup_defer_taskrun();
            builder.setup_coop_taskrun().setup_submit_all();
        }
        RingFeatures::Cooperative => {
            builder.setup_coop_taskrun().setup_submit_all();
        }
        RingFeatures::Plain => {}
    }
    builder
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

const PROBE_ENTRIES: u32 = 8;

fn probe_ring() -> Result<RingFeatures, RingRefusal> {
    let build = |features| ring_builder(features).build(PROBE_ENTRIES).map(drop);
    best_features(build).map_err(|error| refusal(&error, sysctl_disables()))
}

/// The best features that `build` takes. EINVAL is the answer to a flag that the kernel does not
/// know (io_uring_setup(2)); every other error would be the same with fewer flags.
fn best_features(
    mut build: impl FnMut(RingFeatures) -> io::Result<()>,
) -> io::Result<RingFeatures> {
    for features in RingFeatures::BEST_FIRST {
        match build(features) {
            Ok(()) => return Ok(features),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

fn refusal(error: &io::Error, sysctl_disables: bool) -> RingRefusal {
    let cure = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring: run Linux 5.6 or newer (better 6.1) built with CONFIG_IO_URING=y"
        }
        Some(libc::EPERM) if sysctl_disables => {
            "allow it with `sysctl -w kernel.io_uring_disabled=0`, or set it to 1 and add the \
             user's group to kernel.io_uring_group"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "a seccomp filter forbids it: allow the system calls io_uring_setup, io_uring_enter \
             and io_uring_register (containers: a seccomp profile that has them)"
        }
        Some(libc::ENOMEM) => "raise the locked memory limit: `ulimit -l` or LimitMEMLOCK=",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files: `ulimit -n`",
        _ => "see io_uring_setup(2) for this error",
    };
    RingRefusal {
        cause: format!("io_uring_setup failed: {error}"),
        cure,
    }
}

/// kernel.io_uring_disabled: 0 allows all, 1 privileged and one group, 2 nobody (Linux 6.6).
fn sysctl_disables() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel does that answers so, one answer a try; 0 takes the ring.
    fn tried(answers: &[i32]) -> (Vec<String>, io::Result<RingFeatures>) {
        let mut tried = Vec::new();
        let result = best_features(|features| {
            let answer = answers[tried.len()];
            tried.push(features.to_string());
            match answer {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        });
        (tried, result)
    }

    const DEFERRED: &str = "single_issuer, defer_taskrun, coop_taskrun, submit_all";
    const COOPERATIVE: &str = "coop_taskrun, submit_all";

    #[test]
    fn a_kernel_that_knows_all_flags_is_asked_once() {
        let (tried, result) = tried(&[0]);
        assert_eq!(tried, [DEFERRED]);
        assert_eq!(result.unwrap(), RingFeatures::Deferred);
    }

    #[test]
    fn each_flag_that_the_kernel_does_not_know_makes_the_next_try_one_with_fewer() {
        let (asked, result) = tried(&[libc::EINVAL, 0]);
        assert_eq!(asked, [DEFERRED, COOPERATIVE]);
        assert_eq!(result.unwrap(), RingFeatures::Cooperative);
        let (asked, result) = tried(&[libc::EINVAL, libc::EINVAL, 0]);
        assert_eq!(asked, [DEFERRED, COOPERATIVE, "no flags"]);
        assert_eq!(result.unwrap(), RingFeatures::Plain);
        let (asked, result) = tried(&[libc::EINVAL; 3]);
        assert_eq!(asked.len(), 3);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn an_error_that_fewer_flags_would_not_mend_ends_the_tries() {
        for code in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EMFILE] {
            let (asked, result) = tried(&[code]);
            assert_eq!(asked, [DEFERRED]);
            assert_eq!(result.unwrap_err().raw_os_error(), Some(code));
            let (asked, result) = tried(&[libc::EINVAL, code]);
            assert_eq!(asked, [DEFERRED, COOPERATIVE]);
            assert_eq!(result.unwrap_err().raw_os_error(), Some(code));
        }
    }

    #[test]
    fn a_refusal_names_its_cause_and_the_cure_for_it() {
        let said = |code, disabled| refusal(&io::Error::from_raw_os_error(code), disabled);
        for (code, sysctl_disables, cause, cure) in [
            (
                libc::ENOSYS,
                false,
                "not implemented",
                "run Linux 5.6 or newer",
            ),
            (
                libc::EPERM,
                false,
                "not permitted",
                "a seccomp filter forbids it",
            ),
            (
                libc::EPERM,
                true,
                "not permitted",
                "kernel.io_uring_disabled=0",
            ),
            (libc::EACCES, true, "denied", "a seccomp filter forbids it"),
            (libc::ENOMEM, false, "allocate memory", "LimitMEMLOCK="),
            (libc::EMFILE, false, "open files", "`ulimit -n`"),
            (libc::ENFILE, false, "open files", "`ulimit -n`"),
            (libc::EINVAL, false, "Invalid argument", "io_uring_setup(2)"),
        ] {
            let RingRefusal {
                cause: seen,
                cure: advice,
            } = said(code, sysctl_disables);
            assert!(seen.starts_with("io_uring_setup failed: "), "{seen}");
            assert!(seen.contains(cause), "{code}: {seen}");
            assert!(advice.contains(cure), "{code}, {sysctl_disables}: {advice}");
        }
    }

    #[test]
    fn the_documents_list_the_features_in_the_order_of_the_tries() {
        let document = include_str!("../../docs/operations.md");
        let place = |cell: &str| document.find(&format!("| {cell} |")).expect(cell);
        let places = [DEFERRED, COOPERATIVE, "none"].map(place);
        assert!(places.is_sorted(), "{places:?}");
    }
}
