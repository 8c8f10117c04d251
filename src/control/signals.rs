use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that the control thread listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    hang_up: Signal,
    /// Asked for while something else could not be left.
    postponed: Option<Asked>,
}

/// What a signal asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGUSR1: open the access log and the key logs anew.
    Reopen,
    /// SIGHUP: read the configuration anew.
    Reload,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            hang_up: signal(SignalKind::hangup())?,
            postponed: None,
        })
    }

    /// The next thing asked for will be this. The last word counts, but an end stays an end.
    pub(super) fn put_back(&mut self, asked: Asked) {
        if self.postponed != Some(Asked::Stop) {
            self.postponed = Some(asked);
        }
    }

    pub(super) async fn next(&mut self) -> Asked {
        if let Some(asked) = self.postponed.take() {
            return asked;
        }
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.reopen.recv() => Asked::Reopen,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}
