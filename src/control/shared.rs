//! What all cores are built from, by one plan and by the next.

use std::path::PathBuf;
use std::sync::Arc;

use super::prober::CHECKS_MAX;
use crate::config::{DownstreamTls, ListenerPlan, Located, Plan, Trust, UpstreamPlan, UpstreamTls};
use crate::observe::meters::PlanMeters;
use crate::session::Access;
use crate::sys::KtlsAbility;
use crate::tls::{ClientTls, Digests, Files, KeyRing, MaterialError, ServerTls};
use crate::upstream::ServerCounts;
use crate::worker::Shared;

/// What cores are built from at the start.
pub(super) fn first(
    (plan, files): (&Arc<Plan>, &Files),
    workers: usize,
    kernel_tls: Option<KtlsAbility>,
    meters: PlanMeters,
) -> Result<Shared, MaterialError> {
    let before = Shared {
        generation: 0,
        plan: Arc::clone(plan),
        server_tls: Vec::new(),
        key_rings: Vec::new(),
        client_tls: Vec::new(),
        connections: Vec::new(),
        server_counts: Vec::new(),
        access: Vec::new(),
        kernel_tls,
        digests: Digests::default(),
        meters: PlanMeters::default(),
    };
    Succession {
        before: &before,
        files,
        digests: Digests::default(),
    }
    .shared(plan, (0, workers), meters)
}

/// What cores are built from by the next plan. Whatever is the same in both is the same thing.
pub(super) fn next(
    before: &Shared,
    (plan, files): (&Arc<Plan>, &Files),
    workers: usize,
    meters: PlanMeters,
) -> Result<Shared, MaterialError> {
    Succession {
        before,
        files,
        digests: files.digests(),
    }
    .shared(plan, (before.generation + 1, workers), meters)
}

struct Succession<'a> {
    before: &'a Shared,
    files: &'a Files,
    /// Of `files`, once they were read.
    digests: Digests,
}

impl Succession<'_> {
    fn shared(
        &self,
        plan: &Arc<Plan>,
        (generation, workers): (u64, usize),
        meters: PlanMeters,
    ) -> Result<Shared, MaterialError> {
        let key_rings: Vec<_> = plan
            .listeners
            .iter()
            .map(|listener| self.key_ring(listener))
            .collect::<Result<_, _>>()?;
        let listeners = plan.listeners.iter().zip(&key_rings);
        let server_tls = listeners.map(|(listener, keys)| self.server_tls(listener, keys.as_ref()));
        let server_tls = server_tls.collect::<Result<_, _>>()?;
        let upstreams = plan.upstreams.iter();
        let client_tls = upstreams.map(|upstream| self.client_tls(upstream));
        let client_tls = client_tls.collect::<Result<_, _>>()?;
        let listeners = plan.listeners.iter();
        let upstreams = plan.upstreams.iter();
        Ok(Shared {
            generation,
            plan: Arc::clone(plan),
            server_tls,
            key_rings,
            client_tls,
            connections: listeners.clone().map(|it| self.connections(it)).collect(),
            server_counts: upstreams.map(|it| self.counts(it, workers)).collect(),
            access: listeners.map(|it| self.access(it)).collect(),
            kernel_tls: self.before.kernel_tls,
            digests: self.files.digests(),
            meters,
        })
    }

    /// The listener of the same name before, and its place.
    fn listener(&self, name: &str) -> Option<(usize, &ListenerPlan)> {
        let mut known = self.before.plan.listeners.iter().enumerate();
        let (place, plan) = known.find(|(_, it)| it.name == name)?;
        (place < self.before.connections.len()).then_some((place, plan))
    }

    fn upstream(&self, name: &str) -> Option<(usize, &UpstreamPlan)> {
        let mut known = self.before.plan.upstreams.iter().enumerate();
        let (place, plan) = known.find(|(_, it)| it.name == name)?;
        (place < self.before.server_counts.len()).then_some((place, plan))
    }

    fn key_ring(&self, listener: &ListenerPlan) -> Result<Option<Arc<KeyRing>>, MaterialError> {
        let Some(DownstreamTls { resumption, .. }) = &listener.tls else {
            return Ok(None);
        };
        let known = self.listener(&listener.name).and_then(|(place, plan)| {
            let ring = self.before.key_rings[place].as_ref()?;
            Some((ring, &plan.tls.as_ref()?.resumption))
        });
        let Some((ring, before)) = known else {
            return KeyRing::of_files(self.files, resumption).map(Some);
        };
        let same_keys = before.ticket_key_files == resumption.ticket_key_files
            && resumption.files().all(|(_, file)| self.is_same(file));
        if same_keys && before.lifetime == resumption.lifetime {
            return Ok(Some(Arc::clone(ring)));
        }
        match ring.succeeded(resumption) {
            Some(ring) => Ok(Some(ring)),
            None => KeyRing::of_files(self.files, resumption).map(Some),
        }
    }

    fn server_tls(
        &self,
        listener: &ListenerPlan,
        keys: Option<&Arc<KeyRing>>,
    ) -> Result<Option<Arc<ServerTls>>, MaterialError> {
        let (Some(plan), Some(keys)) = (&listener.tls, keys) else {
            return Ok(None);
        };
        let known = self.listener(&listener.name);
        let tls_before = known.and_then(|(place, _)| self.before.server_tls[place].as_ref());
        let is_same = known.is_some_and(|(place, before)| {
            let ring = self.before.key_rings[place].as_ref();
            before.tls.as_ref() == Some(plan)
                && ring.is_some_and(|ring| Arc::ptr_eq(ring, keys))
                && plan.files().iter().all(|(_, file)| self.is_same(file))
        });
        if let Some(tls) = tls_before.filter(|_| is_same) {
            return Ok(Some(Arc::clone(tls)));
        }
        let tls_before = tls_before.map(AsRef::as_ref);
        let tls = ServerTls::of_files(self.files, (plan, keys), tls_before)?;
        Ok(Some(Arc::new(tls)))
    }

    fn client_tls(&self, upstream: &UpstreamPlan) -> Result<Option<Arc<ClientTls>>, MaterialError> {
        let Some(plan) = &upstream.tls else {
            return Ok(None);
        };
        let known = self.upstream(&upstream.name);
        let tls_before = known.and_then(|(place, _)| self.before.client_tls[place].as_ref());
        let is_same = known.is_some_and(|(_, before)| {
            before.tls.as_ref() == Some(plan)
                && plan.files().iter().all(|(_, file)| self.is_same(file))
                && self.trusts_the_same(plan)
        });
        if let Some(tls) = tls_before.filter(|_| is_same) {
            return Ok(Some(Arc::clone(tls)));
        }
        let tls = ClientTls::of_files(self.files, plan, tls_before.map(AsRef::as_ref))?;
        Ok(Some(Arc::new(tls)))
    }

    fn trusts_the_same(&self, plan: &UpstreamTls) -> bool {
        let asks_system = plan.verify && matches!(plan.trust, Trust::System);
        !asks_system || self.before.digests.agree_on_system(&self.digests)
    }

    fn is_same(&self, file: &Located<PathBuf>) -> bool {
        self.before.digests.agree_on(&self.digests, &file.value)
    }

    fn connections(&self, listener: &ListenerPlan) -> Arc<std::sync::atomic::AtomicUsize> {
        let known = self.listener(&listener.name);
        known.map_or_else(Arc::default, |(place, _)| {
            Arc::clone(&self.before.connections[place])
        })
    }

    /// With other rules clients are counted anew.
    fn access(&self, listener: &ListenerPlan) -> Option<Arc<Access>> {
        let same = self.listener(&listener.name).filter(|(_, before)| {
            before.access == listener.access && before.connections_max == listener.connections_max
        });
        match same {
            Some((place, _)) => self.before.access[place].clone(),
            None => Access::new(listener),
        }
    }

    fn counts(&self, upstream: &UpstreamPlan, workers: usize) -> Arc<ServerCounts> {
        match self.upstream(&upstream.name) {
            None => Arc::new(ServerCounts::new(upstream, workers)),
            Some((place, before)) => {
                let counts = &self.before.server_counts[place];
                match before.servers == upstream.servers {
                    true => Arc::clone(counts),
                    false => Arc::new(counts.succeeded(before, upstream)),
                }
            }
        }
    }
}

/// Descriptors of the process itself: rings, logs, signals, name servers.
const DESCRIPTORS_OWN: usize = 64;

/// Descriptors that the configured limits may need: two for each connection, two for each pipe.
pub(super) fn descriptors(plan: &Plan, workers: usize) -> u64 {
    let connections: usize = plan
        .listeners
        .iter()
        .map(|listener| listener.connections_max)
        .sum();
    let listening: usize = plan
        .listeners
        .iter()
        .map(|listener| listener.binds.len() * workers * 2)
        .sum();
    let pipes = workers * plan.runtime.pipes_max;
    let has_checks = plan.upstreams.iter().any(|it| it.check.is_some());
    let checks = if has_checks { CHECKS_MAX } else { 0 };
    (2 * connections + listening + 2 * pipes + checks + DESCRIPTORS_OWN) as u64
}
