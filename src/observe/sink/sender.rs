use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::Thread;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::observe::Record;

/// A worker's end of the access log.
#[derive(Debug)]
pub struct RecordSender {
    /// `None`: the access log is off.
    ring: Option<RingEnd>,
}

#[derive(Debug)]
struct RingEnd {
    records: Producer<Box<Record>>,
    dropped: Arc<AtomicU64>,
    asleep: Arc<AtomicBool>,
    writer: Thread,
}

/// The writer's end of one core's ring.
#[derive(Debug)]
pub(super) struct Lane {
    records: Consumer<Box<Record>>,
    dropped: Arc<AtomicU64>,
    /// How many of `dropped` have been taken up.
    dropped_seen: u64,
}

/// A ring for one core and both its ends.
pub(super) fn lane(
    queue_max: usize,
    asleep: Arc<AtomicBool>,
    writer: Thread,
) -> (RecordSender, Lane) {
    let (producer, consumer) = RingBuffer::new(queue_max.max(1));
    let dropped = Arc::new(AtomicU64::new(0));
    let sender = RecordSender {
        ring: Some(RingEnd {
            records: producer,
            dropped: dropped.clone(),
            asleep,
            writer,
        }),
    };
    let lane = Lane {
        records: consumer,
        dropped,
        dropped_seen: 0,
    };
    (sender, lane)
}

impl RecordSender {
    pub(super) fn off() -> Self {
        Self { ring: None }
    }

    /// Hands a finished record to the writer. Never waits: with a full ring it is dropped and
    /// counted.
    pub fn send(&mut self, record: Box<Record>) {
        let Some(ring) = &mut self.ring else { return };
        if ring.records.push(record).is_err() {
            ring.dropped.fetch_add(1, Ordering::Relaxed);
        }
        ring.wake();
    }

    /// The same, but with a full ring the record comes back uncounted.
    pub fn offer(&mut self, record: Box<Record>) -> Option<Box<Record>> {
        let ring = self.ring.as_mut()?;
        let refused = ring.records.push(record).err();
        ring.wake();
        refused.map(|PushError::Full(record)| record)
    }
}

impl RingEnd {
    /// Wakes the writer if it sleeps. The fence orders the push before the look at the flag, as
    /// the writer's orders its flag before its last look at the rings: one of both sees the other.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.writer.unpark();
        }
    }
}

impl Lane {
    pub(super) fn next(&mut self) -> Option<Box<Record>> {
        self.records.pop().ok()
    }

    pub(super) fn waiting(&self) -> usize {
        self.records.slots()
    }

    /// The count of records that the ring had no room for.
    pub(super) fn refused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Records dropped since this was last asked.
    pub(super) fn newly_dropped(&mut self) -> u64 {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let new = dropped - self.dropped_seen;
        self.dropped_seen = dropped;
        new
    }

    /// Whether its worker is gone and all it sent was taken.
    pub(super) fn is_over(&self) -> bool {
        // In this order: what was pushed before the sender went is seen after.
        self.records.is_abandoned() && self.records.is_empty()
    }
}
