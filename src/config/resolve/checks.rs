//! What only shows when the whole file is seen at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::access::LocalAddress;
use crate::config::diagnostic::Diagnostic;
use crate::config::plan::{
    Balance, BindAddress, ListenerPlan, Located, Plan, ServerAddress, Target,
};
use crate::types::GroupId;

use super::scope::Desk;
use super::upstream::Groups;

pub(super) fn whole_file(desk: &mut Desk<'_>, plan: &Plan, groups: &Groups) {
    binds_differ(desk, plan);
    wildcards_overlap(desk, plan);
    no_loops(desk, plan);
    tls_in_tls(desk, plan);
    names_are_seen(desk, plan);
    transparent_clients_have_addresses(desk, plan);
    if desk.lost.is_empty() {
        upstreams_are_used(desk, groups);
    }
}

fn all_binds(plan: &Plan) -> impl Iterator<Item = (&ListenerPlan, &Located<BindAddress>)> {
    plan.listeners
        .iter()
        .flat_map(|listener| listener.binds.iter().map(move |bind| (listener, bind)))
}

fn tcp_binds(plan: &Plan) -> HashMap<SocketAddr, (&ListenerPlan, &Located<BindAddress>)> {
    all_binds(plan)
        .filter_map(|(listener, bind)| match bind.value {
            // Port 0 is another port each time.
            BindAddress::Tcp(address) if address.port() != 0 => Some((address, (listener, bind))),
            _ => None,
        })
        .collect()
}

/// The kernel would share the connections of one address between two listeners (SO_REUSEPORT).
fn binds_differ(desk: &mut Desk<'_>, plan: &Plan) {
    let mut first_lines: HashMap<String, usize> = HashMap::new();
    let admin = plan.admin.iter().flat_map(|admin| &admin.listen);
    for bind in all_binds(plan).map(|(_, bind)| bind).chain(admin) {
        let key = match &bind.value {
            BindAddress::Tcp(address) if address.port() == 0 => continue,
            BindAddress::Tcp(address) => address.to_string(),
            BindAddress::Unix(path) => format!("unix:{}", path.display()),
        };
        let line = desk.line(bind.place.span.start);
        if let Some(first) = first_lines.get(&key) {
            desk.diagnostics.push(
                Diagnostic::error(format!("`{key}` is bound already in line {first}"))
                    .at_place(&bind.place)
                    .cure("choose another port or address, or make it one listener"),
            );
            continue;
        }
        first_lines.insert(key, line);
    }
}

/// Every core binds with SO_REUSEPORT, so the kernel takes both and prefers the specific one.
fn wildcards_overlap(desk: &mut Desk<'_>, plan: &Plan) {
    let binds = tcp_binds(plan);
    for (listener, bind) in all_binds(plan) {
        let BindAddress::Tcp(address) = bind.value else {
            continue;
        };
        let every: IpAddr = match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let wildcard = SocketAddr::new(every, address.port());
        let Some((other, _)) = binds.get(&wildcard).filter(|_| address.ip() != every) else {
            continue;
        };
        let diagnostic = if other.name == listener.name {
            Diagnostic::warning(format!(
                "`{wildcard}` of this listener includes `{address}`"
            ))
            .cure("keep one of the two")
        } else {
            Diagnostic::warning(format!(
                "`{wildcard}` of listener `{}` includes `{address}`: connections to it come here, all others go there",
                other.name
            ))
            .cure("if that is not what you want, choose another port")
        };
        desk.diagnostics.push(diagnostic.at_place(&bind.place));
    }
}

/// A listener whose own address is its upstream would connect to itself until a limit stops it.
fn no_loops(desk: &mut Desk<'_>, plan: &Plan) {
    for listener in &plan.listeners {
        for id in targets(listener) {
            let Some(group) = plan.upstreams.get(usize::from(id.0)) else {
                continue;
            };
            for server in &group.servers {
                let own =
                    |bind: &Located<BindAddress>| same_place(&bind.value, &server.address.value);
                if listener.binds.iter().any(own) {
                    desk.diagnostics.push(
                        Diagnostic::error(format!(
                            "listener `{}` binds `{}` itself, and would connect to itself without end",
                            listener.name, server.address.value
                        ))
                        .at_place(&server.address.place)
                        .cure("name the address that the application listens on"),
                    );
                }
            }
        }
    }
}

fn targets(listener: &ListenerPlan) -> Vec<GroupId> {
    match &listener.target {
        Target::Group(id) => vec![*id],
        Target::Routes { routes, default } => {
            let routed = routes.iter().map(|route| route.upstream);
            let mut ids: Vec<GroupId> = routed.chain(*default).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
    }
}

fn targets_of_tls(listener: &ListenerPlan) -> Vec<GroupId> {
    match &listener.target {
        Target::Group(id) => vec![*id],
        Target::Routes { routes, default } => {
            let routes = routes.iter().filter(|route| !route.plain);
            let routed = routes.map(|route| route.upstream);
            routed.chain(*default).collect()
        }
    }
}

fn same_place(bind: &BindAddress, server: &ServerAddress) -> bool {
    match (bind, server) {
        (BindAddress::Tcp(bind), ServerAddress::Ip(server)) => bind == server,
        (BindAddress::Unix(bind), ServerAddress::Unix(server)) => bind == server,
        _ => false,
    }
}

/// Routes without termination pass the client's TLS on; TLS of our own round it is a slip.
fn tls_in_tls(desk: &mut Desk<'_>, plan: &Plan) {
    for listener in plan
        .listeners
        .iter()
        .filter(|listener| listener.tls.is_none())
    {
        if !listener.target.reads_hello() {
            continue;
        }
        let wrapped = targets_of_tls(listener)
            .into_iter()
            .filter_map(|id| plan.upstreams.get(usize::from(id.0)))
            .find(|group| group.tls.is_some());
        let (Some(group), Some(bind)) = (wrapped, listener.binds.first()) else {
            continue;
        };
        desk.diagnostics.push(
            Diagnostic::warning(format!(
                "listener `{}` passes TLS through to upstream `{}`, which wraps it in TLS again",
                listener.name, group.name
            ))
            .at_place(&bind.place)
            .cure(
                "add [listener.tls] to terminate TLS first, or take the upstream's tls table out",
            ),
        );
    }
}

/// Without TLS or routes nobody reads the ClientHello that the strategy goes by.
fn names_are_seen(desk: &mut Desk<'_>, plan: &Plan) {
    for listener in &plan.listeners {
        let (Target::Group(group), None, Some(bind)) =
            (&listener.target, &listener.tls, listener.binds.first())
        else {
            continue;
        };
        let group = plan.upstreams.get(usize::from(group.0));
        let Some(group) = group.filter(|group| group.balance == Balance::HashSni) else {
            continue;
        };
        desk.diagnostics.push(
            Diagnostic::warning(format!(
                "listener `{}` reads no server name for `balance = \"hash-sni\"` of upstream `{}`: the client's address is hashed",
                listener.name, group.name
            ))
            .at_place(&bind.place)
            .cure("add [listener.tls] or a [[listener.route]], or write \"hash-source\""),
        );
    }
}

/// A client of a unix socket has no address that a server could see.
fn transparent_clients_have_addresses(desk: &mut Desk<'_>, plan: &Plan) {
    for listener in &plan.listeners {
        let path = |bind: &'_ Located<BindAddress>| match &bind.value {
            BindAddress::Unix(path) => Some((path.clone(), bind.place.clone())),
            BindAddress::Tcp(_) => None,
        };
        let Some((path, place)) = listener.binds.iter().find_map(path) else {
            continue;
        };
        let transparent = targets(listener)
            .into_iter()
            .filter_map(|id| plan.upstreams.get(usize::from(id.0)))
            .find(|group| matches!(group.local, LocalAddress::Client(_)));
        if let Some(group) = transparent {
            desk.diagnostics.push(
                Diagnostic::error(format!(
                    "clients of `unix:{}` have no address that upstream `{}`, which is transparent, could connect from",
                    path.display(), group.name
                ))
                .at_place(&place)
                .cure("send them to an upstream of its own, without `transparent`"),
            );
        }
    }
}

fn upstreams_are_used(desk: &mut Desk<'_>, groups: &Groups) {
    for (name, span) in groups.unused() {
        desk.diagnostics.push(
            Diagnostic::warning(format!(
                "no listener sends connections to upstream `{name}`"
            ))
            .at(span)
            .cure("name it in a listener's `upstream`, or take it out"),
        );
    }
}
