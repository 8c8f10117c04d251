use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::bound::PeerBound;
use super::certificate;
use crate::config::IdentityPattern;
use crate::types::UnixSeconds;

/// The names in a peer's certificate. Proved only as far as [`PeerSeen::verified`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// URIs of the SAN, SPIFFE ids included.
    pub uris: Vec<String>,
    /// DNS names of the SAN.
    pub dns_names: Vec<String>,
    pub common_name: Option<String>,
    /// SHA-256 of the DER of SubjectPublicKeyInfo (RFC 7469 2.4).
    pub spki_sha256: [u8; 32],
    pub not_after: UnixSeconds,
}

impl Identity {
    /// `None` for what is not a certificate.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let parsed = certificate::parse(der)?;
        let mut identity = Self {
            uris: Vec::new(),
            dns_names: Vec::new(),
            common_name: certificate::common_name(parsed.subject()).map(str::to_owned),
            spki_sha256: spki_sha256(parsed.public_key().raw),
            not_after: certificate::seconds(parsed.validity().not_after),
        };
        if let Some(names) = certificate::alternative_names(&parsed) {
            for name in names.general_names {
                match name {
                    GeneralName::URI(uri) => identity.uris.push(uri.to_owned()),
                    GeneralName::DNSName(name) => identity.dns_names.push(name.to_owned()),
                    _ => {}
                }
            }
        }
        Some(identity)
    }

    /// The most telling name: SPIFFE id, URI, DNS name, common name, else the key's hash.
    #[must_use]
    pub fn describe(&self) -> String {
        let spiffe = self.uris.iter().find(|uri| uri.starts_with("spiffe://"));
        spiffe
            .or_else(|| self.uris.first())
            .or_else(|| self.dns_names.first())
            .or(self.common_name.as_ref())
            .map_or_else(
                || format!("spki:sha256/{}", BASE64.encode(self.spki_sha256)),
                |name| certificate::printable(name),
            )
    }

    /// Whether one of the patterns names this identity.
    #[must_use]
    pub fn matches(&self, patterns: &[IdentityPattern]) -> bool {
        patterns.iter().any(|pattern| self.matches_one(pattern))
    }

    fn matches_one(&self, pattern: &IdentityPattern) -> bool {
        match pattern {
            IdentityPattern::Dns(pattern) => {
                self.dns_names.iter().any(|name| pattern.matches(name))
            }
            IdentityPattern::Uri(pattern) => self.uris.iter().any(|uri| uri_matches(pattern, uri)),
            IdentityPattern::CommonName(name) => self.common_name.as_ref() == Some(name),
            IdentityPattern::SpkiSha256(pin) => self.spki_sha256 == *pin,
        }
    }
}

/// What is known about the peer of a finished handshake, full or resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSeen {
    /// `None`: the peer showed no certificate.
    pub identity: Option<Identity>,
    /// The certificate was verified up to a trusted CA. False where one was merely accepted.
    pub verified: bool,
    /// `allow_identities` lets the peer pass.
    pub allowed: bool,
}

impl PeerSeen {
    pub(super) fn judge(
        certificates: Option<&[CertificateDer<'_>]>,
        bound: &PeerBound,
        patterns: &[IdentityPattern],
    ) -> Self {
        let identity = certificates
            .and_then(<[_]>::first)
            .and_then(|leaf| Identity::parse(leaf));
        let verified = identity.is_some() && bound.verified();
        let allowed = is_allowed(identity.as_ref(), verified, patterns);
        Self {
            identity,
            verified,
            allowed,
        }
    }
}

/// A name is worth what its issuer is worth: without a verified issuer only the key itself, whose
/// possession every handshake proves, can let a peer pass.
pub(super) fn is_allowed(
    identity: Option<&Identity>,
    verified: bool,
    patterns: &[IdentityPattern],
) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let Some(identity) = identity else {
        return false;
    };
    if verified {
        return identity.matches(patterns);
    }
    patterns.iter().any(|pattern| {
        matches!(pattern, IdentityPattern::SpkiSha256(_)) && identity.matches_one(pattern)
    })
}

pub(super) fn spki_sha256(spki: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
    hash
}

fn uri_matches(pattern: &str, uri: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => uri.starts_with(prefix),
        None => pattern == uri,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamePattern;

    fn identity() -> Identity {
        Identity {
            uris: vec![
                "https://a.example/x".into(),
                "spiffe://example.org/pay/1".into(),
            ],
            dns_names: vec!["db.internal.example.org".into()],
            common_name: Some("db".into()),
            spki_sha256: [7; 32],
            not_after: 1,
        }
    }

    #[test]
    fn the_most_telling_name_describes_an_identity() {
        let mut identity = identity();
        assert_eq!(identity.describe(), "spiffe://example.org/pay/1");
        identity.uris.pop();
        assert_eq!(identity.describe(), "https://a.example/x");
        identity.uris.clear();
        assert_eq!(identity.describe(), "db.internal.example.org");
        identity.dns_names.clear();
        assert_eq!(identity.describe(), "db");
        identity.common_name = None;
        let pin = identity.describe();
        assert_eq!(
            pin,
            "spki:sha256/BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
        );
    }

    #[test]
    fn each_kind_of_pattern_matches_its_own_kind_of_name_only() {
        let identity = identity();
        let wildcard = NamePattern::Wildcard("internal.example.org".into());
        for (pattern, expected) in [
            (IdentityPattern::Dns(wildcard), true),
            (IdentityPattern::Dns(NamePattern::Exact("db".into())), false),
            (
                IdentityPattern::Uri("spiffe://example.org/pay/*".into()),
                true,
            ),
            (
                IdentityPattern::Uri("spiffe://example.org/pay".into()),
                false,
            ),
            (
                IdentityPattern::Uri("db.internal.example.org".into()),
                false,
            ),
            (IdentityPattern::CommonName("db".into()), true),
            (IdentityPattern::CommonName("DB".into()), false),
            (IdentityPattern::SpkiSha256([7; 32]), true),
            (IdentityPattern::SpkiSha256([8; 32]), false),
        ] {
            assert_eq!(
                identity.matches(std::slice::from_ref(&pattern)),
                expected,
                "{pattern:?}"
            );
        }
    }

    #[test]
    fn an_unverified_certificate_passes_by_its_key_but_not_by_its_names() {
        let identity = identity();
        let by_name = [IdentityPattern::CommonName("db".into())];
        let by_key = [IdentityPattern::SpkiSha256([7; 32])];
        assert!(is_allowed(Some(&identity), true, &by_name));
        assert!(!is_allowed(Some(&identity), false, &by_name));
        assert!(is_allowed(Some(&identity), false, &by_key));
        assert!(!is_allowed(None, false, &by_key));
        assert!(is_allowed(None, false, &[]));
    }
}
