//! Everything that can be said about the files of a plan before a connection needs them.

mod authorities;
mod chain;
mod staple;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustls::pki_types::CertificateDer;

use super::acceptor::ServerTls;
use super::certificate;
use super::connector::ClientTls;
use super::files::Files;
use super::key_log;
use super::material::{self, MaterialError};
use super::tickets::KeyRing;
use crate::config::{
    Diagnostic, DownstreamTls, KeyLogPlan, Located, Plan, Severity, Trust, UpstreamPlan,
    UpstreamTls,
};
use crate::types::{UnixSeconds, unix_now};

/// A certificate that ends sooner than this is warned of: 30 days.
const EXPIRY_WARNING_SECS: u64 = 30 * 24 * 3600;

/// Permission bit: others may read.
const WORLD_READABLE: u32 = 0o004;

/// Opens every certificate, key, CA, CRL, OCSP response and ticket key that the plan names, and
/// reports all there is to find, each with its place in the file.
#[must_use]
pub fn inspect(plan: &Plan, files: &Files) -> Vec<Diagnostic> {
    inspect_at(plan, files, unix_now())
}

pub(super) fn inspect_at(plan: &Plan, files: &Files, now: UnixSeconds) -> Vec<Diagnostic> {
    let mut inspection = Inspection {
        files,
        now,
        roots: KnownRoots::of(plan, files),
        findings: Vec::new(),
    };
    for tls in plan
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
    {
        inspection.listener(tls);
    }
    for upstream in &plan.upstreams {
        if let Some(tls) = &upstream.tls {
            inspection.upstream(upstream, tls);
        }
    }
    inspection.findings
}

struct Inspection<'a> {
    files: &'a Files,
    now: UnixSeconds,
    roots: KnownRoots,
    findings: Vec<Diagnostic>,
}

impl Inspection<'_> {
    fn listener(&mut self, tls: &DownstreamTls) {
        let errors_before = self.errors();
        for certificate in &tls.certificates {
            self.pair(certificate, chain::Side::Server);
        }
        self.client_authorities(tls);
        for file in &tls.resumption.ticket_key_files {
            self.ticket_key(file);
        }
        self.key_log(tls.key_log.as_ref());
        // What nothing above has found would still stop `run`.
        if self.errors() == errors_before {
            let built = KeyRing::of_files(self.files, &tls.resumption)
                .and_then(|keys| ServerTls::with_clock(self.files, (tls, &keys), unix_now));
            self.keep(built);
        }
    }

    fn client_authorities(&mut self, tls: &DownstreamTls) {
        let bundle = match &tls.client_ca {
            Some(file) => self.authorities(file),
            None => Vec::new(),
        };
        if let Some(file) = &tls.crl {
            self.revocation_lists(file, &bundle);
        }
    }

    fn upstream(&mut self, upstream: &UpstreamPlan, tls: &UpstreamTls) {
        let errors_before = self.errors();
        if let Some(certificate) = &tls.client_certificate {
            self.pair(certificate, chain::Side::Client);
        }
        let bundle = match &tls.trust {
            Trust::File(file) => self.authorities(file),
            Trust::System => Vec::new(),
        };
        if let Some(file) = &tls.crl {
            self.revocation_lists(file, &bundle);
        }
        self.key_log(tls.key_log.as_ref());
        if self.errors() != errors_before {
            return;
        }
        let Some(built) = self.keep(ClientTls::with_clock(self.files, tls, unix_now)) else {
            return;
        };
        for server in &upstream.servers {
            if let Err(mut error) = built.name_for(&server.address.value) {
                error
                    .span
                    .get_or_insert_with(|| server.address.place.span.clone());
                self.refuse(error);
            }
        }
    }

    fn key_log(&mut self, plan: Option<&KeyLogPlan>) {
        if let Some(plan) = plan {
            self.keep(key_log::examine(&plan.file));
        }
    }

    fn ticket_key(&mut self, file: &Located<PathBuf>) {
        if self.keep(material::ticket_key(self.files, file)).is_some() {
            self.check_secrecy(file, "session ticket key");
        }
    }

    fn check_secrecy(&mut self, file: &Located<PathBuf>, what: &str) {
        let readable = std::fs::metadata(&file.value)
            .is_ok_and(|metadata| metadata.mode() & WORLD_READABLE != 0);
        if readable {
            let cure = format!("`chmod o-rwx {}`", file.value.display());
            self.warn(
                file,
                format!("every user of this host can read the {what}"),
                cure,
            );
        }
    }

    fn errors(&self) -> usize {
        let is_error = |finding: &&Diagnostic| finding.severity == Severity::Error;
        self.findings.iter().filter(is_error).count()
    }

    fn keep<T>(&mut self, result: Result<T, MaterialError>) -> Option<T> {
        result.map_err(|error| self.refuse(error)).ok()
    }

    fn refuse(&mut self, error: MaterialError) {
        self.findings.push(error.into_diagnostic(Severity::Error));
    }

    fn error(&mut self, file: &Located<PathBuf>, what: String, cure: impl Into<String>) {
        self.refuse(MaterialError::file(file, what).with_cure(cure));
    }

    fn warn(&mut self, file: &Located<PathBuf>, what: String, cure: impl Into<String>) {
        let warning = MaterialError::file(file, what).with_cure(cure);
        self.findings
            .push(warning.into_diagnostic(Severity::Warning));
    }
}

/// Names of the roots that a chain may end below.
struct KnownRoots {
    named_in_plan: HashSet<Vec<u8>>,
    /// Read when first asked for: a system has hundreds.
    of_system: OnceLock<HashSet<Vec<u8>>>,
}

impl KnownRoots {
    fn of(plan: &Plan, files: &Files) -> Self {
        let downstream = plan
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref());
        let client_cas = downstream.filter_map(|tls| tls.client_ca.as_ref());
        let upstream = plan
            .upstreams
            .iter()
            .filter_map(|upstream| upstream.tls.as_ref());
        let server_cas = upstream.filter_map(|tls| match &tls.trust {
            Trust::File(file) => Some(file),
            Trust::System => None,
        });
        let bundles = client_cas.chain(server_cas);
        let certificates = bundles
            .filter_map(|file| material::certificates(files, file).ok())
            .flatten();
        Self {
            named_in_plan: root_names(certificates),
            of_system: OnceLock::new(),
        }
    }

    fn contains(&self, files: &Files, name: &[u8]) -> bool {
        self.named_in_plan.contains(name)
            || self
                .of_system
                .get_or_init(|| {
                    let found = material::system_certificates(files).unwrap_or_default();
                    root_names(found.into_iter())
                })
                .contains(name)
    }
}

/// The subjects of those that name themselves as issuer.
fn root_names(certificates: impl Iterator<Item = CertificateDer<'static>>) -> HashSet<Vec<u8>> {
    certificates
        .filter_map(|der| {
            let root = certificate::parse(&der)?;
            let (subject, issuer) = (root.subject().as_raw(), root.issuer().as_raw());
            (subject == issuer).then(|| subject.to_vec())
        })
        .collect()
}
