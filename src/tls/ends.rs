//! When the certificates and revocation lists of a plan end.

use std::path::PathBuf;

use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{name_words, parse, seconds};
use super::files::Files;
use super::material;
use crate::config::{FileKind, NamedFile, Plan};
use crate::types::UnixSeconds;

/// Something that proves nothing any more from a moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// "listener.database", "upstream.backend"
    pub table: String,
    pub file: PathBuf,
    pub kind: FileKind,
    /// Whose certificate it is; who issued the list.
    pub name: String,
    pub at: UnixSeconds,
}

/// Of every certificate, CA and revocation list that can be read, in the order of the plan.
#[must_use]
pub fn ends(plan: &Plan, files: &Files) -> Vec<Ends> {
    let named = plan.files();
    named.iter().flat_map(|file| of_file(file, files)).collect()
}

fn of_file(named: &NamedFile<'_>, files: &Files) -> Vec<Ends> {
    let found = match named.kind {
        FileKind::Certificate | FileKind::Authorities => certificates(named, files),
        FileKind::RevocationLists => lists(named, files),
        FileKind::PrivateKey | FileKind::OcspResponse | FileKind::TicketKey => Vec::new(),
    };
    let ends = found.into_iter().map(|(name, at)| Ends {
        table: named.table.clone(),
        file: named.file.value.clone(),
        kind: named.kind,
        name,
        at,
    });
    ends.collect()
}

fn certificates(named: &NamedFile<'_>, files: &Files) -> Vec<(String, UnixSeconds)> {
    let chain = material::certificates(files, named.file).unwrap_or_default();
    let parsed = chain.iter().filter_map(|der| {
        let certificate = parse(der)?;
        let ends = seconds(certificate.validity().not_after);
        Some((name_words(certificate.subject()), ends))
    });
    parsed.collect()
}

fn lists(named: &NamedFile<'_>, files: &Files) -> Vec<(String, UnixSeconds)> {
    let lists = material::revocation_lists(files, named.file).unwrap_or_default();
    let parsed = lists.iter().filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(&list.der).ok()?;
        Some((name_words(parsed.issuer()), list.next_update))
    });
    parsed.collect()
}
