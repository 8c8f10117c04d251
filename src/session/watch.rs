use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use slab::Slab;

/// What a core is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    Running,
    /// No new connections; those that live may come to their end.
    Draining,
    /// Whatever still lives ends now.
    Closing,
}

/// Tells a core's tasks that its state has changed.
#[derive(Debug)]
pub struct Watch {
    state: Cell<RunState>,
    wakers: RefCell<Slab<Option<Waker>>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            state: Cell::new(RunState::Running),
            wakers: RefCell::default(),
        }
    }
}

impl Watch {
    #[must_use]
    pub fn state(&self) -> RunState {
        self.state.get()
    }

    /// Moves on to a later state and wakes every task that watches. Never back.
    pub fn advance(&self, state: RunState) {
        if state <= self.state.get() {
            return;
        }
        self.state.set(state);
        for (_, waker) in self.wakers.borrow_mut().iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// A place for one task's waker, given back on drop.
    #[must_use]
    pub fn seat(&self) -> Seat<'_> {
        Seat {
            watch: self,
            key: self.wakers.borrow_mut().insert(None),
        }
    }
}

/// One task's place among the watchers.
#[derive(Debug)]
pub struct Seat<'a> {
    watch: &'a Watch,
    key: usize,
}

impl Seat<'_> {
    /// The state now; the task is woken when it changes.
    #[must_use]
    pub fn poll(&self, cx: &Context<'_>) -> RunState {
        if let Some(place) = self.watch.wakers.borrow_mut().get_mut(self.key)
            && !place
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *place = Some(cx.waker().clone());
        }
        self.watch.state()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.watch.wakers.borrow_mut().try_remove(self.key);
    }
}
