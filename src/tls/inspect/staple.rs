//! What is stapled to a certificate.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

use super::Inspection;
use super::chain::Side;
use crate::config::{CertificatePlan, Located};
use crate::tls::certificate::{day, must_staple, name_words, parse};
use crate::tls::staple::Staple;

impl Inspection<'_> {
    pub(super) fn staple(
        &mut self,
        plan: &CertificatePlan,
        chain: &[CertificateDer<'_>],
        side: Side,
    ) {
        let Some(file) = &plan.ocsp_response else {
            if side == Side::Server {
                self.missing_staple(&plan.certificate, chain);
            }
            return;
        };
        if let Some(staple) = self.keep(Staple::load(self.files, plan, chain)).flatten() {
            self.staple_validity(file, staple);
        }
    }

    fn missing_staple(&mut self, file: &Located<PathBuf>, chain: &[CertificateDer<'_>]) {
        let leaf = chain.first().and_then(|der| parse(der));
        if let Some(leaf) = leaf.filter(must_staple) {
            let name = name_words(leaf.subject());
            let what = format!("clients refuse {name} without an OCSP response (must-staple)");
            self.warn(file, what, "name one by ocsp_response");
        }
    }

    fn staple_validity(&mut self, file: &Located<PathBuf>, staple: Staple) {
        let Staple {
            name,
            validity,
            next_update,
            ..
        } = staple;
        match validity.until {
            Some(until) if validity.is_over(self.now) => {
                let ended = if next_update == Some(until) {
                    format!(
                        "the OCSP response for {name} is out of date since {}",
                        day(until)
                    )
                } else {
                    format!(
                        "the certificate of the responder that signed the OCSP response for \
                         {name} expired on {}",
                        day(until)
                    )
                };
                let what = format!("{ended}: it is not stapled");
                self.warn(file, what, "fetch the current one from the CA");
            }
            _ if !validity.holds(self.now) => {
                let what = format!(
                    "the OCSP response for {name} is not valid before {}: it is not stapled until \
                     then",
                    day(validity.from)
                );
                self.warn(file, what, "wait, or correct this host's clock");
            }
            until if next_update.is_none() => {
                let until = until.map_or_else(
                    || "for as long as the file is there".to_owned(),
                    |until| {
                        format!(
                            "until {}, when its responder's certificate ends",
                            day(until)
                        )
                    },
                );
                let what = format!(
                    "the OCSP response for {name} has no nextUpdate: it is stapled {until}"
                );
                let cure = "fetch it anew each day, or ask the CA for responses that end";
                self.warn(file, what, cure);
            }
            _ => {}
        }
    }
}
