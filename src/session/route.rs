use std::net::IpAddr;

use crate::config::{RoutePlan, Target};
use crate::proto::client_hello::ClientHello;
use crate::proto::proxy::ProxyHeader;
use crate::types::GroupId;

/// How a client began.
pub(super) enum Opening {
    /// Nobody looked: where it goes does not depend on it, or a trusted PROXY header has told.
    Unread,
    Hello(ClientHello),
    /// With something else than TLS, where TLS is expected and plain clients have a route.
    Plain,
}

impl Opening {
    pub(super) fn hello(&self) -> Option<&ClientHello> {
        match self {
            Self::Hello(hello) => Some(hello),
            Self::Unread | Self::Plain => None,
        }
    }
}

/// What is known of a client when its route is chosen.
pub(super) struct Known<'a> {
    pub opening: &'a Opening,
    /// `None`: a peer of a unix socket.
    pub source: Option<IpAddr>,
    /// Asked where there is no ClientHello.
    pub proxied: Option<&'a ProxyHeader>,
}

/// The group that a connection goes to, by the first route that matches it.
pub(super) fn route(target: &Target, client: &Known<'_>) -> Option<GroupId> {
    match target {
        Target::Group(group) => Some(*group),
        Target::Routes { routes, default } => routes
            .iter()
            .find(|route| matches(route, client))
            .map(|route| route.upstream)
            .or(default.filter(|_| !matches!(client.opening, Opening::Plain))),
    }
}

fn matches(route: &RoutePlan, client: &Known<'_>) -> bool {
    let from = |address: IpAddr| route.sources.iter().any(|net| net.contains(&address));
    let is_plain = matches!(client.opening, Opening::Plain);
    route.plain == is_plain
        && (route.sources.is_empty() || client.source.is_some_and(from))
        && (is_plain
            || ((route.server_names.is_empty() || client.asks_for(route))
                && (route.alpn.is_empty() || client.offers(route))))
}

/// The server name that a client asks for.
pub(super) fn asked_name<'a>(
    opening: &'a Opening,
    proxied: Option<&'a ProxyHeader>,
) -> Option<&'a str> {
    match opening.hello() {
        Some(hello) => hello.server_name.as_deref(),
        None => proxied.and_then(|it| it.tlvs.authority.as_deref()),
    }
}

impl Known<'_> {
    fn asks_for(&self, route: &RoutePlan) -> bool {
        let name = asked_name(self.opening, self.proxied);
        name.is_some_and(|name| route.server_names.iter().any(|it| it.matches(name)))
    }

    fn offers(&self, route: &RoutePlan) -> bool {
        match self.opening.hello() {
            Some(hello) => route.alpn.iter().any(|name| hello.alpn.contains(name)),
            None => self
                .proxied
                .and_then(|it| it.tlvs.alpn.as_deref())
                .is_some_and(|told| route.alpn.iter().any(|name| name == told)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::proto::client_hello::AlpnOffer;

    /// Groups in the order of their names: a (0), b (1), c (2).
    fn target(listener: &str) -> Target {
        let text = format!(
            "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\n{listener}\n\
             [upstream.a]\nservers = [\"10.0.0.1:1\"]\n[upstream.b]\nservers = [\"10.0.0.2:1\"]\n\
             [upstream.c]\nservers = [\"10.0.0.3:1\"]\n"
        );
        let plan = parse("x.toml", &text).into_plan().unwrap();
        plan.listeners[0].target.clone()
    }

    fn hello(name: Option<&str>) -> Opening {
        Opening::Hello(ClientHello {
            server_name: name.map(Into::into),
            alpn: AlpnOffer::default(),
            legacy_version: 0x0303,
            supported_versions: vec![0x0304],
        })
    }

    /// Every way to begin, by every kind of source.
    #[test]
    fn each_opening_from_each_source_has_its_route() {
        let target = target(
            "upstream = \"c\"\n\
             [[listener.route]]\nsni = \"x.example\"\nsource = \"10.0.0.0/8\"\nupstream = \"a\"\n\
             [[listener.route]]\nplain = true\nsource = \"2001:db8::/32\"\nupstream = \"b\"\n\
             [[listener.route]]\nsource = \"192.0.2.7\"\nupstream = \"b\"",
        );
        let named = || hello(Some("x.example"));
        for (opening, source, group) in [
            (named(), Some("10.1.2.3"), Some(0)),
            (named(), Some("11.1.2.3"), Some(2)),
            (named(), Some("192.0.2.7"), Some(1)),
            (named(), None, Some(2)),
            (hello(None), Some("10.1.2.3"), Some(2)),
            (hello(None), Some("192.0.2.7"), Some(1)),
            (Opening::Plain, Some("2001:db8::1"), Some(1)),
            (Opening::Plain, Some("2001:db9::1"), None),
            (Opening::Plain, Some("192.0.2.7"), None),
            (Opening::Plain, None, None),
            (Opening::Unread, Some("192.0.2.7"), Some(1)),
            (Opening::Unread, Some("10.1.2.3"), Some(2)),
            (Opening::Unread, None, Some(2)),
        ] {
            let address = source.map(|source| source.parse().unwrap());
            let client = Known {
                opening: &opening,
                source: address,
                proxied: None,
            };
            let chosen = route(&target, &client).map(|group| group.0);
            let name = opening.hello().map(|hello| &hello.server_name);
            assert_eq!(chosen, group, "{name:?} from {source:?}");
        }
    }

    #[test]
    fn a_group_alone_takes_everyone_and_reads_nothing() {
        let target = target("upstream = \"b\"");
        assert!(!target.reads_hello());
        let client = Known {
            opening: &Opening::Unread,
            source: None,
            proxied: None,
        };
        assert_eq!(route(&target, &client), Some(GroupId(1)));
    }

    #[test]
    fn routes_by_source_alone_read_nothing_of_the_client() {
        let by_source = "[[listener.route]]\nsource = \"10.0.0.0/8\"\nupstream = \"a\"";
        assert!(!target(by_source).reads_hello());
        for line in ["sni = \"x.example\"", "alpn = \"h2\"", "plain = true"] {
            let target = target(&format!("{by_source}\n{line}"));
            assert!(target.reads_hello(), "{line}");
        }
    }
}
