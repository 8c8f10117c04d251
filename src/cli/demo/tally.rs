use std::sync::atomic::{AtomicU64, Ordering};

use rustls::HandshakeKind;

/// Handshakes of one leg, counted by Ringway's peers there.
#[derive(Debug, Default)]
pub(super) struct Tally {
    full: AtomicU64,
    resumed: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handshakes {
    pub full: u64,
    pub resumed: u64,
}

impl Tally {
    pub(super) fn add(&self, kind: Option<HandshakeKind>) {
        let count = match kind {
            Some(HandshakeKind::Resumed) => &self.resumed,
            _ => &self.full,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn so_far(&self) -> Handshakes {
        Handshakes {
            full: self.full.load(Ordering::Relaxed),
            resumed: self.resumed.load(Ordering::Relaxed),
        }
    }
}

impl Handshakes {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            full: self.full - before.full,
            resumed: self.resumed - before.resumed,
        }
    }

    pub(super) fn total(self) -> u64 {
        self.full + self.resumed
    }
}
