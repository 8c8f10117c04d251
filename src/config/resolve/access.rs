use std::fmt::Display;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use crate::config::access::{AccessPlan, LocalAddress, Pace, Rate, SourcePrefix};
use crate::config::defaults::{self, Bounds, Optional};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{ListenerFile, RateTable, Text, Texts, UpstreamFile, Whole};
use crate::config::plan::{ServerAddress, ServerPlan};
use crate::config::value::{Refusal, cidr, duration, show_duration, show_size, size};

use super::scope::{Scope, items, located, quoted};

pub(super) fn access(scope: &mut Scope<'_, '_>, file: &ListenerFile) -> AccessPlan {
    let plan = AccessPlan {
        allow: networks(scope, &file.allow, &defaults::ALLOW),
        deny: networks(scope, &file.deny, &defaults::DENY),
        connections_per_source_max: connections(
            scope,
            &file.max_connections_per_source,
            &defaults::MAX_CONNECTIONS_PER_SOURCE,
        ),
        connections_per_prefix_max: connections(
            scope,
            &file.max_connections_per_prefix,
            &defaults::MAX_CONNECTIONS_PER_PREFIX,
        ),
        prefix: SourcePrefix {
            ipv4: scope.count(&file.source_prefix_ipv4, &defaults::SOURCE_PREFIX_IPV4),
            ipv6: scope.count(&file.source_prefix_ipv6, &defaults::SOURCE_PREFIX_IPV6),
        },
        new_connections: rate(
            scope,
            &file.new_connections,
            (&defaults::NEW_CONNECTIONS, &defaults::RATE),
        ),
        new_connections_per_source: rate(
            scope,
            &file.new_connections_per_source,
            (
                &defaults::NEW_CONNECTIONS_PER_SOURCE,
                &defaults::RATE_PER_SOURCE,
            ),
        ),
        full_handshakes: rate(
            scope,
            &file.full_handshakes,
            (&defaults::FULL_HANDSHAKES, &defaults::RATE),
        ),
        full_handshakes_per_source: rate(
            scope,
            &file.full_handshakes_per_source,
            (
                &defaults::FULL_HANDSHAKES_PER_SOURCE,
                &defaults::RATE_PER_SOURCE,
            ),
        ),
    };
    prefixes_have_a_limit(scope, file);
    handshakes_are_made(scope, file);
    clients_have_addresses(scope, file);
    plan
}

pub(super) fn pace(scope: &mut Scope<'_, '_>, file: &ListenerFile) -> Pace {
    Pace {
        upload_max: byte_rate(scope, &file.max_upload_rate, &defaults::MAX_UPLOAD_RATE),
        download_max: byte_rate(scope, &file.max_download_rate, &defaults::MAX_DOWNLOAD_RATE),
        session_max: session(scope, &file.max_session),
    }
}

fn networks(scope: &mut Scope<'_, '_>, field: &Texts, optional: &Optional) -> Vec<IpNet> {
    let networks = scope.optional_list(field, optional, cidr);
    networks.into_iter().map(|network| network.value).collect()
}

fn connections(scope: &mut Scope<'_, '_>, field: &Whole, optional: &Optional) -> Option<u32> {
    let Some(number) = field else {
        scope.note_none(optional);
        return None;
    };
    whole(scope, optional.key, number, &defaults::CONNECTIONS)
}

fn rate(
    scope: &mut Scope<'_, '_>,
    field: &RateTable,
    (optional, bounds): (&Optional, &Bounds<u32>),
) -> Option<Rate> {
    let Some(table) = field else {
        if !scope.lost(optional.key) {
            scope.note_none(optional);
        }
        return None;
    };
    let scope = &mut scope.inner(optional.key, table.span());
    let file = &table.get_ref().0;
    let Some(number) = &file.rate else {
        scope.missing(
            "rate",
            Diagnostic::error(format!("`{}` has no `rate`", optional.key))
                .cure("say how many there may be a second: { rate = 1000, burst = 2000 }"),
        );
        return None;
    };
    let per_second = whole(scope, "rate", number, bounds)?;
    let burst = match &file.burst {
        Some(number) => whole(scope, "burst", number, &defaults::BURST)?,
        None => {
            scope.note_default("burst", per_second.to_string(), defaults::BURST_WHY);
            per_second
        }
    };
    Some(Rate { per_second, burst })
}

fn byte_rate(scope: &mut Scope<'_, '_>, field: &Text, optional: &Optional) -> Option<u32> {
    let Some(text) = field else {
        scope.note_none(optional);
        return None;
    };
    let show = |bytes: u32| quoted(&show_size(bytes.into()));
    let read = size(text.get_ref()).map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    let value = bounded(
        scope,
        optional.key,
        read,
        (text, &defaults::BYTE_RATE, show),
    )?;
    scope.note(optional.key, show(value), &text.span());
    Some(value)
}

fn session(scope: &mut Scope<'_, '_>, field: &Text) -> Option<Duration> {
    optional_duration(scope, field, &defaults::MAX_SESSION, &defaults::SESSION)
}

pub(super) fn close_revoked(scope: &mut Scope<'_, '_>, field: &Text) -> Option<Duration> {
    let bounds = &defaults::REVOKED_CLOSED;
    optional_duration(scope, field, &defaults::CLOSE_REVOKED, bounds)
}

fn optional_duration(
    scope: &mut Scope<'_, '_>,
    field: &Text,
    optional: &Optional,
    bounds: &Bounds<Duration>,
) -> Option<Duration> {
    let Some(text) = field else {
        scope.note_none(optional);
        return None;
    };
    let show = |value: Duration| quoted(&show_duration(value));
    let read = duration(text.get_ref());
    let value = bounded(scope, optional.key, read, (text, bounds, show))?;
    scope.note(optional.key, show(value), &text.span());
    Some(value)
}

fn whole(
    scope: &mut Scope<'_, '_>,
    key: &str,
    number: &Spanned<i64>,
    bounds: &Bounds<u32>,
) -> Option<u32> {
    let read = Ok((*number.get_ref()).try_into().unwrap_or(0));
    let value = bounded(scope, key, read, (number, bounds, |it: u32| it.to_string()))?;
    scope.note(key, value.to_string(), &number.span());
    Some(value)
}

/// The value if it was read and keeps its bounds; else says why not.
fn bounded<T: Copy + PartialOrd, W: Display>(
    scope: &mut Scope<'_, '_>,
    key: &str,
    read: Result<T, Refusal>,
    (written, bounds, show): (&Spanned<W>, &Bounds<T>, impl Fn(T) -> String),
) -> Option<T> {
    let checked = read.and_then(|value| {
        if bounds.min <= value && value <= bounds.max {
            return Ok(value);
        }
        Err(Refusal {
            message: format!("`{key}` cannot be {}", written.get_ref()),
            cure: format!(
                "write a value from {} to {}, or take the line out for no limit",
                show(bounds.min),
                show(bounds.max)
            ),
        })
    });
    match checked {
        Ok(value) => Some(value),
        Err(refusal) => {
            scope.refuse(refusal, written.span());
            None
        }
    }
}

fn prefixes_have_a_limit(scope: &mut Scope<'_, '_>, file: &ListenerFile) {
    if file.max_connections_per_prefix.is_some() || scope.lost("max_connections_per_prefix") {
        return;
    }
    let idle = [
        ("source_prefix_ipv4", &file.source_prefix_ipv4),
        ("source_prefix_ipv6", &file.source_prefix_ipv6),
    ];
    for (key, number) in idle {
        if let Some(number) = number {
            let words = format!("`{key}` has no effect without `max_connections_per_prefix`");
            scope.push(
                Diagnostic::warning(words)
                    .at(number.span())
                    .cure("say how many connections a network may have, or take the line out"),
            );
        }
    }
}

fn handshakes_are_made(scope: &mut Scope<'_, '_>, file: &ListenerFile) {
    if file.tls.is_some() || scope.lost("tls") {
        return;
    }
    let rates = [
        ("full_handshakes", &file.full_handshakes),
        (
            "full_handshakes_per_source",
            &file.full_handshakes_per_source,
        ),
    ];
    for (key, table) in rates {
        if let Some(table) = table {
            let refusal = Refusal {
                message: format!("`{key}` limits nothing: this listener makes no TLS handshakes"),
                cure: "add a [listener.tls] table, or limit `new_connections`".to_owned(),
            };
            scope.refuse(refusal, table.span());
        }
    }
}

/// A client of a unix socket has no address to be known by.
fn clients_have_addresses(scope: &mut Scope<'_, '_>, file: &ListenerFile) {
    let Some(bind) = &file.bind else { return };
    let binds = items(bind);
    if binds.is_empty() || !binds.iter().all(|(text, _)| text.starts_with("unix:")) {
        return;
    }
    for (key, span) in by_address(file) {
        if let Some(span) = span {
            let refusal = Refusal {
                message: format!("`{key}` knows clients by their address, and no client of a unix socket has one"),
                cure: "take it out, and let the permissions of the socket's folder say who may connect"
                    .to_owned(),
            };
            scope.refuse(refusal, span);
        }
    }
}

fn by_address(file: &ListenerFile) -> [(&'static str, Option<Range<usize>>); 6] {
    let counts = |field: &Whole| field.as_ref().map(Spanned::span);
    let rates = |field: &RateTable| field.as_ref().map(Spanned::span);
    [
        ("allow", file.allow.as_ref().map(Spanned::span)),
        ("deny", file.deny.as_ref().map(Spanned::span)),
        (
            "max_connections_per_source",
            counts(&file.max_connections_per_source),
        ),
        (
            "max_connections_per_prefix",
            counts(&file.max_connections_per_prefix),
        ),
        (
            "new_connections_per_source",
            rates(&file.new_connections_per_source),
        ),
        (
            "full_handshakes_per_source",
            rates(&file.full_handshakes_per_source),
        ),
    ]
}

/// Which address a group's servers see.
pub(super) fn local_address(
    scope: &mut Scope<'_, '_>,
    file: &UpstreamFile,
    servers: &[ServerPlan],
) -> LocalAddress {
    let transparent = scope.switch(&file.transparent, &defaults::TRANSPARENT);
    let fixed = scope.optional_list(&file.source_address, &defaults::SOURCE_ADDRESS, address);
    let flag = file.transparent.as_ref().filter(|_| transparent);
    if let (Some(flag), Some(_)) = (flag, &file.source_address) {
        let refusal = Refusal {
            message: "`transparent` and `source_address` both say which address servers see"
                .to_owned(),
            cure: "keep one of the two".to_owned(),
        };
        scope.refuse(refusal, flag.span());
    }
    if let [first, second, ..] = &fixed[..]
        && (fixed.len() > 2 || first.value.is_ipv4() == second.value.is_ipv4())
    {
        let refusal = Refusal {
            message: "`source_address` takes one address of each family".to_owned(),
            cure: "write one IPv4 address, one IPv6 address, or one of each".to_owned(),
        };
        scope.refuse(refusal, second.place.span.clone());
    }
    let families: Vec<bool> = fixed.iter().map(|one| one.value.is_ipv4()).collect();
    for server in servers {
        let refused = match &server.address.value {
            ServerAddress::Unix(_) if flag.is_some() || !fixed.is_empty() => {
                "a unix socket, which sees no address"
            }
            ServerAddress::Ip(ip) if !fixed.is_empty() && !families.contains(&ip.is_ipv4()) => {
                "of a family that `source_address` has no address of"
            }
            _ => continue,
        };
        scope.push(
            Diagnostic::error(format!("`{}` is {refused}", server.address.value))
                .at_place(&server.address.place)
                .cure("put the server into a group of its own, or add an address of its family"),
        );
    }
    match flag {
        Some(flag) => LocalAddress::Client(located((), flag.span())),
        None if fixed.is_empty() => LocalAddress::Kernel,
        None => LocalAddress::Fixed(fixed),
    }
}

fn address(text: &str) -> Result<IpAddr, Refusal> {
    let refuse = |message: String| {
        Err(Refusal {
            message,
            cure:
                "write an address of this host, such as \"10.0.0.5\"; the kernel chooses the port"
                    .to_owned(),
        })
    };
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => refuse(format!(
            "`{text}` is no address that a connection comes from"
        )),
        Ok(address) => Ok(address),
        Err(_) => refuse(format!("`{text}` is not an IP address")),
    }
}
