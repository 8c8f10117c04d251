//! A CA whose certificates can be wrong in every way.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::{DAY, path};
use crate::config::{CertificatePlan, Located};
use crate::types::{UnixSeconds, unix_now};

/// rcgen's kind of time, whose name it does not export.
macro_rules! time {
    ($seconds:expr) => {
        date_time_ymd(1970, 1, 1) + Duration::from_secs($seconds)
    };
}

pub(super) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    der: CertificateDer<'static>,
    /// From this CA up to, but without, the root.
    above: Vec<String>,
}

/// What to issue. The default is a valid certificate for ten days.
pub(super) struct Leaf {
    pub(super) common_name: &'static str,
    pub(super) names: Vec<String>,
    pub(super) uri: Option<&'static str>,
    pub(super) begins: UnixSeconds,
    pub(super) ends: UnixSeconds,
    pub(super) serial: u64,
    pub(super) is_ca: bool,
    pub(super) rsa: bool,
    pub(super) must_staple: bool,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            common_name: "leaf",
            names: vec![],
            uri: None,
            begins: unix_now() - 10 * DAY,
            ends: unix_now() + 90 * DAY,
            serial: 1000,
            is_ca: false,
            rsa: false,
            must_staple: false,
        }
    }
}

impl Leaf {
    pub(super) fn named(name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            ..Self::default()
        }
    }
}

pub(super) struct Issued {
    /// Leaf first, then intermediates.
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
    pub(super) der: CertificateDer<'static>,
}

impl Issued {
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap()
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap()
    }
}

impl Authority {
    pub(super) fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            params,
            key,
            above: vec![],
        }
    }

    pub(super) fn below(&self, name: &str) -> Self {
        self.below_until(name, unix_now() + 900 * DAY)
    }

    pub(super) fn below_until(&self, name: &str, ends: UnixSeconds) -> Self {
        let (mut params, key) = (ca_params(name), KeyPair::generate().unwrap());
        params.not_after = time!(ends);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        let mut above = vec![certificate.pem()];
        above.extend(self.above.iter().cloned());
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            params,
            key,
            above,
        }
    }

    pub(super) fn issue(&self, leaf: Leaf) -> Issued {
        let key = if leaf.rsa {
            KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap()
        } else {
            KeyPair::generate().unwrap()
        };
        let certificate = leaf_params(leaf).signed_by(&key, &self.issuer()).unwrap();
        Issued {
            chain_pem: certificate.pem() + &self.above.concat(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    pub(super) fn revocation_list(&self, serials: &[u64], next_update: UnixSeconds) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: time!(unix_now() - DAY),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: time!(next_update.min(unix_now()) - DAY),
            next_update: time!(next_update),
            crl_number: SerialNumber::from(7),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer())
        .unwrap()
        .pem()
        .unwrap()
    }

    pub(super) fn pem(&self) -> String {
        self.pem.clone()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(leaf: Leaf) -> CertificateParams {
    let mut params = CertificateParams::new(leaf.names).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, leaf.common_name);
    if let Some(uri) = leaf.uri {
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
    }
    params.not_before = time!(leaf.begins);
    params.not_after = time!(leaf.ends);
    params.serial_number = Some(SerialNumber::from(leaf.serial));
    if leaf.must_staple {
        let oid = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
        let features = CustomExtension::from_oid_content(oid, vec![0x30, 3, 2, 1, 5]);
        params.custom_extensions.push(features);
    }
    if leaf.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// Self-signed, not a CA.
pub(super) fn self_signed(leaf: Leaf) -> Issued {
    let key = KeyPair::generate().unwrap();
    let certificate = leaf_params(leaf).self_signed(&key).unwrap();
    Issued {
        chain_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        der: certificate.der().clone(),
    }
}

/// A directory for one test's files.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn bytes(&self, name: &str, bytes: &[u8]) -> Located<PathBuf> {
        let file = self.0.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        path(file)
    }

    pub(super) fn pem(&self, name: &str, pem: &str) -> Located<PathBuf> {
        self.bytes(name, pem.as_bytes())
    }

    /// Certificate and key, each under a name of its own.
    pub(super) fn pair(&self, issued: &Issued) -> CertificatePlan {
        use std::os::unix::fs::PermissionsExt;
        let count = std::fs::read_dir(self.0.path()).unwrap().count();
        let plan = CertificatePlan {
            certificate: self.pem(&format!("{count}.crt"), &issued.chain_pem),
            private_key: self.pem(&format!("{count}.key"), &issued.key_pem),
            ocsp_response: None,
        };
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&plan.private_key.value, private).unwrap();
        plan
    }
}
