//! What both legs speak, and whom they trust.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Located, NamePattern};

#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    /// At least one; the first is the default for names that none has.
    pub certificates: Vec<CertificatePlan>,
    pub verify_client: VerifyClient,
    /// Present unless `verify_client` is off (or optional-no-ca without it).
    pub client_ca: Option<Located<PathBuf>>,
    /// Intermediates that may stand between client certificate and CA (nginx's sense).
    pub verify_depth: u32,
    pub crl: Option<Located<PathBuf>>,
    /// A session whose certificate would no longer be taken ends within this time. `None`: it goes
    /// on.
    pub close_revoked: Option<Duration>,
    /// Empty: every verified certificate may pass.
    pub allow_identities: Vec<Located<IdentityPattern>>,
    pub policy: TlsPolicy,
    /// In order of preference; empty: ALPN is not answered.
    pub alpn: Vec<Vec<u8>>,
    pub resumption: Resumption,
    pub key_log: Option<KeyLogPlan>,
}

/// Whose TLS secrets are written to a file, for whoever has to look into recorded traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyLogPlan {
    pub file: Located<PathBuf>,
    /// Clients from these networks; never empty.
    pub sources: Vec<IpNet>,
}

impl KeyLogPlan {
    #[must_use]
    pub fn covers(&self, client: Option<IpAddr>) -> bool {
        let client = client.map(|client| client.to_canonical());
        client.is_some_and(|client| self.sources.iter().any(|net| net.contains(&client)))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CertificatePlan {
    pub certificate: Located<PathBuf>,
    pub private_key: Located<PathBuf>,
    pub ocsp_response: Option<Located<PathBuf>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyClient {
    Off,
    Optional,
    Required,
    OptionalNoCa,
}

/// A name of a certificate that `allow_identities` accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityPattern {
    Dns(NamePattern),
    /// A URI of the SAN, SPIFFE ids included; a trailing `*` matches any rest.
    Uri(String),
    CommonName(String),
    /// SHA-256 of the DER of SubjectPublicKeyInfo (RFC 7469 2.4).
    SpkiSha256([u8; 32]),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Resumption {
    pub enabled: bool,
    /// How long a session may be resumed: at most 7 days (RFC 8446 4.6.1).
    pub lifetime: Duration,
    /// nginx's 48 or 80 byte files, newest first; empty: keys are made and rotated by themselves.
    pub ticket_key_files: Vec<Located<PathBuf>>,
    /// Sessions a core remembers for clients that use session IDs.
    pub cache_max: usize,
    /// TLS 1.3 tickets sent after a full handshake.
    pub tickets: usize,
}

/// What both legs have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsPolicy {
    pub versions: TlsVersions,
    /// In order of preference. Empty: the fastest strong suites of this CPU first.
    pub cipher_suites: Vec<CipherSuite>,
    /// In order of preference; never empty.
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    pub tls12: bool,
    pub tls13: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    Tls13Aes128GcmSha256,
    Tls13Aes256GcmSha384,
    Tls13Chacha20Poly1305Sha256,
    EcdheEcdsaAes128GcmSha256,
    EcdheEcdsaAes256GcmSha384,
    EcdheEcdsaChacha20Poly1305,
    EcdheRsaAes128GcmSha256,
    EcdheRsaAes256GcmSha384,
    EcdheRsaChacha20Poly1305,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    X25519MlKem768,
    X25519,
    P256,
    P384,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Shown when the server asks for one.
    pub client_certificate: Option<CertificatePlan>,
    pub trust: Trust,
    pub verify: bool,
    /// Intermediates that may stand between the server's certificate and the CA.
    pub verify_depth: u32,
    pub crl: Option<Located<PathBuf>>,
    /// As in [`DownstreamTls`].
    pub close_revoked: Option<Duration>,
    /// SNI and the name that the certificate must have. `None`: the server's own host name or IP.
    pub server_name: Option<Located<String>>,
    pub policy: TlsPolicy,
    pub alpn: UpstreamAlpn,
    pub session_reuse: bool,
    pub key_log: Option<KeyLogPlan>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Trust {
    /// The operating system's CA bundle.
    System,
    File(Located<PathBuf>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAlpn {
    /// What the listener agreed on with the client, if anything.
    FromClient,
    /// In order of preference; empty: none is offered.
    Fixed(Vec<Vec<u8>>),
}
