//! What the cores have counted, summed.

use super::catalog;
use super::page::{Page, each};
use crate::config::Plan;
use crate::observe::meters::{
    Carried, Count, Discard, Ended, HANDSHAKE_CAUSES, Handshakes, PerCore, Registry, Scale,
    Setbacks, TIMED,
};
use crate::observe::names::ENDED_BY_RINGWAY;
use crate::observe::{Fallback, RelayPath};
use crate::types::{Cause, Direction, Phase, Side};

/// Writes all families of the registry. `plan` is the one in use.
pub fn write_counted(page: &mut Page, registry: &Registry, plan: &Plan) {
    write_cores(page, registry);
    write_connections(page, registry, plan);
    write_ended(page, registry);
    write_bytes(page, registry);
    write_downstream_handshakes(page, registry);
    write_upstream_handshakes(page, registry);
    write_times(page, registry);
    write_servers(page, registry);
    write_warm(page, registry);
}

fn sum<M>(cores: &PerCore<M>, of: impl Fn(&M) -> &Count) -> u64 {
    let values = cores.iter().map(|core| of(core).value());
    values.fold(0, u64::wrapping_add)
}

const DIRECTIONS: [(Direction, &str); 2] = [(Direction::Up, "up"), (Direction::Down, "down")];

fn write_cores(page: &mut Page, registry: &Registry) {
    let cores = || registry.cores().iter().enumerate();
    let mut family = page.family(&catalog::CORE_CONNECTIONS);
    cores().for_each(|(core, it)| family.count([&core.to_string()], it.live.value()));
    let mut family = page.family(&catalog::CORE_PLANS);
    cores().for_each(|(core, it)| family.count([&core.to_string()], it.generations.value()));
    let mut family = page.family(&catalog::RING_WAITS);
    cores().for_each(|(core, it)| family.count([&core.to_string()], it.ring_waits.value()));
    let mut family = page.family(&catalog::ACCEPT_PAUSES);
    cores().for_each(|(core, it)| family.count([&core.to_string()], it.accept_pauses.value()));
    let mut family = page.family(&catalog::PIPES_SMALL);
    cores().for_each(|(core, it)| family.count([&core.to_string()], it.pipes_small.value()));
    let mut family = page.family(&catalog::PIPES_REFUSED);
    cores().for_each(|(core, it)| family.count([&core.to_string()], it.pipes_refused.value()));
    let mut family = page.family(&catalog::FALLBACKS);
    for (direction, word) in DIRECTIONS {
        for fallback in Fallback::ALL {
            let count = sum(registry.cores(), |it| it.fallback(direction, fallback));
            family.count([word, fallback.name()], count);
        }
    }
}

/// Phases that a connection is seen in; while it connects its try has the others.
const LIVE_PHASES: [Phase; 6] = [
    Phase::Accept,
    Phase::ProxyHeader,
    Phase::ClientHello,
    Phase::DownstreamHandshake,
    Phase::Connect,
    Phase::Relay,
];

fn write_connections(page: &mut Page, registry: &Registry, plan: &Plan) {
    let mut family = page.family(&catalog::CONNECTIONS);
    for (listener, cores) in registry.listeners() {
        for phase in LIVE_PHASES {
            family.count([listener, phase.name()], sum(cores, |it| it.live(phase)));
        }
    }
    let mut family = page.family(&catalog::CONNECTIONS_MAX);
    for listener in &plan.listeners {
        family.count([&listener.name], listener.connections_max as u64);
    }
    let mut family = page.family(&catalog::ACCEPTED);
    for (listener, cores) in registry.listeners() {
        family.count([listener], sum(cores, |it| &it.accepted));
    }
}

fn write_ended(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::ENDED);
    for (listener, cores) in registry.listeners() {
        for (cause, phase, side) in Ended::kinds() {
            let count = sum(cores, |it| it.ended.of(cause, phase, side));
            let by = side.map_or(ENDED_BY_RINGWAY, Side::name);
            let labels = [listener, cause.name(), phase.name(), by];
            // The one that every rate is compared with is there from the start.
            if cause == Cause::Finished && phase == Phase::Relay && side.is_none() {
                family.count(labels, count);
            } else {
                family.count_if_any(labels, count);
            }
        }
    }
}

fn write_bytes(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::BYTES);
    for (listener, cores) in registry.listeners() {
        for (direction, word) in DIRECTIONS {
            for path in RelayPath::ALL {
                let count = sum(cores, |it| Carried::of(&it.carried, direction, path));
                family.count_if_any([listener, word, path.name()], count);
            }
        }
    }
}

fn write_downstream_handshakes(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::DOWNSTREAM_HANDSHAKES);
    for (listener, cores) in registry.listeners() {
        for ([version, group, kind], place) in Handshakes::kinds() {
            let count = sum(cores, |it| it.handshakes.finished(place));
            family.count_if_any([listener, version, group, kind], count);
        }
    }
    let mut family = page.family(&catalog::DOWNSTREAM_FAILURES);
    for (listener, cores) in registry.listeners() {
        for cause in HANDSHAKE_CAUSES {
            let count = sum(cores, |it| it.handshakes.failed(cause));
            family.count([listener, cause.name()], count);
        }
    }
}

fn write_upstream_handshakes(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::UPSTREAM_HANDSHAKES);
    for (upstream, cores) in registry.groups() {
        for ([version, group, kind], place) in Handshakes::kinds() {
            let count = sum(cores, |it| it.handshakes.finished(place));
            family.count_if_any([upstream, version, group, kind], count);
        }
    }
    let mut family = page.family(&catalog::UPSTREAM_FAILURES);
    for (upstream, cores) in registry.groups() {
        for cause in HANDSHAKE_CAUSES {
            let count = sum(cores, |it| it.handshakes.failed(cause));
            family.count([upstream, cause.name()], count);
        }
    }
}

fn write_times(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::PHASE_SECONDS);
    for (listener, cores) in registry.listeners() {
        for (timed, phase) in TIMED.into_iter().enumerate() {
            let histograms = each(cores, move |it| it.phase(timed));
            family.histogram([listener, phase], &Scale::PHASE, histograms);
        }
    }
    let mut family = page.family(&catalog::CONNECTION_SECONDS);
    for (listener, cores) in registry.listeners() {
        family.histogram([listener], &Scale::LIFE, each(cores, |it| it.life()));
    }
}

fn write_servers(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::SERVER_CONNECTIONS);
    for ((upstream, server), cores) in registry.servers() {
        family.count([upstream, server], sum(cores, |it| &it.live));
    }
    let mut family = page.family(&catalog::SERVER_TRIES);
    for ((upstream, server), cores) in registry.servers() {
        family.count([upstream, server], sum(cores, |it| &it.tries));
    }
    let mut family = page.family(&catalog::SERVER_TAKEN);
    for ((upstream, server), cores) in registry.servers() {
        family.count([upstream, server], sum(cores, |it| &it.taken));
    }
    let mut family = page.family(&catalog::SERVER_FAILURES);
    for ((upstream, server), cores) in registry.servers() {
        for (place, reason) in Setbacks::NAMES.into_iter().enumerate() {
            let count = sum(cores, |it| it.failed.at(place));
            family.count([upstream, server, reason], count);
        }
    }
}

fn write_warm(page: &mut Page, registry: &Registry) {
    let mut family = page.family(&catalog::WARM);
    for (upstream, cores) in registry.groups() {
        family.count([upstream], sum(cores, |it| &it.warm.ready));
    }
    let mut family = page.family(&catalog::WARM_HANDED_OUT);
    for (upstream, cores) in registry.groups() {
        family.count([upstream], sum(cores, |it| &it.warm.handed_out));
    }
    let mut family = page.family(&catalog::WARM_DISCARDED);
    for (upstream, cores) in registry.groups() {
        for why in Discard::ALL {
            let count = sum(cores, |it| it.warm.discarded(why));
            family.count([upstream, why.name()], count);
        }
    }
    let mut family = page.family(&catalog::WARM_FAILED);
    for (upstream, cores) in registry.groups() {
        family.count([upstream], sum(cores, |it| &it.warm.failed));
    }
}
