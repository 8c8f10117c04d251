//! Who the peer is: chain, depth, revocation, name, and possession of the key.

use std::cell::Cell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::revocation_list::CertificateRevocationList;

use super::bound;
use super::certificate;
use super::identity::{Identity, is_allowed};
use super::material::RevocationList;
use super::reason::{self, Refusal};
use crate::config::IdentityPattern;
use crate::types::UnixSeconds;

/// CertificateRequest holds at most 64 KiB of CA names (RFC 5246 7.4.4); past half of that no name
/// is sent, which asks for any certificate.
const HINT_BYTES_MAX: usize = 32 * 1024;

/// What a chain must satisfy.
#[derive(Debug)]
pub(super) struct ChainRules {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    pub(super) revocation_lists: Vec<CertRevocationList<'static>>,
    /// When the first of the lists ends; no session may outlive what judged its peer.
    pub(super) lists_end: UnixSeconds,
    /// Intermediates that may stand between leaf and anchor.
    pub(super) depth_max: u32,
    pub(super) usage: KeyUsage,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ChainRules {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let end_entity = parsed(leaf)?;
        let depth_seen = Cell::new(None);
        let judge = |path: &VerifiedPath<'_>| self.judge_path(path, &depth_seen);
        let lists: Vec<_> = self.revocation_lists.iter().collect();
        let outcome = end_entity.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            self.usage,
            revocation_options(&lists),
            Some(&judge),
        );
        let Err(error) = outcome else {
            return Ok(());
        };
        Err(match depth_seen.get() {
            Some(intermediates) => chain_too_long(intermediates, self.depth_max),
            None => reason::from_webpki(error),
        })
    }

    /// The path is valid up to an anchor; is it short enough, and is the leaf's revocation known?
    fn judge_path(
        &self,
        path: &VerifiedPath<'_>,
        depth_seen: &Cell<Option<usize>>,
    ) -> Result<(), webpki::Error> {
        let intermediates = path.intermediate_certificates().count();
        if u32::try_from(intermediates).is_ok_and(|depth| depth > self.depth_max) {
            depth_seen.set(Some(intermediates));
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        let issuer = path.end_entity().issuer();
        let covered = self
            .revocation_lists
            .iter()
            .any(|list| list.issuer() == issuer);
        if covered || self.revocation_lists.is_empty() {
            Ok(())
        } else {
            Err(webpki::Error::UnknownRevocationStatus)
        }
    }
}

/// When the first of the lists ends.
pub(super) fn earliest_list_end(lists: &[RevocationList]) -> UnixSeconds {
    lists
        .iter()
        .map(|list| list.next_update)
        .min()
        .unwrap_or(UnixSeconds::MAX)
}

/// A list is checked wherever one exists; that the leaf's issuer has one is checked apart.
fn revocation_options<'a>(
    lists: &'a [&'a CertRevocationList<'a>],
) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(lists).ok()?;
    Some(
        builder
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build(),
    )
}

fn chain_too_long(intermediates: usize, depth_max: u32) -> Error {
    refused(Refusal::ChainTooLong {
        intermediates,
        depth_max,
    })
}

fn refused(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

fn parsed<'a>(leaf: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, Error> {
    EndEntityCert::try_from(leaf).map_err(reason::from_webpki)
}

/// The part of both verifiers that proves possession of the key.
fn verify_handshake(
    result: Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    result.inspect_err(|error| reason::note(error, reason::HANDSHAKE_NOT_SIGNED.to_owned()))
}

/// How much of a client's certificate must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientDemand {
    /// A certificate must be shown, and verify.
    Required,
    /// A certificate that is shown must verify.
    Optional,
    /// As optional, but an unknown issuer is forgiven.
    OptionalNoCa,
}

#[derive(Debug)]
pub(super) struct ClientVerifier {
    rules: ChainRules,
    demand: ClientDemand,
    allow: Vec<IdentityPattern>,
    hints: Vec<DistinguishedName>,
}

impl ClientVerifier {
    pub(super) fn new(
        rules: ChainRules,
        demand: ClientDemand,
        allow: Vec<IdentityPattern>,
    ) -> Self {
        let hints: Vec<_> = rules
            .anchors
            .iter()
            .map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
            .collect();
        let hint_bytes: usize = hints.iter().map(|name| name.as_ref().len() + 2).sum();
        Self {
            rules,
            demand,
            allow,
            hints: if hint_bytes > HINT_BYTES_MAX {
                Vec::new()
            } else {
                hints
            },
        }
    }

    /// Whether the issuer is known; `Err`: the certificate is refused.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<bool, Error> {
        let verified = match self.rules.verify(leaf, intermediates, now) {
            Ok(()) => true,
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
                if self.demand == ClientDemand::OptionalNoCa =>
            {
                false
            }
            Err(error) => return Err(error),
        };
        if !self.allow.is_empty() {
            self.check_identity(leaf, verified)?;
        }
        Ok(verified)
    }

    fn check_identity(&self, leaf: &CertificateDer<'_>, verified: bool) -> Result<(), Error> {
        let identity = Identity::parse(leaf);
        if is_allowed(identity.as_ref(), verified, &self.allow) {
            return Ok(());
        }
        Err(refused(Refusal::Identity {
            shown: identity
                .map(|identity| identity.describe())
                .unwrap_or_default(),
            verified,
        }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// An allow list that a client without a certificate could walk around would allow anyone.
    fn client_auth_mandatory(&self) -> bool {
        self.demand == ClientDemand::Required || !self.allow.is_empty()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .judge(end_entity, intermediates, now)
            .inspect_err(|error| reason::note_chain(error, end_entity, intermediates))?;
        let lists_end = if verified {
            self.rules.lists_end
        } else {
            UnixSeconds::MAX
        };
        note_accepted((end_entity, intermediates), verified, lists_end, now);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(verify_tls12_signature(
            message,
            cert,
            dss,
            &self.rules.algorithms,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(verify_tls13_signature(
            message,
            cert,
            dss,
            &self.rules.algorithms,
        ))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.algorithms.supported_schemes()
    }
}

/// Verifies upstream servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// `None`: `verify = false`; only possession of the key is proved.
    pub(super) rules: Option<ChainRules>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        rules.verify(leaf, intermediates, now)?;
        parsed(leaf)?
            .verify_is_valid_for_subject_name(name)
            .map_err(reason::from_webpki)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, server_name, now)
            .inspect_err(|error| reason::note_chain(error, end_entity, intermediates))?;
        let lists_end = self
            .rules
            .as_ref()
            .map_or(UnixSeconds::MAX, |rules| rules.lists_end);
        note_accepted(
            (end_entity, intermediates),
            self.rules.is_some(),
            lists_end,
            now,
        );
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(verify_tls12_signature(message, cert, dss, &self.algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(verify_tls13_signature(message, cert, dss, &self.algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A session ends with the first certificate of its chain that ends, or with the first list. Without verification nothing
/// vouches for the rest of the chain, and the leaf alone counts.
fn note_accepted(
    (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    verified: bool,
    lists_end: UnixSeconds,
    now: UnixTime,
) {
    let vouching = if verified { intermediates } else { &[] };
    let not_after = certificate::earliest_end(std::iter::once(leaf).chain(vouching));
    bound::on_peer_accepted(not_after.min(lists_end), verified, now.as_secs());
}

/// Whether the key of `issuer` signed the certificate; the names are not compared.
pub(super) fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &CertificateDer<'_>) -> bool {
    is_signed_by(
        issuer,
        certificate.tbs_certificate.as_ref(),
        &certificate.signature_value.data,
    )
}

/// Whether the key of `issuer` signed the list; the names are not compared.
pub(super) fn has_issued_list(
    list: &CertificateRevocationList<'_>,
    issuer: &CertificateDer<'_>,
) -> bool {
    is_signed_by(
        issuer,
        list.tbs_cert_list.as_ref(),
        &list.signature_value.data,
    )
}

/// Whether the key of `issuer` made this signature.
pub(super) fn is_signed_by(issuer: &CertificateDer<'_>, signed: &[u8], signature: &[u8]) -> bool {
    EndEntityCert::try_from(issuer).is_ok_and(|issuer| {
        let made_signature = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            issuer
                .verify_signature(*algorithm, signed, signature)
                .is_ok()
        };
        verified_algorithms().iter().any(made_signature)
    })
}

/// Whether signatures of this AlgorithmIdentifier (without tag and length) count at all.
pub(super) fn is_verified(identifier: &[u8]) -> bool {
    let mut algorithms = verified_algorithms().iter();
    algorithms.any(|it| it.signature_alg_id().as_ref() == identifier)
}

fn verified_algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    let provider = aws_lc_rs::default_provider();
    provider.signature_verification_algorithms.all
}
