use std::ops::Range;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{Text, Texts};
use crate::config::plan::KeyLogPlan;
use crate::config::value::{Refusal, cidr};

use super::scope::Scope;

/// Both keys or neither: a file of secrets is asked for by name, and for named clients.
pub(super) fn key_log(
    scope: &mut Scope<'_, '_>,
    file: &Text,
    sources: &Texts,
) -> Option<KeyLogPlan> {
    let path = scope.optional_path(file, &defaults::KEY_LOG);
    let networks = scope.optional_list(sources, &defaults::KEY_LOG_SOURCES, cidr);
    match (file, sources) {
        (Some(file), None) => {
            let cure = "say whose secrets are to be written: `key_log_sources = [\"10.0.0.7\"]`";
            lone(scope, ("key_log", "key_log_sources"), file.span(), cure);
        }
        (None, Some(sources)) => {
            let cure = "name the file: `key_log = \"/root/ringway-keys.log\"`";
            lone(scope, ("key_log_sources", "key_log"), sources.span(), cure);
        }
        (Some(file), Some(_)) => warn(scope, file),
        (None, None) => {}
    }
    Some(KeyLogPlan {
        file: path?,
        sources: networks.into_iter().map(|net| net.value).collect(),
    })
}

fn lone(scope: &mut Scope<'_, '_>, (has, lacks): (&str, &str), span: Range<usize>, cure: &str) {
    if !scope.lost(lacks) {
        let refusal = Refusal {
            message: format!("`{has}` stands without `{lacks}`"),
            cure: cure.to_owned(),
        };
        scope.refuse(refusal, span);
    }
}

fn warn(scope: &mut Scope<'_, '_>, file: &Spanned<String>) {
    scope.push(
        Diagnostic::warning(
            "the TLS secrets of these clients' connections are written to a file: whoever reads it can read what they send and receive",
        )
        .at(file.span())
        .cure("take `key_log` and `key_log_sources` out, and delete the file, when you have seen what you need"),
    );
}
