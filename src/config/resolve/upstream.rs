use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{
    OneOrMany, ServerFile, Table, Text, TextOrServer, Texts, UpstreamFile, UpstreamTlsFile,
};
use crate::config::keys;
use crate::config::plan::{
    CertificatePlan, Located, ResolvePlan, ServerAddress, ServerPlan, Trust, UpstreamAlpn,
    UpstreamPlan, UpstreamTls,
};
use crate::config::value::{Refusal, alpn_protocol, server_address, tls_server_name};
use crate::types::GroupId;

use super::access::close_revoked;
use super::access::local_address;
use super::health_check::check;
use super::key_log::key_log;
use super::listener::plain_name;
use super::members::{ServerLimits, given_switch, group_limits, queue, someone_serves};
use super::names::{happy_eyeballs_delay, resolve_drain, service_has_name, service_has_shares};
use super::policy::{PolicyKeys, tls_policy};
use super::scope::{Desk, Scope, located, quoted, shown};
use super::socket::{SocketKeys, carriage, socket_options};
use super::warm::{OwnConnections, warm};

type UpstreamFiles = BTreeMap<Spanned<String>, Spanned<Table<UpstreamFile>>>;

/// Ids are 16 bits.
const GROUPS_MAX: usize = 4096;
const SERVERS_MAX: usize = 1024;

/// The file's groups by name, in the order of [`Plan::upstreams`](crate::config::Plan::upstreams).
pub(super) struct Groups {
    ids: HashMap<String, GroupId>,
    /// Where each name stands, by id.
    names: Vec<(String, Range<usize>)>,
    used: HashSet<GroupId>,
}

impl Groups {
    pub(super) fn of(files: &UpstreamFiles) -> Self {
        let mut names: Vec<(String, Range<usize>)> = files
            .keys()
            .map(|name| (name.get_ref().clone(), name.span()))
            .collect();
        names.sort_by_key(|(_, span)| span.start);
        names.truncate(GROUPS_MAX);
        let ids = (0..).map(GroupId).zip(&names);
        Self {
            ids: ids.map(|(id, (name, _))| (name.clone(), id)).collect(),
            names,
            used: HashSet::new(),
        }
    }

    /// Finds a group that a listener or a route sends connections to.
    pub(super) fn used(&mut self, name: &str) -> Option<GroupId> {
        let id = *self.ids.get(name)?;
        self.used.insert(id);
        Some(id)
    }

    pub(super) fn unused(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        (0..)
            .map(GroupId)
            .zip(&self.names)
            .filter(|(id, _)| !self.used.contains(id))
            .map(|(_, (name, span))| (name.as_str(), span.clone()))
    }

    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        keys::nearest(name, self.ids.keys().map(String::as_str))
    }
}

pub(super) fn upstreams(desk: &mut Desk<'_>, files: UpstreamFiles) -> Vec<UpstreamPlan> {
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by_key(|(name, _)| name.span().start);
    if let Some((name, _)) = files.get(GROUPS_MAX) {
        desk.diagnostics.push(
            Diagnostic::error(format!("there are more than {GROUPS_MAX} upstreams"))
                .at(name.span())
                .cure("split the file over several processes"),
        );
    }
    files
        .into_iter()
        .take(GROUPS_MAX)
        .map(|(name, file)| upstream(desk, &name, file))
        .collect()
}

fn upstream(
    desk: &mut Desk<'_>,
    name: &Spanned<String>,
    file: Spanned<Table<UpstreamFile>>,
) -> UpstreamPlan {
    let table = file.span();
    let file = file.into_inner().0;
    let scope = &mut desk.scope(format!("upstream.{}", name.get_ref()), table);
    if let Err(refusal) = plain_name(name.get_ref()) {
        scope.refuse(refusal, name.span());
    }
    let limits = group_limits(scope, &file);
    let servers = servers(scope, &file.servers, limits);
    let (queue_max, queue_timeout) = queue(scope, &file, &servers);
    let local = local_address(scope, &file, &servers);
    let proxy_protocol = scope.word(&file.proxy_protocol, &defaults::UPSTREAM_PROXY_PROTOCOL);
    let own = OwnConnections {
        proxy_protocol,
        local: &local,
    };
    let warm = warm(scope, &file, &own);
    UpstreamPlan {
        name: name.get_ref().clone(),
        balance: scope.word(&file.balance, &defaults::BALANCE),
        queue_max,
        queue_timeout,
        resolve: resolve_plan(scope, &file),
        warm,
        local,
        resolve_drain: resolve_drain(scope, &file.resolve_drain),
        happy_eyeballs_delay: happy_eyeballs_delay(scope, &file.happy_eyeballs_delay),
        socket: socket_options(
            scope,
            &SocketKeys {
                tcp_nodelay: &file.tcp_nodelay,
                keepalive: &file.keepalive,
                tcp_user_timeout: &file.tcp_user_timeout,
            },
        ),
        carriage: carriage(scope, &file.relay_path, &file.ktls_after),
        proxy_protocol,
        check: {
            let has_tls = file.tls.is_some() || scope.lost("tls");
            check(scope, file.check, &servers, has_tls)
        },
        tls: upstream_tls(scope, file.tls, &servers),
        servers,
    }
}

fn servers(
    scope: &mut Scope<'_, '_>,
    files: &[Spanned<TextOrServer>],
    limits: ServerLimits,
) -> Vec<ServerPlan> {
    if files.is_empty() {
        scope.missing(
            "servers",
            Diagnostic::error("this upstream has no servers")
                .cure("name at least one: `servers = [\"backend1.example.com:5432\"]`"),
        );
    }
    if let Some(extra) = files.get(SERVERS_MAX) {
        scope.push(
            Diagnostic::error(format!("an upstream takes at most {SERVERS_MAX} servers"))
                .at(extra.span())
                .cure("put the rest behind one DNS name"),
        );
    }
    let mut servers: Vec<ServerPlan> = Vec::new();
    for (index, file) in files.iter().take(SERVERS_MAX).enumerate() {
        let inner = &mut scope.inner(&format!("servers[{index}]"), file.span());
        let Some(server) = server(inner, file, limits) else {
            continue;
        };
        let twin = |known: &ServerPlan| known.address.value == server.address.value;
        if servers.iter().any(twin) {
            inner.push(
                Diagnostic::warning(format!(
                    "the server `{}` stands twice",
                    server.address.value
                ))
                .at_place(&server.address.place)
                .cure("for a larger share write { address = \"...\", weight = 2 }"),
            );
        }
        servers.push(server);
    }
    someone_serves(scope, &servers);
    servers
}

fn server(
    scope: &mut Scope<'_, '_>,
    file: &Spanned<TextOrServer>,
    limits: ServerLimits,
) -> Option<ServerPlan> {
    let plain = ServerFile::default();
    let (text, span, table) = match file.get_ref() {
        TextOrServer::Text(text) => (text, file.span(), &plain),
        TextOrServer::Table(table) => match &table.address {
            Some(address) => (address.get_ref(), address.span(), table.as_ref()),
            None => {
                scope.missing(
                    "address",
                    Diagnostic::error("this server has no `address`")
                        .cure("write it like { address = \"10.0.5.21:5432\", weight = 2 }"),
                );
                return None;
            }
        },
    };
    let base = scope.base();
    let address = match server_address(text, &base) {
        Ok(address) => address,
        Err(refusal) => {
            scope.refuse(refusal, span);
            return None;
        }
    };
    scope.note("address", quoted(&address.to_string()), &span);
    service_has_shares(scope, &address, table);
    Some(ServerPlan {
        address: located(address, span),
        weight: scope.count(&table.weight, &defaults::WEIGHT),
        backup: given_switch(scope, &table.backup, &defaults::BACKUP),
        down: given_switch(scope, &table.down, &defaults::DOWN),
        connections_max: limits.connections_max(scope, table),
        health: limits.health(scope, table),
    })
}

fn resolve_plan(scope: &mut Scope<'_, '_>, file: &UpstreamFile) -> ResolvePlan {
    let plan = ResolvePlan {
        ttl_min: scope.duration(&file.resolve_ttl_min, &defaults::RESOLVE_TTL_MIN),
        ttl_max: scope.duration(&file.resolve_ttl_max, &defaults::RESOLVE_TTL_MAX),
    };
    let given = file
        .resolve_ttl_max
        .as_ref()
        .or(file.resolve_ttl_min.as_ref());
    if let (Some(text), true) = (given, plan.ttl_min > plan.ttl_max) {
        let refusal = Refusal {
            message: "`resolve_ttl_min` is longer than `resolve_ttl_max`".to_owned(),
            cure: "make the first the shorter of the two; write both to be clear".to_owned(),
        };
        scope.refuse(refusal, text.span());
    }
    plan
}

fn upstream_tls(
    scope: &mut Scope<'_, '_>,
    file: Option<Spanned<Table<UpstreamTlsFile>>>,
    servers: &[ServerPlan],
) -> Option<UpstreamTls> {
    let Some(file) = file else {
        if !scope.lost("tls") {
            scope.note_default(
                "tls",
                "none",
                "no [upstream.X.tls]: bytes go out as they are",
            );
        }
        return None;
    };
    let table = file.span();
    let file = file.into_inner().0;
    let scope = &mut scope.inner("tls", table);
    let verify = scope.switch(&file.verify, &defaults::VERIFY);
    if !verify {
        warn_unverified(scope, &file);
    }
    Some(UpstreamTls {
        client_certificate: client_certificate(scope, &file),
        trust: trust(scope, &file.trusted_certificate),
        verify,
        verify_depth: scope.count(&file.verify_depth, &defaults::VERIFY_DEPTH),
        crl: scope.optional_path(&file.crl, &defaults::CRL),
        close_revoked: close_revoked(scope, &file.close_revoked),
        server_name: server_name(scope, &file.server_name, servers),
        policy: tls_policy(
            scope,
            &PolicyKeys {
                protocols: &file.protocols,
                ciphers: &file.ciphers,
                groups: &file.groups,
            },
            &defaults::UPSTREAM_GROUPS,
        ),
        alpn: alpn(scope, &file.alpn),
        session_reuse: scope.switch(&file.session_reuse, &defaults::SESSION_REUSE),
        key_log: key_log(scope, &file.key_log, &file.key_log_sources),
    })
}

fn warn_unverified(scope: &mut Scope<'_, '_>, file: &UpstreamTlsFile) {
    if let Some(verify) = &file.verify {
        scope.push(
            Diagnostic::warning("`verify = false`: anyone between here and the servers can read and change what is sent")
                .at(verify.span())
                .cure("take the line out and name the servers' CA in `trusted_certificate`"),
        );
    }
    let idle = [
        (
            "trusted_certificate",
            file.trusted_certificate.as_ref().map(Spanned::span),
        ),
        (
            "verify_depth",
            file.verify_depth.as_ref().map(Spanned::span),
        ),
        ("crl", file.crl.as_ref().map(Spanned::span)),
        (
            "close_revoked",
            file.close_revoked.as_ref().map(Spanned::span),
        ),
    ];
    for (key, span) in idle {
        if let Some(span) = span {
            scope.push(
                Diagnostic::warning(format!("`{key}` has no effect with `verify = false`"))
                    .at(span)
                    .cure("turn `verify` on, or take the line out"),
            );
        }
    }
}

fn client_certificate(
    scope: &mut Scope<'_, '_>,
    file: &UpstreamTlsFile,
) -> Option<CertificatePlan> {
    let certificate = scope.optional_path(&file.certificate, &defaults::CLIENT_CERTIFICATE);
    let private_key = scope.optional_path(&file.private_key, &defaults::CLIENT_PRIVATE_KEY);
    pair(scope, &file.certificate, &file.private_key);
    Some(CertificatePlan {
        certificate: certificate?,
        private_key: private_key?,
        ocsp_response: None,
    })
}

/// A certificate and its key come together.
pub(super) fn pair(scope: &mut Scope<'_, '_>, certificate: &Text, private_key: &Text) {
    let (given, has, lacks) = match (certificate, private_key) {
        (Some(given), None) => (given, "certificate", "private_key"),
        (None, Some(given)) => (given, "private_key", "certificate"),
        _ => return,
    };
    if !scope.lost(lacks) {
        let refusal = Refusal {
            message: format!("`{has}` stands without `{lacks}`"),
            cure: format!("add `{lacks} = \"...\"`: one proves nothing without the other"),
        };
        scope.refuse(refusal, given.span());
    }
}

fn trust(scope: &mut Scope<'_, '_>, field: &Text) -> Trust {
    match field {
        None => {
            scope.note_default(
                "trusted_certificate",
                quoted("system"),
                defaults::TRUSTED_CERTIFICATE_WHY,
            );
            Trust::System
        }
        Some(text) if text.get_ref() == "system" => {
            scope.note("trusted_certificate", quoted("system"), &text.span());
            Trust::System
        }
        Some(text) => {
            let path: Option<Located<PathBuf>> = scope.path("trusted_certificate", text);
            path.map_or(Trust::System, Trust::File)
        }
    }
}

fn server_name(
    scope: &mut Scope<'_, '_>,
    field: &Text,
    servers: &[ServerPlan],
) -> Option<Located<String>> {
    let Some(text) = field else {
        scope.note_none(&defaults::SERVER_NAME);
        let unix = |server: &&ServerPlan| matches!(server.address.value, ServerAddress::Unix(_));
        if let Some(server) = servers
            .iter()
            .find(unix)
            .filter(|_| !scope.lost("server_name"))
        {
            scope.push(
                Diagnostic::error("a unix socket has no host name to ask for and to verify")
                    .at_place(&server.address.place)
                    .cure("say whose certificate the server has: `server_name = \"backend.internal\"` in its tls table"),
            );
        }
        service_has_name(scope, servers);
        return None;
    };
    match tls_server_name(text.get_ref()) {
        Ok(name) => {
            scope.note("server_name", quoted(&name), &text.span());
            Some(located(name, text.span()))
        }
        Err(refusal) => {
            scope.refuse(refusal, text.span());
            None
        }
    }
}

const FROM_CLIENT: &str = "from-client";

fn alpn(scope: &mut Scope<'_, '_>, field: &Texts) -> UpstreamAlpn {
    let Some(field) = field else {
        scope.note_default("alpn", quoted(FROM_CLIENT), defaults::UPSTREAM_ALPN_WHY);
        return UpstreamAlpn::FromClient;
    };
    match field.get_ref() {
        OneOrMany::One(text) if text == FROM_CLIENT => {
            scope.note("alpn", quoted(FROM_CLIENT), &field.span());
            UpstreamAlpn::FromClient
        }
        OneOrMany::Many(many) if many.is_empty() => {
            scope.note("alpn", "[]", &field.span());
            UpstreamAlpn::Fixed(Vec::new())
        }
        _ => {
            scope.note("alpn", shown(field), &field.span());
            let names = scope.list("alpn", field, alpn_protocol);
            UpstreamAlpn::Fixed(names.into_iter().map(|name| name.value).collect())
        }
    }
}
