use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::config;
use crate::sys::{ktls_words, probe_ktls};

use super::{EXIT_REFUSED, report};

/// `ringway explain FILE`: every effective value and where it comes from, and what the
/// kernel's TLS can do, to stdout.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let loaded = config::load(path);
    report(&loaded);
    if loaded.plan().is_none() {
        return ExitCode::from(EXIT_REFUSED);
    }
    let mut table = config::explain(&loaded.effective, &loaded.source);
    // What `relay_path` can come to on this machine.
    table += &format!("# kernel TLS here: {}\n", ktls_words(probe_ktls()));
    // `ringway explain FILE | head` closes stdout early, and that is no failure.
    let _ = io::stdout().write_all(table.as_bytes());
    ExitCode::SUCCESS
}
