//! Connections of one core that wait for a server with room, first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The waiting connections of a group.
#[derive(Debug)]
pub(super) struct Queue {
    max: usize,
    /// In the order of their tickets.
    waiting: RefCell<VecDeque<Waiting>>,
    tickets: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    since: Instant,
    /// It should look whether there is room now.
    rung: bool,
    waker: Option<Waker>,
}

/// One connection's place in the queue, given back on drop.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Queue {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            waiting: RefCell::default(),
            tickets: Cell::new(0),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Since when the first waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.waiting.borrow().front().map(|it| it.since)
    }

    /// `None`: as many wait as may.
    pub(super) fn join(&self) -> Option<Ticket<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.max {
            return None;
        }
        let number = self.tickets.get();
        self.tickets.set(number + 1);
        waiting.push_back(Waiting {
            ticket: number,
            since: Instant::now(),
            rung: false,
            waker: None,
        });
        Some(Ticket {
            queue: self,
            number,
        })
    }

    /// There is room, perhaps: the first should look.
    pub(super) fn ring(&self) {
        self.ring_at(0);
    }

    fn ring_at(&self, place: usize) {
        if let Some(waiting) = self.waiting.borrow_mut().get_mut(place) {
            waiting.rung = true;
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        let waiting = self.waiting.borrow();
        waiting.binary_search_by_key(&ticket, |it| it.ticket).ok()
    }
}

impl Ticket<'_> {
    pub(super) fn is_first(&self) -> bool {
        self.queue.place(self.number) == Some(0)
    }

    /// Waits until this one should look.
    pub(super) async fn rung(&self) {
        poll_fn(|cx| self.poll_rung(cx)).await;
    }

    /// There may be room that is of no use here.
    pub(super) fn pass_on(&self) {
        if let Some(place) = self.queue.place(self.number) {
            self.queue.ring_at(place + 1);
        }
    }

    fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(place) = self.queue.place(self.number) else {
            return Poll::Ready(());
        };
        let waiting = &mut self.queue.waiting.borrow_mut()[place];
        if std::mem::take(&mut waiting.rung) {
            return Poll::Ready(());
        }
        waiting.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Ticket<'_> {
    /// Who is first now looks at once: what rang this one may have been for two.
    fn drop(&mut self) {
        let Some(place) = self.queue.place(self.number) else {
            return;
        };
        let left = self.queue.waiting.borrow_mut().remove(place);
        if place == 0 || left.is_some_and(|it| it.rung) {
            self.queue.ring_at(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_rung(ticket: &Ticket<'_>) -> bool {
        let cx = Context::from_waker(Waker::noop());
        ticket.poll_rung(&cx).is_ready()
    }

    #[test]
    fn the_first_is_rung_and_the_next_when_it_leaves() {
        let queue = Queue::new(3);
        let (first, second) = (queue.join().unwrap(), queue.join().unwrap());
        assert!(first.is_first() && !second.is_first());
        assert!(!is_rung(&first) && !is_rung(&second));
        queue.ring();
        assert!(is_rung(&first) && !is_rung(&first) && !is_rung(&second));
        drop(first);
        assert!(is_rung(&second) && second.is_first());
    }

    #[test]
    fn who_leaves_from_the_middle_takes_nobodys_turn() {
        let queue = Queue::new(3);
        let (first, second, third) = (
            queue.join().unwrap(),
            queue.join().unwrap(),
            queue.join().unwrap(),
        );
        drop(second);
        assert!(!is_rung(&third));
        first.pass_on();
        assert!(is_rung(&third) && !is_rung(&first));
    }

    #[test]
    fn a_ring_that_its_receiver_did_not_live_to_hear_goes_to_the_next() {
        let queue = Queue::new(3);
        let (first, second, third) = (
            queue.join().unwrap(),
            queue.join().unwrap(),
            queue.join().unwrap(),
        );
        first.pass_on();
        drop(second);
        assert!(is_rung(&third));
        drop((first, third));
        assert!(queue.is_empty());
        queue.ring();
    }

    #[test]
    fn a_full_queue_takes_nobody_until_one_leaves() {
        let queue = Queue::new(1);
        let first = queue.join().unwrap();
        assert!(queue.join().is_none());
        drop(first);
        assert!(queue.join().is_some_and(|ticket| ticket.is_first()));
        assert!(Queue::new(0).join().is_none());
    }
}
