use ipnet::IpNet;
use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::ListenerFile;
use crate::config::plan::{BindAddress, Located, ProxiedPlan};
use crate::config::value::{Refusal, cidr};

use super::scope::Scope;

/// Whose PROXY headers the listener takes, if any.
pub(super) fn proxied(
    scope: &mut Scope<'_, '_>,
    file: &ListenerFile,
    binds: &[Located<BindAddress>],
) -> Option<ProxiedPlan> {
    let demand = scope.word(&file.proxy_protocol, &defaults::PROXY_PROTOCOL);
    let trusted = scope.optional_list(&file.proxy_trusted, &defaults::PROXY_TRUSTED, cidr);
    let allow_cn =
        scope.optional_list(&file.proxy_allow_cn, &defaults::PROXY_ALLOW_CN, common_name);
    let timeout = scope.duration(
        &file.proxy_protocol_timeout,
        &defaults::PROXY_PROTOCOL_TIMEOUT,
    );
    let Some(demand) = demand else {
        warn_idle(scope, file);
        return None;
    };
    needs_trust(scope, file, binds);
    warn_of_everyone(scope, &trusted);
    Some(ProxiedPlan {
        demand,
        trusted: trusted.into_iter().map(|net| net.value).collect(),
        allow_cn: allow_cn.into_iter().map(|name| name.value).collect(),
        timeout,
    })
}

/// RFC 5280, upper bounds: a common name has 64 characters at most.
const COMMON_NAME_CHARS_MAX: usize = 64;

fn common_name(text: &str) -> Result<String, Refusal> {
    if (1..=COMMON_NAME_CHARS_MAX).contains(&text.chars().count()) {
        return Ok(text.to_owned());
    }
    Err(Refusal {
        message: format!("`{text}` cannot be a common name"),
        cure: "write the subject's CN as the certificate has it, 1 to 64 characters".to_owned(),
    })
}

/// Who can open a unix socket is a matter of its permissions; a TCP port is open to anyone.
fn needs_trust(scope: &mut Scope<'_, '_>, file: &ListenerFile, binds: &[Located<BindAddress>]) {
    let tcp = binds
        .iter()
        .any(|bind| matches!(bind.value, BindAddress::Tcp(_)));
    let (None, Some(text), true) = (&file.proxy_trusted, &file.proxy_protocol, tcp) else {
        return;
    };
    if !scope.lost("proxy_trusted") {
        scope.push(
            Diagnostic::error(
                "`proxy_protocol` stands without `proxy_trusted`, so nobody's header is believed",
            )
            .at(text.span())
            .cure("name the proxies in front of this listener: `proxy_trusted = [\"10.0.0.0/8\"]`"),
        );
    }
}

fn warn_of_everyone(scope: &mut Scope<'_, '_>, trusted: &[Located<IpNet>]) {
    for net in trusted.iter().filter(|net| net.value.prefix_len() == 0) {
        scope.push(
            Diagnostic::warning(format!(
                "`{}` trusts everyone: any client can choose the address that it is known by",
                net.value
            ))
            .at_place(&net.place)
            .cure("name the networks of the proxies in front of this listener"),
        );
    }
}

fn warn_idle(scope: &mut Scope<'_, '_>, file: &ListenerFile) {
    let word = file.proxy_protocol.as_ref().map(|text| text.get_ref());
    if word.is_some_and(|word| word != "off") || scope.lost("proxy_protocol") {
        return;
    }
    if let Some(names) = &file.proxy_allow_cn {
        scope.push(
            Diagnostic::error("`proxy_allow_cn` lets everyone pass: `proxy_protocol` is \"off\"")
                .at(names.span())
                .cure("add `proxy_protocol = \"required\"`, or take the line out"),
        );
    }
    let idle = [
        (
            "proxy_trusted",
            file.proxy_trusted.as_ref().map(Spanned::span),
        ),
        (
            "proxy_protocol_timeout",
            file.proxy_protocol_timeout.as_ref().map(Spanned::span),
        ),
    ];
    for (key, span) in idle {
        if let Some(span) = span {
            scope.push(
                Diagnostic::warning(format!(
                    "`{key}` has no effect: `proxy_protocol` is \"off\""
                ))
                .at(span)
                .cure("add `proxy_protocol = \"required\"`, or take the line out"),
            );
        }
    }
}
