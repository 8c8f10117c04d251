//! A throw-away certificate authority and what it issues, as PEM files in a directory that is
//! removed with the last of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, RsaKeySize, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use crate::openssl::MISSING;

const DAY: Duration = Duration::from_hours(24);

/// Serial numbers must differ for a CRL to mean one certificate.
static SERIAL: AtomicU64 = AtomicU64::new(0x5157_0001);

/// RSA keys take seconds to find without optimisation: all RSA leafs of a process share one.
static RSA_KEY: LazyLock<String> = LazyLock::new(|| {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
        .expect("an RSA-2048 key")
        .serialize_pem()
});

/// A CA: a root, or an intermediate under one.
#[derive(Clone)]
pub struct Authority {
    params: CertificateParams,
    key: Arc<KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    /// Intermediates from this one (first) up to, not including, the root.
    path: Vec<(String, CertificateDer<'static>)>,
    root: (String, CertificateDer<'static>),
    directory: Arc<TempDir>,
}

impl Authority {
    /// A new root.
    #[must_use]
    pub fn root(name: &str) -> Self {
        // Two roots of one name would be told apart by their signatures only, and a stranger's
        // certificate would be a forged one.
        let number = SERIAL.fetch_add(1, Ordering::Relaxed);
        let params = authority_params(&format!("{name} {number:x}"));
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.self_signed(&key).expect("a root certificate");
        let identity = (certificate.pem(), certificate.der().clone());
        Self {
            params,
            key: Arc::new(key),
            pem: identity.0.clone(),
            der: identity.1.clone(),
            path: Vec::new(),
            root: identity,
            directory: Arc::new(TempDir::new().expect("a temporary directory")),
        }
    }

    /// A new intermediate under this authority.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let params = authority_params(name);
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params
            .signed_by(&key, &self.issuer())
            .expect("an intermediate certificate");
        let identity = (certificate.pem(), certificate.der().clone());
        let mut path = vec![identity.clone()];
        path.extend(self.path.iter().cloned());
        Self {
            params,
            key: Arc::new(key),
            pem: identity.0,
            der: identity.1,
            path,
            root: self.root.clone(),
            directory: Arc::clone(&self.directory),
        }
    }

    /// `depth` intermediates below this authority; the lowest is returned.
    #[must_use]
    pub fn chain(&self, depth: usize) -> Self {
        (1..=depth).fold(self.clone(), |above, level| {
            above.intermediate(&format!("Ringway test intermediate {level}"))
        })
    }

    /// The root's certificate in a file: what a peer trusts.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.write("ca.crt", &self.root.0)
    }

    /// The root's certificate as a trust store for rustls.
    #[must_use]
    pub fn trust(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.1.clone()).expect("a root certificate");
        Arc::new(roots)
    }

    /// This authority's own certificate in a file, and its key in another.
    #[must_use]
    pub fn signing_files(&self) -> (PathBuf, PathBuf) {
        (
            self.write("issuer.crt", &self.pem),
            self.write("issuer.key", &self.key.serialize_pem()),
        )
    }

    /// This authority's certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A leaf as described, with its chain.
    #[must_use]
    pub fn issue(&self, leaf: &Leaf) -> Credential {
        let key = leaf.key();
        self.certify(leaf, &key, key.public_key_pem(), &key.serialize_pem())
    }

    /// A leaf as described for a key of PKCS#8 in PEM that rcgen does not take, being too weak.
    ///
    /// # Panics
    /// When OpenSSL does not take it either.
    #[must_use]
    pub fn issue_for_key(&self, leaf: &Leaf, key: &str) -> Credential {
        let output = Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(self.write("weak.key", key))
            .output()
            .expect(MISSING);
        let public = String::from_utf8(output.stdout).expect("PEM");
        let parsed = SubjectPublicKeyInfo::from_pem(&public).expect("a public key");
        self.certify(leaf, &parsed, public, key)
    }

    fn certify(
        &self,
        leaf: &Leaf,
        public: &impl PublicKeyData,
        public_pem: String,
        key: &str,
    ) -> Credential {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let certificate = leaf
            .params(serial)
            .signed_by(public, &self.issuer())
            .expect("a leaf certificate");
        let mut chain_pem = certificate.pem();
        let mut chain = vec![certificate.der().clone()];
        for (pem, der) in &self.path {
            chain_pem.push_str(pem);
            chain.push(der.clone());
        }
        Credential {
            certificate: self.write("leaf.crt", &chain_pem),
            private_key: self.write("leaf.key", key),
            chain,
            key: PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes())
                .expect("a key of PKCS#8")
                .secret_pkcs8_der()
                .to_vec(),
            public_key: public_pem,
            serial,
            _directory: Arc::clone(&self.directory),
        }
    }

    /// A CRL of this authority that names `revoked`, in a file.
    #[must_use]
    pub fn crl(&self, revoked: &[&Credential]) -> PathBuf {
        let now = SystemTime::now();
        let params = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + 30 * DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(|c| revocation(c.serial)).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.issuer()).expect("a CRL");
        self.write("revoked.crl", &crl.pem().expect("a CRL in PEM"))
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// Keys are readable by their owner alone, as `ringway check` asks.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(format!("{number}-{name}"));
        fs::write(&path, text).expect("a writable temporary directory");
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, owner_only).expect("permissions");
        path
    }
}

/// What a leaf certificate shall hold.
#[derive(Debug, Clone)]
pub struct Leaf {
    common_name: String,
    names: Vec<SanType>,
    purposes: Vec<ExtendedKeyUsagePurpose>,
    valid_from: SystemTime,
    valid_to: SystemTime,
    rsa: bool,
}

impl Leaf {
    /// For a server of this DNS name, which 127.0.0.1 and ::1 are named beside.
    #[must_use]
    pub fn server(name: &str) -> Self {
        Self::new(name, ExtendedKeyUsagePurpose::ServerAuth)
            .dns(name)
            .ip("127.0.0.1")
            .ip("::1")
    }

    /// For a client with this common name.
    #[must_use]
    pub fn client(common_name: &str) -> Self {
        Self::new(common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// For a responder that signs OCSP responses in its issuer's place.
    #[must_use]
    pub fn responder(common_name: &str) -> Self {
        Self::new(common_name, ExtendedKeyUsagePurpose::OcspSigning)
    }

    fn new(common_name: &str, purpose: ExtendedKeyUsagePurpose) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            purposes: vec![purpose],
            valid_from: now - DAY,
            valid_to: now + 90 * DAY,
            rsa: false,
        }
    }

    #[must_use]
    pub fn dns(mut self, name: &str) -> Self {
        let name = name.try_into().expect("a DNS name is ASCII");
        self.names.push(SanType::DnsName(name));
        self
    }

    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        let uri = uri.try_into().expect("a URI is ASCII");
        self.names.push(SanType::URI(uri));
        self
    }

    #[must_use]
    pub fn ip(mut self, address: &str) -> Self {
        let address = address.parse().expect("an IP address");
        self.names.push(SanType::IpAddress(address));
        self
    }

    /// An RSA-2048 key in place of P-256.
    #[must_use]
    pub fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    #[must_use]
    pub fn expired(mut self) -> Self {
        self.valid_from = SystemTime::now() - 10 * DAY;
        self.valid_to = SystemTime::now() - 2 * DAY;
        self
    }

    #[must_use]
    pub fn ends_in(mut self, time: Duration) -> Self {
        self.valid_to = SystemTime::now() + time;
        self
    }

    #[must_use]
    pub fn not_yet_valid(mut self) -> Self {
        self.valid_from = SystemTime::now() + 2 * DAY;
        self
    }

    fn key(&self) -> KeyPair {
        if self.rsa {
            KeyPair::from_pem(&RSA_KEY).expect("the RSA key made before")
        } else {
            KeyPair::generate().expect("a P-256 key")
        }
    }

    fn params(&self, serial: u64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = self.valid_from.into();
        params.not_after = self.valid_to.into();
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names.clone_from(&self.names);
        params.distinguished_name = subject(&self.common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&self.purposes);
        params.use_authority_key_identifier_extension = true;
        params
    }
}

/// A certificate with its chain and key.
#[derive(Clone)]
pub struct Credential {
    /// Leaf and intermediates, PEM.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    pub chain: Vec<CertificateDer<'static>>,
    /// `SubjectPublicKeyInfo`, PEM.
    pub public_key: String,
    key: Vec<u8>,
    serial: u64,
    _directory: Arc<TempDir>,
}

impl Credential {
    #[must_use]
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }

    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The two keys of a TOML table.
    #[must_use]
    pub fn toml(&self) -> String {
        format!(
            "certificate = \"{}\"\nprivate_key = \"{}\"\n",
            self.certificate.display(),
            self.private_key.display()
        )
    }
}

/// One CA and a certificate for each of the places that most tests need.
pub struct House {
    pub ca: Authority,
    /// The proxy's own for clients: `localhost`, 127.0.0.1.
    pub edge: Credential,
    /// A client's: `spiffe://example.org/tester`, `tester.internal.example.org`, CN `tester`.
    pub client: Credential,
    /// The servers': `backend.internal`, 127.0.0.1.
    pub backend: Credential,
}

impl House {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "making keys is no default")]
    pub fn new() -> Self {
        let ca = Authority::root("Ringway test root");
        Self {
            edge: ca.issue(&Leaf::server("localhost")),
            client: ca.issue(&tester()),
            backend: ca.issue(&Leaf::server("backend.internal")),
            ca,
        }
    }

    /// `[listener.tls]` with the edge certificate.
    #[must_use]
    pub fn terminate(&self) -> String {
        format!("[listener.tls]\n{}", self.edge.toml())
    }

    /// `[listener.tls]` that asks for client certificates of this CA.
    #[must_use]
    pub fn terminate_verified(&self, mode: &str) -> String {
        format!(
            "{}client_ca = \"{}\"\nverify_client = \"{mode}\"\n",
            self.terminate(),
            self.ca.file().display()
        )
    }

    /// `[upstream.NAME.tls]` that trusts this CA and expects `backend.internal`.
    #[must_use]
    pub fn originate(&self, upstream: &str) -> String {
        format!(
            "[upstream.{upstream}.tls]\ntrusted_certificate = \"{}\"\n\
             server_name = \"backend.internal\"\n",
            self.ca.file().display()
        )
    }
}

/// The client that [`House::client`] describes.
#[must_use]
pub fn tester() -> Leaf {
    Leaf::client("tester")
        .uri("spiffe://example.org/tester")
        .dns("tester.internal.example.org")
}

fn authority_params(name: &str) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - 30 * DAY).into();
    params.not_after = (now + 365 * DAY).into();
    params.serial_number = Some(SERIAL.fetch_add(1, Ordering::Relaxed).into());
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn subject(common_name: &str) -> rcgen::DistinguishedName {
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(
        DnType::CommonName,
        DnValue::Utf8String(common_name.to_owned()),
    );
    subject
}

fn revocation(serial: u64) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: (SystemTime::now() - DAY).into(),
        reason_code: None,
        invalidity_date: None,
    }
}
