use std::io::{self, Write as _};
use std::process::ExitCode;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{EXIT_COMMAND_LINE, EXIT_INTERNAL, EXIT_REFUSED, EXIT_SYSTEM, command};
use crate::observe::events::LEVEL_VARIABLE;

/// One page of the manual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// `ringway` or `ringway-COMMAND`.
    pub name: String,
    pub roff: Vec<u8>,
}

/// `ringway man [COMMAND]`: to stdout.
#[must_use]
pub fn run(about: &[String]) -> ExitCode {
    let mut name = vec!["ringway"];
    name.extend(about.iter().map(String::as_str));
    let name = name.join("-");
    let Some(page) = pages().into_iter().find(|page| page.name == name) else {
        let _ = writeln!(
            io::stderr(),
            "error: there is no page {name}(1); `ringway help` lists the commands"
        );
        return ExitCode::from(EXIT_COMMAND_LINE);
    };
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(&page.roff);
    ExitCode::SUCCESS
}

/// The page of the whole, and then one for each command.
#[must_use]
pub fn pages() -> Vec<Page> {
    // Its page would only say that `--help` does the same.
    let mut whole = command().disable_help_subcommand(true);
    whole.build();
    let version = whole.get_version().unwrap_or_default().to_owned();
    let mut pages = Vec::new();
    let mut waiting = vec![whole];
    while let Some(command) = waiting.pop() {
        waiting.extend(
            command
                .get_subcommands()
                .filter(|it| !it.is_hide_set())
                .cloned(),
        );
        pages.push(page(command, &version));
    }
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    pages
}

fn page(command: clap::Command, version: &str) -> Page {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let is_whole = name == command.get_name();
    let man = Man::new(command).source(format!("ringway {version}"));
    let mut roff = Vec::new();
    // A `Vec` takes every byte.
    let _ = man.render(&mut roff);
    let appended = if is_whole {
        of_all_commands()
    } else {
        see_the_whole()
    };
    let _ = appended.to_writer(&mut roff);
    Page { name, roff }
}

/// What holds for all commands.
fn of_all_commands() -> Roff {
    let mut roff = Roff::default();
    list(
        &mut roff,
        "EXIT STATUS",
        &EXITS.map(|(code, it)| (code.to_string(), it)),
    );
    list(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    list(&mut roff, "FILES", &FILES);
    roff
}

const EXITS: [(u8, &str); 5] = [
    (0, "Done; for run: it drained or closed after a signal."),
    (EXIT_COMMAND_LINE, "The command line is not understood."),
    (
        EXIT_REFUSED,
        "The configuration, or a file that it names, is refused.",
    ),
    (
        EXIT_INTERNAL,
        "A defect of Ringway; for demo: the show failed.",
    ),
    (
        EXIT_SYSTEM,
        "The operating system refused something, such as io_uring or an address.",
    ),
];

const ENVIRONMENT: [(&str, &str); 2] = [
    (
        LEVEL_VARIABLE,
        "Level of the lines on stderr: error, warn, info (the default), debug or trace; or a filter \
         such as info,rustls=debug.",
    ),
    (
        "NO_COLOR",
        "Where it is set and not empty, findings have no colour.",
    ),
];

const FILES: [(&str, &str); 2] = [
    (
        "/etc/ringway/ringway.toml",
        "The configuration that ringway.service runs.",
    ),
    (
        "/usr/share/doc/ringway/",
        "The documents: every key, every field of the access log, operations.",
    ),
];

fn list(roff: &mut Roff, heading: &str, entries: &[(impl AsRef<str>, &str)]) {
    roff.control("SH", [heading]);
    for (term, words) in entries {
        roff.control("TP", []);
        roff.text([bold(term.as_ref())]);
        roff.text([roman(*words)]);
    }
}

fn see_the_whole() -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("ringway"), roman("(1)")]);
    roff
}
