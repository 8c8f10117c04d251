//! Ticket keys on their way from process to process, by the listener's name.

use std::sync::Arc;

use crate::tls::{KeyRing, PassedKeys};
use crate::types::unix_now;
use crate::worker::Shared;

/// What another process needs to accept the tickets that are issued here.
pub(super) fn passed_on(shared: &Shared) -> Vec<(String, PassedKeys)> {
    rings(shared)
        .filter_map(|(name, ring)| Some((name.to_owned(), ring.pass_on()?)))
        .collect()
}

/// Goes on with the keys of another process.
pub(super) fn adopt(shared: &Shared, passed: Vec<(String, PassedKeys)>) {
    for (name, keys) in passed {
        if let Some((_, ring)) = rings(shared).find(|(known, _)| *known == name) {
            ring.adopt(keys, unix_now());
        }
    }
}

fn rings(shared: &Shared) -> impl Iterator<Item = (&str, &Arc<KeyRing>)> {
    let listeners = shared.plan.listeners.iter().zip(&shared.key_rings);
    listeners.filter_map(|(listener, ring)| Some((listener.name.as_str(), ring.as_ref()?)))
}
