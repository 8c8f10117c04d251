//! For tests: a finished handshake between our end and rustls's own, in memory.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, ExtractedSecrets,
    RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};

use super::connector::Endpoint;
use super::handshake::{ClientEngine, Engine, ServerEngine, Unsent, establish};
use super::record::{Opener, record_bytes};
use super::stream::{Opened, ReadError, Shared, TlsLeg, TlsReader};
use crate::net::{Inbound, Parts};
use crate::types::Side;

pub(super) const TLS13: [SupportedCipherSuite; 3] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
];

pub(super) const TLS12: [SupportedCipherSuite; 3] = [
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Every shape a record can have, seen from either side of the proxy.
pub(super) fn all() -> impl Iterator<Item = (Side, SupportedCipherSuite)> {
    let sides = [Side::Downstream, Side::Upstream];
    sides
        .into_iter()
        .flat_map(|side| TLS13.into_iter().chain(TLS12).map(move |it| (side, it)))
}

/// Our end after its handshake, and rustls at the other end.
pub(super) struct Pair {
    pub secrets: ExtractedSecrets,
    pub shared: Shared,
    pub peer: Connection,
    /// What came behind the handshake: tickets.
    pub received: Vec<u8>,
    pub tls13: bool,
}

/// `side`: where our end stands; downstream it is the server.
pub(super) fn pair(side: Side, suite: SupportedCipherSuite) -> Pair {
    let (end, peer, received) = shaken(side, suite);
    let (secrets, shared) = match end {
        End::Server(engine) => taken_over(engine),
        End::Client(engine) => taken_over(engine),
    };
    Pair {
        secrets,
        shared,
        peer,
        received,
        tls13: suite.tls13().is_some(),
    }
}

/// Our end as the proxy makes it, rustls, and what came behind the handshake.
pub(super) fn leg(side: Side, suite: SupportedCipherSuite) -> (TlsLeg, Connection, Vec<u8>) {
    let (end, peer, received) = shaken(side, suite);
    let leg = match end {
        End::Server(engine) => establish(engine, Unsent::default(), false),
        End::Client(engine) => establish(engine, Unsent::default(), false),
    };
    (leg.unwrap(), peer, received)
}

enum End {
    Server(ServerEngine),
    Client(ClientEngine),
}

fn shaken(side: Side, suite: SupportedCipherSuite) -> (End, Connection, Vec<u8>) {
    let (server, config, name) = configurations(suite);
    match side {
        Side::Downstream => {
            let mut peer = ClientConnection::new(config, name).unwrap().into();
            let (engine, received) = shake(ServerEngine::new(server).unwrap(), &mut peer);
            (End::Server(engine), peer, received)
        }
        Side::Upstream => {
            let mut peer = ServerConnection::new(server).unwrap().into();
            let engine = ClientEngine::new(
                Endpoint {
                    config,
                    logged: None,
                    name,
                },
                Vec::new(),
            )
            .unwrap();
            let (engine, received) = shake(engine, &mut peer);
            (End::Client(engine), peer, received)
        }
    }
}

fn taken_over<E: Engine>(engine: E) -> (ExtractedSecrets, Shared) {
    let tls13 = engine.common().protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let bound = engine.bound();
    let (secrets, kernel) = engine.into_kernel().unwrap();
    (secrets, Shared::new(kernel, bound, tls13, Vec::new()))
}

fn configurations(
    suite: SupportedCipherSuite,
) -> (Arc<ServerConfig>, Arc<ClientConfig>, ServerName<'static>) {
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let provider = Arc::new(provider);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    server.enable_secret_extraction = true;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let name = ServerName::try_from("localhost").unwrap();
    (Arc::new(server), Arc::new(client), name)
}

/// Shows our end one record at a time, as `Handshake` does over a socket.
fn shake<E: Engine>(mut engine: E, peer: &mut Connection) -> (E, Vec<u8>) {
    let (mut inbox, mut shown) = (Vec::new(), 0);
    loop {
        let UnbufferedStatus { discard, state } = engine.process(&mut inbox[..shown]);
        let (mut blocked, mut complete) = (false, false);
        match state.unwrap() {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut flight = vec![0; 32 * 1024];
                let bytes = data.encode(&mut flight).unwrap();
                deliver(peer, &flight[..bytes]);
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::BlockedHandshake => blocked = true,
            ConnectionState::WriteTraffic(_) => complete = true,
            _ => panic!("traffic within the handshake"),
        }
        inbox.drain(..discard);
        shown -= discard;
        inbox.extend(sent_by(peer));
        if complete && !engine.common().is_handshaking() {
            return (engine, inbox);
        }
        if blocked || complete {
            shown += record_bytes(&inbox[shown..]).unwrap().unwrap();
        }
    }
}

/// Gives rustls what we sent, and returns what it read.
pub(super) fn deliver(peer: &mut Connection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    while !bytes.is_empty() {
        peer.read_tls(&mut bytes).unwrap();
        let state = peer.process_new_packets().unwrap();
        let mut chunk = vec![0; state.plaintext_bytes_to_read()];
        peer.reader().read_exact(&mut chunk).unwrap();
        plaintext.extend(chunk);
    }
    plaintext
}

pub(super) fn sent_by(peer: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The records in which rustls sends `plaintext`.
pub(super) fn sealed_by(peer: &mut Connection, plaintext: &[u8]) -> Vec<u8> {
    peer.writer().write_all(plaintext).unwrap();
    sent_by(peer)
}

/// Opens all of `bytes`: the data, and what the last look gave.
pub(super) fn open_all(
    reader: &mut TlsReader,
    shared: &Shared,
    bytes: &[u8],
) -> (Vec<u8>, Result<Opened, ReadError>) {
    let mut inbound = Inbound::holding(bytes);
    let mut data = Vec::new();
    loop {
        let mut parts = Parts::default();
        let opened = reader.open(&mut inbound, &mut parts, shared);
        if opened != Ok(Opened::Data) {
            return (data, opened);
        }
        for range in parts.ranges() {
            data.extend_from_slice(&inbound.whole().0[range.clone()]);
        }
    }
}

/// Splits a run of whole records.
pub(super) fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(whole) = record_bytes(bytes).unwrap() {
        let (record, rest) = bytes.split_at(whole);
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

impl Pair {
    pub(super) fn opener(&self) -> Opener {
        Opener::new(&self.secrets.rx.1, self.secrets.rx.0, self.tls13).unwrap()
    }

    pub(super) fn reader(&self) -> TlsReader {
        TlsReader::new(self.opener())
    }

    /// A peer that has the right keys and no manners.
    pub(super) fn forger(&self) -> Forger {
        let (algorithm, key, iv) = match &self.secrets.rx.1 {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("a cipher that no suite here has"),
        };
        Forger {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap()),
            iv: iv.as_ref().try_into().unwrap(),
            sequence: self.secrets.rx.0,
            tls13: self.tls13,
            explicit_nonce: !self.tls13 && algorithm != &CHACHA20_POLY1305,
        }
    }
}

/// Seals whatever it is told to, by the letter of RFC 8446 5.2 and RFC 5246 6.2.3.3 and by none of
/// the code under test.
pub(super) struct Forger {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    tls13: bool,
    explicit_nonce: bool,
}

impl Forger {
    pub(super) fn record(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        self.padded(content_type, content, 0)
    }

    /// Padding exists in TLS 1.3 only.
    pub(super) fn padded(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut body = content.to_vec();
        if self.tls13 {
            body.push(content_type);
            body.resize(body.len() + padding, 0);
        }
        // Not the sequence number: a reader must take the nonce from the record.
        let explicit = (!self.sequence).to_be_bytes();
        let mut nonce = self.iv;
        if self.explicit_nonce {
            nonce[4..].copy_from_slice(&explicit);
        } else {
            for (byte, counter) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
                *byte ^= counter;
            }
        }
        let outer_type = if self.tls13 { 23 } else { content_type };
        let sealed_bytes = body.len() + 16 + if self.explicit_nonce { 8 } else { 0 };
        let mut record = vec![outer_type, 3, 3];
        record.extend(u16::try_from(sealed_bytes).unwrap().to_be_bytes());
        let aad = if self.tls13 {
            record.clone()
        } else {
            let mut aad = self.sequence.to_be_bytes().to_vec();
            aad.extend([content_type, 3, 3]);
            aad.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            aad
        };
        if self.explicit_nonce {
            record.extend(explicit);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(aad), &mut body)
            .unwrap();
        record.extend(body);
        self.sequence += 1;
        record
    }
}
