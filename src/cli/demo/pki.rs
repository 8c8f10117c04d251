use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// Whom the upstream servers' certificate names.
pub(super) const UPSTREAM_NAME: &str = "upstream.demo.internal";

const DAY: Duration = Duration::from_hours(24);

/// A certificate authority that nobody trusts but the demo, and what it issued, in files.
pub(super) struct Pki {
    pub directory: PathBuf,
    pub roots: Arc<RootCertStore>,
    pub upstream_certificate: CertificateDer<'static>,
    pub upstream_key: PrivatePkcs8KeyDer<'static>,
}

impl Pki {
    /// Issues everything and writes `ca.crt` and the `.crt` and `.key` of `edge` (the proxy, to
    /// its clients), `client` (the proxy, to its upstream servers) and `upstream` (those).
    pub(super) fn issue(directory: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut authority = params("Ringway demo CA", &[])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = authority.self_signed(&key)?;
        write(&directory.join("ca.crt"), &root.pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone())?;

        let issuer = Issuer::from_params(&authority, &key);
        let leaf = |file: &str, params| issue(&directory.join(file), params, &issuer);
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let edge = params("localhost", &["localhost", "127.0.0.1", "::1"])?;
        leaf("edge", with_purpose(edge, server.clone()))?;
        let client = params("the proxy of ringway demo", &["proxy.demo.internal"])?;
        leaf(
            "client",
            with_purpose(client, ExtendedKeyUsagePurpose::ClientAuth),
        )?;
        let upstream = params(UPSTREAM_NAME, &[UPSTREAM_NAME])?;
        let (upstream_certificate, upstream_key) =
            leaf("upstream", with_purpose(upstream, server))?;
        Ok(Self {
            directory: directory.to_owned(),
            roots: Arc::new(roots),
            upstream_certificate,
            upstream_key,
        })
    }
}

/// Valid for longer than the 30 days within which `ringway check` warns.
fn params(common_name: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + 90 * DAY).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn with_purpose(
    mut params: CertificateParams,
    purpose: ExtendedKeyUsagePurpose,
) -> CertificateParams {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params
}

fn issue(
    file: &Path,
    params: CertificateParams,
    issuer: &Issuer<'_, &KeyPair>,
) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    write(&file.with_extension("crt"), &certificate.pem())?;
    write(&file.with_extension("key"), &key.serialize_pem())?;
    Ok((certificate.der().clone(), key.serialize_der().into()))
}

/// Readable by the owner alone from its first byte on, as `ringway check` asks of keys.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let create = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    create().with_context(|| format!("{} cannot be written", path.display()))
}
