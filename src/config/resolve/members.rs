//! What limits a group's servers, and when a connection goes on to the next of them.

use std::time::Duration;

use crate::config::defaults::{self, Switch};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{Flag, OneOrMany, ServerFile, Texts, UpstreamFile};
use crate::config::keys;
use crate::config::plan::{HealthPlan, ServerPlan, Setback};
use crate::config::value::Refusal;

use super::scope::{Scope, array, quoted, shown};

/// The group's own values, for servers that do not say otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerLimits {
    connections_max: u32,
    health: HealthPlan,
}

pub(super) fn group_limits(scope: &mut Scope<'_, '_>, file: &UpstreamFile) -> ServerLimits {
    let connections_max = &defaults::SERVER_MAX_CONNECTIONS;
    ServerLimits {
        connections_max: scope.count(&file.max_connections, connections_max),
        health: HealthPlan {
            fails_max: scope.count(&file.max_fails, &defaults::MAX_FAILS),
            fail_timeout: scope.duration(&file.fail_timeout, &defaults::FAIL_TIMEOUT),
            slow_start: scope.duration(&file.slow_start, &defaults::SLOW_START),
        },
    }
}

impl ServerLimits {
    pub(super) fn connections_max(&self, scope: &mut Scope<'_, '_>, file: &ServerFile) -> u32 {
        match &file.max_connections {
            Some(given) => {
                let (count, span) = (*given.get_ref(), given.span());
                scope.given_count(count, span, &defaults::SERVER_MAX_CONNECTIONS)
            }
            None => self.connections_max,
        }
    }

    pub(super) fn health(&self, scope: &mut Scope<'_, '_>, file: &ServerFile) -> HealthPlan {
        let mut health = self.health;
        if let Some(given) = &file.max_fails {
            let (count, span) = (*given.get_ref(), given.span());
            health.fails_max = scope.given_count(count, span, &defaults::MAX_FAILS);
        }
        if let Some(given) = &file.fail_timeout {
            health.fail_timeout = scope.given_duration(given, &defaults::FAIL_TIMEOUT);
        }
        if let Some(given) = &file.slow_start {
            health.slow_start = scope.given_duration(given, &defaults::SLOW_START);
        }
        health
    }
}

/// A server's flag is only shown where it stands: there may be a thousand servers.
pub(super) fn given_switch(scope: &mut Scope<'_, '_>, field: &Flag, switch: &Switch) -> bool {
    match field {
        Some(_) => scope.switch(field, switch),
        None => switch.default,
    }
}

/// A group of which nobody takes a connection in ordinary times is a slip.
pub(super) fn someone_serves(scope: &mut Scope<'_, '_>, servers: &[ServerPlan]) {
    let Some(first) = servers.first() else { return };
    if servers.iter().all(|server| server.backup) {
        scope.push(
            Diagnostic::error("every server of this upstream is a backup")
                .at_place(&first.address.place)
                .cure("take `backup` out where a server shall serve by day"),
        );
    }
    if servers.iter().all(|server| server.down) {
        scope.push(
            Diagnostic::warning("every server of this upstream is `down`: it refuses all")
                .at_place(&first.address.place)
                .cure("take `down` out where a server shall serve"),
        );
    }
}

/// The queue's length and time.
pub(super) fn queue(
    scope: &mut Scope<'_, '_>,
    file: &UpstreamFile,
    servers: &[ServerPlan],
) -> (usize, Duration) {
    let length = scope.count(&file.queue, &defaults::SERVER_QUEUE);
    let unlimited = servers.iter().any(|server| server.connections_max == 0);
    if let (Some(queue), true, true) = (&file.queue, length > 0, unlimited) {
        scope.push(
            Diagnostic::warning(
                "`queue` has no effect while a server takes any number of connections",
            )
            .at(queue.span())
            .cure("set `max_connections` for all servers of the group, or take the line out"),
        );
    }
    let timeout = scope.duration(&file.queue_timeout, &defaults::QUEUE_TIMEOUT);
    if let (Some(text), 0) = (&file.queue_timeout, length) {
        scope.push(
            Diagnostic::warning("`queue_timeout` has no effect without a `queue`")
                .at(text.span())
                .cure("write `queue = 100`, say, or take the line out"),
        );
    }
    (length, timeout)
}

const OFF: &str = "off";

/// After which failures the next server is tried.
pub(super) fn next_upstream(scope: &mut Scope<'_, '_>, field: &Texts) -> Vec<Setback> {
    let known = &defaults::NEXT_UPSTREAM;
    let all = || known.default.iter().map(|(word, _)| *word);
    let Some(field) = field else {
        scope.note_default(known.key, array(all()), known.why);
        return known.default.iter().map(|(_, setback)| *setback).collect();
    };
    if matches!(field.get_ref(), OneOrMany::One(word) if word == OFF) {
        scope.note(known.key, quoted(OFF), &field.span());
        return Vec::new();
    }
    if matches!(field.get_ref(), OneOrMany::Many(words) if words.is_empty()) {
        let refusal = Refusal {
            message: format!("`{}` is empty", known.key),
            cure: format!("write {} to try one server alone", quoted(OFF)),
        };
        scope.refuse(refusal, field.span());
        return Vec::new();
    }
    scope.note(known.key, shown(field), &field.span());
    let setbacks = scope.list(known.key, field, |word| {
        let found = known.default.iter().find(|(known, _)| *known == word);
        found.map(|(_, setback)| *setback).ok_or_else(|| Refusal {
            message: format!("{} is no failure that `{}` knows", quoted(word), known.key),
            cure: match keys::nearest(word, all()) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => format!("choose of {}, or write {}", array(all()), quoted(OFF)),
            },
        })
    });
    setbacks.into_iter().map(|located| located.value).collect()
}
