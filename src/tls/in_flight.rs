use std::cell::Cell;

/// A core's handshakes in flight, on both legs together, and how many there may be.
#[derive(Debug)]
pub struct HandshakesInFlight {
    count: Cell<usize>,
    max: Cell<usize>,
}

/// One handshake's place, given back on drop.
#[derive(Debug)]
pub struct HandshakePlace<'a> {
    all: &'a HandshakesInFlight,
}

impl HandshakesInFlight {
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            count: Cell::new(0),
            max: Cell::new(max),
        }
    }

    /// From now on; those that are under way go on.
    pub fn set_max(&self, max: usize) {
        self.max.set(max);
    }

    /// `None` when all places are taken.
    #[must_use]
    pub fn begin(&self) -> Option<HandshakePlace<'_>> {
        let count = self.count.get();
        if count >= self.max.get() {
            return None;
        }
        self.count.set(count + 1);
        Some(HandshakePlace { all: self })
    }
}

impl Drop for HandshakePlace<'_> {
    fn drop(&mut self) {
        self.all.count.set(self.all.count.get() - 1);
    }
}
