use std::ops::Range;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{ListenerFile, RouteFile, Texts};
use crate::config::plan::{RoutePlan, Target};
use crate::config::value::{Refusal, alpn_protocol, cidr, name_pattern};
use crate::types::GroupId;

use super::scope::{Scope, quoted, shown};
use super::upstream::Groups;

const ROUTES_MAX: usize = 4096;

pub(super) fn target(
    scope: &mut Scope<'_, '_>,
    file: &ListenerFile,
    groups: &mut Groups,
) -> Target {
    let default = file
        .upstream
        .as_ref()
        .and_then(|text| upstream_named(scope, text, groups));
    if file.route.is_empty() {
        if file.upstream.is_none() && !scope.lost("route") {
            scope.missing(
                "upstream",
                Diagnostic::error("this listener has neither an `upstream` nor a route")
                    .cure("name the group its connections go to: `upstream = \"backend\"`"),
            );
        }
        // Without a group, a target that refuses everything: the plan is not used anyway.
        return default.map_or(
            Target::Routes {
                routes: Vec::new(),
                default: None,
            },
            Target::Group,
        );
    }
    if file.upstream.is_none() {
        scope.note_default(
            "upstream",
            "none",
            "a client that no route matches is refused",
        );
    }
    if let Some(extra) = file.route.get(ROUTES_MAX) {
        scope.push(
            Diagnostic::error(format!("a listener takes at most {ROUTES_MAX} routes"))
                .at(extra.span())
                .cure("one route can name many hosts: `sni = [...]`"),
        );
    }
    let routes = file.route.iter().take(ROUTES_MAX).enumerate();
    let routes = routes
        .filter_map(|(index, route)| {
            let inner = &mut scope.inner(&format!("route[{index}]"), route.span());
            route_plan(inner, &route.get_ref().0, groups)
        })
        .collect();
    Target::Routes { routes, default }
}

fn route_plan(
    scope: &mut Scope<'_, '_>,
    file: &RouteFile,
    groups: &mut Groups,
) -> Option<RoutePlan> {
    let server_names = optional_list(scope, "sni", &file.sni, name_pattern);
    let alpn = optional_list(scope, "alpn", &file.alpn, alpn_protocol);
    let sources = optional_list(scope, "source", &file.source, cidr);
    let plain = scope.switch(&file.plain, &defaults::ROUTE_PLAIN);
    refuse_useless(scope, file, plain);
    let Some(text) = &file.upstream else {
        scope.missing(
            "upstream",
            Diagnostic::error("this route has no `upstream`")
                .cure("name the group its connections go to: `upstream = \"backend\"`"),
        );
        return None;
    };
    let upstream = upstream_named(scope, text, groups)?;
    Some(RoutePlan {
        server_names,
        alpn,
        sources,
        plain,
        upstream,
    })
}

fn optional_list<T: PartialEq>(
    scope: &mut Scope<'_, '_>,
    key: &str,
    field: &Texts,
    parse: impl Fn(&str) -> Result<T, Refusal>,
) -> Vec<T> {
    let Some(field) = field else {
        return Vec::new();
    };
    scope.note(key, shown(field), &field.span());
    let values = scope.list(key, field, parse).into_iter();
    values.map(|value| value.value).collect()
}

/// A route that matches everything, or that nothing can match.
fn refuse_useless(scope: &mut Scope<'_, '_>, file: &RouteFile, plain: bool) {
    let of_hello = [("sni", &file.sni), ("alpn", &file.alpn)];
    let of_hello = of_hello
        .into_iter()
        .find_map(|(key, field)| field.as_ref().map(|field| (key, field.span())));
    match of_hello {
        Some((key, span)) if plain => {
            let refusal = Refusal {
                message: format!("a plain client has no ClientHello, and so no `{key}`"),
                cure: "give the plain clients a route of their own".to_owned(),
            };
            scope.refuse(refusal, span);
        }
        None if !plain && file.source.is_none() && !scope.lost("sni") && !scope.lost("source") => {
            scope.missing(
                "alpn",
                Diagnostic::error(
                    "this route has none of `sni`, `alpn`, `source` and `plain`, so it would match \
                     everything",
                )
                .cure("name what it matches; for all the rest set `upstream` on the listener"),
            );
        }
        _ => {}
    }
}

fn upstream_named(
    scope: &mut Scope<'_, '_>,
    text: &Spanned<String>,
    groups: &mut Groups,
) -> Option<GroupId> {
    let (name, span): (&str, Range<usize>) = (text.get_ref(), text.span());
    scope.note("upstream", quoted(name), &span);
    if let Some(id) = groups.used(name) {
        return Some(id);
    }
    if scope.desk.lost.mentions(name) || scope.desk.lost.mentions("upstream") {
        return None;
    }
    let near = groups.nearest(name).map(str::to_owned);
    let cure = match near {
        Some(near) => {
            // Meant to be used, so not to be called unused.
            groups.used(&near);
            format!("did you mean `{near}`?")
        }
        None => format!("add a table `[upstream.{name}]` with its `servers`"),
    };
    let message = format!("there is no upstream `{name}`");
    scope.refuse(Refusal { message, cure }, span);
    None
}
