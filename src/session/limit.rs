use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use monoio::time::sleep;

use super::watch::{RunState, Seat};

/// Why a phase was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupted {
    Timeout,
    Shutdown,
}

/// Runs a phase under its time limit. `None`: the phase keeps its own.
///
/// The timer is set only when the phase has to wait.
pub(super) async fn limit<F: Future>(
    seat: &Seat<'_>,
    timeout: Option<Duration>,
    phase: F,
) -> Result<F::Output, Interrupted> {
    let mut phase = pin!(phase);
    let mut timer = pin!(timeout.map(sleep));
    poll_fn(|cx| {
        if let Poll::Ready(output) = phase.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if seat.poll(cx) == RunState::Closing {
            return Poll::Ready(Err(Interrupted::Shutdown));
        }
        match timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(Interrupted::Timeout)),
            _ => Poll::Pending,
        }
    })
    .await
}
