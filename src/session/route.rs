use crate::config::{RoutePlan, Target};
use crate::proto::client_hello::ClientHello;
use crate::types::GroupId;

/// The group that a connection goes to, by the first route that its ClientHello matches.
pub(super) fn route(target: &Target, hello: Option<&ClientHello>) -> Option<GroupId> {
    match target {
        Target::Group(group) => Some(*group),
        Target::Routes { routes, default } => hello
            .and_then(|hello| routes.iter().find(|route| matches(route, hello)))
            .map(|route| route.upstream)
            .or(*default),
    }
}

fn matches(route: &RoutePlan, hello: &ClientHello) -> bool {
    let name = hello.server_name.as_deref();
    let named = || name.is_some_and(|name| route.server_names.iter().any(|it| it.matches(name)));
    let spoken = || {
        route
            .alpn
            .iter()
            .any(|protocol| hello.alpn.contains(protocol))
    };
    (route.server_names.is_empty() || named()) && (route.alpn.is_empty() || spoken())
}
