//! Reads the files that a configuration names.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::{getegid, geteuid};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use zeroize::Zeroizing;

use super::files::Files;
use super::key_file::{SecretKey, first_key};
use crate::config::{CertificatePlan, Diagnostic, Located, Severity, Trust};
use crate::types::UnixSeconds;

/// First byte of every DER SEQUENCE: certificates and CRLs begin with it.
const DER_SEQUENCE: u8 = 0x30;

/// A file of the configuration that cannot be used: what is wrong, where, and the cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterialError {
    pub file: Option<PathBuf>,
    /// The place in the configuration that names the file.
    pub span: Option<Range<usize>>,
    pub what: String,
    pub cure: Option<String>,
}

impl MaterialError {
    pub(super) fn at<T>(place: &Located<T>, what: impl Into<String>) -> Self {
        Self {
            file: None,
            span: Some(place.place.span.clone()),
            what: what.into(),
            cure: None,
        }
    }

    pub(super) fn file(file: &Located<PathBuf>, what: impl Into<String>) -> Self {
        Self {
            file: Some(file.value.clone()),
            ..Self::at(file, what)
        }
    }

    pub(super) fn nowhere(what: impl Into<String>) -> Self {
        Self {
            file: None,
            span: None,
            what: what.into(),
            cure: None,
        }
    }

    #[must_use]
    pub(super) fn with_cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// The finding that `check` shows.
    #[must_use]
    pub fn into_diagnostic(self, severity: Severity) -> Diagnostic {
        Diagnostic {
            severity,
            message: self.message(),
            // A default has no place in the file.
            span: self.span.filter(|span| !span.is_empty()),
            cure: self.cure,
        }
    }

    fn message(&self) -> String {
        match &self.file {
            Some(file) => format!("{}: {}", file.display(), self.what),
            None => self.what.clone(),
        }
    }
}

impl fmt::Display for MaterialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match &self.cure {
            Some(cure) => write!(f, " ({cure})"),
            None => Ok(()),
        }
    }
}

impl Error for MaterialError {}

/// A certificate, its chain and its key.
pub(super) fn certified_key(
    files: &Files,
    plan: &CertificatePlan,
) -> Result<CertifiedKey, MaterialError> {
    let chain = certificates(files, &plan.certificate)?;
    let key = private_key(files, &plan.private_key)?;
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| {
        MaterialError::file(
            &plan.private_key,
            "this kind of private key is not supported",
        )
        .with_cure("use an ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 bits or more) key")
    })?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => MaterialError::file(
            &plan.private_key,
            format!(
                "the key does not belong to {}",
                plan.certificate.value.display()
            ),
        )
        .with_cure("name the key that the certificate was requested with"),
        _ => MaterialError::file(&plan.certificate, "the first certificate cannot be read")
            .with_cure("look at it with `openssl x509 -text -in ...`"),
    })?;
    Ok(certified)
}

/// All certificates of a PEM file, in its order; at least one.
pub(super) fn certificates(
    files: &Files,
    file: &Located<PathBuf>,
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let bytes = read(files, file)?;
    let certificates = pem_sections::<CertificateDer<'static>>(file, &bytes)?;
    if certificates.is_empty() {
        return Err(not_pem(file, &bytes, "no certificate", "x509"));
    }
    Ok(certificates)
}

/// The first private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
pub(super) fn private_key(
    files: &Files,
    file: &Located<PathBuf>,
) -> Result<SecretKey, MaterialError> {
    let bytes = read(files, file)?;
    if is_encrypted(&bytes) {
        let path = file.value.display();
        return Err(MaterialError::file(file, "the private key is encrypted").with_cure(format!(
            "decrypt it: `openssl pkey -in {path} -out {path}.plain`, readable by Ringway's user only"
        )));
    }
    first_key(&bytes)
        .map_err(|error| ill_formed(file, error.words()))?
        .ok_or_else(|| not_pem(file, &bytes, "no private key", "pkey"))
}

/// The CAs to trust; at least one.
pub(super) fn trust_anchors(
    files: &Files,
    trust: &Trust,
) -> Result<Vec<TrustAnchor<'static>>, MaterialError> {
    match trust {
        Trust::File(file) => bundle_anchors(files, file),
        Trust::System => system_anchors(files),
    }
}

pub(super) fn bundle_anchors(
    files: &Files,
    file: &Located<PathBuf>,
) -> Result<Vec<TrustAnchor<'static>>, MaterialError> {
    let bundle = certificates(files, file)?;
    let anchors = bundle.iter().enumerate().map(|(at, certificate)| {
        webpki::anchor_from_trusted_cert(certificate)
            .map(|anchor| anchor.to_owned())
            .map_err(|_| {
                MaterialError::file(file, format!("certificate {} cannot be read", at + 1))
                    .with_cure("take it out of the file, or export it again")
            })
    });
    anchors.collect()
}

/// The operating system's CAs, or those of SSL_CERT_FILE and SSL_CERT_DIR. What cannot be parsed
/// is left out: system bundles hold ancient certificates.
pub(super) fn system_certificates(
    files: &Files,
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    files.system(load_system_certificates)
}

fn load_system_certificates() -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why = match found.errors.first() {
        Some(error) => format!("the system's CA certificates cannot be read: {error}"),
        None => "the system has no CA certificates".to_owned(),
    };
    Err(MaterialError::nowhere(why)
        .with_cure("install them (ca-certificates), or set trusted_certificate to a CA file"))
}

fn system_anchors(files: &Files) -> Result<Vec<TrustAnchor<'static>>, MaterialError> {
    let anchors = system_certificates(files)?
        .iter()
        .filter_map(|certificate| webpki::anchor_from_trusted_cert(certificate).ok())
        .map(|anchor| anchor.to_owned())
        .collect();
    Ok(anchors)
}

/// A revocation list as signed and as parsed.
#[derive(Debug)]
pub(super) struct RevocationList {
    pub(super) der: CertificateRevocationListDer<'static>,
    pub(super) parsed: CertRevocationList<'static>,
    /// From here on the list proves nothing.
    pub(super) next_update: UnixSeconds,
}

/// All CRLs of a PEM file, or the one of a DER file.
pub(super) fn revocation_lists(
    files: &Files,
    file: &Located<PathBuf>,
) -> Result<Vec<RevocationList>, MaterialError> {
    let bytes = read(files, file)?;
    let lists = if bytes.first() == Some(&DER_SEQUENCE) {
        vec![CertificateRevocationListDer::from(bytes.to_vec())]
    } else {
        pem_sections::<CertificateRevocationListDer<'static>>(file, &bytes)?
    };
    if lists.is_empty() {
        return Err(MaterialError::file(file, "no revocation list in this file")
            .with_cure("it must hold `-----BEGIN X509 CRL-----`, or be a CRL in DER"));
    }
    lists
        .into_iter()
        .map(|der| parsed_list(file, der))
        .collect()
}

fn parsed_list(
    file: &Located<PathBuf>,
    der: CertificateRevocationListDer<'static>,
) -> Result<RevocationList, MaterialError> {
    let parsed = OwnedCertRevocationList::from_der(&der).map_err(|error| {
        MaterialError::file(
            file,
            format!("the revocation list cannot be used: {error:?}"),
        )
        .with_cure("it must be a complete CRL of version 2 with a nextUpdate")
    })?;
    let next_update = next_update(&der);
    Ok(RevocationList {
        der,
        parsed: parsed.into(),
        next_update,
    })
}

/// webpki has read the list and found a nextUpdate in it; a list that cannot be read ends at once.
fn next_update(der: &CertificateRevocationListDer<'_>) -> UnixSeconds {
    let list = CertificateRevocationList::from_der(der).ok();
    let next = list.and_then(|(_, list)| list.next_update());
    next.and_then(|next| UnixSeconds::try_from(next.timestamp()).ok())
        .unwrap_or(0)
}

/// Name and secret of a ticket key.
pub(super) type TicketSecret = ([u8; 16], Zeroizing<Vec<u8>>);

/// Of one of nginx's ticket key files.
pub(super) fn ticket_key(
    files: &Files,
    file: &Located<PathBuf>,
) -> Result<TicketSecret, MaterialError> {
    let bytes = read(files, file)?;
    match bytes.split_first_chunk() {
        Some((name, secret)) if matches!(bytes.len(), 48 | 80) => {
            Ok((*name, Zeroizing::new(secret.to_vec())))
        }
        _ => Err(MaterialError::file(
            file,
            format!(
                "a session ticket key has 48 or 80 bytes, this file {}",
                bytes.len()
            ),
        )
        .with_cure("make one with `openssl rand 80 > FILE`")),
    }
}

pub(super) fn read(
    files: &Files,
    file: &Located<PathBuf>,
) -> Result<Rc<Zeroizing<Vec<u8>>>, MaterialError> {
    files.read(&file.value).map_err(|error| {
        let unread = MaterialError::file(file, format!("cannot be read: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound => unread.with_cure("correct the path, or create the file"),
            io::ErrorKind::PermissionDenied => unread.with_cure(for_reader(&file.value)),
            _ => unread.with_cure("name a regular file that can be read"),
        }
    })
}

/// How this process's user may read a file, and nobody else.
fn for_reader(file: &Path) -> String {
    let [user, group] = [geteuid().as_raw(), getegid().as_raw()];
    let path = file.display();
    format!(
        "let the user that this process runs as, uid {user}, read it: `chgrp {group} {path} && chmod \
         g+r {path}`, and let it pass through the folders above"
    )
}

fn pem_sections<T: PemObject>(
    file: &Located<PathBuf>,
    bytes: &[u8],
) -> Result<Vec<T>, MaterialError> {
    T::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| ill_formed(file, error))
}

fn ill_formed(file: &Located<PathBuf>, error: impl fmt::Display) -> MaterialError {
    MaterialError::file(file, format!("not well-formed PEM: {error}"))
        .with_cure("copy the file again, with its BEGIN and END lines")
}

fn not_pem(file: &Located<PathBuf>, bytes: &[u8], what: &str, command: &str) -> MaterialError {
    let path = file.value.display();
    if bytes.is_empty() {
        return MaterialError::file(file, "the file is empty")
            .with_cure("copy it again from where it was issued");
    }
    if bytes.first() == Some(&DER_SEQUENCE) {
        return MaterialError::file(file, "the file is DER, not PEM").with_cure(format!(
            "convert it: `openssl {command} -inform der -in {path} -out {path}.pem`"
        ));
    }
    MaterialError::file(file, format!("{what} in this file"))
        .with_cure("it must be PEM: a text file with `-----BEGIN ...-----` lines")
}

/// PKCS#8's own label, or the header of OpenSSL's older format.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}
