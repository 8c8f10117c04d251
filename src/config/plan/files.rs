//! The files that a plan names.

use std::path::PathBuf;

use super::{CertificatePlan, DownstreamTls, Located, Plan, Trust, UpstreamTls};

/// What a file is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Certificate,
    PrivateKey,
    OcspResponse,
    Authorities,
    RevocationLists,
    TicketKey,
}

/// A file of a plan, and whose it is.
#[derive(Debug, Clone)]
pub struct NamedFile<'a> {
    /// "listener.database", "upstream.backend"
    pub table: String,
    pub kind: FileKind,
    pub file: &'a Located<PathBuf>,
}

type Kinds<'a> = Vec<(FileKind, &'a Located<PathBuf>)>;

impl Plan {
    /// Every file that TLS is made of, in the order of the plan.
    #[must_use]
    pub fn files(&self) -> Vec<NamedFile<'_>> {
        let listeners = self.listeners.iter().filter_map(|listener| {
            let tls = listener.tls.as_ref()?;
            Some((format!("listener.{}", listener.name), tls.files()))
        });
        let upstreams = self.upstreams.iter().filter_map(|upstream| {
            let tls = upstream.tls.as_ref()?;
            Some((format!("upstream.{}", upstream.name), tls.files()))
        });
        listeners.chain(upstreams).flat_map(named).collect()
    }
}

fn named((table, kinds): (String, Kinds<'_>)) -> impl Iterator<Item = NamedFile<'_>> {
    kinds.into_iter().map(move |(kind, file)| NamedFile {
        table: table.clone(),
        kind,
        file,
    })
}

impl DownstreamTls {
    #[must_use]
    pub fn files(&self) -> Kinds<'_> {
        let pairs = self.certificates.iter().flat_map(CertificatePlan::files);
        let authorities = self.client_ca.iter().map(|it| (FileKind::Authorities, it));
        let lists = self.crl.iter().map(|it| (FileKind::RevocationLists, it));
        pairs
            .chain(authorities)
            .chain(lists)
            .chain(self.resumption.files())
            .collect()
    }
}

impl super::Resumption {
    /// The ticket keys.
    pub fn files(&self) -> impl Iterator<Item = (FileKind, &Located<PathBuf>)> {
        let keys = self.ticket_key_files.iter();
        keys.map(|it| (FileKind::TicketKey, it))
    }
}

impl UpstreamTls {
    #[must_use]
    pub fn files(&self) -> Kinds<'_> {
        let pair = self.client_certificate.iter();
        let authorities = match &self.trust {
            Trust::File(file) => Some((FileKind::Authorities, file)),
            Trust::System => None,
        };
        let lists = self.crl.iter().map(|it| (FileKind::RevocationLists, it));
        pair.flat_map(CertificatePlan::files)
            .chain(authorities)
            .chain(lists)
            .collect()
    }
}

impl CertificatePlan {
    fn files(&self) -> Kinds<'_> {
        let own = [
            (FileKind::Certificate, &self.certificate),
            (FileKind::PrivateKey, &self.private_key),
        ];
        let ocsp = self.ocsp_response.iter();
        let ocsp = ocsp.map(|it| (FileKind::OcspResponse, it));
        own.into_iter().chain(ocsp).collect()
    }
}
