//! The OCSP responses that listeners staple to their certificates.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::certificate::{day, name_words};
use super::files::Files;
use super::gate;
use super::material::{self, MaterialError};
use super::ocsp::{Response, Subject, Unfit, Validity};
use crate::config::{CertificatePlan, Located};
use crate::types::UnixSeconds;

/// Longest serial number in octets (RFC 5280 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// A certificate that a listener shows, and what goes with it.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) certified: CertifiedKey,
    pub(super) staple: Option<Staple>,
}

impl Served {
    pub(super) fn load(files: &Files, plan: &CertificatePlan) -> Result<Self, MaterialError> {
        let certified = material::certified_key(files, plan).map(gate::guard_signatures)?;
        let staple = Staple::load(files, plan, &certified.cert)?;
        Ok(Self { certified, staple })
    }
}

/// A response that says `good` of the certificate that it is to be stapled to, at least once.
#[derive(Debug, Clone)]
pub(super) struct Staple {
    pub(super) response: Vec<u8>,
    pub(super) validity: Validity,
    /// When the responder knows news, which may be after the end of the validity.
    pub(super) next_update: Option<UnixSeconds>,
    /// Whose certificate it is.
    pub(super) name: String,
}

impl Staple {
    /// What the plan names for a chain's first certificate. `None`: nothing, or there is no such
    /// certificate that could be read, which is an error of its own.
    pub(super) fn load(
        files: &Files,
        plan: &CertificatePlan,
        chain: &[CertificateDer<'_>],
    ) -> Result<Option<Self>, MaterialError> {
        let Some(file) = &plan.ocsp_response else {
            return Ok(None);
        };
        let bytes = material::read(files, file)?;
        let subject = Subject::of(chain);
        let refused = |unfit| refused(file, plan, &unfit, subject.as_ref());
        let response = Response::parse(&bytes).map_err(refused)?;
        let Some(subject) = &subject else {
            return Ok(None);
        };
        let good = response.good_for(subject).map_err(refused)?;
        Ok(Some(Self {
            response: bytes.to_vec(),
            validity: good.validity,
            next_update: good.next_update,
            name: name_words(subject.leaf.subject()),
        }))
    }
}

fn refused(
    file: &Located<PathBuf>,
    plan: &CertificatePlan,
    unfit: &Unfit,
    subject: Option<&Subject<'_>>,
) -> MaterialError {
    let certificate = plan.certificate.value.display();
    let name = subject.map_or_else(String::new, |it| name_words(it.leaf.subject()));
    let serial = subject.map_or(&[][..], |it| it.leaf.tbs_certificate.raw_serial());
    let what = match unfit {
        Unfit::NotAResponse => "this is not an OCSP response in DER".to_owned(),
        Unfit::NoAnswer(word) => format!("the OCSP responder gave no answer: {word}"),
        Unfit::OtherSerial(named) => format!(
            "the OCSP response is for serial number {}, {name} in {certificate} has {}",
            hex(named),
            hex(serial)
        ),
        Unfit::OtherIssuer => format!(
            "the OCSP response is for a certificate of another CA, with the serial number of \
             {name} in {certificate}"
        ),
        Unfit::Forged => format!(
            "the OCSP response is signed neither by the issuer of {name} in {certificate} nor by \
             a responder of this issuer"
        ),
        Unfit::WeaklySigned(with) => {
            format!("the OCSP response is signed with {with}, which clients refuse")
        }
        Unfit::Revoked(at) => format!(
            "the OCSP response says that {name} in {certificate} was revoked on {}",
            day(*at)
        ),
        Unfit::Unknown => format!(
            "the OCSP response says that its responder does not know {name} in {certificate}"
        ),
    };
    MaterialError::file(file, what).with_cure(cure(file, plan, unfit))
}

fn cure(file: &Located<PathBuf>, plan: &CertificatePlan, unfit: &Unfit) -> String {
    match unfit {
        Unfit::Revoked(_) => "have the certificate issued anew, for a new key".to_owned(),
        Unfit::Unknown => "ask the CA, and take ocsp_response out until it answers".to_owned(),
        Unfit::WeaklySigned(_) => "have the responder sign with SHA-256, by an ECDSA key or RSA \
             of at least 2048 bits, or take ocsp_response out"
            .to_owned(),
        _ => format!(
            "fetch one with `openssl ocsp -issuer CA.crt -cert {certificate} -url URL -respout \
             {path}`; `openssl x509 -noout -ocsp_uri -in {certificate}` has the URL",
            certificate = plan.certificate.value.display(),
            path = file.value.display(),
        ),
    }
}

/// As `openssl x509 -text` writes serial numbers.
fn hex(serial: &[u8]) -> String {
    let octets = serial.iter().take(SERIAL_BYTES_MAX);
    let octets: Vec<String> = octets.map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}
