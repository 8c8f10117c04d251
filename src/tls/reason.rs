//! Why a handshake failed, in words for the log.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, CertRevocationListError, CertificateError, Error, InvalidMessage, OtherError,
    PeerIncompatible,
};

use super::certificate::{day, name_words, parse, printable};
use crate::types::{Alert, Cause};

pub(super) const HANDSHAKE_NOT_SIGNED: &str =
    "the handshake is not signed by the key of the certificate shown";

/// Names of a certificate that one line of the log shows.
const NAMES_SHOWN_MAX: usize = 4;

thread_local! {
    /// What the last refused certificate was refused for, when rustls's error cannot say it all.
    static NOTE: RefCell<Option<(Error, String)>> = const { RefCell::new(None) };
}

/// Refusals that rustls has no error for.
#[derive(Debug)]
pub(super) enum Refusal {
    ChainTooLong {
        intermediates: usize,
        depth_max: u32,
    },
    Identity {
        shown: String,
        verified: bool,
    },
    Other(webpki::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChainTooLong {
                intermediates,
                depth_max,
            } => write!(
                f,
                "chain too long ({intermediates} intermediates, verify_depth {depth_max})"
            ),
            Self::Identity {
                shown,
                verified: true,
            } => write!(f, "{shown} is not in allow_identities"),
            Self::Identity { shown, .. } => write!(
                f,
                "{shown} comes from an unknown issuer and its key is not in allow_identities"
            ),
            Self::Other(error) => f.write_str(certificate_defect(error)),
        }
    }
}

impl StdError for Refusal {}

/// Whom `allow_identities` refused, in words, if that is what the error says.
#[must_use]
pub fn refused_identity(error: &Error) -> Option<&str> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error else {
        return None;
    };
    match other.downcast_ref::<Refusal>() {
        Some(Refusal::Identity { shown, .. }) => Some(shown),
        _ => None,
    }
}

/// The cause and the words for an error that rustls gave for a peer's bytes.
///
/// Call it on the thread that the error came up on, before the next handshake there.
#[must_use]
pub fn failure(error: &Error) -> (Cause, String) {
    match error {
        Error::AlertReceived(alert) => (Cause::Alert, alert_words(*alert)),
        Error::InvalidCertificate(why) => certificate_failure(error, why),
        Error::InvalidCertRevocationList(why) => (Cause::Certificate, crl_words(why)),
        Error::NoCertificatesPresented => (Cause::Certificate, "no certificate shown".to_owned()),
        Error::UnsupportedNameType => (
            Cause::Certificate,
            "this kind of server name cannot be verified".to_owned(),
        ),
        Error::InvalidMessage(why) => (Cause::Protocol, message_words(*why)),
        Error::PeerIncompatible(why) => (Cause::Protocol, incompatible_words(why)),
        Error::PeerMisbehaved(why) => (
            Cause::Protocol,
            format!("breaks TLS: {}", camel_to_words(&format!("{why:?}"))),
        ),
        Error::NoApplicationProtocol => (Cause::Protocol, "no ALPN protocol in common".to_owned()),
        Error::DecryptError => (Cause::Protocol, "a record does not decrypt".to_owned()),
        Error::PeerSentOversizedRecord => (Cause::Protocol, "a record is too large".to_owned()),
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidEncryptedClientHello(_) => (Cause::Protocol, error.to_string()),
        Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes => {
            (Cause::System, error.to_string())
        }
        Error::General(_) => match noted(error) {
            Some(words) => (Cause::Protocol, words),
            None => (Cause::Internal, error.to_string()),
        },
        _ => (Cause::Internal, error.to_string()),
    }
}

fn noted(error: &Error) -> Option<String> {
    let (noted, words) = NOTE.take()?;
    (noted == *error).then_some(words)
}

/// The alert at the end of what is sent because of `error`; `None` where none is, or none can be
/// told. A sealed one cannot be read back: then it is what rustls 0.23 sends for this error, as
/// far as that is certain.
#[must_use]
pub(super) fn alert_sent(error: &Error, flight: &[u8]) -> Option<Alert> {
    if flight.is_empty() {
        return None;
    }
    // Type alert, version, two bytes long, level, description (RFC 8446 5.1 and 6).
    if let Some([21, 3, _, 0, 2, _, description]) = flight.last_chunk::<7>() {
        return Some(Alert(*description));
    }
    match error {
        Error::InvalidCertificate(why) => Some(Alert(AlertDescription::from(why.clone()).into())),
        Error::NoCertificatesPresented => Some(Alert::CERTIFICATE_REQUIRED),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            Some(Alert::UNEXPECTED_MESSAGE)
        }
        _ => None,
    }
}

/// What the peer speaks instead of TLS, by the first bytes it sent, if that can be told.
#[must_use]
pub fn foreign_protocol(first_bytes: &[u8]) -> Option<&'static str> {
    const OPENINGS: [(&[u8], &str); 14] = [
        (b"GET ", "plain HTTP"),
        (b"HEAD ", "plain HTTP"),
        (b"POST ", "plain HTTP"),
        (b"PUT ", "plain HTTP"),
        (b"DELETE ", "plain HTTP"),
        (b"OPTIONS ", "plain HTTP"),
        (b"PATCH ", "plain HTTP"),
        (b"CONNECT ", "plain HTTP"),
        (b"PRI * ", "plain HTTP/2"),
        (b"HTTP/", "plain HTTP"),
        (b"SSH-", "SSH"),
        (b"PROXY ", "the PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n", "the PROXY protocol"),
        (b"220 ", "plain SMTP or FTP"),
    ];
    let known = OPENINGS
        .iter()
        .find(|(opening, _)| first_bytes.starts_with(opening));
    match (known, first_bytes) {
        (Some((_, protocol)), _) => Some(protocol),
        // CLIENT-HELLO of SSL 2.0: two bytes of length with the top bit set, then type 1.
        (None, [length, _, 1, ..]) if length & 0x80 != 0 => Some("SSLv2"),
        (None, bytes) if is_text(bytes) => Some("plain text"),
        _ => None,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.len() >= 4
        && bytes
            .iter()
            .take(16)
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

/// Keeps words for `error` until [`failure`] asks.
pub(super) fn note(error: &Error, words: String) {
    if matches!(error, Error::InvalidCertificate(_)) {
        NOTE.set(Some((error.clone(), words)));
    }
}

/// A listener has no certificate for a client. rustls says so in a text of its own.
pub(super) fn note_no_certificate() {
    let error = Error::General("no server certificate chain resolved".to_owned());
    let words = "no cipher suite in common, or no signature that a key here can make and the client verifies";
    NOTE.set(Some((error, words.to_owned())));
}

/// Keeps what only the chain itself can tell: which issuer is unknown.
pub(super) fn note_chain(
    error: &Error,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) {
    let Error::InvalidCertificate(why) = error else {
        return;
    };
    let issuer = || top_issuer(leaf, intermediates);
    match why {
        CertificateError::UnknownIssuer => note(error, format!("unknown issuer {}", issuer())),
        CertificateError::UnknownRevocationStatus => {
            note(
                error,
                format!("no revocation list of its issuer {}", issuer()),
            );
        }
        _ => NOTE.set(None),
    }
}

/// The issuer that the certificates shown do not lead beyond.
fn top_issuer(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> String {
    let shown: Vec<_> = intermediates.iter().filter_map(|der| parse(der)).collect();
    let Some(leaf) = parse(leaf) else {
        return "?".to_owned();
    };
    let mut top = &leaf;
    for _ in 0..shown.len() {
        match shown.iter().find(|next| {
            next.subject().as_raw() == top.issuer().as_raw()
                && next.subject().as_raw() != top.subject().as_raw()
        }) {
            Some(next) => top = next,
            None => break,
        }
    }
    name_words(top.issuer())
}

fn certificate_failure(error: &Error, why: &CertificateError) -> (Cause, String) {
    if let Some(words) = noted(error) {
        return (Cause::Certificate, words);
    }
    if let CertificateError::Other(OtherError(other)) = why
        && let Some(refusal) = other.downcast_ref::<Refusal>()
    {
        let cause = match refusal {
            Refusal::Identity { .. } => Cause::Identity,
            _ => Cause::Certificate,
        };
        return (cause, refusal.to_string());
    }
    (Cause::Certificate, certificate_words(why))
}

fn certificate_words(why: &CertificateError) -> String {
    match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("expired on {}", day(not_after.as_secs()))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("not yet valid until {}", day(not_before.as_secs()))
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "issued for {} (not {})",
            names_words(presented),
            expected.to_str()
        ),
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            format!(
                "the revocation list is out of date since {}",
                day(next_update.as_secs())
            )
        }
        CertificateError::Revoked => "revoked".to_owned(),
        CertificateError::UnknownIssuer => "unknown issuer".to_owned(),
        CertificateError::BadSignature => "bad signature".to_owned(),
        CertificateError::BadEncoding => "not a well-formed certificate".to_owned(),
        CertificateError::UnknownRevocationStatus => "no revocation list of its issuer".to_owned(),
        CertificateError::InvalidPurposeContext { required, .. } => {
            format!("not meant for {required} (extended key usage)")
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "signed with an algorithm that is not supported (RSA keys need 2048 bits, hashes \
             SHA-256 or better)"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn names_words(names: &[String]) -> String {
    // webpki writes each name as `DnsName("a.example")` or `IpAddress(192.0.2.1)`.
    let bare = |name: &String| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        printable(inner.unwrap_or(name).trim_matches('"'))
    };
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN_MAX).map(bare).collect();
    match names.len().checked_sub(NAMES_SHOWN_MAX) {
        _ if names.is_empty() => "no name at all".to_owned(),
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

fn crl_words(why: &CertRevocationListError) -> String {
    match why {
        CertRevocationListError::BadSignature => {
            "the revocation list is not signed by the CA that it names".to_owned()
        }
        CertRevocationListError::IssuerInvalidForCrl => {
            "the CA of the revocation list may not sign revocation lists (key usage)".to_owned()
        }
        other => format!("the revocation list cannot be used: {other:?}"),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not trust the CA of the certificate shown to it",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it refused the certificate shown to it",
        AlertDescription::CertificateExpired => "it holds the certificate for expired",
        AlertDescription::CertificateRevoked => "it holds the certificate for revoked",
        AlertDescription::CertificateRequired => "it wants a certificate and was shown none",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "no parameters in common, or no certificate that it accepts"
        }
        AlertDescription::ProtocolVersion => "no TLS version in common",
        AlertDescription::UnrecognisedName => "it does not know the server name",
        AlertDescription::NoApplicationProtocol => "no ALPN protocol in common",
        _ => return format!("alert {} received", Alert(alert.into())),
    };
    format!("alert {} received: {meaning}", Alert(alert.into()))
}

fn message_words(why: InvalidMessage) -> String {
    match why {
        InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion => {
            "what the peer sends is not TLS".to_owned()
        }
        InvalidMessage::MissingData(part) => format!("malformed TLS: {part} is cut short"),
        InvalidMessage::TrailingData(part) => format!("malformed TLS: bytes follow {part}"),
        InvalidMessage::UnexpectedMessage(part) => format!("malformed TLS: unexpected {part}"),
        InvalidMessage::InvalidServerName => "malformed TLS: bad server name".to_owned(),
        other => format!("malformed TLS: {}", camel_to_words(&format!("{other:?}"))),
    }
}

fn incompatible_words(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::NoCipherSuitesInCommon => "no cipher suite in common".to_owned(),
        PeerIncompatible::NoKxGroupsInCommon => "no key exchange group in common".to_owned(),
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "no signature scheme in common that fits the certificate's key".to_owned()
        }
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "no TLS version in common".to_owned(),
        other => format!("not compatible: {}", camel_to_words(&format!("{other:?}"))),
    }
}

/// "UnknownCA" becomes "unknown ca", "BadRecordMac" "bad record mac".
fn camel_to_words(camel: &str) -> String {
    let letters: Vec<char> = camel.chars().collect();
    let mut words = String::with_capacity(camel.len() + 8);
    for (at, letter) in letters.iter().enumerate() {
        let previous = at.checked_sub(1).and_then(|before| letters.get(before));
        let next = letters.get(at + 1);
        let begins_word = letter.is_uppercase()
            && previous.is_some_and(|previous| {
                previous.is_lowercase()
                    || (previous.is_uppercase() && next.is_some_and(|next| next.is_lowercase()))
            });
        if begins_word {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// rustls's error for webpki's, so that the peer is sent the alert that fits.
pub(super) fn from_webpki(error: webpki::Error) -> Error {
    use webpki::Error as Webpki;
    let certificate_error = match error {
        Webpki::BadDer | Webpki::BadDerTime | Webpki::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        Webpki::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Webpki::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        // A CA of the name that did not sign it is, to the one who verifies, another CA.
        Webpki::UnknownIssuer | Webpki::InvalidSignatureForPublicKey => {
            CertificateError::UnknownIssuer
        }
        Webpki::CertNotValidForName(context) => CertificateError::NotValidForNameContext {
            expected: context.expected,
            presented: context.presented,
        },
        Webpki::CertRevoked => CertificateError::Revoked,
        Webpki::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Webpki::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        Webpki::InvalidCrlSignatureForPublicKey => {
            return CertRevocationListError::BadSignature.into();
        }
        Webpki::IssuerNotCrlSigner => return CertRevocationListError::IssuerInvalidForCrl.into(),
        Webpki::UnsupportedSignatureAlgorithmContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: context.signature_algorithm_id,
                supported_algorithms: context.supported_algorithms,
            }
        }
        other => CertificateError::Other(OtherError(Arc::new(Refusal::Other(other)))),
    };
    certificate_error.into()
}

fn certificate_defect(error: &webpki::Error) -> &'static str {
    use webpki::Error as Webpki;
    match error {
        Webpki::CaUsedAsEndEntity => "a CA certificate (CA:TRUE) shown as the peer's own",
        Webpki::EndEntityUsedAsCa => "issued by a certificate that is not a CA",
        Webpki::RequiredEkuNotFoundContext(_) | Webpki::EmptyEkuExtension => {
            "not meant for this side of TLS (extended key usage)"
        }
        Webpki::NameConstraintViolation => "its issuer may not issue for its names",
        Webpki::PathLenConstraintViolated => "chain longer than one of its CAs allows",
        Webpki::MaximumPathDepthExceeded => "chain too long (more than 6 intermediates)",
        Webpki::MaximumSignatureChecksExceeded | Webpki::MaximumPathBuildCallsExceeded => {
            "chain too tangled to verify"
        }
        Webpki::UnsupportedCertVersion => "not an X.509 certificate of version 3",
        Webpki::UnsupportedCriticalExtension => "holds a critical extension that is not known",
        Webpki::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "signed with an algorithm that does not fit its issuer's key"
        }
        Webpki::InvalidCertValidity => "its validity ends before it begins",
        _ => "not a certificate that can be verified",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_received_is_named_and_explained() {
        let (cause, words) = failure(&Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(cause, Cause::Alert);
        assert!(
            words.starts_with("alert unknown_ca received: it does not trust"),
            "{words}"
        );
        let (_, words) = failure(&Error::AlertReceived(AlertDescription::Unknown(201)));
        assert_eq!(words, "alert 201 received");
    }

    #[test]
    fn an_alert_on_the_wire_is_read_and_a_sealed_one_is_told_by_its_error() {
        let plain = crate::proto::record::fatal_alert(Alert::DECODE_ERROR);
        assert_eq!(
            alert_sent(&Error::DecryptError, &plain),
            Some(Alert::DECODE_ERROR)
        );
        let flight = [&[22, 3, 3, 0, 1, 0][..], &plain].concat();
        assert_eq!(
            alert_sent(&Error::DecryptError, &flight),
            Some(Alert::DECODE_ERROR)
        );
        let sealed = [23, 3, 3, 0, 19, 1, 2, 3];
        let expired = Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(
            alert_sent(&expired, &sealed).and_then(Alert::name),
            Some("certificate_expired")
        );
        assert_eq!(
            alert_sent(&Error::NoCertificatesPresented, &sealed),
            Some(Alert::CERTIFICATE_REQUIRED)
        );
        assert_eq!(alert_sent(&Error::DecryptError, &sealed), None);
        assert_eq!(alert_sent(&expired, &[]), None, "nothing was sent");
    }

    #[test]
    fn bytes_that_are_not_tls_are_named() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some("plain HTTP")),
            (b"HTTP/1.1 400 Bad Request", Some("plain HTTP")),
            (b"SSH-2.0-x", Some("SSH")),
            (b"PROXY TCP4 ", Some("the PROXY protocol")),
            (b"\x80\x2e\x01\x00\x02", Some("SSLv2")),
            (b"hello there", Some("plain text")),
            (b"\x16\x03\x01\x00\x05", None),
            (b"\x00\xff\x17\x80", None),
            (b"", None),
        ] {
            assert_eq!(foreign_protocol(bytes), protocol, "{bytes:?}");
        }
    }

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<_> = (0..6)
            .map(|n| format!("DnsName(\"{n}.example\")"))
            .collect();
        assert_eq!(
            names_words(&names),
            "0.example, 1.example, 2.example, 3.example and 2 more"
        );
        assert_eq!(names_words(&[]), "no name at all");
    }

    #[test]
    fn a_note_belongs_to_its_own_error_only() {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        note(&unknown, "unknown issuer X".to_owned());
        let revoked = Error::InvalidCertificate(CertificateError::Revoked);
        assert_eq!(failure(&revoked).1, "revoked");
        assert_eq!(failure(&unknown).1, "unknown issuer");
    }
}
