//! What a scrape is answered with: what the cores have counted, and what the control thread knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::board::Board;
use super::resolver::NameKey;
use crate::config::{FileKind, Plan, ServerAddress, ServerPlan};
use crate::net::PeerAddress;
use crate::observe::events;
use crate::observe::meters::{Count, PlanMeters, Registry};
use crate::observe::metrics::{
    Page, Syntax, Threads, catalog, write_counted, write_process, write_threads,
};
use crate::observe::sink::LogCounts;
use crate::tls::Ends;
use crate::types::{GroupId, ServerId, Side, UnixSeconds, unix_now};
use crate::upstream::ServerState;

/// The workers' threads are named so, with the core's number.
pub(super) const WORKER_NAME: &str = "ringway-";

/// The metrics of the process, whichever plan it runs by. Its clones are one.
#[derive(Clone)]
pub(super) struct Metrics {
    state: Arc<Lock>,
}

#[expect(
    clippy::disallowed_types,
    reason = "the control thread's own; no worker sees it"
)]
type Lock = std::sync::Mutex<State>;

struct State {
    registry: Registry,
    workers: usize,
    began: UnixSeconds,
    is_epoll: bool,
    restarts: Count,
    reloads: Reloads,
    in_use: Option<InUse>,
}

/// What reloads came to.
#[derive(Default)]
struct Reloads {
    applied: Count,
    refused: Count,
}

/// A plan that is being served.
pub(super) struct InUse {
    pub(super) plan: Arc<Plan>,
    pub(super) since: UnixSeconds,
    pub(super) ends: Vec<Ends>,
    pub(super) board: Board,
    pub(super) log: LogCounts,
}

impl Metrics {
    pub(super) fn new(workers: usize, is_epoll: bool) -> Self {
        let state = State {
            registry: Registry::new(workers),
            workers,
            began: unix_now(),
            is_epoll,
            restarts: Count::new(),
            reloads: Reloads::default(),
            in_use: None,
        };
        Self {
            state: Arc::new(Lock::new(state)),
        }
    }

    /// Meters for a plan that will be served, going on with the counts of the names that it keeps.
    pub(super) fn meters(&self, plan: &Plan) -> PlanMeters {
        self.with(|state| state.registry.meters(plan))
    }

    /// From now on new connections are served by this plan.
    pub(super) fn put(&self, in_use: InUse) {
        self.with(|state| state.in_use = Some(in_use));
    }

    pub(super) fn on_reload(&self, is_applied: bool) {
        self.with(|state| match is_applied {
            true => state.reloads.applied.add(1),
            false => state.reloads.refused.add(1),
        });
    }

    /// The worker has died, and is started again.
    pub(super) fn on_restart(&self, worker: usize) {
        self.with(|state| {
            state.restarts.add(1);
            state.registry.forget_live(worker);
        });
    }

    /// The answer to a scrape.
    pub(super) fn text(&self, syntax: Syntax) -> String {
        let threads = Threads::look(WORKER_NAME);
        self.with(|state| {
            state.registry.prune();
            let mut page = Page::new(syntax);
            state.write(&mut page, &threads);
            page.finish()
        })
    }

    fn with<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        run(&mut self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl State {
    fn write(&self, page: &mut Page, threads: &Threads) {
        let version = env!("CARGO_PKG_VERSION");
        let mut family = page.family(&catalog::BUILD_INFO);
        family.count([version, std::env::consts::ARCH], 1);
        let mut family = page.family(&catalog::WORKERS);
        family.count([], self.workers as u64);
        let mut family = page.family(&catalog::WORKER_RESTARTS);
        family.count([], self.restarts.value());
        let mut family = page.family(&catalog::EPOLL);
        family.count([], u64::from(self.is_epoll));
        let mut family = page.family(&catalog::RELOADS);
        family.count(["applied"], self.reloads.applied.value());
        family.count(["refused"], self.reloads.refused.value());
        write_threads(page, threads);
        if let Some(in_use) = &self.in_use {
            in_use.write(page);
            write_counted(page, &self.registry, &in_use.plan);
            write_log(page, &in_use.log);
        }
        let mut family = page.family(&catalog::EVENTS_DROPPED);
        family.count([], events::dropped());
        write_process(page, self.began);
    }
}

fn write_log(page: &mut Page, log: &LogCounts) {
    page.family(&catalog::LOG_WRITTEN).count([], log.written());
    page.family(&catalog::LOG_DROPPED).count([], log.dropped());
    page.family(&catalog::LOG_FAILURES)
        .count([], log.failures());
}

impl InUse {
    fn write(&self, page: &mut Page) {
        let mut family = page.family(&catalog::PLAN_INFO);
        family.count([&self.plan.digest], 1);
        let mut family = page.family(&catalog::PLAN_LOADED);
        family.count([], self.since);
        self.write_ends(page);
        let mut family = page.family(&catalog::SERVER_ADDRESSES);
        for ((upstream, server), counts) in self.standings() {
            for (state, addresses) in STATES.into_iter().zip(counts) {
                family.count([upstream, &server, state], addresses);
            }
        }
    }

    fn write_ends(&self, page: &mut Page) {
        let mut family = page.family(&catalog::CERTIFICATE_ENDS);
        for (place, purpose) in [
            (FileKind::Certificate, "own"),
            (FileKind::Authorities, "ca"),
        ] {
            for ([side, name, file, subject], at) in self.first_ends(place) {
                family.count([&side, &name, purpose, &file, &subject], at);
            }
        }
        let mut family = page.family(&catalog::CRL_NEXT_UPDATE);
        for (labels, at) in self.first_ends(FileKind::RevocationLists) {
            family.count(labels.each_ref().map(String::as_str), at);
        }
        let mut family = page.family(&catalog::OCSP_NEXT_UPDATE);
        for (labels, at) in self.first_ends(FileKind::OcspResponse) {
            family.count(labels.each_ref().map(String::as_str), at);
        }
    }

    /// By side, listener or group, file, and whose it is: of those that are the same in all of it
    /// the first to end.
    fn first_ends(&self, kind: FileKind) -> BTreeMap<[String; 4], UnixSeconds> {
        let mut first = BTreeMap::new();
        for ends in self.ends.iter().filter(|it| it.kind == kind) {
            let (table, name) = ends.table.split_once('.').unwrap_or_default();
            let side = match table {
                "listener" => Side::Downstream,
                _ => Side::Upstream,
            };
            let file = ends.file.display().to_string();
            let place = [
                side.name().to_owned(),
                name.to_owned(),
                file,
                ends.name.clone(),
            ];
            let known = first.entry(place).or_insert(ends.at);
            *known = ends.at.min(*known);
        }
        first
    }

    /// Addresses by group, server and state. A server that is written twice in a group is one.
    fn standings(&self) -> BTreeMap<(&str, String), [u64; STATES.len()]> {
        let known: BTreeMap<_, _> = self.board.known().into_iter().collect();
        let mut standings = BTreeMap::new();
        for (group, upstream) in (0..).map(GroupId).zip(&self.plan.upstreams) {
            for (id, server) in (0..).map(ServerId).zip(&upstream.servers) {
                let place = (upstream.name.as_str(), server.address.value.to_string());
                let counts = standings.entry(place).or_insert([0; STATES.len()]);
                let key = NameKey { group, server: id };
                let found = known.get(&key).map_or(&[][..], Vec::as_slice);
                for address in addresses(&server.address.value, found) {
                    counts[self.state(key, server, &address) as usize] += 1;
                }
            }
        }
        standings
    }

    fn state(&self, key: NameKey, server: &ServerPlan, address: &PeerAddress) -> Standing {
        if server.down {
            return Standing::Off;
        }
        if self.board.held(key, Some(address)).is_some() {
            return Standing::Held;
        }
        match self.board.said(key, address).map(|said| said.state) {
            Some(ServerState::Down) => Standing::Down,
            Some(ServerState::Barred) => Standing::Barred,
            Some(ServerState::Up) | None => Standing::Up,
        }
    }
}

fn addresses(configured: &ServerAddress, found: &[SocketAddr]) -> Vec<PeerAddress> {
    match configured {
        ServerAddress::Ip(address) => vec![PeerAddress::Ip(*address)],
        ServerAddress::Unix(path) => vec![PeerAddress::Unix(Arc::new(path.clone()))],
        ServerAddress::Name { .. } | ServerAddress::Service(_) => {
            found.iter().copied().map(PeerAddress::Ip).collect()
        }
    }
}

/// How an address of a server is: a place in [`STATES`].
#[derive(Clone, Copy)]
enum Standing {
    Up,
    Down,
    Barred,
    /// By the operator.
    Held,
    /// By the configuration.
    Off,
}

const STATES: [&str; 5] = ["up", "down", "barred", "held", "off"];
