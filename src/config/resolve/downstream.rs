use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{CertificateFile, DownstreamTlsFile, Table, Text};
use crate::config::plan::{CertificatePlan, DownstreamTls, Located, Resumption, VerifyClient};
use crate::config::value::{Refusal, alpn_protocol, identity_pattern};

use super::access::close_revoked;
use super::key_log::key_log;
use super::policy::{PolicyKeys, tls_policy};
use super::scope::{Scope, array, items, path, quoted};
use super::upstream::pair;

/// A server looks the key up for each ticket; rotation needs a handful.
const TICKET_KEYS_MAX: usize = 16;

pub(super) fn downstream_tls(
    scope: &mut Scope<'_, '_>,
    file: Option<Spanned<Table<DownstreamTlsFile>>>,
) -> Option<DownstreamTls> {
    let Some(file) = file else {
        if !scope.lost("tls") {
            scope.note_default(
                "tls",
                "none",
                "no [listener.tls]: bytes are taken as they come",
            );
        }
        return None;
    };
    let table = file.span();
    let file = file.into_inner().0;
    let scope = &mut scope.inner("tls", table);
    let certificates = certificates(scope, &file);
    let verify_client = verify_client(scope, &file);
    let tls = DownstreamTls {
        certificates,
        verify_client,
        client_ca: scope.optional_path(&file.client_ca, &defaults::CLIENT_CA),
        verify_depth: scope.count(&file.verify_depth, &defaults::VERIFY_DEPTH),
        crl: scope.optional_path(&file.crl, &defaults::CRL),
        close_revoked: close_revoked(scope, &file.close_revoked),
        allow_identities: scope.optional_list(
            &file.allow_identities,
            &defaults::ALLOW_IDENTITIES,
            identity_pattern,
        ),
        policy: tls_policy(
            scope,
            &PolicyKeys {
                protocols: &file.protocols,
                ciphers: &file.ciphers,
                groups: &file.groups,
            },
            &defaults::DOWNSTREAM_GROUPS,
        ),
        alpn: alpn(scope, &file),
        resumption: resumption(scope, &file),
        key_log: key_log(scope, &file.key_log, &file.key_log_sources),
    };
    client_verification_is_whole(scope, &file, verify_client);
    Some(tls)
}

fn certificates(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) -> Vec<CertificatePlan> {
    let single = CertificateKeys {
        certificate: &file.certificate,
        private_key: &file.private_key,
        ocsp_response: &file.ocsp_response,
    };
    let Some(many) = &file.certificates else {
        if single.first().is_none() && !scope.lost("private_key") && !scope.lost("certificates") {
            scope.missing(
                "certificate",
                Diagnostic::error("this tls table has no certificate to show to clients").cure(
                    "add `certificate = \"edge.crt\"` and `private_key = \"edge.key\"`; to pass TLS through, leave the table out",
                ),
            );
        }
        return certificate(scope, &single).into_iter().collect();
    };
    if let Some(extra) = single.first() {
        let refusal = Refusal {
            message: "`certificates` stands beside a single certificate".to_owned(),
            cure: "put the single one into the array, as its first: { certificate = \"...\", private_key = \"...\" }"
                .to_owned(),
        };
        scope.refuse(refusal, extra.span());
    }
    if many.is_empty() {
        scope.missing(
            "certificates",
            Diagnostic::error("`certificates` is empty, so there is nothing to show to clients")
                .cure("write [{ certificate = \"edge.crt\", private_key = \"edge.key\" }]"),
        );
    }
    many.iter()
        .enumerate()
        .filter_map(|(index, one)| {
            let inner = &mut scope.inner(&format!("certificates[{index}]"), one.span());
            listed_certificate(inner, &one.get_ref().0)
        })
        .collect()
}

fn listed_certificate(
    scope: &mut Scope<'_, '_>,
    file: &CertificateFile,
) -> Option<CertificatePlan> {
    let empty = [&file.certificate, &file.private_key, &file.ocsp_response];
    if empty.iter().all(|key| key.is_none()) && !scope.lost("private_key") {
        scope.missing(
            "certificate",
            Diagnostic::error("this entry has no `certificate`")
                .cure("write { certificate = \"edge.crt\", private_key = \"edge.key\" }"),
        );
    }
    let keys = CertificateKeys {
        certificate: &file.certificate,
        private_key: &file.private_key,
        ocsp_response: &file.ocsp_response,
    };
    certificate(scope, &keys)
}

struct CertificateKeys<'f> {
    certificate: &'f Text,
    private_key: &'f Text,
    ocsp_response: &'f Text,
}

impl<'f> CertificateKeys<'f> {
    fn first(&self) -> Option<&'f Spanned<String>> {
        [self.certificate, self.private_key, self.ocsp_response]
            .into_iter()
            .flatten()
            .next()
    }
}

fn certificate(scope: &mut Scope<'_, '_>, keys: &CertificateKeys<'_>) -> Option<CertificatePlan> {
    keys.first()?;
    pair(scope, keys.certificate, keys.private_key);
    let given = keys.certificate.as_ref();
    let certificate = given.and_then(|text| scope.path("certificate", text));
    let given = keys.private_key.as_ref();
    let private_key = given.and_then(|text| scope.path("private_key", text));
    let ocsp_response = scope.optional_path(keys.ocsp_response, &defaults::OCSP_RESPONSE);
    if keys.certificate.is_none() && keys.private_key.is_none() {
        scope.missing(
            "certificate",
            Diagnostic::error("`ocsp_response` stands without a certificate")
                .cure("add `certificate` and `private_key`"),
        );
    }
    Some(CertificatePlan {
        certificate: certificate?,
        private_key: private_key?,
        ocsp_response,
    })
}

fn verify_client(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) -> VerifyClient {
    if file.verify_client.is_none() && file.client_ca.is_some() {
        scope.note_default(
            "verify_client",
            quoted("required"),
            defaults::VERIFY_CLIENT_WITH_CA_WHY,
        );
        return VerifyClient::Required;
    }
    // nginx's words, for those who bring them along.
    if let Some(text) = file.verify_client.as_ref() {
        let meant = match text.get_ref().as_str() {
            "on" => Some("required"),
            "optional_no_ca" => Some("optional-no-ca"),
            _ => None,
        };
        if let Some(meant) = meant {
            let refusal = Refusal {
                message: format!("`verify_client` cannot be \"{}\"", text.get_ref()),
                cure: format!("nginx's `{}` is \"{meant}\" here", text.get_ref()),
            };
            scope.refuse(refusal, text.span());
            return VerifyClient::Required;
        }
    }
    scope.word(&file.verify_client, &defaults::VERIFY_CLIENT)
}

/// What protects must be able to, or the file is refused: nobody should believe in a check that
/// is not made.
fn client_verification_is_whole(
    scope: &mut Scope<'_, '_>,
    file: &DownstreamTlsFile,
    verify: VerifyClient,
) {
    let needs_ca = matches!(verify, VerifyClient::Required | VerifyClient::Optional);
    if let (true, None, Some(mode)) = (needs_ca, &file.client_ca, &file.verify_client)
        && !scope.lost("client_ca")
    {
        let refusal = Refusal {
            message: format!(
                "`verify_client = \"{}\"` needs a CA to verify with",
                mode.get_ref()
            ),
            cure: "name the CA of your clients: `client_ca = \"/etc/ringway/clients-ca.crt\"`"
                .to_owned(),
        };
        scope.refuse(refusal, mode.span());
    }
    if needs_ca || scope.lost("verify_client") || scope.lost("client_ca") {
        if verify == VerifyClient::Optional {
            warn_optional_identities(scope, file);
        }
        return;
    }
    guards_without_verification(scope, file);
    let idle = [
        ("client_ca", file.client_ca.as_ref().map(Spanned::span)),
        (
            "verify_depth",
            file.verify_depth.as_ref().map(Spanned::span),
        ),
    ];
    let off = verify == VerifyClient::Off;
    for (key, span) in idle.into_iter().filter(|_| off) {
        no_effect(scope, key, span, "`verify_client` is \"off\"");
    }
}

fn guards_without_verification(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) {
    let guards = [
        (
            "allow_identities",
            file.allow_identities.as_ref().map(Spanned::span),
        ),
        ("crl", file.crl.as_ref().map(Spanned::span)),
        (
            "close_revoked",
            file.close_revoked.as_ref().map(Spanned::span),
        ),
    ];
    for (key, span) in guards {
        if let Some(span) = span {
            let refusal = Refusal {
                message: format!(
                    "`{key}` protects nothing while client certificates are not verified"
                ),
                cure: "add `client_ca` and `verify_client = \"required\"`".to_owned(),
            };
            scope.refuse(refusal, span);
        }
    }
}

fn warn_optional_identities(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) {
    if let Some(field) = &file.allow_identities {
        scope.push(
            Diagnostic::warning("`allow_identities` asks every client for a certificate, also with `verify_client = \"optional\"`")
                .at(field.span())
                .cure("write `verify_client = \"required\"`, which says the same"),
        );
    }
}

fn alpn(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) -> Vec<Vec<u8>> {
    if let Some(field) = file.alpn.as_ref().filter(|field| items(field).is_empty()) {
        scope.note("alpn", "[]", &field.span());
        return Vec::new();
    }
    let names = scope.optional_list(&file.alpn, &defaults::DOWNSTREAM_ALPN, alpn_protocol);
    names.into_iter().map(|name| name.value).collect()
}

fn resumption(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) -> Resumption {
    let enabled = scope.switch(&file.session_resumption, &defaults::SESSION_RESUMPTION);
    if !enabled {
        let idle = [
            (
                "session_lifetime",
                file.session_lifetime.as_ref().map(Spanned::span),
            ),
            (
                "session_ticket_keys",
                file.session_ticket_keys.as_ref().map(Spanned::span),
            ),
            (
                "session_cache",
                file.session_cache.as_ref().map(Spanned::span),
            ),
            (
                "session_tickets",
                file.session_tickets.as_ref().map(Spanned::span),
            ),
        ];
        for (key, span) in idle {
            no_effect(scope, key, span, "`session_resumption` is off");
        }
    }
    Resumption {
        enabled,
        lifetime: scope.duration(&file.session_lifetime, &defaults::SESSION_LIFETIME),
        ticket_key_files: ticket_keys(scope, file),
        cache_max: scope.count(&file.session_cache, &defaults::SESSION_CACHE),
        tickets: scope.count(&file.session_tickets, &defaults::SESSION_TICKETS),
    }
}

fn ticket_keys(scope: &mut Scope<'_, '_>, file: &DownstreamTlsFile) -> Vec<Located<PathBuf>> {
    let Some(field) = &file.session_ticket_keys else {
        scope.note_none(&defaults::SESSION_TICKET_KEYS);
        return Vec::new();
    };
    let base = scope.base();
    let keys = scope.list("session_ticket_keys", field, |text| path(text, &base));
    if let Some(extra) = keys.get(TICKET_KEYS_MAX) {
        let refusal = Refusal {
            message: format!("there are more than {TICKET_KEYS_MAX} ticket keys"),
            cure: "keep the newest few: a session lives `session_lifetime` at most".to_owned(),
        };
        scope.refuse(refusal, extra.place.span.clone());
    }
    let shown: Vec<String> = keys
        .iter()
        .map(|key| key.value.to_string_lossy().into_owned())
        .collect();
    let shown = array(shown.iter().map(String::as_str));
    scope.note("session_ticket_keys", shown, &field.span());
    keys
}

fn no_effect(scope: &mut Scope<'_, '_>, key: &str, span: Option<Range<usize>>, why: &str) {
    if let Some(span) = span {
        scope.push(
            Diagnostic::warning(format!("`{key}` has no effect: {why}"))
                .at(span)
                .cure("take the line out, or turn on what it is for"),
        );
    }
}
