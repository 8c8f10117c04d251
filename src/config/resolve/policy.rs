use std::ops::Range;

use toml::Spanned;

use crate::config::defaults::{self, List};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{OneOrMany, Texts};
use crate::config::plan::{CipherSuite, Group, Located, TlsPolicy, TlsVersions};
use crate::config::value::{
    Protocol, Refusal, cipher_name, cipher_suite, group, group_name, is_tls13, protocol,
    split_ciphers,
};

use super::scope::{Scope, array, items, located, quoted, shown};

/// The keys that both legs' TLS tables have in common.
pub(super) struct PolicyKeys<'f> {
    pub(super) protocols: &'f Texts,
    pub(super) ciphers: &'f Texts,
    pub(super) groups: &'f Texts,
}

/// `ciphers = "auto"` is what leaving it out means.
const AUTO: &str = "auto";

pub(super) fn tls_policy(
    scope: &mut Scope<'_, '_>,
    keys: &PolicyKeys<'_>,
    default_groups: &List<Group>,
) -> TlsPolicy {
    let errors_before = scope.errors();
    let versions = versions(scope, keys.protocols);
    let suites = suites(scope, keys.ciphers);
    let groups = groups(scope, keys.groups, default_groups);
    let whole = !["protocols", "ciphers", "groups"]
        .iter()
        .any(|key| scope.lost(key));
    if whole && scope.errors() == errors_before {
        suites_fit(scope, versions, &suites, keys.ciphers);
        groups_fit(scope, versions, &groups, keys.groups);
    }
    TlsPolicy {
        versions,
        cipher_suites: suites.into_iter().map(|suite| suite.value).collect(),
        groups,
    }
}

fn versions(scope: &mut Scope<'_, '_>, field: &Texts) -> TlsVersions {
    let Some(field) = field else {
        scope.note_default(
            "protocols",
            array(["TLSv1.2", "TLSv1.3"]),
            defaults::PROTOCOLS_WHY,
        );
        return defaults::PROTOCOLS;
    };
    scope.note("protocols", shown(field), &field.span());
    let chosen = scope.list("protocols", field, protocol);
    let has = |version| chosen.iter().any(|protocol| protocol.value == version);
    TlsVersions {
        tls12: has(Protocol::Tls12),
        tls13: has(Protocol::Tls13),
    }
}

fn suites(scope: &mut Scope<'_, '_>, field: &Texts) -> Vec<Located<CipherSuite>> {
    let Some(field) = field else {
        scope.note_default(defaults::CIPHERS.key, quoted(AUTO), defaults::CIPHERS.why);
        return Vec::new();
    };
    let auto = matches!(field.get_ref(), OneOrMany::One(text) if text == AUTO);
    if auto {
        scope.note("ciphers", quoted(AUTO), &field.span());
        return Vec::new();
    }
    let names: Vec<(&str, Range<usize>)> = items(field)
        .into_iter()
        .flat_map(|(text, span)| names_in(scope.desk.source.text.as_str(), text, &span))
        .collect();
    if names.is_empty() && !scope.lost("ciphers") {
        let refusal = Refusal {
            message: "`ciphers` is empty".to_owned(),
            cure: "name at least one suite, or take the line with `ciphers` out".to_owned(),
        };
        scope.refuse(refusal, field.span());
    }
    let mut suites: Vec<Located<CipherSuite>> = Vec::new();
    for (name, span) in names {
        match cipher_suite(name) {
            Ok(suite) if suites.iter().any(|known| known.value == suite) => {
                let refusal = Refusal {
                    message: format!("`{name}` stands twice in `ciphers`"),
                    cure: "keep one of the two: they are in order of preference".to_owned(),
                };
                scope.refuse(refusal, span);
            }
            Ok(suite) => suites.push(located(suite, span)),
            Err(refusal) => scope.refuse(refusal, span),
        }
    }
    let names = suites.iter().map(|suite| cipher_name(suite.value));
    scope.note("ciphers", array(names), &field.span());
    suites
}

/// The names in one text, each with its own place where the file's text shows it plainly.
fn names_in<'t>(file: &str, text: &'t str, span: &Range<usize>) -> Vec<(&'t str, Range<usize>)> {
    // One quote stands before a TOML string's first byte; escapes or three quotes do not match.
    let first = span.start + 1;
    let plain = file.get(first..first + text.len()) == Some(text);
    split_ciphers(text)
        .map(|(part, name)| {
            let place = if plain {
                first + part.start..first + part.end
            } else {
                span.clone()
            };
            (name, place)
        })
        .collect()
}

fn groups(scope: &mut Scope<'_, '_>, field: &Texts, default: &List<Group>) -> Vec<Group> {
    let chosen: Vec<Group> = match field {
        Some(field) => {
            let chosen = scope.list("groups", field, group);
            chosen.into_iter().map(|group| group.value).collect()
        }
        None => default.default.to_vec(),
    };
    let names = array(chosen.iter().map(|group| group_name(*group)));
    match field {
        Some(field) => scope.note("groups", names, &field.span()),
        None => scope.note_default(default.key, names, default.why),
    }
    chosen
}

/// Every protocol that is on has a suite, or it would be off without a word.
fn suites_fit(
    scope: &mut Scope<'_, '_>,
    versions: TlsVersions,
    suites: &[Located<CipherSuite>],
    field: &Texts,
) {
    let Some(field) = field.as_ref().filter(|_| !suites.is_empty()) else {
        return;
    };
    let kinds = [
        (
            versions.tls12,
            false,
            "TLSv1.2",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
        (versions.tls13, true, "TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    ];
    for (on, tls13, name, example) in kinds {
        let mut fitting = suites.iter().filter(|suite| is_tls13(suite.value) == tls13);
        if !on {
            let idle: Vec<&Located<CipherSuite>> = fitting.collect();
            warn_idle(scope, name, &idle);
        } else if fitting.next().is_none() {
            let other = if tls13 { "TLSv1.2" } else { "TLSv1.3" };
            scope.push(
                Diagnostic::error(format!(
                    "`protocols` allows {name}, and no suite here is one of its own"
                ))
                .at(field.span())
                .cure(format!(
                    "add \"{example}\", or write `protocols = [\"{other}\"]`"
                )),
            );
        }
    }
}

fn warn_idle(scope: &mut Scope<'_, '_>, version: &str, idle: &[&Located<CipherSuite>]) {
    for suite in idle {
        scope.push(
            Diagnostic::warning(format!(
                "{} is a suite of {version}, which `protocols` does not allow",
                cipher_name(suite.value)
            ))
            .at_place(&suite.place)
            .cure(format!("take it out, or add \"{version}\" to `protocols`")),
        );
    }
}

fn groups_fit(
    scope: &mut Scope<'_, '_>,
    versions: TlsVersions,
    groups: &[Group],
    field: &Option<Spanned<OneOrMany>>,
) {
    let only_hybrid = groups.iter().all(|group| *group == Group::X25519MlKem768);
    if let (true, true, Some(field)) = (versions.tls12, only_hybrid, field) {
        scope.push(
            Diagnostic::error(
                "X25519MLKEM768 is for TLSv1.3 alone, and `protocols` allows TLSv1.2",
            )
            .at(field.span())
            .cure("add \"X25519\", or write `protocols = [\"TLSv1.3\"]`"),
        );
    }
}
