#![expect(unsafe_code, reason = "setsockopt with TCP_ULP has no safe wrapper")]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

/// What this kernel can do for us.
#[derive(Debug, Clone)]
pub struct Probe {
    pub kernel: String,
    pub ring: Result<RingFeatures, RingRefusal>,
    /// `Err` holds why kernel TLS cannot be used, with the cure.
    pub ktls: Result<(), &'static str>,
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
    let mut last = None;
    for features in RingFeatures::BEST_FIRST {
        match ring_builder(features).build(PROBE_ENTRIES) {
            Ok(_) => return Ok(features),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(refusal(&error)),
        }
    }
    Err(refusal(&last.unwrap_or_else(|| {
        io::Error::from_raw_os_error(libc::EINVAL)
    })))
}

fn refusal(error: &io::Error) -> RingRefusal {
    let cure = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring: run Linux 5.6 or newer (better 6.1) built with CONFIG_IO_URING=y"
        }
        Some(libc::EPERM) if sysctl_disables() => {
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

/// TCP_ULP "tls" on a connected socket: ENOENT where the module is missing.
fn probe_ktls() -> Result<(), &'static str> {
    let failed = "no loopback connection could be made to ask for it";
    let (client, _server) = loopback_pair().map_err(|_| failed)?;
    let name = b"tls";
    // SAFETY: the pointer and the length describe `name`, which the kernel copies.
    let result = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_TCP,
            libc::TCP_ULP,
            name.as_ptr().cast(),
            3,
        )
    };
    match result {
        0 => Ok(()),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT) => {
            Err("the kernel has no tls module: `modprobe tls`, or build with CONFIG_TLS")
        }
        _ => Err("the kernel refuses TCP_ULP"),
    }
}

fn loopback_pair() -> io::Result<(socket2::Socket, socket2::Socket)> {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(1)?;
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    client.connect(&listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    Ok((client, server))
}
