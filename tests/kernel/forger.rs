//! A TLS 1.3 peer that seals by the letter of RFC 8446, and sends what rustls never would.

#![expect(
    clippy::disallowed_types,
    reason = "rustls wants a key log that threads share"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use ringway_support::Link;
use ringway_support::link::client_connection;
use rustls::{KeyLog, ServerConnection};

use crate::rig::{AES13, LegPlan, Rig, client_config, server_config};

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;
pub(crate) const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// The first traffic secrets of a connection, by their label.
#[derive(Debug, Default)]
struct Secrets(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap();
        secrets.insert(label.to_owned(), secret.to_vec());
    }
}

/// What one end sends: it is sealed here, and what comes is left to rustls.
pub(crate) struct Forger {
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    fn new(secret: Vec<u8>) -> Self {
        let mut key = [0; 16];
        let mut iv = [0; 12];
        expand(&secret, b"key", &mut key);
        expand(&secret, b"iv", &mut iv);
        let key = UnboundKey::new(&AES_128_GCM, &key).unwrap();
        Self {
            secret,
            key: LessSafeKey::new(key),
            iv,
            sequence: 0,
        }
    }

    /// A record with so many bytes of padding (RFC 8446 5.2, 5.4).
    pub(crate) fn padded(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = content.to_vec();
        inner.push(content_type);
        inner.resize(inner.len() + padding, 0);
        let length = u16::try_from(inner.len() + AES_128_GCM.tag_len()).unwrap();
        let [high, low] = length.to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut inner);
        sealed.unwrap();
        [&header[..], &inner].concat()
    }

    pub(crate) fn record(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        self.padded(content_type, content, 0)
    }

    /// A KeyUpdate, and from then on the next keys (RFC 8446 7.2).
    pub(crate) fn key_update(&mut self, requested: bool) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &[24, 0, 0, 1, u8::from(requested)]);
        let mut next = vec![0; self.secret.len()];
        expand(&self.secret, b"traffic upd", &mut next);
        *self = Self::new(next);
        record
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label (RFC 8446 7.1) with an empty context.
fn expand(secret: &[u8], label: &[u8], out: &mut [u8]) {
    let label = [b"tls13 ", label].concat();
    let length = u16::try_from(out.len()).unwrap().to_be_bytes();
    let label_length = [u8::try_from(label.len()).unwrap()];
    let info = [&length[..], &label_length, &label, &[0]];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    let expanded = secret.expand(&info, Length(out.len())).unwrap();
    expanded.fill(out).unwrap();
}

/// Which end of the connection the forger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

pub(crate) const BOTH_ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A connection one end of which is a forger's.
pub(crate) struct Forged {
    pub rig: Rig,
    pub forger: Forger,
    /// Sends by the forger, receives by rustls.
    pub own: Link,
    /// The other end.
    pub other: Link,
    pub client: std::net::SocketAddr,
}

impl Forged {
    /// The forger's leg is in the kernel, the other one plain.
    pub(crate) fn start(role: Role) -> Self {
        Self::start_on(role, LegPlan::kernel(AES13), LegPlan::plain())
    }

    /// The forger's leg, which must be AES-128-GCM of TLS 1.3, and the other one.
    pub(crate) fn start_on(role: Role, leg: LegPlan, other: LegPlan) -> Self {
        let secrets = Arc::new(Secrets::default());
        let (rig, own, other, client) = match role {
            Role::Client => {
                let rig = Rig::new(leg, other);
                let config = client_config(&rig.house, &rig.plans[0].0).unwrap();
                let mut config = Arc::unwrap_or_clone(config);
                config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
                let mut own = rig.client_raw(0);
                own.use_tls(client_connection(&config.into(), "localhost").into());
                own.handshake().unwrap();
                let other = rig.peers[0].accept();
                let client = own.local();
                (rig, own, other, client)
            }
            Role::Server => {
                let rig = Rig::new(other, leg);
                let config = server_config(&rig.house, &rig.plans[0].1).unwrap();
                let mut config = Arc::unwrap_or_clone(config);
                config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
                config.send_tls13_tickets = 0;
                let other = rig.secure_client(0, rig.client_raw(0));
                let mut own = rig.peers[0].accept_raw();
                own.use_tls(ServerConnection::new(config.into()).unwrap().into());
                own.handshake().unwrap();
                let client = other.local();
                (rig, own, other, client)
            }
        };
        let label = match role {
            Role::Client => "CLIENT_TRAFFIC_SECRET_0",
            Role::Server => "SERVER_TRAFFIC_SECRET_0",
        };
        let secret = secrets.0.lock().unwrap()[label].clone();
        let mut forged = Self {
            rig,
            forger: Forger::new(secret),
            own,
            other,
            client,
        };
        for _ in 0..2 {
            forged.send(b"forged");
            assert_eq!(forged.other.receive(6), b"forged");
            forged.other.send(b"answer").unwrap();
            assert_eq!(forged.own.receive(6), b"answer");
        }
        forged
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let records: Vec<_> = bytes
            .chunks(16_384)
            .flat_map(|content| self.forger.record(DATA, content))
            .collect();
        self.own.send_raw(&records).unwrap();
    }

    /// close_notify and FIN of the forger.
    pub(crate) fn finish(&mut self) {
        let last = self.forger.record(ALERT, &CLOSE_NOTIFY);
        self.own.send_raw(&last).unwrap();
        self.own.cut().unwrap();
    }

    pub(crate) fn record(&self) -> ringway_support::Record {
        self.rig.proxy.record_of(self.client)
    }

    /// Both directions go on, to their clean ends.
    pub(crate) fn expect_service(mut self) {
        let (up, down) = (vec![0x55; 100_001], vec![0xAA; 100_003]);
        self.send(&up);
        assert!(self.other.receive(up.len()) == up, "what the forger sent");
        self.other.send(&down).unwrap();
        assert!(self.own.receive(down.len()) == down, "what the other sent");
        self.finish();
        assert!(self.other.expect_end().looks_complete());
        self.other.finish().unwrap();
        assert!(self.own.expect_end().looks_complete());
        self.record().expect(&[("end", "finished")]);
    }
}
