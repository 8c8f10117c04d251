//! rustls configurations of the tests' clients and servers.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, version,
};

use crate::pki::{Authority, Credential};

pub const TLS12: &SupportedProtocolVersion = &version::TLS12;
pub const TLS13: &SupportedProtocolVersion = &version::TLS13;

const BOTH: &[&SupportedProtocolVersion] = &[TLS13, TLS12];

/// What a test's client offers.
#[derive(Clone)]
pub struct ClientTls {
    trust: Option<Authority>,
    identity: Option<Credential>,
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: CryptoProvider,
    alpn: Vec<Vec<u8>>,
    tls12: Tls12Resumption,
}

impl ClientTls {
    /// Verifies the server against `ca`.
    #[must_use]
    pub fn trusting(ca: &Authority) -> Self {
        Self {
            trust: Some(ca.clone()),
            ..Self::trusting_anyone()
        }
    }

    /// For tests in which the server's certificate is not the subject.
    #[must_use]
    pub fn trusting_anyone() -> Self {
        Self {
            trust: None,
            identity: None,
            versions: BOTH.to_vec(),
            provider: aws_lc_rs::default_provider(),
            alpn: Vec::new(),
            tls12: Tls12Resumption::SessionIdOrTickets,
        }
    }

    /// Shows this certificate when asked for one.
    #[must_use]
    pub fn identity(mut self, identity: &Credential) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    #[must_use]
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Offers this one suite.
    #[must_use]
    pub fn suite(mut self, suite: CipherSuite) -> Self {
        self.provider.cipher_suites.retain(|s| s.suite() == suite);
        self
    }

    /// Offers this one key exchange group.
    #[must_use]
    pub fn group(mut self, group: &'static dyn SupportedKxGroup) -> Self {
        self.provider.kx_groups = vec![group];
        self
    }

    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Resumes TLS 1.2 by session ID alone, as clients without tickets do.
    #[must_use]
    pub fn session_ids_only(mut self) -> Self {
        self.tls12 = Tls12Resumption::SessionIdOnly;
        self
    }

    /// A configuration with a session store of its own.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(self.provider.clone());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .expect("suites and groups fit the versions");
        let builder = match &self.trust {
            Some(ca) => builder.with_root_certificates(ca.trust()),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(
                    provider.signature_verification_algorithms,
                ))),
        };
        let mut config = match &self.identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key_der())
                .expect("a certificate and its key"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.resumption = Resumption::in_memory_sessions(64).tls12_resumption(self.tls12);
        Arc::new(config)
    }
}

/// What a test's server asks for and shows.
#[derive(Clone)]
pub struct ServerTls {
    credential: Credential,
    client_ca: Option<Authority>,
    optional: bool,
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: CryptoProvider,
    alpn: Vec<Vec<u8>>,
    resumption: bool,
}

impl ServerTls {
    #[must_use]
    pub fn with(credential: &Credential) -> Self {
        Self {
            credential: credential.clone(),
            client_ca: None,
            optional: false,
            versions: BOTH.to_vec(),
            provider: aws_lc_rs::default_provider(),
            alpn: Vec::new(),
            resumption: true,
        }
    }

    /// Requires a client certificate of `ca`.
    #[must_use]
    pub fn require_client(mut self, ca: &Authority) -> Self {
        self.client_ca = Some(ca.clone());
        self
    }

    /// Asks for a client certificate of `ca` and does without.
    #[must_use]
    pub fn ask_client(mut self, ca: &Authority) -> Self {
        self.optional = true;
        self.require_client(ca)
    }

    #[must_use]
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Accepts this one suite.
    #[must_use]
    pub fn suite(mut self, suite: CipherSuite) -> Self {
        self.provider.cipher_suites.retain(|s| s.suite() == suite);
        self
    }

    /// Accepts this one key exchange group.
    #[must_use]
    pub fn group(mut self, group: &'static dyn SupportedKxGroup) -> Self {
        self.provider.kx_groups = vec![group];
        self
    }

    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        self.resumption = false;
        self
    }

    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(self.provider.clone());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .expect("suites and groups fit the versions");
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(ca.trust(), Arc::clone(&provider));
                let verifier = if self.optional {
                    verifier.allow_unauthenticated()
                } else {
                    verifier
                };
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let mut config = builder
            .with_single_cert(self.credential.chain.clone(), self.credential.key_der())
            .expect("a certificate and its key");
        config.alpn_protocols.clone_from(&self.alpn);
        if self.resumption {
            config.ticketer = aws_lc_rs::Ticketer::new().expect("a ticketer");
        } else {
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Arc::new(config)
    }
}

/// Takes any server certificate, but checks that its key signed the handshake.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
