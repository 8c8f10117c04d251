use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Loaded};

use super::{EXIT_REFUSED, report};
use crate::control::examine;

/// `ringway check FILE`: all diagnostics to stderr, one line of summary to stdout.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let loaded = examine(config::load(path)).loaded;
    report(&loaded);
    // A closed stdout does not change what the exit code says.
    let _ = writeln!(io::stdout(), "{}", summary(&loaded));
    match loaded.plan() {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(EXIT_REFUSED),
    }
}

fn summary(loaded: &Loaded) -> String {
    let name = &loaded.source.name;
    let warnings = counted(loaded.diagnostics.warnings(), "warning");
    match loaded.plan() {
        Some(plan) => format!(
            "{name}: ok, {}, {}, {warnings}",
            counted(plan.listeners.len(), "listener"),
            counted(plan.upstreams.len(), "upstream"),
        ),
        None => format!(
            "{name}: refused, {}, {warnings}",
            counted(loaded.diagnostics.errors(), "error"),
        ),
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_there_is() {
        let text = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
                    [upstream.b]\nservers = [\"127.0.0.1:1\"]\n";
        let loaded = config::parse("x.toml", text);
        assert_eq!(
            summary(&loaded),
            "x.toml: ok, 1 listener, 1 upstream, 0 warnings"
        );
        let loaded = config::parse(
            "x.toml",
            format!("{text}[upstream.c]\nservers = [\"::1\"]\n"),
        );
        assert_eq!(summary(&loaded), "x.toml: refused, 1 error, 1 warning");
    }
}
