use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::{CipherSuite, NamedGroup};

use super::pki::Leaf;
use super::*;
use crate::config::CipherSuite as Suite;

struct Scene {
    files: Files,
    ca: Authority,
}

fn scene() -> Scene {
    Scene {
        files: Files::new(),
        ca: Authority::root("CA"),
    }
}

impl Scene {
    fn plan(&self, certificates: &[&Issued]) -> DownstreamTls {
        DownstreamTls {
            certificates: certificates
                .iter()
                .map(|issued| self.files.pair(issued))
                .collect(),
            ..listener(&self.files, certificates[0])
        }
    }

    fn shown(&self, core: &Arc<ServerConfig>, client: ClientConfig, name: &str) -> Vec<u8> {
        let finished = connect(&by_name(&Arc::new(client), name), core).unwrap();
        finished.client.peer_certificates().unwrap()[0].to_vec()
    }
}

/// It takes any certificate, so that the choice alone is tested, and offers these schemes only.
fn client_verifying(ca: &Authority, version: Version, schemes: &[SignatureScheme]) -> ClientConfig {
    let mut config = plain_client(ca, version, None);
    let verifier = Arc::new(Lenient::offering(schemes));
    config.dangerous().set_certificate_verifier(verifier);
    config
}

const ANY: [SignatureScheme; 2] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
];

#[test]
fn the_server_name_chooses_the_certificate_exact_before_wildcard_before_default() {
    let scene = scene();
    let default = scene.ca.issue(Leaf::named("default.example"));
    let exact = scene.ca.issue(Leaf::named("a.wild.example"));
    let wildcard = scene.ca.issue(Leaf::named("*.wild.example"));
    let core = server_tls(&scene.plan(&[&default, &exact, &wildcard])).for_core();
    for version in BOTH {
        for (name, expected) in [
            ("a.wild.example", &exact),
            ("A.Wild.Example", &exact),
            ("b.wild.example", &wildcard),
            ("x.b.wild.example", &default),
            ("wild.example", &default),
            ("other.example", &default),
            ("default.example", &default),
            ("192.0.2.1", &default),
        ] {
            let client = client_verifying(&scene.ca, version, &ANY);
            assert_eq!(
                scene.shown(&core, client, name),
                expected.der.to_vec(),
                "{name}"
            );
        }
    }
}

#[test]
fn the_client_s_signature_schemes_choose_the_key_type_for_one_name_and_for_the_default() {
    let scene = scene();
    let rsa = scene.ca.issue(Leaf {
        rsa: true,
        ..Leaf::named(HOST)
    });
    let ecdsa = scene.ca.issue(Leaf::named(HOST));
    let core = server_tls(&scene.plan(&[&rsa, &ecdsa])).for_core();
    for version in BOTH {
        for name in [HOST, "unknown.example"] {
            for (schemes, expected) in [
                (&ANY[..1], &rsa),
                (&ANY[1..], &ecdsa),
                // Both fit: the cheaper signature.
                (&ANY[..], &ecdsa),
            ] {
                let client = client_verifying(&scene.ca, version, schemes);
                assert_eq!(scene.shown(&core, client, name), expected.der.to_vec());
            }
        }
        let client = client_verifying(&scene.ca, version, &[SignatureScheme::ED25519]);
        let refused = connect(&by_name(&Arc::new(client), HOST), &core)
            .err()
            .unwrap();
        assert_eq!(refused.cause, Cause::Protocol, "{refused:?}");
        assert!(
            refused
                .words
                .contains("no signature that a key here can make"),
            "{}",
            refused.words
        );
        assert_eq!(
            refused.told,
            Some(Error::AlertReceived(rustls::AlertDescription::AccessDenied))
        );
    }
}

#[test]
fn our_order_of_suites_and_groups_wins_over_the_client_s() {
    let scene = scene();
    let server = scene.ca.issue(Leaf::named(HOST));
    let agreed = |plan: &DownstreamTls, version: Version| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(version.only())
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient::offering(&ANY)))
            .with_no_client_auth();
        let core = server_tls(plan).for_core();
        let finished = connect(&by_name(&Arc::new(client), HOST), &core).unwrap();
        let suite = finished.server.negotiated_cipher_suite().unwrap().suite();
        let group = finished
            .server
            .negotiated_key_exchange_group()
            .unwrap()
            .name();
        (suite, group)
    };
    let mut plan = scene.plan(&[&server]);
    plan.policy.cipher_suites = vec![
        Suite::Tls13Aes128GcmSha256,
        Suite::Tls13Aes256GcmSha384,
        Suite::EcdheEcdsaAes128GcmSha256,
    ];
    plan.policy.groups = vec![Group::P384];
    let expected = (CipherSuite::TLS13_AES_128_GCM_SHA256, NamedGroup::secp384r1);
    assert_eq!(agreed(&plan, Version::Tls13), expected);
    let (suite, _) = agreed(&plan, Version::Tls12);
    assert_eq!(suite, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

#[test]
fn only_the_configured_versions_are_spoken() {
    let scene = scene();
    let server = scene.ca.issue(Leaf::named(HOST));
    for spoken in BOTH {
        let mut plan = scene.plan(&[&server]);
        plan.policy.versions = TlsVersions {
            tls12: spoken == Version::Tls12,
            tls13: spoken == Version::Tls13,
        };
        let core = server_tls(&plan).for_core();
        for version in BOTH {
            let client = Arc::new(plain_client(&scene.ca, version, None));
            match connect(&by_name(&client, HOST), &core) {
                Ok(_) => assert_eq!(version, spoken),
                Err(refused) => {
                    assert_ne!(version, spoken);
                    assert_eq!(refused.words, "no TLS version in common");
                }
            }
        }
    }
}

#[test]
fn alpn_is_agreed_on_by_our_preference_and_a_mismatch_is_refused() {
    let scene = scene();
    let server = scene.ca.issue(Leaf::named(HOST));
    let plan = DownstreamTls {
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ..scene.plan(&[&server])
    };
    let core = server_tls(&plan).for_core();
    let offering = |protocols: &[&str]| {
        let mut client = plain_client(&scene.ca, Version::Tls13, None);
        client.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        connect(&by_name(&Arc::new(client), HOST), &core)
    };
    let agreed = offering(&["http/1.1", "h2"]).unwrap();
    assert_eq!(agreed.server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(offering(&[]).unwrap().server.alpn_protocol(), None);
    let refused = offering(&["imap"]).err().unwrap();
    assert_eq!(refused.words, "no ALPN protocol in common");
    let told = Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    assert_eq!(refused.told, Some(told));
}

#[test]
fn every_configuration_can_hand_its_secrets_to_another_record_layer() {
    let scene = scene();
    let server = scene.ca.issue(Leaf::named(HOST));
    let client = Arc::new(plain_client(&scene.ca, Version::Tls13, None));
    let core = server_tls(&scene.plan(&[&server])).for_core();
    let finished = connect(&by_name(&client, HOST), &core).unwrap();
    assert!(finished.server.dangerous_extract_secrets().is_ok());
}
