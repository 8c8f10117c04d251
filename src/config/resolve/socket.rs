use std::time::Duration;

use toml::Spanned;

use crate::config::defaults::{self, Setting};
use crate::config::file::{Flag, FlagOrKeepalive, KeepaliveFile, Text};
use crate::config::plan::{Carriage, Keepalive, SocketOptions};
use crate::config::value::Refusal;

use super::scope::{Scope, quoted};

/// The keys that listeners and groups have in common.
pub(super) struct SocketKeys<'f> {
    pub(super) tcp_nodelay: &'f Flag,
    pub(super) keepalive: &'f Option<Spanned<FlagOrKeepalive>>,
    pub(super) tcp_user_timeout: &'f Text,
}

pub(super) fn socket_options(scope: &mut Scope<'_, '_>, keys: &SocketKeys<'_>) -> SocketOptions {
    SocketOptions {
        tcp_nodelay: scope.switch(keys.tcp_nodelay, &defaults::TCP_NODELAY),
        keepalive: keepalive(scope, keys.keepalive.as_ref()),
        user_timeout: user_timeout(scope, keys.tcp_user_timeout),
    }
}

fn keepalive(
    scope: &mut Scope<'_, '_>,
    field: Option<&Spanned<FlagOrKeepalive>>,
) -> Option<Keepalive> {
    let Some(field) = field else {
        scope.note_default("keepalive", "true", defaults::KEEPALIVE_WHY);
        let table = scope.table();
        return Some(probes(
            &mut scope.inner("keepalive", table),
            &KeepaliveFile::default(),
        ));
    };
    let span = field.span();
    match field.get_ref() {
        FlagOrKeepalive::Flag(false) => {
            scope.note("keepalive", "false", &span);
            None
        }
        FlagOrKeepalive::Flag(true) => {
            scope.note("keepalive", "true", &span);
            Some(probes(
                &mut scope.inner("keepalive", span),
                &KeepaliveFile::default(),
            ))
        }
        FlagOrKeepalive::Table(table) => {
            scope.note("keepalive", "true", &span);
            Some(probes(&mut scope.inner("keepalive", span), table))
        }
    }
}

fn probes(scope: &mut Scope<'_, '_>, file: &KeepaliveFile) -> Keepalive {
    Keepalive {
        idle: whole_seconds(scope, &file.idle, &defaults::KEEPALIVE_IDLE),
        interval: whole_seconds(scope, &file.interval, &defaults::KEEPALIVE_INTERVAL),
        probes: scope.count(&file.probes, &defaults::KEEPALIVE_PROBES),
    }
}

/// TCP_KEEPIDLE and TCP_KEEPINTVL count seconds (tcp(7)).
fn whole_seconds(scope: &mut Scope<'_, '_>, field: &Text, setting: &Setting<Duration>) -> Duration {
    let value = scope.duration(field, setting);
    if let (Some(text), true) = (field, value.subsec_nanos() > 0) {
        let refusal = Refusal {
            message: format!("the kernel counts `{}` in whole seconds", setting.key),
            cure: format!("write \"{}s\"", value.as_secs() + 1),
        };
        scope.refuse(refusal, text.span());
    }
    value
}

fn user_timeout(scope: &mut Scope<'_, '_>, field: &Text) -> Option<Duration> {
    let setting = &defaults::TCP_USER_TIMEOUT;
    match field {
        Some(text) if text.get_ref() == "off" => {
            scope.note(setting.key, quoted("off"), &text.span());
            None
        }
        _ => Some(scope.duration(field, setting)),
    }
}

/// How a leg's bytes are carried.
pub(super) fn carriage(scope: &mut Scope<'_, '_>, path: &Text, after: &Text) -> Carriage {
    Carriage {
        path: scope.word(path, &defaults::RELAY_PATH),
        ktls_after: scope.size(after, &defaults::KTLS_AFTER),
    }
}
