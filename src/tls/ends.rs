//! When the certificates, revocation lists and OCSP responses of a plan end.

use std::path::PathBuf;

use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{name_words, parse, seconds};
use super::files::Files;
use super::material;
use super::staple::Staple;
use crate::config::{FileKind, NamedFile, Plan};
use crate::types::UnixSeconds;

/// Something that proves nothing any more from a moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// "listener.database", "upstream.backend"
    pub table: String,
    pub file: PathBuf,
    pub kind: FileKind,
    /// Whose certificate it is, or the response is for; who issued the list.
    pub name: String,
    /// The begin of its validity.
    pub from: UnixSeconds,
    pub at: UnixSeconds,
}

/// Of every certificate, CA and revocation list that can be read, in the order of the plan, then
/// of every OCSP response.
#[must_use]
pub fn ends(plan: &Plan, files: &Files) -> Vec<Ends> {
    let named = plan.files();
    let ends = named.iter().flat_map(|file| of_file(file, files));
    ends.chain(of_staples(plan, files)).collect()
}

fn of_file(named: &NamedFile<'_>, files: &Files) -> Vec<Ends> {
    let found = match named.kind {
        FileKind::Certificate | FileKind::Authorities => certificates(named, files),
        FileKind::RevocationLists => lists(named, files),
        FileKind::PrivateKey | FileKind::OcspResponse | FileKind::TicketKey => Vec::new(),
    };
    let ends = found.into_iter().map(|(name, [from, at])| Ends {
        table: named.table.clone(),
        file: named.file.value.clone(),
        kind: named.kind,
        name,
        from,
        at,
    });
    ends.collect()
}

/// Those that end: a response need not.
fn of_staples<'a>(plan: &'a Plan, files: &'a Files) -> impl Iterator<Item = Ends> + 'a {
    let listeners = plan.listeners.iter();
    let certificates = listeners.flat_map(|listener| {
        let tls = listener.tls.iter();
        tls.flat_map(|tls| &tls.certificates)
            .map(|certificate| (&listener.name, certificate))
    });
    certificates.filter_map(|(listener, plan)| {
        let chain = material::certificates(files, &plan.certificate).ok()?;
        let staple = Staple::load(files, plan, &chain).ok()??;
        Some(Ends {
            table: format!("listener.{listener}"),
            file: plan.ocsp_response.as_ref()?.value.clone(),
            kind: FileKind::OcspResponse,
            name: staple.name,
            from: staple.validity.from,
            at: staple.validity.until?,
        })
    })
}

/// Name, begin and end.
type Named = (String, [UnixSeconds; 2]);

fn certificates(named: &NamedFile<'_>, files: &Files) -> Vec<Named> {
    let chain = material::certificates(files, named.file).unwrap_or_default();
    let parsed = chain.iter().filter_map(|der| {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        let ends = [validity.not_before, validity.not_after].map(seconds);
        Some((name_words(certificate.subject()), ends))
    });
    parsed.collect()
}

fn lists(named: &NamedFile<'_>, files: &Files) -> Vec<Named> {
    let lists = material::revocation_lists(files, named.file).unwrap_or_default();
    let parsed = lists.iter().filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(&list.der).ok()?;
        let ends = [seconds(parsed.last_update()), list.next_update];
        Some((name_words(parsed.issuer()), ends))
    });
    parsed.collect()
}
