//! Throw-away certificates: one CA, and a P-256 identity for each end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The name that clients ask the proxy for.
pub(crate) const EDGE_NAME: &str = "edge.ringway.test";
/// The name that proxies verify the upstream servers by.
pub(crate) const UPSTREAM_NAME: &str = "upstream.ringway.test";

pub(crate) struct Pki {
    pub(crate) ca_file: PathBuf,
    pub(crate) edge: Identity,
    pub(crate) upstream: Identity,
    pub(crate) client: Identity,
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
        usage: ExtendedKeyUsagePurpose,
        ca: &CertifiedIssuer<'_, KeyPair>,
    ) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, ca)?;
        let file = |extension: &str| dir.join(format!("{name}.{extension}"));
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
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        Ok(Self {
            ca_file,
            edge: Identity::issue(dir, EDGE_NAME, server.clone(), &ca)?,
            upstream: Identity::issue(dir, UPSTREAM_NAME, server, &ca)?,
            client: Identity::issue(dir, "client.ringway.test", client, &ca)?,
        })
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
