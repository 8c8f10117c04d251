//! Happy eyeballs (RFC 8305): an address that is slow to connect has one of the other family
//! beside it. Both are of one server, and count as one try.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use monoio::time::timeout;

use super::connect::{Attempts, Request};
use super::group::{Asked, Endpoint};
use super::lease::Lease;
use super::tries::{dial_end, in_words, setback, with_address};
use crate::net::Socket;
use crate::types::{Cause, End, Phase, Side};

/// One try, while it is not known which of its addresses has it.
pub(super) struct Race<'a, 'g> {
    pub(super) request: &'a Request<'a, 'g>,
    /// At the address whose turn it is; afterwards at the one that has the connection.
    pub(super) lease: &'a mut Lease<'g>,
    pub(super) tried: &'a mut Vec<Rc<Endpoint>>,
    pub(super) attempts: &'a mut Attempts,
}

/// What has become of the two dials; `None`: nothing yet.
#[derive(Default)]
struct Dials {
    own: Option<io::Result<Socket>>,
    rival: Option<io::Result<Socket>>,
}

impl<'g> Race<'_, 'g> {
    /// Opens a connection within `limit`, with a rival after `delay`. `None`: time is over.
    pub(super) async fn run(
        mut self,
        delay: Duration,
        limit: Duration,
    ) -> Option<io::Result<Socket>> {
        let request = self.request;
        let endpoint = Rc::clone(self.lease.endpoint());
        let mut own = pin!(request.dial(&endpoint));
        if let Ok(dialled) = timeout(delay.min(limit), own.as_mut()).await {
            return Some(dialled);
        }
        let left = limit.saturating_sub(delay);
        let Some(lease) = self.rival() else {
            return timeout(left, own).await.ok();
        };
        let rival = Rc::clone(lease.endpoint());
        let mut dials = Dials::default();
        // Over in time or not: what has come of each stands in `dials`.
        let _ = timeout(left, dials.run(own, pin!(request.dial(&rival)))).await;
        self.settle(lease, dials)
    }

    fn rival(&self) -> Option<Lease<'g>> {
        let asked = Asked {
            key: self.request.key,
            tried: self.tried,
        };
        self.request.group.rival(self.lease.endpoint(), &asked)
    }

    /// Who has failed by itself is blamed, and who was only slower is not.
    fn settle(&mut self, rival: Lease<'g>, dials: Dials) -> Option<io::Result<Socket>> {
        match (dials.own, dials.rival) {
            (Some(Ok(socket)), lost) => {
                if let Some(Err(error)) = lost {
                    self.pass_over(&rival, Some(&error));
                }
                Some(Ok(socket))
            }
            (lost, Some(Ok(socket))) => {
                let own = std::mem::replace(self.lease, rival);
                if let Some(Err(error)) = lost {
                    self.pass_over(&own, Some(&error));
                }
                self.attempts.turn_to(self.lease.endpoint());
                Some(Ok(socket))
            }
            (lost, rivals) => {
                self.pass_over(&rival, rivals.and_then(Result::err).as_ref());
                lost
            }
        }
    }

    /// `None`: its time was over, of which it had less than its own.
    fn pass_over(&mut self, lease: &Lease<'_>, error: Option<&io::Error>) {
        let endpoint = lease.endpoint();
        let end = match error {
            Some(error) => dial_end(error, endpoint),
            None => End::new(Cause::Timeout, Phase::Connect, Some(Side::Upstream))
                .with_detail("connect_timeout, begun after happy_eyeballs_delay"),
        };
        let end = with_address(end, &endpoint.address);
        let ours = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
        if error.is_some_and(|error| !ours(error)) && setback(&end).is_some() {
            lease.fails(|| in_words(&end));
        }
        self.attempts.passed_over.push(end);
        self.tried.push(Rc::clone(endpoint));
    }
}

impl Dials {
    /// Until one has a connection, or both have failed.
    async fn run<F, G>(&mut self, mut own: Pin<&mut F>, mut rival: Pin<&mut G>)
    where
        F: Future<Output = io::Result<Socket>>,
        G: Future<Output = io::Result<Socket>>,
    {
        poll_fn(|cx| {
            if self.own.is_none()
                && let Poll::Ready(dialled) = own.as_mut().poll(cx)
            {
                self.own = Some(dialled);
            }
            if matches!(self.own, Some(Ok(_))) {
                return Poll::Ready(());
            }
            if self.rival.is_none()
                && let Poll::Ready(dialled) = rival.as_mut().poll(cx)
            {
                self.rival = Some(dialled);
            }
            match (&self.own, &self.rival) {
                (_, Some(Ok(_))) | (Some(_), Some(_)) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;

    type Dialled = io::Result<Socket>;

    fn refused() -> Dialled {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn made() -> Dialled {
        let (socket, _) = std::os::unix::net::UnixStream::pair()?;
        Socket::new(socket.into())
    }

    /// Whether it is over, and what is known of the two: connected, failed, nothing.
    fn raced(
        own: impl Future<Output = Dialled>,
        rival: impl Future<Output = Dialled>,
    ) -> (bool, [Option<bool>; 2]) {
        let mut dials = Dials::default();
        let is_over = {
            let (own, rival) = (pin!(own), pin!(rival));
            let mut run = pin!(dials.run(own, rival));
            run.as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        };
        let known = |dialled: &Option<Dialled>| dialled.as_ref().map(Result::is_ok);
        (is_over, [known(&dials.own), known(&dials.rival)])
    }

    #[test]
    fn the_first_that_connects_ends_the_race_and_a_failure_waits_for_the_other() {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
        runtime.unwrap().block_on(async {
            let (yes, no) = (Some(true), Some(false));
            assert_eq!(raced(pending(), pending()), (false, [None, None]));
            assert_eq!(raced(ready(refused()), pending()), (false, [no, None]));
            assert_eq!(raced(pending(), ready(refused())), (false, [None, no]));
            assert_eq!(raced(pending(), ready(made())), (true, [None, yes]));
            assert_eq!(raced(ready(made()), pending()), (true, [yes, None]));
            assert_eq!(raced(ready(refused()), ready(made())), (true, [no, yes]));
            assert_eq!(raced(ready(refused()), ready(refused())), (true, [no, no]));
        });
    }
}
