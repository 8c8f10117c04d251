use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one core alone changes, by a load and a store: no locked instruction, and no line
/// that another core writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, more: u64) {
        self.set(self.value().wrapping_add(more));
    }

    /// For what goes up and down.
    pub fn take(&self, less: u64) {
        self.set(self.value().saturating_sub(less));
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
