use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::watch::{RunState, Seat};
use crate::upstream::Lease;

/// Why a connection ended that neither of its peers had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parted {
    Shutdown,
    /// The server's address has been away from the DNS for `resolve_drain`.
    Overdue,
}

pin_project! {
    /// A relay that the core's closing cuts short, and the end of the server's address.
    pub(super) struct Served<'a, F> {
        seat: &'a Seat<'a>,
        lease: &'a Lease<'a>,
        #[pin]
        relay: F,
    }
}

/// Runs a relay while its server may be used. [`Watch::wake`](super::watch::Watch::wake) tells it
/// to look.
pub(super) fn serve_while<'a, F: Future>(
    seat: &'a Seat<'a>,
    lease: &'a Lease<'a>,
    relay: F,
) -> Served<'a, F> {
    seat.sit_at(lease.endpoint().mark());
    Served { seat, lease, relay }
}

impl<F: Future> Future for Served<'_, F> {
    type Output = Result<F::Output, Parted>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.relay.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let is_closing = this.seat.poll(cx) == RunState::Closing;
        match (is_closing, this.lease.endpoint().is_over()) {
            (true, _) => Poll::Ready(Err(Parted::Shutdown)),
            (false, true) => Poll::Ready(Err(Parted::Overdue)),
            (false, false) => Poll::Pending,
        }
    }
}
