//! What a certificate says, for the log and for `check`; path validation is webpki's.

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::extensions::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use crate::types::UnixSeconds;

/// Characters of a peer's name that reach the log.
const NAME_CHARS_MAX: usize = 256;

/// Reads the outer structure; the extensions stay unread until asked for.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509CertificateParser::new()
        .with_deep_parse_extensions(false)
        .parse(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// The earliest end among the certificates; unreadable ones count as over.
pub(super) fn earliest_end<'a>(
    certificates: impl Iterator<Item = &'a CertificateDer<'a>>,
) -> UnixSeconds {
    certificates
        .map(|der| parse(der).map_or(0, |certificate| seconds(certificate.validity().not_after)))
        .min()
        .unwrap_or(0)
}

/// Times before 1970 count as 1970.
pub(super) fn seconds(time: ASN1Time) -> UnixSeconds {
    UnixSeconds::try_from(time.timestamp()).unwrap_or(0)
}

pub(super) fn alternative_names<'a>(
    certificate: &'a X509Certificate<'a>,
) -> Option<SubjectAlternativeName<'a>> {
    let extension = certificate
        .tbs_certificate
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .ok()??;
    SubjectAlternativeName::from_der(extension.value)
        .ok()
        .map(|(_, names)| names)
}

pub(super) fn is_ca(certificate: &X509Certificate<'_>) -> bool {
    certificate
        .tbs_certificate
        .get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS)
        .ok()
        .flatten()
        .and_then(|extension| BasicConstraints::from_der(extension.value).ok())
        .is_some_and(|(_, constraints)| constraints.ca)
}

/// Whether its issuer lets it sign OCSP responses in its place (RFC 6960 4.2.2.2).
pub(super) fn signs_ocsp(certificate: &X509Certificate<'_>) -> bool {
    certificate
        .tbs_certificate
        .get_extension_unique(&OID_X509_EXT_EXTENDED_KEY_USAGE)
        .ok()
        .flatten()
        .and_then(|extension| ExtendedKeyUsage::from_der(extension.value).ok())
        .is_some_and(|(_, usage)| usage.ocsp_signing)
}

/// Whether it is to be refused without a stapled OCSP response: a TLS feature (RFC 7633 4.2.3.1) is
/// status_request, 5. Each number of the list stands as INTEGER of one byte.
pub(super) fn must_staple(certificate: &X509Certificate<'_>) -> bool {
    let extensions = certificate.extensions().iter();
    let features = extensions
        .filter(|it| it.oid.as_bytes() == TLS_FEATURE)
        .filter_map(|it| it.value.get(2..));
    let mut features = features.flat_map(|list| list.chunks_exact(3));
    features.any(|feature| feature == [0x02, 1, 5])
}

/// id-pe-tlsfeature, 1.3.6.1.5.5.7.1.24
const TLS_FEATURE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18];

/// What rustls accepts at least, as does every current TLS library (RFC 9325 4.5).
pub(super) const RSA_BITS_MIN: usize = 2048;

/// Length of a certificate's RSA key; `None`: long enough, or no RSA.
pub(super) fn weak_rsa_bits(certificate: &X509Certificate<'_>) -> Option<usize> {
    rsa_bits(certificate.public_key()).filter(|bits| *bits < RSA_BITS_MIN)
}

/// Length of an RSA key's modulus; `None` for other keys.
fn rsa_bits(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
        return None;
    };
    let leading_zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
    let significant = &rsa.modulus[leading_zeros..];
    significant
        .first()
        .map(|top| significant.len() * 8 - top.leading_zeros() as usize)
}

/// A distinguished name on one line: its common name if it has one, else all of it.
pub(super) fn name_words(name: &X509Name<'_>) -> String {
    match common_name(name) {
        Some(common_name) => printable(common_name),
        None => printable(&name.to_string()),
    }
}

pub(super) fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name()
        .find_map(|value| value.as_str().ok())
}

/// A peer's text, fit for one line of a log.
pub(super) fn printable(text: &str) -> String {
    let mut words: String = text
        .chars()
        .take(NAME_CHARS_MAX)
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect();
    if text.chars().nth(NAME_CHARS_MAX).is_some() {
        words.push('…');
    }
    words
}

/// The UTC day, as in "2027-03-01".
pub(super) fn day(time: UnixSeconds) -> String {
    i64::try_from(time)
        .ok()
        .and_then(|time| ASN1Time::from_timestamp(time).ok())
        .map_or_else(
            || "a day beyond all calendars".to_owned(),
            |time| time.to_datetime().date().to_string(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_in_iso_8601() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_709_210_000), "2024-02-29");
        assert_eq!(day(u64::MAX), "a day beyond all calendars");
    }

    #[test]
    fn a_hostile_name_stays_on_one_line_and_short() {
        let words = printable(&format!("a\n\u{7f}b{}", "x".repeat(10_000)));
        assert!(words.starts_with("a??b"));
        assert_eq!(words.chars().count(), NAME_CHARS_MAX + 1);
    }

    #[test]
    fn garbage_is_not_a_certificate_and_never_panics() {
        let ca = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let der = ca.cert.der().as_ref();
        for cut in 0..der.len() {
            assert!(parse(&der[..cut]).is_none());
        }
        for at in 0..der.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = der.to_vec();
                bytes[at] ^= flip;
                if let Some(certificate) = parse(&bytes) {
                    drop(name_words(certificate.subject()));
                    let _ = alternative_names(&certificate).is_some();
                    let _ = weak_rsa_bits(&certificate);
                    let _ = is_ca(&certificate);
                    let _ = signs_ocsp(&certificate) || must_staple(&certificate);
                }
            }
        }
    }
}
