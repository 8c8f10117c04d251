use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Waker};

use slab::Slab;

use crate::net::PeerAddress;

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
    left: RefCell<Arc<[PeerAddress]>>,
    places: RefCell<Slab<Place>>,
}

/// One task among the watchers.
#[derive(Debug, Default)]
struct Place {
    waker: Option<Waker>,
    /// Whose server it is at, as [`Watch::wake`] has it; 0: at none.
    mark: usize,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            state: Cell::new(RunState::Running),
            left: RefCell::new(Arc::new([])),
            places: RefCell::default(),
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
        for (_, place) in self.places.borrow_mut().iter_mut() {
            place.wake();
        }
    }

    /// Another process accepts on these addresses: a core that drains has no say in what waits there.
    pub fn leave(&self, addresses: Arc<[PeerAddress]>) {
        self.left.replace(addresses);
    }

    #[must_use]
    pub fn has_left(&self, address: &PeerAddress) -> bool {
        self.left.borrow().contains(address)
    }

    /// Wakes the tasks that [sit at](Seat::sit_at) one of these.
    pub fn wake(&self, marks: &[usize]) {
        for (_, place) in self.places.borrow_mut().iter_mut() {
            if marks.contains(&place.mark) {
                place.wake();
            }
        }
    }

    /// A place for one task's waker, given back on drop.
    #[must_use]
    pub fn seat(&self) -> Seat<'_> {
        Seat {
            watch: self,
            key: self.places.borrow_mut().insert(Place::default()),
        }
    }
}

impl Place {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
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
        if let Some(Place { waker, .. }) = self.watch.places.borrow_mut().get_mut(self.key)
            && !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        self.watch.state()
    }

    /// From now on [`Watch::wake`] with this mark is for this task.
    pub fn sit_at(&self, mark: usize) {
        if let Some(place) = self.watch.places.borrow_mut().get_mut(self.key) {
            place.mark = mark;
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.watch.places.borrow_mut().try_remove(self.key);
    }
}
