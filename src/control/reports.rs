//! What the cores have found out of servers: logged once, and told to the other cores.

use std::io;

use tokio::net::UnixStream;

use super::board::Board;
use crate::config::Plan;
use crate::upstream::{Change, ServerState};
use crate::worker::Reports;

/// Changes of one core that may wait: a group of a thousand servers may die at once.
pub(super) const REPORTS_MAX: usize = 4096;

/// Follows one worker's reports until it is gone. `bell`: that of the reports.
pub(super) async fn follow(
    (mut reports, bell): (Reports, UnixStream),
    worker: usize,
    board: Board,
) -> io::Result<()> {
    let mut rings = [0; 64];
    loop {
        bell.readable().await?;
        let is_over = match bell.try_read(&mut rings) {
            Ok(bytes) => bytes == 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        while let Some(told) = reports.received() {
            if let (Some(change), Some(plan)) = (board.on_change(worker, told), board.plan()) {
                say(&plan, &change);
            }
        }
        match reports.newly_dropped() {
            0 => {}
            dropped => tracing::warn!(
                "{dropped} changes of servers found no room: other cores find them out themselves"
            ),
        }
        if is_over {
            return Ok(());
        }
    }
}

/// One line a change, whatever the number of cores.
pub(super) fn say(plan: &Plan, change: &Change) {
    let group = plan.upstream(change.group);
    let server = group.servers.get(usize::from(change.server.0));
    let name = server.map_or_else(String::new, |it| it.address.value.to_string());
    let (address, reason) = (&change.address, &change.reason);
    match change.state {
        ServerState::Down | ServerState::Barred => {
            tracing::warn!(group = group.name, server = name, %address, reason, "server down");
        }
        ServerState::Up => {
            tracing::info!(group = group.name, server = name, %address, reason, "server up");
        }
    }
}
