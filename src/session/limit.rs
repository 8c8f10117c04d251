use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::time::{Sleep, sleep};
use pin_project_lite::pin_project;

use super::watch::{RunState, Seat};

/// Why a phase was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupted {
    Timeout,
    Shutdown,
}

pin_project! {
    /// A phase that the core's closing cuts short. (An `async fn` would hold the phase twice:
    /// once as its argument, once pinned.)
    pub(super) struct Watched<'a, F> {
        seat: &'a Seat<'a>,
        #[pin]
        phase: F,
    }
}

pin_project! {
    /// A phase that the core's closing or its time limit cuts short.
    pub(super) struct Limited<'a, F> {
        #[pin]
        watched: Watched<'a, F>,
        #[pin]
        timer: Sleep,
    }
}

/// Runs a phase that keeps its own time.
pub(super) fn watch<'a, F: Future>(seat: &'a Seat<'a>, phase: F) -> Watched<'a, F> {
    Watched { seat, phase }
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
        match this.phase.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if this.seat.poll(cx) == RunState::Closing => {
                Poll::Ready(Err(Interrupted::Shutdown))
            }
            Poll::Pending => Poll::Pending,
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
