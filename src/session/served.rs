use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::watch::Seat;
use crate::relay::Seen;
use crate::types::Order;
use crate::upstream::Lease;

pin_project! {
    /// A relay that an order to end cuts short, the connection's own or one for all of its server.
    pub(super) struct Served<'a, F> {
        seat: &'a Seat<'a>,
        lease: &'a Lease<'a>,
        seen: &'a Seen<'a>,
        #[pin]
        relay: F,
    }
}

/// Runs a relay while its server may be used. [`Watch::wake`](super::watch::Watch::wake) tells it
/// to look.
pub(super) fn serve_while<'a, F: Future>(
    seat: &'a Seat<'a>,
    lease: &'a Lease<'a>,
    seen: &'a Seen<'a>,
    relay: F,
) -> Served<'a, F> {
    seat.note(|live| live.endpoint = Rc::downgrade(lease.endpoint()));
    Served {
        seat,
        lease,
        seen,
        relay,
    }
}

impl<F: Future> Future for Served<'_, F> {
    type Output = Result<F::Output, &'static Order>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.relay.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // Bytes move in polls alone: what is noted here is so until the next.
        let bytes = [this.seen.bytes_up.get(), this.seen.bytes_down.get()];
        this.seat.note(|live| live.bytes = bytes);
        match this.seat.order(cx).or(this.lease.endpoint().order()) {
            Some(order) => Poll::Ready(Err(order)),
            None => Poll::Pending,
        }
    }
}
