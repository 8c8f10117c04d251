//! Throw-away certificates: one P-256 CA, and identities for each end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::work::Key;

/// The name that clients ask the proxy for.
pub(crate) const EDGE_NAME: &str = "edge.ringway.test";
/// The name that proxies verify the upstream servers by.
pub(crate) const UPSTREAM_NAME: &str = "upstream.ringway.test";

pub(crate) struct Pki {
    pub(crate) ca_file: PathBuf,
    pub(crate) ca: CertificateDer<'static>,
    edge: ByKey,
    upstream: ByKey,
    /// What clients show, and proxies to upstream servers. Always P-256.
    pub(crate) client: Identity,
}

struct ByKey {
    p256: Identity,
    rsa: Identity,
}

impl ByKey {
    fn of(&self, key: Key) -> &Identity {
        match key {
            Key::EcdsaP256 => &self.p256,
            Key::Rsa2048 => &self.rsa,
        }
    }
}

pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: Vec<u8>,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// Certificate and key in one file, as HAProxy wants them.
    pub(crate) bundle_file: PathBuf,
}

impl Identity {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    fn issue(
        dir: &Path,
        name: &str,
        key: Key,
        usage: ExtendedKeyUsagePurpose,
        ca: &CertifiedIssuer<'_, KeyPair>,
    ) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let (key, kind) = match key {
            Key::EcdsaP256 => (KeyPair::generate()?, "p256"),
            Key::Rsa2048 => (
                KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
                "rsa",
            ),
        };
        let certificate = params.signed_by(&key, ca)?;
        let file = |extension: &str| dir.join(format!("{name}.{kind}.{extension}"));
        let identity = Self {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
            certificate_file: file("crt"),
            key_file: file("key"),
            bundle_file: file("pem"),
        };
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        write_private(&identity.certificate_file, &certificate)?;
        write_private(&identity.key_file, &key)?;
        write_private(&identity.bundle_file, &format!("{certificate}{key}"))?;
        Ok(identity)
    }
}

impl Pki {
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Ringway bench CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca_file = dir.join("ca.crt");
        write_private(&ca_file, &ca.pem())?;
        let server = |name: &str| -> anyhow::Result<ByKey> {
            let of =
                |key| Identity::issue(dir, name, key, ExtendedKeyUsagePurpose::ServerAuth, &ca);
            Ok(ByKey {
                p256: of(Key::EcdsaP256)?,
                rsa: of(Key::Rsa2048)?,
            })
        };
        let client_usage = ExtendedKeyUsagePurpose::ClientAuth;
        let client = "client.ringway.test";
        Ok(Self {
            ca_file,
            ca: ca.der().clone(),
            edge: server(EDGE_NAME)?,
            upstream: server(UPSTREAM_NAME)?,
            client: Identity::issue(dir, client, Key::EcdsaP256, client_usage, &ca)?,
        })
    }

    /// What the proxy shows to clients.
    pub(crate) fn edge(&self, key: Key) -> &Identity {
        self.edge.of(key)
    }

    /// What the upstream servers show.
    pub(crate) fn upstream(&self, key: Key) -> &Identity {
        self.upstream.of(key)
    }
}

/// Proxies warn about keys that others may read.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
