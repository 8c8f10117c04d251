//! How often a core waits for its sockets: each time is one operation of its ring.

use std::cell::RefCell;
use std::sync::Arc;

use crate::observe::meters::CoreMeters;

thread_local! {
    /// A socket knows no core, and a thread is one.
    static METERS: RefCell<Option<Arc<CoreMeters>>> = const { RefCell::new(None) };
}

/// From now on each wait for a socket on this thread is counted here.
pub fn count_waits(meters: Arc<CoreMeters>) {
    METERS.replace(Some(meters));
}

pub(super) fn on_wait() {
    METERS.with_borrow(|meters| {
        if let Some(meters) = meters {
            meters.ring_waits.add(1);
        }
    });
}
