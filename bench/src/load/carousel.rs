//! Tasks that never sleep take turns.
//!
//! monoio puts a task that wakes itself at the head of its queue, where it starves all others. So
//! a task that waits leaves its waker here, and one of two pump tasks wakes all that wait, its
//! twin included: to be woken by another task puts one at the queue's end. There are two because
//! the one that is running cannot wake itself fairly either.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

thread_local! {
    static WAITING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// Lets every other task have its turn.
pub(super) async fn turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        WAITING.with_borrow_mut(|waiting| waiting.push(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// Starts the pumps; to be called once in each runtime.
pub(super) fn start() {
    monoio::spawn(pump());
    monoio::spawn(pump());
}

/// Lets go of the tasks that wait, and so of their sockets; to be called after the last turn.
pub(super) fn stop() {
    drop(WAITING.take());
}

async fn pump() {
    let mut woken = Vec::new();
    loop {
        WAITING.with_borrow_mut(|waiting| std::mem::swap(waiting, &mut woken));
        woken.drain(..).for_each(Waker::wake);
        turn().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn waiting_tasks_take_turns() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
            .build()
            .unwrap();
        let turns: Vec<_> = (0..3).map(|_| Rc::new(Cell::new(0_u32))).collect();
        let counted = turns.clone();
        runtime.block_on(async move {
            start();
            for count in counted {
                monoio::spawn(async move {
                    loop {
                        count.set(count.get() + 1);
                        turn().await;
                    }
                });
            }
            monoio::spawn(async {
                for _ in 0..100 {
                    turn().await;
                }
            })
            .await;
        });
        stop();
        assert!(
            turns.iter().all(|count| (99..=102).contains(&count.get())),
            "{turns:?}"
        );
    }
}
