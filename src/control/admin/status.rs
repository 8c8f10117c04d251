//! How the process is: `GET /status` and `GET /plan`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::Answer;
use super::model::{CoreSeen, ListenerSeen, PlanSeen, PlanValue, ServerSeen, Status, UpstreamSeen};
use super::query::Query;
use super::routes::Asked;
use crate::config::{Effective, Origin, Plan, ServerPlan, Source, explain};
use crate::control::Started;
use crate::control::board::Board;
use crate::control::resolver::NameKey;
use crate::net::PeerAddress;
use crate::types::{GroupId, ListenerId, ServerId};
use crate::upstream::{Hold, ServerState};
use crate::worker::{Census, Letter};

/// What the supervisor knows by itself.
struct Overview {
    plan: Arc<Plan>,
    file: String,
    addresses: Vec<(ListenerId, PeerAddress)>,
    connections: Vec<usize>,
    workers: usize,
    is_draining: bool,
}

impl Overview {
    fn of(started: &Started) -> Self {
        Self {
            plan: Arc::clone(started.plan()),
            file: file(started),
            addresses: started.addresses(),
            connections: started.connections(),
            workers: started.workers(),
            is_draining: started.is_draining(),
        }
    }
}

/// Whose plan is in force.
fn file(started: &Started) -> String {
    let file = started.basis.file.as_ref();
    file.map_or_else(String::new, |it| it.display().to_string())
}

pub(super) async fn status(asked: Asked) -> Result<Answer, Answer> {
    Query::parse(&asked.query, &[])?;
    let overview = asked.reach.look(|started| Overview::of(started)).await?;
    let mut cores = asked.reach.ask_cores(Letter::Census).await;
    cores.sort_by_key(|it| it.core);
    let plan = &overview.plan;
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_secs: asked.reach.uptime().as_secs(),
        state: if overview.is_draining {
            "draining"
        } else {
            "running"
        }
        .to_owned(),
        workers: overview.workers,
        plan: PlanSeen {
            file: overview.file.clone(),
            digest: plan.digest.clone(),
        },
        cores: cores.iter().map(core_seen).collect(),
        listeners: listeners(&overview),
        upstreams: upstreams(plan, &cores, &asked.reach.board),
    };
    Ok(Answer::json(&status))
}

fn core_seen(census: &Census) -> CoreSeen {
    CoreSeen {
        core: census.core.0,
        connections: census.live,
    }
}

fn listeners(overview: &Overview) -> Vec<ListenerSeen> {
    let listeners = (0..).map(ListenerId).zip(&overview.plan.listeners);
    let seen = |((id, plan), connections): ((ListenerId, &crate::config::ListenerPlan), &usize)| {
        let own = overview
            .addresses
            .iter()
            .filter(|(listener, _)| *listener == id);
        ListenerSeen {
            name: plan.name.clone(),
            addresses: own.map(|(_, address)| address.to_string()).collect(),
            connections: *connections,
            max_connections: plan.connections_max,
        }
    };
    listeners.zip(&overview.connections).map(seen).collect()
}

/// Connections of each address of a group, all cores together.
type Addresses = BTreeMap<(ServerId, String), (PeerAddress, u32)>;

fn addresses(group: GroupId, cores: &[Census]) -> Addresses {
    let mut addresses = Addresses::new();
    let members = cores
        .iter()
        .filter_map(|core| core.groups.get(usize::from(group.0)));
    for member in members.flatten() {
        let place = (member.server, member.address.to_string());
        let entry = addresses.entry(place);
        entry.or_insert_with(|| (member.address.clone(), 0)).1 += member.active;
    }
    addresses
}

fn upstreams(plan: &Plan, cores: &[Census], board: &Board) -> Vec<UpstreamSeen> {
    let groups = (0..).map(GroupId).zip(&plan.upstreams);
    let seen = groups.map(|(id, group)| {
        let addresses = addresses(id, cores);
        let servers = (0..).map(ServerId).zip(&group.servers);
        let servers = servers.flat_map(|(server, plan)| {
            let key = NameKey { group: id, server };
            let own = addresses.iter().filter(|((it, _), _)| *it == server);
            let own = own.map(|(_, (address, active))| {
                server_seen(key, plan, board, Some((address, *active)))
            });
            let own: Vec<_> = own.collect();
            let none = own.is_empty().then(|| server_seen(key, plan, board, None));
            own.into_iter().chain(none)
        });
        UpstreamSeen {
            name: group.name.clone(),
            servers: servers.collect(),
        }
    });
    seen.collect()
}

/// What stands above the rest comes first: the configuration, the operator, checks and connections.
fn server_seen(
    key: NameKey,
    plan: &ServerPlan,
    board: &Board,
    at: Option<(&PeerAddress, u32)>,
) -> ServerSeen {
    let address = at.map(|(address, _)| address);
    let held = board.held(key, address);
    let said = address.and_then(|address| board.said(key, address));
    let (state, reason, since) = match (plan.down, held, said) {
        (true, _, _) => ("off", Some("`down` in the configuration".to_owned()), None),
        (_, Some(held), _) => {
            let reason = "by the operator".to_owned();
            (held_word(held.hold), Some(reason), Some(held.since))
        }
        (_, None, _) if at.is_none() => ("unresolved", None, None),
        (_, None, Some(said)) => {
            let state = match said.state {
                ServerState::Up => "up",
                ServerState::Down => "down",
                ServerState::Barred => "barred",
            };
            (state, Some(said.reason.into()), Some(said.since))
        }
        (_, None, None) => ("up", None, None),
    };
    ServerSeen {
        server: plan.address.value.to_string(),
        address: address.map(ToString::to_string),
        state: state.to_owned(),
        reason,
        since,
        backup: plan.backup,
        connections: at.map_or(0, |(_, active)| active),
    }
}

pub(super) fn held_word(hold: Hold) -> &'static str {
    match hold {
        Hold::Drain => "drained",
        Hold::Down => "taken_down",
    }
}

/// As `ringway explain` shows it, or each value by itself.
pub(super) async fn plan(asked: Asked) -> Result<Answer, Answer> {
    let query = Query::parse(&asked.query, &["format"])?;
    let look = asked.reach.look(|started| {
        let values: Vec<Effective> = started.basis.effective.iter().map(masked).collect();
        (values, file(started))
    });
    let (values, name) = look.await?;
    match query.text("format") {
        None | Some("text") => {
            let source = Source {
                name,
                text: String::new(),
            };
            Ok(Answer::text(explain(&values, &source)))
        }
        Some("json") => Ok(Answer::json(&values.iter().map(value).collect::<Vec<_>>())),
        Some(other) => Err(Answer::wrong(
            &format!("`format` cannot be \"{other}\""),
            "write text or json",
        )),
    }
}

fn masked(effective: &Effective) -> Effective {
    Effective {
        value: effective.masked().to_owned(),
        ..effective.clone()
    }
}

fn value(effective: &Effective) -> PlanValue {
    let (line, why) = match effective.origin {
        Origin::File { line } => (Some(line), None),
        Origin::Default { why } => (None, Some(why.to_owned())),
    };
    PlanValue {
        key: effective.key.clone(),
        value: effective.value.clone(),
        line,
        why,
    }
}
