//! Accepting, and keeping each connection's panic to itself.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::time::sleep;
use pin_project_lite::pin_project;

use crate::net::{Accepted, Listening};
use crate::session::{Core, Generation, RunState, Seat, serve};
use crate::types::{ListenerId, SocketId};

/// How long accepting rests after descriptors or memory have run out: connections end meanwhile.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

/// So many connections are accepted while the queue never runs empty, before accepting rests.
///
/// A batch brings more new tasks than monoio 0.2 runs before it looks for completions, and it then
/// looks for them without entering the ring for them (`Driver::submit`, not `park`). There it finds
/// that the listening socket is readable, which the kernel says at once, but no other connection's
/// readiness, which comes only when the ring is entered (DEFER_TASKRUN). So under a flood accepting
/// alone would go on, for seconds. A timer fires only after the ring was entered. Obsolete when
/// tests/flood.rs shows no long stalls at 20,000 connections a second without it.
const IN_A_ROW_MAX: usize = 256;

/// The shortest that monoio's timers know.
const GIVE_WAY: Duration = Duration::from_millis(1);

/// A listening socket of this core, and for which listener it accepts.
pub(super) struct Post {
    pub(super) socket: SocketId,
    listener: Cell<ListenerId>,
    /// The plan in force has no listener there: what is in the queue is served by the last that
    /// had one.
    leaving: RefCell<Option<Rc<Generation>>>,
}

impl Post {
    pub(super) fn new(socket: SocketId, listener: ListenerId) -> Self {
        Self {
            socket,
            listener: Cell::new(listener),
            leaving: RefCell::default(),
        }
    }

    /// The plan in force knows the listener by this number.
    pub(super) fn serve(&self, listener: ListenerId) {
        self.listener.set(listener);
    }

    pub(super) fn leave(&self, last: Rc<Generation>) {
        self.leaving.replace(Some(last));
    }

    fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }

    /// For [`Watch::wake`](crate::session::Watch::wake): never 0, nobody else's.
    pub(super) fn mark(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Accepts until the core drains or the listener leaves; then takes what is still in the queue,
/// unless another process does, and closes.
pub(super) async fn accept(core: Rc<Core>, post: Rc<Post>, listening: Listening) {
    let acceptor = Acceptor {
        core: Rc::clone(&core),
        post: Rc::clone(&post),
        listening,
        exhausted: Cell::new(false),
        in_a_row: Cell::new(0),
    };
    let seat = core.watch.seat();
    seat.sit_at(post.mark());
    loop {
        if acceptor.is_relieved() {
            return;
        }
        match acceptor.accept_batch() {
            Batch::Empty if core.watch.state() >= RunState::Draining => return,
            Batch::Empty if post.is_leaving() => return,
            Batch::Full if core.watch.state() == RunState::Draining => {}
            Batch::Full if core.watch.state() == RunState::Closing => return,
            Batch::Empty => acceptor.ready(&seat).await,
            Batch::Full => {
                acceptor.give_way().await;
                acceptor.ready(&seat).await;
            }
            Batch::Exhausted if core.watch.state() >= RunState::Draining => return,
            Batch::Exhausted => sleep(EXHAUSTED_REST).await,
        }
    }
}

struct Acceptor {
    core: Rc<Core>,
    post: Rc<Post>,
    listening: Listening,
    /// Descriptors have run out and one line has said so.
    exhausted: Cell<bool>,
    /// Connections accepted since the queue was last found empty, or accepting rested.
    in_a_row: Cell<usize>,
}

enum Batch {
    Empty,
    /// As many as one turn may take: there may be more.
    Full,
    Exhausted,
}

impl Acceptor {
    /// What waits in the queue is accepted by another process, which has the socket, too.
    fn is_relieved(&self) -> bool {
        let watch = &self.core.watch;
        watch.state() >= RunState::Draining && watch.has_left(self.listening.local())
    }

    /// Waits for a connection, or for the core's state to change.
    async fn ready(&self, seat: &Seat<'_>) {
        let mut readable = pin!(self.listening.readable());
        let before = self.core.watch.state();
        poll_fn(|cx| match readable.as_mut().poll(cx) {
            Poll::Pending if seat.poll(cx) == before && !self.post.is_leaving() => Poll::Pending,
            // An error of the poll shows again, by name, at accept.
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Lets the connections that live have their turn, however many wait to be accepted.
    async fn give_way(&self) {
        let in_a_row = self.in_a_row.get() + self.core.accept_batch.get();
        self.in_a_row.set(in_a_row);
        if in_a_row >= IN_A_ROW_MAX {
            self.in_a_row.set(0);
            sleep(GIVE_WAY).await;
        }
    }

    fn accept_batch(&self) -> Batch {
        for _ in 0..self.core.accept_batch.get() {
            match self.listening.try_accept() {
                Ok(accepted) => self.on_accepted(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.on_queue_empty();
                    return Batch::Empty;
                }
                Err(error) if belongs_to_connection(&error) => {}
                Err(error) => return self.on_exhausted(&error),
            }
        }
        Batch::Full
    }

    /// Only an empty queue shows that the exhaustion is over: one accept that succeeds in
    /// between does not, and would make two lines of each.
    fn on_queue_empty(&self) {
        self.in_a_row.set(0);
        if self.exhausted.replace(false) {
            tracing::info!(core = %self.core.id, listener = self.name(), "accepting again");
        }
    }

    fn on_accepted(&self, accepted: Accepted) {
        let (core, listener) = (Rc::clone(&self.core), self.post.listener.get());
        let story = serve(core, self.generation(), listener, accepted);
        monoio::spawn(Contained { story });
    }

    fn on_exhausted(&self, error: &io::Error) -> Batch {
        self.core.meters.accept_pauses.add(1);
        if !self.exhausted.replace(true) {
            tracing::error!(
                core = %self.core.id, listener = self.name(), %error,
                "cannot accept, clients wait in the kernel's queue: raise the limit of open files \
                 (LimitNOFILE=, ulimit -n), or lower max_connections"
            );
        }
        Batch::Exhausted
    }

    fn name(&self) -> String {
        let listener = self.post.listener.get();
        self.generation().plan().listener(listener).name.clone()
    }

    /// What a connection that is accepted now is served by.
    fn generation(&self) -> Rc<Generation> {
        let leaving = self.post.leaving.borrow();
        leaving
            .as_ref()
            .map_or_else(|| self.core.generation(), Rc::clone)
    }
}

/// accept(2): errors of the network that the next connection does not share.
fn belongs_to_connection(error: &io::Error) -> bool {
    const NETWORK: [i32; 10] = [
        libc::ECONNABORTED,
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
        libc::EINTR,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| NETWORK.contains(&code))
}

pin_project! {
    /// A panic ends the story it happened in, whose record says so, and nothing else.
    struct Contained<F> {
        #[pin]
        story: F,
    }
}

impl<F: Future<Output = ()>> Future for Contained<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let story = self.project().story;
        catch_unwind(AssertUnwindSafe(|| story.poll(cx))).unwrap_or(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_one_story_leaves_the_others_alone() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .build()
            .expect("a runtime");
        let finished = Rc::new(Cell::new(false));
        let other = Rc::clone(&finished);
        runtime.block_on(async move {
            let first = monoio::spawn(Contained {
                story: async { panic!("a defect, on purpose") },
            });
            let second = monoio::spawn(Contained {
                story: async move { other.set(true) },
            });
            first.await;
            second.await;
        });
        assert!(finished.get());
    }
}
