use toml::Spanned;

use crate::config::access::LocalAddress;
use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::UpstreamFile;
use crate::config::plan::{ProxyVersion, WarmPlan};

use super::scope::Scope;

/// What makes a connection one client's own, so that none can be made before he comes.
pub(super) struct OwnConnections<'a> {
    pub(super) proxy_protocol: Option<ProxyVersion>,
    pub(super) local: &'a LocalAddress,
}

/// The connections that are ready before a client needs them.
pub(super) fn warm(
    scope: &mut Scope<'_, '_>,
    file: &UpstreamFile,
    own: &OwnConnections<'_>,
) -> WarmPlan {
    let connections_max = scope.count(&file.warm, &defaults::WARM);
    let idle = scope.duration(&file.warm_idle, &defaults::WARM_IDLE);
    if let Some(key) = file.warm.as_ref().filter(|_| connections_max > 0) {
        refuse_own(scope, key, own);
    }
    if let (Some(text), 0) = (&file.warm_idle, connections_max) {
        scope.push(
            Diagnostic::warning("`warm_idle` has no effect without `warm`")
                .at(text.span())
                .cure("write `warm = 4`, say, or take the line out"),
        );
    }
    WarmPlan {
        connections_max,
        idle,
    }
}

fn refuse_own(scope: &mut Scope<'_, '_>, key: &Spanned<i64>, own: &OwnConnections<'_>) {
    let reasons = [
        (
            own.proxy_protocol.is_some(),
            "`warm` connections have no client yet, whom a PROXY header could name",
            "take `warm` or `proxy_protocol` out",
        ),
        (
            matches!(own.local, LocalAddress::Client(_)),
            "`warm` connections have no client yet, from whose address they could come",
            "take `warm` or `transparent` out",
        ),
    ];
    for (stands, message, cure) in reasons {
        if stands {
            scope.push(Diagnostic::error(message).at(key.span()).cure(cure));
        }
    }
}
