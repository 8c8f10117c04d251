use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Waker};

use slab::Slab;

use super::live::Live;
use crate::net::PeerAddress;
use crate::types::Order;

/// What a core is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    Running,
    /// No new connections; those that live may come to their end.
    Draining,
    /// Whatever still lives ends now.
    Closing,
}

/// Tells a core's tasks that its state has changed, or that they are to end; knows its connections.
pub struct Watch {
    state: Cell<RunState>,
    left: RefCell<Arc<[PeerAddress]>>,
    places: RefCell<Slab<Place>>,
}

/// One task among the watchers.
#[derive(Default)]
struct Place {
    waker: Option<Waker>,
    sitter: Sitter,
}

enum Sitter {
    /// An accept loop's task, or a connection's that has not begun.
    Other {
        /// As [`Watch::wake`] has it; 0: none.
        mark: usize,
    },
    Connection(Live),
}

impl Default for Sitter {
    fn default() -> Self {
        Self::Other { mark: 0 }
    }
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

    /// Wakes the tasks that [sit at](Seat::sit_at) one of these marks, and the connections whose
    /// servers' [endpoints](crate::upstream::Endpoint::mark) have one.
    pub fn wake(&self, marks: &[usize]) {
        for (_, place) in self.places.borrow_mut().iter_mut() {
            let is_meant = match &place.sitter {
                Sitter::Other { mark } => marks.contains(mark),
                Sitter::Connection(live) => live.is_at(marks),
            };
            if is_meant {
                place.wake();
            }
        }
    }

    /// Looks at every connection that lives.
    pub(super) fn each_live(&self, look: impl FnMut(&Live)) {
        let places = self.places.borrow();
        places
            .iter()
            .filter_map(|(_, place)| place.live())
            .for_each(look);
    }

    /// Ends the connections that `wanted` picks, wherever they are in their story: their records
    /// have the order's cause and detail. Returns how many there are; those that were told before
    /// do not count.
    pub(super) fn end(&self, order: &'static Order, wanted: impl Fn(&Live) -> bool) -> usize {
        let mut ended = 0;
        for (_, place) in self.places.borrow_mut().iter_mut() {
            let live = place.live_mut();
            if let Some(live) = live.filter(|it| it.order.is_none() && wanted(it)) {
                live.order = Some(order);
                place.wake();
                ended += 1;
            }
        }
        ended
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
    /// `None`: it is no connection's.
    fn live(&self) -> Option<&Live> {
        match &self.sitter {
            Sitter::Connection(live) => Some(live),
            Sitter::Other { .. } => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.sitter {
            Sitter::Connection(live) => Some(live),
            Sitter::Other { .. } => None,
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One task's place among the watchers.
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

    /// Why the connection is to end, if it is; the task is woken when that changes.
    #[must_use]
    pub(super) fn order(&self, cx: &Context<'_>) -> Option<&'static Order> {
        match self.poll(cx) {
            RunState::Closing => Some(&Order::DRAIN_OVER),
            RunState::Running | RunState::Draining => self.note(|live| live.order)?,
        }
    }

    /// From now on [`Watch::wake`] with this mark is for this task, which is no connection's.
    pub fn sit_at(&self, mark: usize) {
        if let Some(place) = self.watch.places.borrow_mut().get_mut(self.key) {
            place.sitter = Sitter::Other { mark };
        }
    }

    /// From now on the place is a connection's.
    pub(super) fn begin(&self, live: Live) {
        if let Some(place) = self.watch.places.borrow_mut().get_mut(self.key) {
            place.sitter = Sitter::Connection(live);
        }
    }

    /// Notes how far the connection has come.
    pub(super) fn note<R>(&self, note: impl FnOnce(&mut Live) -> R) -> Option<R> {
        let mut places = self.watch.places.borrow_mut();
        places.get_mut(self.key)?.live_mut().map(note)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.watch.places.borrow_mut().try_remove(self.key);
    }
}
