//! The open loop: operations come at times of their own, whatever became of the ones before. Their
//! latency counts from when they were meant to begin, so that no wait is hidden.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::arrivals::Arrivals;
use super::carousel::turn;
use super::client::{connect_due_at, connect_times};
use super::connect::Client;
use super::run::{Load, all};
use super::scene::{Gauge, Scene};
use super::socket::PATIENCE;
use super::tally::record;

/// All threads together. Beyond that an arrival fails at once: the proxy does not keep up, and descriptors end.
pub(crate) const ARRIVALS_IN_FLIGHT_MAX: u16 = 4000;
/// Clients with tickets of their own. When all are busy another one is made, which has none.
const CLIENTS: usize = 256;
/// Operations of each client before the first arrival: it has a ticket then, and so has the proxy
/// from each upstream server.
const WARM_OPERATIONS: u32 = 4;
/// Other bursts than the measured ones.
const WARM_UP_SEED: u64 = u64::MAX / 2;

/// The clients that wait for an arrival, and how many are out.
pub(super) struct Crowd {
    load: Load,
    scene: Rc<Scene>,
    idle: RefCell<Vec<Client>>,
    out: Cell<u16>,
}

impl Crowd {
    /// Makes the clients and lets each of them connect a few times.
    pub(super) async fn gather(load: &Load, scene: &Rc<Scene>) -> anyhow::Result<Rc<Self>> {
        let crowd = Rc::new(Self {
            load: load.clone(),
            scene: Rc::clone(scene),
            idle: RefCell::new(Vec::with_capacity(CLIENTS)),
            out: Cell::new(0),
        });
        let at_a_time = usize::from(load.in_flight);
        for first in (0..CLIENTS).step_by(at_a_time) {
            let count = at_a_time.min(CLIENTS - first);
            let clients: Vec<_> = (0..count)
                .map(|_| crowd.client())
                .collect::<anyhow::Result<_>>()?;
            all(clients.into_iter().map(|client| {
                let crowd = Rc::clone(&crowd);
                async move {
                    let client = connect_times(client, WARM_OPERATIONS).await;
                    crowd.idle.borrow_mut().push(client);
                }
            }))
            .await;
        }
        Ok(crowd)
    }

    fn client(&self) -> anyhow::Result<Client> {
        Client::new(
            &self.load.work,
            &self.load.pki,
            self.load.proxy_port,
            &self.scene,
        )
    }

    /// Load like the measured one, until all of it is answered.
    pub(super) async fn warm_up(self: &Rc<Self>) {
        let mut gauge = Gauge::new(&self.scene);
        self.arrive(WARM_UP_SEED, self.load.warm_up, &mut gauge)
            .await;
    }

    /// Arrivals for as long as the run is measured, and then until all are answered or patience
    /// ends.
    pub(super) async fn measure(self: &Rc<Self>, gauge: &mut Gauge<'_>) {
        self.arrive(self.load.seed, self.load.measured, gauge).await;
        for _ in 0..self.out.get() {
            self.scene.failed(format!("not done after {PATIENCE:?}"));
        }
    }

    async fn arrive(self: &Rc<Self>, seed: u64, window: Duration, gauge: &mut Gauge<'_>) {
        let began = Instant::now();
        let arrivals = Arrivals::new(seed, self.load.arrivals_per_second);
        for due in arrivals.take_while(|due| *due < window) {
            while gauge.tick() < began + due {
                turn().await;
            }
            self.admit(began + due);
        }
        while self.out.get() > 0 && gauge.tick() < began + window + PATIENCE {
            turn().await;
        }
    }

    fn admit(self: &Rc<Self>, due: Instant) {
        if usize::from(self.out.get()) * self.load.cores.len()
            >= usize::from(ARRIVALS_IN_FLIGHT_MAX)
        {
            self.scene.failed("arrival: too many in flight".into());
            return;
        }
        let waiting = self.idle.borrow_mut().pop();
        match waiting.map_or_else(|| self.client(), Ok) {
            Ok(client) => {
                self.out.set(self.out.get() + 1);
                monoio::spawn(Rc::clone(self).operation(client, due));
            }
            Err(error) => self.scene.failed(format!("arrival: {error:#}")),
        }
    }

    async fn operation(self: Rc<Self>, mut client: Client, due: Instant) {
        self.scene
            .note(|tally| record(&mut tally.latencies.start_delay, due.elapsed()));
        if let Err(failure) = connect_due_at(&mut client, due).await {
            self.scene.failed(failure.0);
        }
        self.idle.borrow_mut().push(client);
        self.out.set(self.out.get() - 1);
    }
}
