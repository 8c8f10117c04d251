//! Connections of each server on all cores together, where they are limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::{ServerPlan, UpstreamPlan};
use crate::types::{CoreId, ServerId};

/// One count for each server of a group, shared by the cores and touched twice a connection
/// (docs/decisions/0007-shared-counts.md). Servers without a limit are not counted.
#[derive(Debug)]
pub struct ServerCounts {
    servers: Vec<Count>,
    /// By core: since when the first of its queue waits, in microseconds after `begun`; 0: nobody.
    fronts: Vec<AtomicU64>,
    begun: Instant,
}

/// Cores look for places every 10 ms: who waits for longer than two looks more has been outrun.
const PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Count {
    /// A server that stays through a reload keeps it.
    connections: Arc<AtomicU32>,
    /// 0: no limit.
    max: u32,
}

impl ServerCounts {
    #[must_use]
    pub fn new(plan: &UpstreamPlan, cores: usize) -> Self {
        let count = |max| Count {
            connections: Arc::default(),
            max,
        };
        let servers = plan.servers.iter();
        Self {
            servers: servers.map(|it| count(it.connections_max)).collect(),
            fronts: (0..cores).map(|_| AtomicU64::new(0)).collect(),
            begun: Instant::now(),
        }
    }

    /// The counts of a group by its next plan. A server that had a limit keeps its connections.
    #[must_use]
    pub fn succeeded(&self, before: &UpstreamPlan, after: &UpstreamPlan) -> Self {
        let next = Self::new(after, self.fronts.len());
        let servers = next.servers.into_iter().zip(&after.servers);
        let kept = |server: &ServerPlan| {
            let mut known = before.servers.iter().zip(&self.servers);
            let same = known.find(|(it, _)| it.address == server.address);
            same.map(|(_, count)| Arc::clone(&count.connections))
        };
        let servers = servers.map(|(count, server)| Count {
            connections: kept(server).unwrap_or_default(),
            max: count.max,
        });
        Self {
            servers: servers.collect(),
            fronts: next.fronts,
            begun: next.begun,
        }
    }

    /// The first of this core's queue waits since then.
    pub(super) fn note_front(&self, core: CoreId, since: Option<Instant>) {
        if let Some(front) = self.fronts.get(usize::from(core.0)) {
            front.store(since.map_or(0, |it| self.micros(it)), Ordering::Relaxed);
        }
    }

    /// Whether somebody on another core waits for clearly longer than `since`.
    pub(super) fn waits_longer(&self, core: CoreId, since: Instant) -> bool {
        let limit = self.micros(since.checked_sub(PATIENCE).unwrap_or(self.begun));
        let others = self.fronts.iter().enumerate();
        let mut others = others.filter(|(other, _)| *other != usize::from(core.0));
        others.any(|(_, front)| (1..limit).contains(&front.load(Ordering::Relaxed)))
    }

    fn micros(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.begun).as_micros();
        u64::try_from(passed).unwrap_or(u64::MAX).max(1)
    }

    /// Never more than the limit, on however many cores: who finds it reached adds nothing.
    pub(super) fn take(&self, server: ServerId) -> bool {
        let Count { connections, max } = self.count(server);
        let more = |count| (count < *max).then_some(count + 1);
        *max == 0
            || connections
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
    }

    pub(super) fn is_free(&self, server: ServerId) -> bool {
        let Count { connections, max } = self.count(server);
        *max == 0 || connections.load(Ordering::Relaxed) < *max
    }

    /// True: the server is limited, and somebody may wait for the place.
    pub(super) fn give_back(&self, server: ServerId) -> bool {
        let Count { connections, max } = self.count(server);
        if *max > 0 {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
        *max > 0
    }

    fn count(&self, server: ServerId) -> &Count {
        &self.servers[usize::from(server.0)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_race_for_places_never_get_more_than_there_are() {
        const MAX: u32 = 3;
        let count = Count {
            connections: Arc::default(),
            max: MAX,
        };
        let counts = Arc::new(ServerCounts {
            servers: vec![count],
            fronts: Vec::new(),
            begun: Instant::now(),
        });
        let inside = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (counts, inside) = (Arc::clone(&counts), Arc::clone(&inside));
                thread::spawn(move || {
                    let mut taken = 0;
                    for _ in 0..20_000 {
                        if counts.take(ServerId(0)) {
                            taken += 1;
                            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= MAX, "{now} hold a place");
                            inside.fetch_sub(1, Ordering::SeqCst);
                            counts.give_back(ServerId(0));
                        }
                    }
                    taken
                })
            })
            .collect();
        let taken: u32 = threads.into_iter().map(|it| it.join().unwrap()).sum();
        assert!(taken >= 20_000, "who is alone always finds one: {taken}");
        assert!(counts.is_free(ServerId(0)));
        assert_eq!(counts.servers[0].connections.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_core_whose_first_waits_longer_is_seen_by_the_others_alone() {
        let begun = Instant::now();
        let counts = ServerCounts {
            servers: Vec::new(),
            fronts: (0..2).map(|_| AtomicU64::new(0)).collect(),
            begun,
        };
        let (one, other) = (CoreId(0), CoreId(1));
        let later = begun + 10 * PATIENCE;
        assert!(!counts.waits_longer(other, later), "nobody waits");
        counts.note_front(one, Some(begun));
        assert!(counts.waits_longer(other, later));
        assert!(!counts.waits_longer(one, later), "its own do not count");
        assert!(!counts.waits_longer(other, begun + PATIENCE / 2));
        counts.note_front(one, None);
        assert!(!counts.waits_longer(other, later));
        counts.note_front(CoreId(9), Some(begun));
    }
}
