use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::time::{Sleep, sleep};
use pin_project_lite::pin_project;

use super::watch::Seat;
use crate::net::Socket;
use crate::types::Order;

/// Why a phase was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupted {
    Timeout,
    /// The connection is to end.
    Ordered(&'static Order),
    /// The client has reset its connection.
    Reset,
}

pin_project! {
    /// A phase that an order to end cuts short. (An `async fn` would hold the phase twice:
    /// once as its argument, once pinned.)
    pub(super) struct Watched<'a, F> {
        seat: &'a Seat<'a>,
        #[pin]
        phase: F,
    }
}

pin_project! {
    /// A phase that an order to end or its time limit cuts short.
    pub(super) struct Limited<'a, F> {
        #[pin]
        watched: Watched<'a, F>,
        #[pin]
        timer: Sleep,
    }
}

pin_project! {
    /// A phase in which nobody reads the client's socket: an order to end or a reset by the
    /// client cuts it short.
    pub(super) struct Attended<'a, F> {
        #[pin]
        watched: Watched<'a, F>,
        client: &'a Socket,
        // Made when the phase first has to wait.
        #[pin]
        look: Option<Sleep>,
    }
}

/// How often a client that waits is looked at.
const WAITING_LOOK: Duration = Duration::from_secs(1);

/// Runs a phase that keeps its own time.
pub(super) fn watch<'a, F: Future>(seat: &'a Seat<'a>, phase: F) -> Watched<'a, F> {
    Watched { seat, phase }
}

/// Runs a phase that keeps its own time while the client waits.
pub(super) fn attend<'a, F: Future>(
    seat: &'a Seat<'a>,
    client: &'a Socket,
    phase: F,
) -> Attended<'a, F> {
    Attended {
        watched: watch(seat, phase),
        client,
        look: None,
    }
}

/// Runs a phase under a time limit.
pub(super) fn limit<'a, F: Future>(
    seat: &'a Seat<'a>,
    timeout: Duration,
    phase: F,
) -> Limited<'a, F> {
    Limited {
        watched: watch(seat, phase),
        timer: sleep(timeout),
    }
}

impl<F: Future> Future for Watched<'_, F> {
    type Output = Result<F::Output, Interrupted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.phase.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match this.seat.order(cx) {
            Some(order) => Poll::Ready(Err(Interrupted::Ordered(order))),
            None => Poll::Pending,
        }
    }
}

impl<F: Future> Future for Attended<'_, F> {
    type Output = Result<F::Output, Interrupted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.watched.poll(cx) {
            return Poll::Ready(output);
        }
        loop {
            if this.look.is_none() {
                this.look.set(Some(sleep(WAITING_LOOK)));
            }
            let rung = this.look.as_mut().as_pin_mut();
            if rung.is_none_or(|look| look.poll(cx).is_pending()) {
                return Poll::Pending;
            }
            if this.client.is_reset() {
                return Poll::Ready(Err(Interrupted::Reset));
            }
            this.look.set(None);
        }
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Interrupted>;

    /// The timer is set only when the phase has to wait.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.watched.poll(cx) {
            Poll::Pending if this.timer.poll(cx).is_ready() => {
                Poll::Ready(Err(Interrupted::Timeout))
            }
            result => result,
        }
    }
}
