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
    /// A phase under its time limit. (An `async fn` would hold the phase twice: once as its
    /// argument, once pinned.)
    pub(super) struct Limited<'a, F> {
        seat: &'a Seat<'a>,
        #[pin]
        phase: F,
        #[pin]
        timer: Option<Sleep>,
    }
}

/// Runs a phase under its time limit. `None`: the phase keeps its own.
pub(super) fn limit<'a, F: Future>(
    seat: &'a Seat<'a>,
    timeout: Option<Duration>,
    phase: F,
) -> Limited<'a, F> {
    Limited {
        seat,
        phase,
        timer: timeout.map(sleep),
    }
}

impl<F: Future> Future for Limited<'_, F> {
    type Output = Result<F::Output, Interrupted>;

    /// The timer is set only when the phase has to wait.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.phase.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if this.seat.poll(cx) == RunState::Closing {
            return Poll::Ready(Err(Interrupted::Shutdown));
        }
        match this.timer.as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Interrupted::Timeout)),
            _ => Poll::Pending,
        }
    }
}
