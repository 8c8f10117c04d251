//! How a core speaks to the control thread: a ring, and a byte on a socket pair. The core takes no
//! lock and never waits; what has no room is counted.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::net::{SendFlags, send};

use crate::upstream::Change;

/// A change, and in the numbering of which generation it is told.
pub type Told = (u64, Change);

/// The core's end.
#[derive(Debug)]
pub struct Reporter {
    changes: Producer<Told>,
    dropped: Arc<AtomicU64>,
    bell: UnixStream,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Reports {
    changes: Consumer<Told>,
    dropped: Arc<AtomicU64>,
    bell: UnixStream,
}

/// `max`: changes that may wait for the control thread.
///
/// # Errors
/// What socketpair reports: out of files.
pub fn reports(max: usize) -> io::Result<(Reporter, Reports)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let (producer, consumer) = RingBuffer::new(max.max(1));
    let dropped = Arc::new(AtomicU64::new(0));
    let reporter = Reporter {
        changes: producer,
        dropped: Arc::clone(&dropped),
        bell: ours,
    };
    let reports = Reports {
        changes: consumer,
        dropped,
        bell: theirs,
    };
    Ok((reporter, reports))
}

impl Reporter {
    pub(super) fn report(&mut self, generation: u64, change: Change) {
        if self.changes.push((generation, change)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // A full bell has rung already.
        let _ = send(&self.bell, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

impl Reports {
    /// Rings when changes have come; at its end the core is gone.
    ///
    /// # Errors
    /// What dup(2) reports: out of files.
    pub fn bell(&self) -> io::Result<UnixStream> {
        self.bell.try_clone()
    }

    pub fn received(&mut self) -> Option<Told> {
        self.changes.pop().ok()
    }

    /// Changes that found no room since this was last asked.
    pub fn newly_dropped(&mut self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::PeerAddress;
    use crate::types::{GroupId, ServerId};
    use crate::upstream::ServerState;

    fn change(server: u16) -> Change {
        Change {
            group: GroupId(0),
            server: ServerId(server),
            address: PeerAddress::Ip(([127, 0, 0, 1], 1).into()),
            state: ServerState::Down,
            reason: "for a test".into(),
        }
    }

    #[test]
    fn changes_come_in_order_and_those_without_room_are_counted() {
        let (mut reporter, mut reports) = reports(2).unwrap();
        for server in 0..5 {
            reporter.report(0, change(server));
        }
        assert_eq!(reports.received(), Some((0, change(0))));
        assert_eq!(reports.received(), Some((0, change(1))));
        assert_eq!(reports.received(), None);
        assert_eq!((reports.newly_dropped(), reports.newly_dropped()), (3, 0));
        reporter.report(0, change(7));
        assert_eq!(reports.received(), Some((0, change(7))));
    }

    #[test]
    fn nobody_who_listens_is_no_trouble_for_the_core() {
        let (mut reporter, reports) = reports(1).unwrap();
        drop(reports);
        (0..1000).for_each(|server| reporter.report(0, change(server)));
    }
}
