//! Files of TLS secrets, which are opened by the user that the process runs as.

use super::supervisor::Started;
use crate::tls::{KeyTap, MaterialError};
use crate::worker::Shared;

/// Opens those that are not open yet.
///
/// # Errors
/// One cannot be written.
pub(super) fn open(shared: &Shared) -> Result<(), MaterialError> {
    taps(shared).try_for_each(KeyTap::open)
}

impl Started {
    /// Has all log files opened anew, after log rotation.
    pub(super) fn reopen_logs(&self) {
        self.sink.reopen();
        taps(&self.context.shared).for_each(KeyTap::reopen);
    }
}

fn taps(shared: &Shared) -> impl Iterator<Item = &KeyTap> {
    let downstream = shared.server_tls.iter().flatten();
    let downstream = downstream.filter_map(|tls| tls.key_log());
    let upstream = shared.client_tls.iter().flatten();
    downstream.chain(upstream.filter_map(|tls| tls.key_log()))
}
