//! CA bundles and their revocation lists.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::Inspection;
use crate::config::Located;
use crate::tls::certificate::{self, day, name_words, parse, seconds};
use crate::tls::material;
use crate::tls::verify;

impl Inspection<'_> {
    /// The readable CAs of a bundle.
    pub(super) fn authorities(&mut self, file: &Located<PathBuf>) -> Vec<CertificateDer<'static>> {
        if self
            .keep(material::bundle_anchors(self.files, file))
            .is_none()
        {
            return Vec::new();
        }
        let bundle = material::certificates(self.files, file).unwrap_or_default();
        for der in &bundle {
            if let Some(authority) = parse(der) {
                self.authority(file, &authority);
            }
        }
        bundle
    }

    fn authority(
        &mut self,
        file: &Located<PathBuf>,
        authority: &x509_parser::certificate::X509Certificate<'_>,
    ) {
        let name = name_words(authority.subject());
        let ends = seconds(authority.validity().not_after);
        if ends < self.now {
            let what = format!("the CA {name} expired on {}", day(ends));
            self.warn(file, what, "take it out, or replace it by its successor");
        }
        if authority.version().0 == 2 && !certificate::is_ca(authority) {
            let what = format!("{name} is no CA (no CA:TRUE), yet would be trusted as one");
            self.warn(file, what, "name the CA that issued it instead");
        }
    }

    pub(super) fn revocation_lists(
        &mut self,
        file: &Located<PathBuf>,
        bundle: &[CertificateDer<'static>],
    ) {
        let Some(lists) = self.keep(material::revocation_lists(self.files, file)) else {
            return;
        };
        let parsed: Vec<_> = lists
            .iter()
            .filter_map(|list| CertificateRevocationList::from_der(&list.der).ok())
            .map(|(_, list)| list)
            .collect();
        for list in &parsed {
            self.revocation_list(file, list, bundle);
        }
        for authority in bundle.iter().filter_map(|der| parse(der)) {
            let subject = authority.subject().as_raw();
            if !parsed.iter().any(|list| list.issuer().as_raw() == subject) {
                let name = name_words(authority.subject());
                let what = format!("no revocation list of {name}: what it issues is refused");
                self.warn(file, what, "append its CRL, or take it out of the CA file");
            }
        }
    }

    fn revocation_list(
        &mut self,
        file: &Located<PathBuf>,
        list: &CertificateRevocationList<'_>,
        bundle: &[CertificateDer<'static>],
    ) {
        let name = name_words(list.issuer());
        let signed_by_one = bundle.iter().any(|der| {
            parse(der).is_some_and(|ca| ca.subject().as_raw() == list.issuer().as_raw())
                && verify::has_issued_list(list, der)
        });
        if !signed_by_one {
            let what = format!("no CA of the CA file issued the revocation list of {name}");
            self.warn(
                file,
                what,
                "correct the file, unless an intermediate CA issued the list",
            );
        }
        if let Some(next) = list
            .next_update()
            .map(seconds)
            .filter(|next| *next < self.now)
        {
            let what = format!(
                "the revocation list of {name} is out of date since {}: what its CA issues is \
                 refused",
                day(next)
            );
            self.warn(file, what, "fetch the current one from the CA");
        }
    }
}
