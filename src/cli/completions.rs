use std::io::{self, Write as _};
use std::process::ExitCode;

use clap_complete::{Shell, generate};

use super::command;

/// `ringway completions SHELL`: to stdout.
#[must_use]
pub fn run(shell: Shell) -> ExitCode {
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(&script(shell));
    ExitCode::SUCCESS
}

/// What `shell` reads to complete the commands and options.
#[must_use]
pub fn script(shell: Shell) -> Vec<u8> {
    let mut command = command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    script
}
