use std::process::ExitCode;

use super::ask::Socket;

/// `ringway drain`: what SIGTERM does, without knowing the process's id.
#[must_use]
pub(super) fn run(socket: &Socket) -> ExitCode {
    match socket.post("/drain", "") {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}
