//! The PROXY header that a server is sent in front of the client's bytes.

use std::os::unix::ffi::OsStrExt as _;

use super::greet::Client;
use crate::config::ProxyVersion;
use crate::observe::{Address, LegTls, Record};
use crate::proto::proxy::{
    CLIENT_CERTIFICATE_CONNECTION, CLIENT_CERTIFICATE_SESSION, CLIENT_TLS, Ends, ProxyHeader,
    TlsSeen, Tlvs,
};

pub(super) fn announce(version: ProxyVersion, record: &Record, client: &Client) -> Vec<u8> {
    let ends = ends(&record.client, &record.local);
    match version {
        ProxyVersion::V1 => {
            let tlvs = Tlvs::default();
            ProxyHeader { ends, tlvs }.v1()
        }
        ProxyVersion::V2 => {
            let tlvs = tlvs(record, client);
            ProxyHeader { ends, tlvs }.v2()
        }
    }
}

/// A client of a unix socket has no address as a rule, and 216 bytes of nothing are more than some
/// servers read (nginx before 1.23.2).
fn ends(client: &Address, local: &Address) -> Ends {
    match (client, local) {
        (Address::Ip(source), Address::Ip(destination)) => Ends::Ip {
            source: *source,
            destination: *destination,
        },
        (Address::Unix(source), Address::Unix(destination)) if !source.as_os_str().is_empty() => {
            Ends::Unix {
                source: source.as_os_str().as_bytes().into(),
                destination: destination.as_os_str().as_bytes().into(),
            }
        }
        _ => Ends::Unknown,
    }
}

fn tlvs(record: &Record, client: &Client) -> Tlvs {
    let said = client.proxied.as_ref().map(|header| header.tlvs.clone());
    let terminated = record.downstream_tls.as_ref();
    let terminated = terminated.filter(|_| client.leg.tls.is_some());
    let own = Tlvs {
        alpn: client.alpn.as_deref().map(Into::into),
        authority: record.sni.clone(),
        tls: terminated.map(|leg| tls_seen(leg, client.common_name.as_deref())),
        ..Tlvs::default()
    };
    Tlvs {
        unique_id: Some(record.id_text().into_bytes().into()),
        ..choose(said.unwrap_or_default(), own)
    }
}

/// Where the client's TLS ended at the peer before us, that peer has said what is true of the
/// client, and our own TLS is with the peer.
fn choose(said: Tlvs, own: Tlvs) -> Tlvs {
    if said.tls.as_ref().is_some_and(TlsSeen::is_tls) {
        return Tlvs {
            netns: None,
            ..said
        };
    }
    Tlvs {
        alpn: own.alpn.or(said.alpn),
        authority: own.authority.or(said.authority),
        ..own
    }
}

fn tls_seen(leg: &LegTls, common_name: Option<&str>) -> TlsSeen {
    let verified = leg.peer_verified == Some(true);
    let certificate = match (leg.peer_identity.is_some(), leg.resumed) {
        (false, _) => 0,
        (true, Some(true)) => CLIENT_CERTIFICATE_SESSION,
        (true, _) => CLIENT_CERTIFICATE_SESSION | CLIENT_CERTIFICATE_CONNECTION,
    };
    TlsSeen {
        client: CLIENT_TLS | certificate,
        verify: if verified { 0 } else { UNVERIFIED },
        version: leg.protocol.map(Into::into),
        // A server that forgets to look at `verify` must not take a name that nobody proved.
        common_name: common_name.filter(|_| verified).map(Into::into),
        cipher: leg.cipher.map(|name| openssl_name(name).into()),
        ..TlsSeen::default()
    }
}

/// X509_V_ERR_UNSPECIFIED of OpenSSL, whose numbers other senders put here.
const UNVERIFIED: u32 = 1;

/// The PROXY protocol names ciphers as OpenSSL does, which has names of its own for TLS 1.2.
fn openssl_name(iana: &'static str) -> &'static str {
    match iana {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn leg(verified: Option<bool>, resumed: bool) -> LegTls {
        LegTls {
            protocol: Some("TLSv1.2"),
            cipher: Some("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            peer_identity: verified.map(|_| "payments".into()),
            peer_verified: verified,
            resumed: Some(resumed),
            ..LegTls::default()
        }
    }

    #[test]
    fn a_certificate_is_announced_as_far_as_it_was_shown_and_proved() {
        let seen = |verified, resumed| tls_seen(&leg(verified, resumed), Some("Payments 1"));
        let full = seen(Some(true), false);
        assert_eq!((full.client, full.verify), (7, 0));
        assert_eq!(full.common_name.as_deref(), Some("Payments 1"));
        assert_eq!(full.cipher.as_deref(), Some("ECDHE-RSA-AES128-GCM-SHA256"));
        assert_eq!(seen(Some(true), true).client, 5);
        let unproved = seen(Some(false), false);
        assert_eq!((unproved.client, unproved.verify), (7, 1));
        assert_eq!(unproved.common_name, None);
        let none = seen(None, false);
        assert_eq!((none.client, none.verify, none.verified()), (1, 1, None));
    }

    #[test]
    fn what_the_peer_said_of_the_client_s_tls_goes_before_our_own_tls_with_the_peer() {
        let tls = |version: &str| TlsSeen {
            client: CLIENT_TLS,
            version: Some(version.into()),
            ..TlsSeen::default()
        };
        let own = Tlvs {
            alpn: Some((*b"h2").into()),
            tls: Some(tls("ours")),
            ..Tlvs::default()
        };
        let said = Tlvs {
            authority: Some("app.example.org".into()),
            netns: Some("theirs".into()),
            ..Tlvs::default()
        };
        let chosen = choose(said.clone(), own.clone());
        assert_eq!(chosen.tls, own.tls);
        assert_eq!(
            (&chosen.alpn, &chosen.authority),
            (&own.alpn, &said.authority)
        );
        assert_eq!(chosen.netns, None);

        let said = Tlvs {
            tls: Some(tls("theirs")),
            ..said
        };
        let chosen = choose(said.clone(), own);
        assert_eq!((chosen.tls, chosen.alpn), (said.tls, None));
    }

    #[test]
    fn ends_without_an_address_are_unknown() {
        let ip = Address::Ip("192.0.2.1:1".parse().unwrap());
        let unix = |path: &str| Address::Unix(Arc::new(path.into()));
        assert_eq!(ends(&Address::unnamed(), &unix("/run/x")), Ends::Unknown);
        assert_eq!(ends(&ip, &unix("/run/x")), Ends::Unknown);
        let named = ends(&unix("/run/client"), &unix("/run/x"));
        assert!(matches!(named, Ends::Unix { .. }), "{named:?}");
        assert!(matches!(ends(&ip, &ip), Ends::Ip { .. }));
    }
}
