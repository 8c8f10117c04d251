//! Real handshakes in memory over the configurations of this room.

mod check;
mod client_certificates;
mod keys;
mod openssl;
mod pki;
mod recheck;
mod resumption;
mod selection;
mod staple;
mod upstream;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, Error, HandshakeKind,
    ServerConfig, ServerConnection, SideData, SignatureScheme, SupportedProtocolVersion,
};

use super::bound::{PeerBound, with_peer_bound};
use super::{Endpoint, Identity, KeyRing, PeerSeen, ServerTls, failure};
use crate::config::{
    CertificatePlan, DownstreamTls, Group, IdentityPattern, Located, Place, Resumption, TlsPolicy,
    TlsVersions, Trust, UpstreamAlpn, UpstreamTls, VerifyClient,
};
use crate::types::{Cause, UnixSeconds, unix_now};
use pki::{Authority, Files, Issued};

const HOST: &str = "db.example";
const DAY: u64 = 24 * 3600;

thread_local! {
    static CLOCK_AHEAD: Cell<u64> = const { Cell::new(0) };
}

/// The real time, as far ahead as the test has set this thread's clock.
fn clock() -> UnixSeconds {
    unix_now() + CLOCK_AHEAD.get()
}

fn located<T>(value: T) -> Located<T> {
    Located {
        value,
        place: Place { span: 3..7 },
    }
}

fn path(path: PathBuf) -> Located<PathBuf> {
    located(path)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Tls12,
    Tls13,
}

impl Version {
    fn only(self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

const BOTH: [Version; 2] = [Version::Tls12, Version::Tls13];

/// Takes any certificate, and keeps what is stapled to it.
#[derive(Debug)]
struct Lenient {
    schemes: Vec<SignatureScheme>,
    stapled: OnceLock<Vec<u8>>,
}

impl Lenient {
    fn offering(schemes: &[SignatureScheme]) -> Self {
        Self {
            schemes: schemes.to_vec(),
            stapled: OnceLock::new(),
        }
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Of the first handshake.
        let _ = self.stapled.set(staple.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// A group that verifies its servers by this CA.
fn verifying(files: &Files, ca: &Authority) -> UpstreamTls {
    UpstreamTls {
        client_certificate: None,
        trust: Trust::File(files.pem("ca.pem", &ca.pem())),
        verify: true,
        verify_depth: 1,
        crl: None,
        close_revoked: None,
        server_name: None,
        policy: policy(),
        alpn: UpstreamAlpn::FromClient,
        session_reuse: true,
        key_log: None,
    }
}

fn policy() -> TlsPolicy {
    TlsPolicy {
        versions: TlsVersions {
            tls12: true,
            tls13: true,
        },
        cipher_suites: vec![],
        groups: vec![Group::X25519, Group::P256],
    }
}

fn resumption() -> Resumption {
    Resumption {
        enabled: true,
        lifetime: Duration::from_secs(DAY),
        ticket_key_files: vec![],
        cache_max: 100,
        tickets: 2,
    }
}

/// A listener for [`HOST`], without client certificates.
fn listener(files: &Files, server: &Issued) -> DownstreamTls {
    listening(vec![files.pair(server)])
}

fn listening(certificates: Vec<CertificatePlan>) -> DownstreamTls {
    DownstreamTls {
        certificates,
        verify_client: VerifyClient::Off,
        client_ca: None,
        verify_depth: 1,
        crl: None,
        close_revoked: None,
        allow_identities: vec![],
        policy: policy(),
        alpn: vec![],
        resumption: resumption(),
        key_log: None,
    }
}

fn demanding(
    plan: DownstreamTls,
    files: &Files,
    ca: &Authority,
    mode: VerifyClient,
) -> DownstreamTls {
    DownstreamTls {
        verify_client: mode,
        client_ca: Some(files.pem("client-ca.pem", &ca.pem())),
        ..plan
    }
}

/// A client of rustls's own making, with its own session store.
fn plain_client(ca: &Authority, version: Version, identity: Option<&Issued>) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(version.only())
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain(), identity.private_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    }
}

fn by_name(config: &Arc<ClientConfig>, name: &str) -> Endpoint {
    Endpoint {
        logged: None,
        config: Arc::clone(config),
        name: ServerName::try_from(name.to_owned()).unwrap(),
    }
}

struct Finished {
    client: ClientConnection,
    server: ServerConnection,
    client_bound: PeerBound,
    server_bound: PeerBound,
}

impl Finished {
    fn resumed(&self) -> bool {
        let kind = |kind: Option<HandshakeKind>| kind == Some(HandshakeKind::Resumed);
        assert_eq!(
            kind(self.client.handshake_kind()),
            kind(self.server.handshake_kind())
        );
        kind(self.server.handshake_kind())
    }

    /// The client, as the listener sees it.
    fn seen_by(&self, tls: &ServerTls) -> PeerSeen {
        tls.peer(self.server.peer_certificates(), &self.server_bound)
    }
}

/// Which side gave up first, and why.
#[derive(Debug)]
struct Refused {
    by_server: bool,
    #[expect(dead_code, reason = "shown when an assertion fails")]
    error: Error,
    cause: Cause,
    words: String,
    /// What the other side made of it.
    told: Option<Error>,
}

/// A whole connection in memory: handshake, tickets, one message each way.
fn connect(endpoint: &Endpoint, server: &Arc<ServerConfig>) -> Result<Finished, Box<Refused>> {
    let mut client_bound = PeerBound::default();
    let client = with_peer_bound(&mut client_bound, || {
        ClientConnection::new(Arc::clone(&endpoint.config), endpoint.name.clone()).unwrap()
    });
    let mut ends = Finished {
        client,
        server: ServerConnection::new(Arc::clone(server)).unwrap(),
        client_bound,
        server_bound: PeerBound::default(),
    };
    for _ in 0..10 {
        let Finished {
            client,
            server,
            client_bound,
            server_bound,
        } = &mut ends;
        if let Err(error) = carry(client, server, server_bound) {
            let told = carry(server, client, client_bound).err();
            return Err(refused(true, error, told));
        }
        if let Err(error) = carry(server, client, client_bound) {
            let told = carry(client, server, server_bound).err();
            return Err(refused(false, error, told));
        }
    }
    assert!(!ends.client.is_handshaking() && !ends.server.is_handshaking());
    Ok(ends)
}

fn refused(by_server: bool, error: Error, told: Option<Error>) -> Box<Refused> {
    let (cause, words) = failure(&error);
    Box::new(Refused {
        by_server,
        error,
        cause,
        words,
        told,
    })
}

fn carry<S: SideData, R: SideData>(
    from: &mut ConnectionCommon<S>,
    to: &mut ConnectionCommon<R>,
    bound: &mut PeerBound,
) -> Result<(), Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        with_peer_bound(bound, || to.process_new_packets())?;
    }
    Ok(())
}

fn server_tls(plan: &DownstreamTls) -> ServerTls {
    let ring =
        KeyRing::starting_at(&crate::tls::Files::default(), &plan.resumption, clock()).unwrap();
    ServerTls::with_clock(&crate::tls::Files::default(), (plan, &ring), clock).unwrap()
}

fn identity_of(issued: &Issued) -> Identity {
    Identity::parse(&issued.der).unwrap()
}

fn allow(patterns: Vec<IdentityPattern>) -> Vec<Located<IdentityPattern>> {
    patterns.into_iter().map(located).collect()
}
