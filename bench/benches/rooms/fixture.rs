//! A listener as a configuration makes it, and a client for it, in memory.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use ringway::config::{DownstreamTls, parse};
use ringway::tls::{Engine, KeyRing, ServerEngine, ServerTls};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

const NAME: &str = "edge.ringway.test";
/// A flight with a chain of two certificates is a tenth of that.
const FLIGHT_BYTES_MAX: usize = 32 * 1024;
const RECORD_HEADER_BYTES: usize = 5;

/// One listener with a P-256 certificate.
pub(crate) struct Edge {
    pub(crate) server: Arc<ServerConfig>,
    roots: RootCertStore,
}

impl Edge {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("edge.crt"), dir.path().join("edge.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let text = format!(
            "[[listener]]\nname = \"edge\"\nbind = \"127.0.0.1:4433\"\nupstream = \"app\"\n\
             [listener.tls]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n\
             [upstream.app]\nservers = [\"127.0.0.1:9\"]\n",
            certificate.display(),
            key.display()
        );
        let plan = listener_tls(&text);
        let keys = KeyRing::new(&plan.resumption).unwrap();
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_file(&certificate).unwrap();
        roots.add(der).unwrap();
        Self {
            server: ServerTls::new(&plan, &keys).unwrap().for_core(),
            roots,
        }
    }

    /// A client that offers one suite with AES-128-GCM, and keeps tickets.
    pub(crate) fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let provider = provider(vec![kx_group::X25519, kx_group::SECP256R1]);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(16);
        Arc::new(config)
    }
}

pub(crate) fn provider(groups: Vec<&'static dyn SupportedKxGroup>) -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.kx_groups = groups;
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    Arc::new(provider)
}

fn listener_tls(text: &str) -> DownstreamTls {
    let loaded = parse("bench.toml", text);
    let plan = loaded.into_plan().unwrap();
    plan.listeners[0].tls.clone().unwrap()
}

pub(crate) fn connection(client: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from(NAME).unwrap();
    ClientConnection::new(Arc::clone(client), name).unwrap()
}

/// Handshakes to the end. rustls's unbuffered end is shown one record at a time, as in the proxy.
pub(crate) fn shake(server: &Arc<ServerConfig>, client: &mut ClientConnection) -> ServerEngine {
    let mut engine = ServerEngine::new(Arc::clone(server)).unwrap();
    let (mut inbox, mut shown) = (Vec::new(), 0);
    loop {
        let UnbufferedStatus { discard, state } = engine.process(&mut inbox[..shown]);
        let (mut is_blocked, mut is_complete) = (false, false);
        match state.unwrap() {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut flight = [0; FLIGHT_BYTES_MAX];
                let bytes = data.encode(&mut flight).unwrap();
                deliver(client, &flight[..bytes]);
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::BlockedHandshake => is_blocked = true,
            ConnectionState::WriteTraffic(_) => is_complete = true,
            _ => panic!("traffic within the handshake"),
        }
        inbox.drain(..discard);
        shown -= discard;
        inbox.extend(sent_by(client));
        if is_complete && !engine.common().is_handshaking() {
            return engine;
        }
        if is_blocked || is_complete {
            shown += record_bytes(&inbox[shown..]);
        }
    }
}

fn record_bytes(bytes: &[u8]) -> usize {
    RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]))
}

fn deliver(client: &mut ClientConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
    }
}

fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The record in which the client sends `data`.
pub(crate) fn sealed_by(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
    client.writer().write_all(data).unwrap();
    sent_by(client)
}

/// The client's first flight.
pub(crate) fn hello(groups: Vec<&'static dyn SupportedKxGroup>) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    sent_by(&mut connection(&Arc::new(config)))
}
