//! Connections of each server on all cores together, where they are limited.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::UpstreamPlan;
use crate::types::ServerId;

/// One count for each server of a group, shared by the cores and touched twice a connection
/// (docs/decisions/0007-shared-counts.md). Servers without a limit are not counted.
#[derive(Debug)]
pub struct ServerCounts {
    servers: Vec<Count>,
}

#[derive(Debug)]
struct Count {
    connections: AtomicU32,
    /// 0: no limit.
    max: u32,
}

impl ServerCounts {
    #[must_use]
    pub fn new(plan: &UpstreamPlan) -> Self {
        let count = |max| Count {
            connections: AtomicU32::new(0),
            max,
        };
        let servers = plan.servers.iter();
        Self {
            servers: servers.map(|it| count(it.connections_max)).collect(),
        }
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
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_race_for_places_never_get_more_than_there_are() {
        const MAX: u32 = 3;
        let count = Count {
            connections: AtomicU32::new(0),
            max: MAX,
        };
        let counts = Arc::new(ServerCounts {
            servers: vec![count],
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
}
