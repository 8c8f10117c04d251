//! A certificate with its chain and key, as this host shows it.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use super::{EXPIRY_WARNING_SECS, Inspection};
use crate::config::{CertificatePlan, Located};
use crate::tls::certificate::{self, RSA_BITS_MIN, day, name_words, seconds, weak_rsa_bits};
use crate::tls::{material, verify};

/// Whom the certificate is shown to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// To clients, by a listener.
    Server,
    /// To upstream servers.
    Client,
}

impl Inspection<'_> {
    pub(super) fn pair(&mut self, plan: &CertificatePlan, side: Side) {
        let errors_before = self.errors();
        let chain = self.keep(material::certificates(self.files, &plan.certificate));
        if let Some(chain) = &chain {
            self.chain(&plan.certificate, chain, side);
        }
        let key = self.keep(material::private_key(self.files, &plan.private_key));
        if key.is_some() {
            self.check_secrecy(&plan.private_key, "private key");
        }
        self.staple(plan, chain.as_deref().unwrap_or_default(), side);
        // That the key fits can be told even of a certificate that is out of date.
        if chain.is_some() && key.is_some() {
            match material::certified_key(self.files, plan) {
                Err(error) if error.file.as_ref() == Some(&plan.private_key.value) => {
                    let weak = self.errors() > errors_before && self.is_weak(chain.as_deref());
                    if !weak {
                        self.refuse(error);
                    }
                }
                _ => {}
            }
        }
    }

    /// The key of a weak certificate cannot be loaded; the certificate is to blame.
    fn is_weak(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        chain
            .and_then(<[_]>::first)
            .and_then(|leaf| certificate::parse(leaf))
            .is_some_and(|leaf| weak_rsa_bits(&leaf).is_some())
    }

    fn chain(&mut self, file: &Located<PathBuf>, chain: &[CertificateDer<'_>], side: Side) {
        let mut parsed = Vec::with_capacity(chain.len());
        for (at, der) in chain.iter().enumerate() {
            match certificate::parse(der) {
                Some(certificate) => parsed.push(certificate),
                None => {
                    let what = format!("certificate {} of the file cannot be read", at + 1);
                    return self.error(file, what, "export it again from where it was issued");
                }
            }
        }
        for certificate in &parsed {
            self.validity(file, certificate);
            self.strength(file, certificate);
        }
        if let Some(leaf) = parsed.first() {
            self.leaf(file, leaf, side);
        }
        if self.order(file, chain, &parsed) {
            self.completeness(file, &parsed);
        }
    }

    fn validity(&mut self, file: &Located<PathBuf>, certificate: &X509Certificate<'_>) {
        let name = name_words(certificate.subject());
        let begins = seconds(certificate.validity().not_before);
        let ends = seconds(certificate.validity().not_after);
        let cure = "have it issued anew";
        if ends < self.now {
            self.error(
                file,
                format!("the certificate of {name} expired on {}", day(ends)),
                cure,
            );
        } else if begins > self.now {
            let what = format!(
                "the certificate of {name} is not valid before {}",
                day(begins)
            );
            self.error(file, what, "wait, or correct this host's clock");
        } else if ends < self.now.saturating_add(EXPIRY_WARNING_SECS) {
            self.warn(
                file,
                format!("the certificate of {name} expires on {}", day(ends)),
                cure,
            );
        }
    }

    fn strength(&mut self, file: &Located<PathBuf>, certificate: &X509Certificate<'_>) {
        if let Some(bits) = weak_rsa_bits(certificate) {
            let name = name_words(certificate.subject());
            let what = format!("the RSA key of {name} has {bits} bits, TLS needs {RSA_BITS_MIN}");
            self.error(
                file,
                what,
                "make a new key, ECDSA P-256 best, and have it certified",
            );
        }
    }

    fn leaf(&mut self, file: &Located<PathBuf>, leaf: &X509Certificate<'_>, side: Side) {
        if certificate::is_ca(leaf) {
            self.error(
                file,
                "the first certificate is a CA (CA:TRUE), which peers refuse".to_owned(),
                "put the server's or client's own certificate first, issued with CA:FALSE",
            );
        }
        if certificate::alternative_names(leaf).is_some() {
            return;
        }
        let what = "the certificate has no subjectAltName".to_owned();
        let cure = "have it issued with its DNS names or URIs as subjectAltName";
        match side {
            Side::Server => self.error(file, what + ", so no client can verify its name", cure),
            Side::Client => self.warn(file, what + ", so servers may know it by key only", cure),
        }
    }

    /// Whether each certificate is issued by the next.
    fn order(
        &mut self,
        file: &Located<PathBuf>,
        chain: &[CertificateDer<'_>],
        parsed: &[X509Certificate<'_>],
    ) -> bool {
        for (at, pair) in parsed.windows(2).enumerate() {
            let [below, above] = pair else { continue };
            let issued = below.issuer().as_raw() == above.subject().as_raw()
                && verify::is_issued_by(below, &chain[at + 1]);
            if !issued {
                let what = format!(
                    "certificate {} ({}) did not issue the one before it ({}, issued by {})",
                    at + 2,
                    name_words(above.subject()),
                    name_words(below.subject()),
                    name_words(below.issuer()),
                );
                self.error(
                    file,
                    what,
                    "put the leaf first, then each one's issuer in turn",
                );
                return false;
            }
        }
        true
    }

    /// A chain should end with a root, or below one that is known. Whether an issuer that is not
    /// known is a root that peers hold, or a missing intermediate, the file cannot tell.
    fn completeness(&mut self, file: &Located<PathBuf>, parsed: &[X509Certificate<'_>]) {
        let Some(top) = parsed.last() else { return };
        let issuer = top.issuer();
        if issuer.as_raw() == top.subject().as_raw()
            || self.roots.contains(self.files, issuer.as_raw())
        {
            return;
        }
        let name = name_words(issuer);
        self.warn(
            file,
            format!("the chain ends below {name}, which is no root known here"),
            format!("if {name} is an intermediate CA, append its certificate to the file"),
        );
    }
}
