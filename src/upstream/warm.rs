//! Connections that are ready before a client needs them: each core keeps up to `warm` for each
//! server, with TCP and TLS done.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use monoio::time::timeout;

use super::connect::{Attempts, Reached, Request, attempt};
use super::group::{Endpoint, Group};
use super::lease::Lease;
use super::tries::{TryLimits, in_words};
use crate::net::{Buffers, Parts, ReceiveError};
use crate::observe::LegTls;
use crate::observe::meters::Discard;
use crate::tls::{HandshakesInFlight, Opened, TlsLeg};
use crate::types::{UnixSeconds, unix_now};

/// Connections of one core and group that are being made ready at the same time: they must not
/// crowd out those that a client waits for.
pub const WARMING_AT_ONCE: usize = 8;

/// How often connections are looked through that nobody asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// First and longest wait after a failure, doubled in between.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What keeping a group warm needs of its core.
#[derive(Clone, Copy)]
pub struct WarmMeans<'a> {
    pub buffers: &'a Buffers,
    pub handshakes: &'a HandshakesInFlight,
    /// So that legs can be handed to kernel TLS.
    pub keep_secrets: bool,
}

/// One core's ready connections of a group.
#[derive(Default)]
pub(super) struct WarmPool {
    shelves: RefCell<HashMap<*const Endpoint, Shelf>>,
    looked_at: Cell<Option<Instant>>,
    /// Those who make connections ready and have nothing to do.
    idle: RefCell<Vec<Waker>>,
}

/// The ready connections of one endpoint.
#[derive(Default)]
struct Shelf {
    endpoint: Weak<Endpoint>,
    /// The newest last.
    ready: VecDeque<WarmConnection>,
    under_way: usize,
    /// In a row.
    failures: u32,
    retry_at: Option<Instant>,
}

/// Its place at the server is taken.
struct WarmConnection {
    endpoint: Rc<Endpoint>,
    reached: Reached,
    seen: Option<LegTls>,
    sni: Option<Box<str>>,
    begun: Instant,
    ready_at: Instant,
    /// The server's certificate is good until then.
    ends_at: Option<UnixSeconds>,
}

/// A ready connection that a client gets.
pub(super) struct Handed<'a> {
    pub(super) lease: Lease<'a>,
    pub(super) reached: Reached,
    pub(super) seen: Option<LegTls>,
    pub(super) sni: Option<Box<str>>,
    /// How long it has been ready.
    pub(super) age: Duration,
}

impl WarmPool {
    fn ring(&self) {
        if let Some(waker) = self.idle.borrow_mut().pop() {
            waker.wake();
        }
    }

    /// Until a connection is missing, or for [`LOOK_EVERY`].
    async fn rung(&self) {
        let mut waited = false;
        let rung = poll_fn(|cx| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            self.idle.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        });
        // Whoever is awake by the clock leaves a waker behind that wakes him once for nothing.
        let _ = timeout(LOOK_EVERY, rung).await;
        let mut idle = self.idle.borrow_mut();
        let excess = idle.len().saturating_sub(WARMING_AT_ONCE);
        idle.drain(..excess);
    }
}

impl Group {
    /// Whether a connection is ready for a client.
    #[must_use]
    pub fn holds_warm(&self) -> bool {
        self.plan.warm.connections_max > 0
            && self
                .warm
                .shelves
                .borrow()
                .values()
                .any(|it| !it.ready.is_empty())
    }

    /// The newest ready connection to `endpoint`; `None`: to any. Those that are not what they were
    /// are thrown away. A client that has agreed on a protocol gets one that speaks it, or none; one
    /// whose secrets are logged gets none, since those of a handshake that is over are not known.
    pub(super) fn take_warm(
        &self,
        endpoint: Option<&Rc<Endpoint>>,
        request: &Request<'_, '_>,
    ) -> Option<Handed<'_>> {
        if let Some(tls) = self.tls()
            && (tls.alpn(request.alpn) != tls.alpn(None) || tls.logs_keys_of(request.client))
        {
            return None;
        }
        loop {
            let mut warm = self.warm.take(endpoint)?;
            self.warm.ring();
            let unfit = warm.unfit(request.buffers, self.plan.warm.idle);
            let lease = Lease::resume(self, Rc::clone(&warm.endpoint), warm.begun);
            let Some(why) = unfit else {
                self.meters.group.warm.hand_out();
                return Some(Handed {
                    lease,
                    age: warm.ready_at.elapsed(),
                    reached: warm.reached,
                    seen: warm.seen,
                    sni: warm.sni,
                });
            };
            self.meters.group.warm.discard(why);
            warm.part();
        }
    }

    /// Makes connections ready while `is_wanted`, one after the other. [`WARMING_AT_ONCE`] of these
    /// run beside each other.
    pub async fn keep_warm(&self, means: WarmMeans<'_>, is_wanted: impl Fn() -> bool) {
        while is_wanted() && !self.is_retired() {
            self.look_through(means.buffers);
            match self.lacking(Instant::now()) {
                Some(endpoint) => self.warm_one(&endpoint, means).await,
                None => self.warm.rung().await,
            }
        }
        self.throw_away(|_| Some(Discard::Drain));
    }

    /// Nobody will come for those that are ready: their places are given back now.
    pub(super) fn dismiss_warm(&self) {
        self.throw_away(|_| Some(Discard::Retired));
        std::mem::take(&mut *self.warm.idle.borrow_mut())
            .into_iter()
            .for_each(Waker::wake);
    }

    /// The endpoint that lacks a connection most.
    fn lacking(&self, now: Instant) -> Option<Rc<Endpoint>> {
        let most = self.plan.warm.connections_max;
        let shelves = self.warm.shelves.borrow();
        let held = |endpoint: &Rc<Endpoint>| match shelves.get(&Rc::as_ptr(endpoint)) {
            None => Some(0),
            Some(shelf) if shelf.retry_at.is_some_and(|at| now < at) => None,
            Some(shelf) => Some(shelf.ready.len() + shelf.under_way),
        };
        let lacking = self.endpoints().into_iter().filter_map(|endpoint| {
            let held = held(&endpoint).filter(|held| *held < most)?;
            Some((held, endpoint))
        });
        lacking
            .min_by_key(|(held, _)| *held)
            .map(|(_, endpoint)| endpoint)
    }

    async fn warm_one(&self, endpoint: &Rc<Endpoint>, means: WarmMeans<'_>) {
        let _under_way = UnderWay::begin(&self.warm, endpoint);
        let Some(mut lease) = self.lease_at(endpoint) else {
            // Down, or full.
            self.warm.with(endpoint, |shelf| {
                shelf.retry_at = Some(Instant::now() + LOOK_EVERY)
            });
            return;
        };
        let request = Request {
            group: self,
            proxy_header: &[],
            client: None,
            buffers: means.buffers,
            handshakes: means.handshakes,
            limits: TryLimits::WARM,
            key: 0,
            alpn: None,
            keep_secrets: means.keep_secrets,
        };
        let mut attempts = Attempts::default();
        self.on_try(&lease);
        let attempt = attempt(&request, &mut lease, &mut Vec::new(), &mut attempts).await;
        self.on_tried(&lease, &attempt, &attempts);
        let failed = match attempt {
            Ok(reached) => match reached.finish().await {
                Ok(()) => return self.put(lease, reached, attempts),
                Err(error) => error.to_string(),
            },
            Err(refused) => {
                let words = in_words(&refused.end);
                if refused.blamed {
                    lease.fails(|| words.clone());
                }
                words
            }
        };
        self.meters.group.warm.failed.add(1);
        tracing::debug!(group = self.plan.name, address = %endpoint.address, "not warm: {failed}");
        self.warm
            .with(endpoint, |shelf| shelf.on_failure(Instant::now()));
    }

    fn put(&self, lease: Lease<'_>, reached: Reached, attempts: Attempts) {
        lease.works();
        let endpoint = Rc::clone(lease.endpoint());
        let warm = WarmConnection {
            ends_at: reached
                .tls
                .as_ref()
                .and_then(|tls| tls.shared.peer_ends_at()),
            endpoint: Rc::clone(&endpoint),
            reached,
            seen: attempts.tls,
            sni: attempts.sni,
            begun: lease.begun(),
            ready_at: Instant::now(),
        };
        lease.park();
        self.warm.with(&endpoint, |shelf| {
            (shelf.failures, shelf.retry_at) = (0, None);
            shelf.ready.push_back(warm);
        });
        self.meters.group.warm.ready.add(1);
    }

    /// Throws away what is not fit any more, once in [`LOOK_EVERY`].
    fn look_through(&self, buffers: &Buffers) {
        let looked_at = self.warm.looked_at.get();
        if looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.warm.looked_at.set(Some(Instant::now()));
        self.throw_away(|warm| warm.unfit(buffers, self.plan.warm.idle));
    }

    fn throw_away(&self, mut unfit_for: impl FnMut(&mut WarmConnection) -> Option<Discard>) {
        let mut unfit = Vec::new();
        self.warm.shelves.borrow_mut().retain(|_, shelf| {
            for mut warm in std::mem::take(&mut shelf.ready) {
                match unfit_for(&mut warm) {
                    None => shelf.ready.push_back(warm),
                    Some(why) => unfit.push((warm, why)),
                }
            }
            shelf.under_way > 0 || shelf.endpoint.upgrade().is_some_and(|it| it.is_member())
        });
        for (warm, why) in unfit {
            self.meters.group.warm.discard(why);
            drop(Lease::resume(self, Rc::clone(&warm.endpoint), warm.begun));
            warm.part();
        }
    }
}

impl WarmPool {
    fn with<R>(&self, endpoint: &Rc<Endpoint>, run: impl FnOnce(&mut Shelf) -> R) -> R {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(Rc::as_ptr(endpoint)).or_default();
        shelf.endpoint = Rc::downgrade(endpoint);
        run(shelf)
    }

    fn take(&self, endpoint: Option<&Rc<Endpoint>>) -> Option<WarmConnection> {
        let mut shelves = self.shelves.borrow_mut();
        match endpoint {
            Some(endpoint) => shelves.get_mut(&Rc::as_ptr(endpoint))?.ready.pop_back(),
            None => shelves
                .values_mut()
                .find_map(|shelf| shelf.ready.pop_back()),
        }
    }
}

impl Shelf {
    /// Those that fail beside each other are one failure.
    fn on_failure(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let doublings = self.failures.min(16);
        self.failures += 1;
        let wait = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX);
        self.retry_at = Some(now + wait);
    }
}

/// Counts a connection that is being made.
struct UnderWay<'a> {
    pool: &'a WarmPool,
    endpoint: Rc<Endpoint>,
}

impl<'a> UnderWay<'a> {
    fn begin(pool: &'a WarmPool, endpoint: &Rc<Endpoint>) -> Self {
        pool.with(endpoint, |shelf| shelf.under_way += 1);
        Self {
            pool,
            endpoint: Rc::clone(endpoint),
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.pool.with(&self.endpoint, |shelf| shelf.under_way -= 1);
    }
}

impl WarmConnection {
    /// Why a client may not get it; `None`: it is young enough, the server's certificate is still
    /// good, and the server has neither spoken nor gone. Session tickets are taken on the way.
    fn unfit(&mut self, buffers: &Buffers, idle: Duration) -> Option<Discard> {
        // Read first: a close with tickets unread would be a reset.
        if !self.reached.is_silent(buffers) {
            Some(Discard::Ended)
        } else if !self.endpoint.is_member() {
            Some(Discard::Left)
        } else if self.endpoint.is_held() {
            Some(Discard::Held)
        } else if self.ready_at.elapsed() >= idle {
            Some(Discard::Idle)
        } else {
            let is_over = self.ends_at.is_some_and(|ends_at| unix_now() >= ends_at);
            is_over.then_some(Discard::Certificate)
        }
    }

    /// Says goodbye, so that the server does not take it for a fault.
    fn part(mut self) {
        let Reached { socket, tls, .. } = &mut self.reached;
        if let Some(tls) = tls
            && let Ok(control) = tls.writer.close_notify(&tls.shared)
        {
            // It is gone or it is not: nobody waits.
            let _ = control.try_send(socket);
        }
    }
}

impl Reached {
    /// Sends the end of our handshake, which otherwise goes with the first data.
    async fn finish(&self) -> io::Result<()> {
        match &self.tls {
            Some(tls) => self.socket.send_all(&tls.shared.take_unsent()).await,
            None => Ok(()),
        }
    }

    /// False: the server has sent data or ended the connection, or it is broken.
    fn is_silent(&mut self, buffers: &Buffers) -> bool {
        loop {
            match self.inbound.try_receive(&self.socket, buffers, false) {
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.inbound.release_if_empty();
                    return true;
                }
                Ok(received) if received > 0 => {}
                Ok(_) | Err(_) => return false,
            }
            let Some(TlsLeg { reader, shared, .. }) = &mut self.tls else {
                return false;
            };
            let mut parts = Parts::default();
            let opened = reader.open(&mut self.inbound, &mut parts, shared);
            if !matches!(opened, Ok(Opened::NeedMore)) {
                return false;
            }
        }
    }
}
