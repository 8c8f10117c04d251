//! Servers that are found by DNS.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::defaults::{self, Optional};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{ServerFile, Text, Texts};
use crate::config::plan::{ServerAddress, ServerPlan};
use crate::config::value::{Refusal, duration, name_server, show_duration};

use super::scope::{Scope, quoted};

const OFF: &str = "off";

/// More would not be asked within the time of one lookup.
const NAME_SERVERS_MAX: usize = 8;

/// The name servers to ask.
pub(super) fn name_servers(scope: &mut Scope<'_, '_>, field: &Texts) -> Vec<SocketAddr> {
    let key = defaults::RESOLVER.key;
    let servers = scope.optional_list(field, &defaults::RESOLVER, name_server);
    if let Some(extra) = servers.get(NAME_SERVERS_MAX) {
        scope.push(
            Diagnostic::error(format!(
                "`{key}` has more than {NAME_SERVERS_MAX} name servers"
            ))
            .at_place(&extra.place)
            .cure("keep the nearest ones"),
        );
    }
    servers.into_iter().map(|located| located.value).collect()
}

/// How long connections to an address that left the DNS may go on.
pub(super) fn resolve_drain(scope: &mut Scope<'_, '_>, field: &Text) -> Option<Duration> {
    let Optional { key, why } = defaults::RESOLVE_DRAIN;
    let Some(text) = field else {
        scope.note_default(key, quoted(OFF), why);
        return None;
    };
    if text.get_ref() == OFF {
        scope.note(key, quoted(OFF), &text.span());
        return None;
    }
    let max = defaults::RESOLVE_DRAIN_MAX;
    let given = duration(text.get_ref()).and_then(|drain| match drain <= max {
        true => Ok(drain),
        false => Err(Refusal {
            message: format!("`{key}` cannot be {}", quoted(&show_duration(drain))),
            cure: format!(
                "write at most {}, or {}",
                quoted(&show_duration(max)),
                quoted(OFF)
            ),
        }),
    });
    match given {
        Ok(drain) => {
            scope.note(key, quoted(&show_duration(drain)), &text.span());
            Some(drain)
        }
        Err(refusal) => {
            scope.refuse(refusal, text.span());
            None
        }
    }
}

/// When the other family is dialled, too.
pub(super) fn happy_eyeballs_delay(scope: &mut Scope<'_, '_>, field: &Text) -> Option<Duration> {
    let setting = &defaults::HAPPY_EYEBALLS_DELAY;
    match field {
        Some(text) if text.get_ref() == OFF => {
            scope.note(setting.key, quoted(OFF), &text.span());
            None
        }
        _ => Some(scope.duration(field, setting)),
    }
}

/// The shares of a service's hosts stand in its records.
pub(super) fn service_has_shares(
    scope: &mut Scope<'_, '_>,
    address: &ServerAddress,
    table: &ServerFile,
) {
    if let (ServerAddress::Service(_), Some(weight)) = (address, &table.weight) {
        let refusal = Refusal {
            message: "`weight` stands beside an SRV record, which brings the weights".to_owned(),
            cure: "take `weight` out, or change the weights in the DNS".to_owned(),
        };
        scope.refuse(refusal, weight.span());
    }
}

/// Who can forge an answer of the DNS could name a host whose certificate is good (RFC 6125 and
/// RFC 9525, 6.1: the name to verify is not derived from what DNS says).
pub(super) fn service_has_name(scope: &mut Scope<'_, '_>, servers: &[ServerPlan]) {
    let service = |it: &&ServerPlan| matches!(it.address.value, ServerAddress::Service(_));
    let Some(server) = servers.iter().find(service) else {
        return;
    };
    if !scope.lost("server_name") {
        scope.push(
            Diagnostic::error("the hosts of an SRV record have no name that could be verified: DNS named them")
                .at_place(&server.address.place)
                .cure("say whose certificate they have: `server_name = \"db.example.org\"` in the upstream's tls table"),
        );
    }
}
