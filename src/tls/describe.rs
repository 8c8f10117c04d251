use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use super::identity::PeerSeen;
use crate::observe::LegTls;

/// What the record says of a finished handshake.
#[must_use]
pub fn describe_leg(common: &CommonState, peer: &PeerSeen) -> LegTls {
    let group = common.negotiated_key_exchange_group();
    LegTls {
        protocol: match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
            Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
            _ => None,
        },
        cipher: common
            .negotiated_cipher_suite()
            .and_then(|suite| iana_name(suite.suite())),
        group: group.and_then(|group| group.name().as_str()),
        alpn: common
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into()),
        resumed: common
            .handshake_kind()
            .map(|kind| kind == HandshakeKind::Resumed),
        peer_identity: peer
            .identity
            .as_ref()
            .map(|identity| identity.describe().into()),
        peer_verified: peer.identity.as_ref().map(|_| peer.verified),
    }
}

/// rustls names TLS 1.3 suites with a prefix of its own.
fn iana_name(suite: rustls::CipherSuite) -> Option<&'static str> {
    match suite {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.as_str(),
    }
}
