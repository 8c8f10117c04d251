use std::collections::HashMap;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{ListenerFile, Table, Text, Texts};
use crate::config::plan::{BindAddress, ListenerPlan, Located};
use crate::config::value::{Refusal, bind_address};

use super::access::{access, pace};
use super::downstream::downstream_tls;
use super::members::next_upstream;
use super::proxied::proxied;
use super::routes::target;
use super::scope::{Desk, Scope, quoted, shown};
use super::socket::{SocketKeys, carriage, socket_options};
use super::upstream::Groups;

/// Ids are 16 bits; a thousand listeners are more than a machine has addresses for.
const LISTENERS_MAX: usize = 1024;
/// Names end up in logs and metrics, one label each.
pub(super) const NAME_BYTES_MAX: usize = 64;

pub(super) fn listeners(
    desk: &mut Desk<'_>,
    files: Vec<Spanned<Table<ListenerFile>>>,
    groups: &mut Groups,
) -> Vec<ListenerPlan> {
    if files.is_empty() && !desk.lost.has(&(0..0), "listener") {
        desk.diagnostics.push(
            Diagnostic::error("the file has no [[listener]], so there is nothing to do").cure(
                "add a [[listener]] with `name`, `bind` and `upstream`; configs/ has files to start from",
            ),
        );
    }
    if let Some(extra) = files.get(LISTENERS_MAX) {
        desk.diagnostics.push(
            Diagnostic::error(format!("there are more than {LISTENERS_MAX} listeners"))
                .at(extra.span())
                .cure("one listener can bind many addresses: `bind = [...]`"),
        );
    }
    let mut names = HashMap::new();
    files
        .into_iter()
        .take(LISTENERS_MAX)
        .enumerate()
        .map(|(index, file)| listener(desk, index, file, groups, &mut names))
        .collect()
}

fn listener(
    desk: &mut Desk<'_>,
    index: usize,
    file: Spanned<Table<ListenerFile>>,
    groups: &mut Groups,
    names: &mut HashMap<String, usize>,
) -> ListenerPlan {
    let table = file.span();
    let file = file.into_inner().0;
    let mut unnamed = desk.scope(format!("listener[{index}]"), table.clone());
    let known = name(&mut unnamed, &file.name, names);
    let prefix = match &known {
        Some(name) => format!("listener.{name}"),
        None => format!("listener[{index}]"),
    };
    let scope = &mut desk.scope(prefix, table);
    if let (Some(name), Some(text)) = (&known, &file.name) {
        scope.note("name", quoted(name), &text.span());
    }
    let binds = binds(scope, &file.bind);
    ListenerPlan {
        name: known.unwrap_or_else(|| format!("listener[{index}]")),
        proxied: proxied(scope, &file, &binds),
        binds,
        target: target(scope, &file, groups),
        connections_max: scope.count(&file.max_connections, &defaults::MAX_CONNECTIONS),
        access: access(scope, &file),
        pace: pace(scope, &file),
        backlog: scope.count(&file.backlog, &defaults::BACKLOG),
        steering: scope.word(&file.steering, &defaults::STEERING),
        client_hello_timeout: scope
            .duration(&file.client_hello_timeout, &defaults::CLIENT_HELLO_TIMEOUT),
        handshake_timeout: scope.duration(&file.handshake_timeout, &defaults::HANDSHAKE_TIMEOUT),
        connect_timeout: scope.duration(&file.connect_timeout, &defaults::CONNECT_TIMEOUT),
        upstream_handshake_timeout: scope.duration(
            &file.upstream_handshake_timeout,
            &defaults::UPSTREAM_HANDSHAKE_TIMEOUT,
        ),
        next_upstream: next_upstream(scope, &file.next_upstream),
        next_upstream_tries: scope.count(&file.next_upstream_tries, &defaults::NEXT_UPSTREAM_TRIES),
        next_upstream_timeout: scope.duration(
            &file.next_upstream_timeout,
            &defaults::NEXT_UPSTREAM_TIMEOUT,
        ),
        idle_timeout: scope.duration(&file.idle_timeout, &defaults::IDLE_TIMEOUT),
        socket: socket_options(
            scope,
            &SocketKeys {
                tcp_nodelay: &file.tcp_nodelay,
                keepalive: &file.keepalive,
                tcp_user_timeout: &file.tcp_user_timeout,
            },
        ),
        carriage: carriage(scope, &file.relay_path, &file.ktls_after),
        tls: downstream_tls(scope, file.tls),
    }
}

fn name(
    scope: &mut Scope<'_, '_>,
    field: &Text,
    names: &mut HashMap<String, usize>,
) -> Option<String> {
    let Some(text) = field else {
        scope.missing(
            "name",
            Diagnostic::error("this listener has no `name`")
                .cure("add one, for the log: `name = \"database\"`"),
        );
        return None;
    };
    if let Err(refusal) = plain_name(text.get_ref()) {
        scope.refuse(refusal, text.span());
        return None;
    }
    let line = scope.desk.line(text.span().start);
    if let Some(first) = names.get(text.get_ref()) {
        let refusal = Refusal {
            message: format!(
                "the name `{}` is taken by the listener of line {first}",
                text.get_ref()
            ),
            cure: "give each listener a name of its own: the log tells them apart by it".to_owned(),
        };
        scope.refuse(refusal, text.span());
        return None;
    }
    names.insert(text.get_ref().clone(), line);
    Some(text.get_ref().clone())
}

/// A name that needs no quotes in a log, a metric or a TOML header.
pub(super) fn plain_name(name: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Refusal {
        message: format!("`{name}` cannot be a name"),
        cure: format!("use letters, digits, `-` and `_`, 1 to {NAME_BYTES_MAX} of them"),
    })
}

fn binds(scope: &mut Scope<'_, '_>, field: &Texts) -> Vec<Located<BindAddress>> {
    let Some(field) = field else {
        scope.missing(
            "bind",
            Diagnostic::error("this listener has no `bind`")
                .cure("say where to listen: `bind = [\"0.0.0.0:443\", \"[::]:443\"]`"),
        );
        return Vec::new();
    };
    scope.note("bind", shown(field), &field.span());
    let base = scope.base();
    scope.list("bind", field, |text| bind_address(text, &base))
}
