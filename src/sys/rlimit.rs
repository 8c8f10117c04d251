use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// RLIMIT_NOFILE after [`raise_nofile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nofile {
    pub wanted: u64,
    /// Descriptors this process may have open.
    pub granted: u64,
}

/// Raises RLIMIT_NOFILE to `wanted`, or as far as the kernel lets us. Never lowers it.
#[must_use]
pub fn raise_nofile(wanted: u64) -> Nofile {
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return Nofile {
            wanted,
            granted: current,
        };
    }
    let hard = now.maximum.unwrap_or(u64::MAX);
    let both = Rlimit {
        current: Some(wanted),
        maximum: Some(hard.max(wanted)),
    };
    let soft = Rlimit {
        current: Some(wanted.min(hard)),
        maximum: now.maximum,
    };
    let raised = setrlimit(Resource::Nofile, both).or_else(|_| setrlimit(Resource::Nofile, soft));
    let granted = if raised.is_ok() {
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    } else {
        current
    };
    Nofile { wanted, granted }
}
