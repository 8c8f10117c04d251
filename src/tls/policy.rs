//! Suites, groups and versions: from the plan to rustls's provider.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::material::MaterialError;
use crate::config::{CipherSuite, Group, TlsPolicy, TlsVersions};

/// For a CPU with AES instructions. AES-128 with SHA-256 first: SHA-384 alone doubles the price of
/// a TLS 1.3 handshake (92 against 55 us, rustls 0.23 with SHA-NI).
const FASTEST_WITH_AES: [CipherSuite; 9] = [
    CipherSuite::Tls13Aes128GcmSha256,
    CipherSuite::Tls13Aes256GcmSha384,
    CipherSuite::Tls13Chacha20Poly1305Sha256,
    CipherSuite::EcdheEcdsaAes128GcmSha256,
    CipherSuite::EcdheRsaAes128GcmSha256,
    CipherSuite::EcdheEcdsaAes256GcmSha384,
    CipherSuite::EcdheRsaAes256GcmSha384,
    CipherSuite::EcdheEcdsaChacha20Poly1305,
    CipherSuite::EcdheRsaChacha20Poly1305,
];

/// For a CPU without them, where AES in software is slow.
const FASTEST_WITHOUT_AES: [CipherSuite; 9] = [
    CipherSuite::Tls13Chacha20Poly1305Sha256,
    CipherSuite::Tls13Aes128GcmSha256,
    CipherSuite::Tls13Aes256GcmSha384,
    CipherSuite::EcdheEcdsaChacha20Poly1305,
    CipherSuite::EcdheRsaChacha20Poly1305,
    CipherSuite::EcdheEcdsaAes128GcmSha256,
    CipherSuite::EcdheRsaAes128GcmSha256,
    CipherSuite::EcdheEcdsaAes256GcmSha384,
    CipherSuite::EcdheRsaAes256GcmSha384,
];

/// The provider for both legs: aws-lc-rs with the policy's suites and groups, in its order.
pub(super) fn provider(policy: &TlsPolicy) -> Arc<CryptoProvider> {
    let suites = match policy.cipher_suites.as_slice() {
        [] if has_aes_instructions() => FASTEST_WITH_AES.as_slice(),
        [] => FASTEST_WITHOUT_AES.as_slice(),
        chosen => chosen,
    };
    Arc::new(CryptoProvider {
        cipher_suites: suites.iter().map(|suite| supported_suite(*suite)).collect(),
        kx_groups: policy
            .groups
            .iter()
            .map(|group| supported_group(*group))
            .collect(),
        ..aws_lc_rs::default_provider()
    })
}

pub(super) fn versions(versions: TlsVersions) -> Vec<&'static SupportedProtocolVersion> {
    let tls13 = versions.tls13.then_some(&rustls::version::TLS13);
    let tls12 = versions.tls12.then_some(&rustls::version::TLS12);
    tls13.into_iter().chain(tls12).collect()
}

/// No suite of the policy belongs to one of its versions.
pub(super) fn unusable(policy: &TlsPolicy) -> MaterialError {
    let version = match (policy.versions.tls12, policy.versions.tls13) {
        (true, false) => "TLSv1.2",
        (false, true) => "TLSv1.3",
        _ => "the configured protocols",
    };
    MaterialError::nowhere(format!(
        "no configured cipher suite or group works with {version}"
    ))
    .with_cure("add a suite of that version to ciphers, or leave ciphers out")
}

/// AES and carry-less multiplication, which GCM needs.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

fn supported_suite(suite: CipherSuite) -> SupportedCipherSuite {
    use cipher_suite as rustls;
    match suite {
        CipherSuite::Tls13Aes128GcmSha256 => rustls::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Tls13Aes256GcmSha384 => rustls::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Tls13Chacha20Poly1305Sha256 => rustls::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheEcdsaAes128GcmSha256 => rustls::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaAes256GcmSha384 => rustls::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaChacha20Poly1305 => {
            rustls::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        CipherSuite::EcdheRsaAes128GcmSha256 => rustls::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaAes256GcmSha384 => rustls::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaChacha20Poly1305 => {
            rustls::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
    }
}

fn supported_group(group: Group) -> &'static dyn SupportedKxGroup {
    match group {
        Group::X25519MlKem768 => kx_group::X25519MLKEM768,
        Group::X25519 => kx_group::X25519,
        Group::P256 => kx_group::SECP256R1,
        Group::P384 => kx_group::SECP384R1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_order_of_suites_follows_the_cpu_and_a_configured_order_is_kept() {
        let mut policy = TlsPolicy {
            versions: TlsVersions {
                tls12: true,
                tls13: true,
            },
            cipher_suites: vec![],
            groups: vec![Group::P384, Group::X25519],
        };
        let provider_default = provider(&policy);
        let expected = if has_aes_instructions() {
            cipher_suite::TLS13_AES_128_GCM_SHA256
        } else {
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256
        };
        assert_eq!(provider_default.cipher_suites[0], expected);
        assert_eq!(provider_default.cipher_suites.len(), 9);
        assert_eq!(
            provider_default.kx_groups[0].name(),
            rustls::NamedGroup::secp384r1
        );

        policy.cipher_suites = vec![
            CipherSuite::Tls13Aes256GcmSha384,
            CipherSuite::Tls13Aes128GcmSha256,
        ];
        let suites = &provider(&policy).cipher_suites;
        assert_eq!(
            suites.as_slice(),
            [
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_AES_128_GCM_SHA256
            ]
        );
    }
}
