//! rustls's side of the harness: what clients offer and what upstream servers accept.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

use crate::pki::{EDGE_NAME, Pki, UPSTREAM_NAME};
use crate::work::{ClientIdentity, Group, Handshake, Role, Suites, Version, Work};

/// Tickets that a client keeps. rustls hands out each TLS 1.3 ticket once.
const SESSIONS: usize = 16;

/// One client's configuration. Each client has its own, and so its own tickets: none waits for
/// another's, and none takes them.
pub(crate) fn client_config(work: &Work, pki: &Pki) -> Result<ClientConfig, rustls::Error> {
    let provider = provider(work);
    let shown = match work.role {
        Role::Passthrough => pki.upstream(work.key),
        _ => pki.edge(work.key),
    };
    let verifier = Pinned {
        certificate: shown.certificate.clone(),
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(work.version))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match work.client {
        ClientIdentity::Anonymous => builder.with_no_client_auth(),
        ClientIdentity::Certificate => builder.with_client_auth_cert(
            vec![pki.client.certificate.clone()],
            pki.client.private_key(),
        )?,
    };
    config.resumption = match work.mode.handshake() {
        Some(Handshake::Resumed) => Resumption::in_memory_sessions(SESSIONS),
        _ => Resumption::disabled(),
    };
    Ok(config)
}

/// The name that a client asks for: the proxy's, or that of the server behind it.
pub(crate) fn asked_name(role: Role) -> &'static str {
    match role {
        Role::Passthrough => UPSTREAM_NAME,
        _ => EDGE_NAME,
    }
}

/// The upstream servers' configuration: tickets on, as rustls issues them by default.
pub(crate) fn server_config(work: &Work, pki: &Pki) -> anyhow::Result<ServerConfig> {
    let provider = provider(work);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(work.version))?;
    let builder = match work.client {
        ClientIdentity::Anonymous => builder.with_no_client_auth(),
        ClientIdentity::Certificate => {
            let mut roots = RootCertStore::empty();
            roots.add(pki.ca.clone())?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let identity = pki.upstream(work.key);
    let mut config =
        builder.with_single_cert(vec![identity.certificate.clone()], identity.private_key())?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn versions(version: Version) -> &'static [&'static SupportedProtocolVersion] {
    match version {
        Version::Tls12 => TLS12,
        Version::Tls13 => TLS13,
    }
}

/// The group that every handshake must come out with, in rustls's words.
pub(crate) fn named_group(group: Group) -> NamedGroup {
    match group {
        Group::X25519 => NamedGroup::X25519,
        Group::X25519MlKem768 => NamedGroup::X25519MLKEM768,
    }
}

/// The row's group first; the suites are the row's. TLS 1.2 clients must name P-256 too: OpenSSL
/// takes the list for the curves of certificates as well (RFC 8422 5.1).
fn provider(work: &Work) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    if work.group == Group::X25519MlKem768 {
        provider.kx_groups.insert(0, kx_group::X25519MLKEM768);
    }
    if work.suites == Suites::Aes128 {
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ];
    }
    Arc::new(provider)
}

/// Trusts the one certificate that this run issued for the proxy, byte by byte. The handshake's
/// signature is still verified; only the chain is not, which would cost the generator as much again.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
