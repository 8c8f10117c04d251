use rustls::AlertDescription;

use super::pki::{Leaf, self_signed};
use super::*;
use crate::config::NamePattern;

struct Scene {
    files: Files,
    server_ca: Authority,
    client_ca: Authority,
    server: Issued,
}

fn scene() -> Scene {
    let server_ca = Authority::root("Server CA");
    let server = server_ca.issue(Leaf::named(HOST));
    Scene {
        files: Files::new(),
        client_ca: Authority::root("Client CA"),
        server_ca,
        server,
    }
}

impl Scene {
    fn plan(&self, mode: VerifyClient) -> DownstreamTls {
        demanding(
            listener(&self.files, &self.server),
            &self.files,
            &self.client_ca,
            mode,
        )
    }

    fn try_client(
        &self,
        plan: &DownstreamTls,
        version: Version,
        client: Option<&Issued>,
    ) -> Result<PeerSeen, Box<Refused>> {
        let tls = server_tls(plan);
        let config = Arc::new(plain_client(&self.server_ca, version, client));
        let finished = connect(&by_name(&config, HOST), &tls.for_core())?;
        Ok(finished.seen_by(&tls))
    }

    /// Both versions refuse with the same words, and tell the client by this alert.
    fn refuses(
        &self,
        plan: &DownstreamTls,
        client: Option<&Issued>,
        words: &str,
        alert: AlertDescription,
    ) {
        for version in BOTH {
            let refused = self.try_client(plan, version, client).unwrap_err();
            assert!(refused.by_server, "{refused:?}");
            assert_eq!(refused.cause, Cause::Certificate, "{refused:?}");
            assert_eq!(refused.words, words, "{version:?}");
            let version_alert = match (version, alert) {
                // TLS 1.2 has no certificate_required (RFC 8446 6.2 added it).
                (Version::Tls12, AlertDescription::CertificateRequired) => None,
                _ => Some(Error::AlertReceived(alert)),
            };
            if let Some(expected) = version_alert {
                assert_eq!(refused.told, Some(expected), "{version:?}");
            }
        }
    }
}

#[test]
fn a_verified_client_is_known_by_its_name() {
    let scene = scene();
    let client = scene.client_ca.issue(Leaf {
        uri: Some("spiffe://example.org/payments"),
        ..Leaf::named("pay.example.org")
    });
    for version in BOTH {
        let plan = scene.plan(VerifyClient::Required);
        let seen = scene.try_client(&plan, version, Some(&client)).unwrap();
        assert!(seen.verified && seen.allowed);
        let identity = seen.identity.unwrap();
        assert_eq!(identity.describe(), "spiffe://example.org/payments");
        assert_eq!(identity, identity_of(&client));
    }
}

#[test]
fn a_client_without_a_certificate_passes_only_where_it_is_optional() {
    let scene = scene();
    scene.refuses(
        &scene.plan(VerifyClient::Required),
        None,
        "no certificate shown",
        AlertDescription::CertificateRequired,
    );
    for mode in [
        VerifyClient::Optional,
        VerifyClient::OptionalNoCa,
        VerifyClient::Off,
    ] {
        let seen = scene
            .try_client(&scene.plan(mode), Version::Tls13, None)
            .unwrap();
        assert_eq!(
            (seen.identity, seen.verified, seen.allowed),
            (None, false, true)
        );
    }
}

#[test]
fn an_expired_certificate_is_refused_with_the_day() {
    let scene = scene();
    let client = scene.client_ca.issue(Leaf {
        begins: 1_600_000_000,
        ends: 1_709_210_000,
        ..Leaf::default()
    });
    scene.refuses(
        &scene.plan(VerifyClient::Required),
        Some(&client),
        "expired on 2024-02-29",
        AlertDescription::CertificateExpired,
    );
}

#[test]
fn a_certificate_of_the_future_is_refused_with_the_day() {
    let scene = scene();
    let client = scene.client_ca.issue(Leaf {
        begins: 4_070_908_800,
        ends: 4_080_000_000,
        ..Leaf::default()
    });
    scene.refuses(
        &scene.plan(VerifyClient::Optional),
        Some(&client),
        "not yet valid until 2099-01-01",
        AlertDescription::CertificateExpired,
    );
}

#[test]
fn a_certificate_of_an_unknown_ca_is_refused_by_the_ca_s_name() {
    let scene = scene();
    let client = Authority::root("Rogue CA").issue(Leaf::default());
    for mode in [VerifyClient::Required, VerifyClient::Optional] {
        scene.refuses(
            &scene.plan(mode),
            Some(&client),
            "unknown issuer Rogue CA",
            AlertDescription::UnknownCA,
        );
    }
    let below = Authority::root("Rogue Root")
        .below("Rogue Middle")
        .issue(Leaf::default());
    scene.refuses(
        &scene.plan(VerifyClient::Required),
        Some(&below),
        "unknown issuer Rogue Root",
        AlertDescription::UnknownCA,
    );
}

/// A CA that was made anew under its old name is, to one who has the old key, another CA.
#[test]
fn a_certificate_that_only_claims_the_ca_is_of_an_unknown_issuer() {
    let scene = scene();
    let client = Authority::root("Client CA").issue(Leaf::default());
    scene.refuses(
        &scene.plan(VerifyClient::Required),
        Some(&client),
        "unknown issuer Client CA",
        AlertDescription::UnknownCA,
    );
    for version in BOTH {
        let plan = scene.plan(VerifyClient::OptionalNoCa);
        let seen = scene.try_client(&plan, version, Some(&client)).unwrap();
        assert_eq!((seen.identity.is_some(), seen.verified), (true, false));
    }
}

#[test]
fn optional_no_ca_forgives_an_unknown_issuer_and_nothing_else() {
    let scene = scene();
    let plan = scene.plan(VerifyClient::OptionalNoCa);
    let rogue = Authority::root("Rogue CA");
    for version in BOTH {
        let known = scene.client_ca.issue(Leaf::default());
        assert!(
            scene
                .try_client(&plan, version, Some(&known))
                .unwrap()
                .verified
        );
        for unknown in [rogue.issue(Leaf::default()), self_signed(Leaf::default())] {
            let seen = scene.try_client(&plan, version, Some(&unknown)).unwrap();
            assert_eq!((seen.identity.is_some(), seen.verified), (true, false));
        }
    }
    let expired = rogue.issue(Leaf {
        begins: 1_600_000_000,
        ends: 1_709_210_000,
        ..Leaf::default()
    });
    scene.refuses(
        &plan,
        Some(&expired),
        "expired on 2024-02-29",
        AlertDescription::CertificateExpired,
    );
}

#[test]
fn verify_depth_counts_intermediates() {
    let scene = scene();
    let first = scene.client_ca.below("Middle 1");
    let second = first.below("Middle 2");
    let (shallow, deep) = (first.issue(Leaf::default()), second.issue(Leaf::default()));
    let plan = |depth| DownstreamTls {
        verify_depth: depth,
        ..scene.plan(VerifyClient::Required)
    };
    assert!(
        scene
            .try_client(&plan(1), Version::Tls13, Some(&shallow))
            .unwrap()
            .verified
    );
    assert!(
        scene
            .try_client(&plan(2), Version::Tls12, Some(&deep))
            .unwrap()
            .verified
    );
    for (depth, client, words) in [
        (
            0,
            &shallow,
            "chain too long (1 intermediates, verify_depth 0)",
        ),
        (1, &deep, "chain too long (2 intermediates, verify_depth 1)"),
    ] {
        let unknown = AlertDescription::CertificateUnknown;
        scene.refuses(&plan(depth), Some(client), words, unknown);
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_its_sibling_is_not() {
    let scene = scene();
    let list = scene.client_ca.revocation_list(&[66], unix_now() + DAY);
    let plan = DownstreamTls {
        crl: Some(scene.files.pem("crl.pem", &list)),
        ..scene.plan(VerifyClient::Required)
    };
    let good = scene.client_ca.issue(Leaf {
        serial: 65,
        ..Leaf::default()
    });
    let bad = scene.client_ca.issue(Leaf {
        serial: 66,
        ..Leaf::default()
    });
    assert!(
        scene
            .try_client(&plan, Version::Tls13, Some(&good))
            .unwrap()
            .verified
    );
    scene.refuses(
        &plan,
        Some(&bad),
        "revoked",
        AlertDescription::CertificateRevoked,
    );
}

#[test]
fn a_leaf_whose_issuer_has_no_revocation_list_is_refused_once_there_are_lists() {
    let scene = scene();
    let middle = scene.client_ca.below("Middle");
    let client = middle.issue(Leaf::default());
    let of_root = scene.client_ca.revocation_list(&[], unix_now() + DAY);
    let of_middle = middle.revocation_list(&[], unix_now() + DAY);
    let plan = |lists: &str| DownstreamTls {
        crl: Some(scene.files.pem("crl.pem", lists)),
        ..scene.plan(VerifyClient::Required)
    };
    scene.refuses(
        &plan(&of_root),
        Some(&client),
        "no revocation list of its issuer Client CA",
        AlertDescription::UnknownCA,
    );
    // The intermediate's own issuer needs none.
    assert!(
        scene
            .try_client(&plan(&of_middle), Version::Tls13, Some(&client))
            .unwrap()
            .verified
    );
}

#[test]
fn a_revocation_list_past_its_next_update_refuses_with_the_day() {
    let scene = scene();
    let list = scene.client_ca.revocation_list(&[], 1_709_210_000);
    let plan = DownstreamTls {
        crl: Some(scene.files.pem("crl.pem", &list)),
        ..scene.plan(VerifyClient::Required)
    };
    let client = scene.client_ca.issue(Leaf::default());
    scene.refuses(
        &plan,
        Some(&client),
        "the revocation list is out of date since 2024-02-29",
        AlertDescription::UnknownCA,
    );
}

#[test]
fn a_ca_certificate_is_not_taken_for_a_client_s_own() {
    let scene = scene();
    let client = scene.client_ca.issue(Leaf {
        is_ca: true,
        ..Leaf::default()
    });
    scene.refuses(
        &scene.plan(VerifyClient::Required),
        Some(&client),
        "a CA certificate (CA:TRUE) shown as the peer's own",
        AlertDescription::CertificateUnknown,
    );
}

#[test]
fn an_identity_that_is_not_allowed_is_refused_by_name_in_the_handshake() {
    let scene = scene();
    let pattern = NamePattern::Wildcard("internal.example.org".into());
    let plan = DownstreamTls {
        allow_identities: allow(vec![IdentityPattern::Dns(pattern)]),
        ..scene.plan(VerifyClient::Optional)
    };
    let named = |name| scene.client_ca.issue(Leaf::named(name));
    let (good, bad) = (named("a.internal.example.org"), named("a.example.org"));
    for version in BOTH {
        assert!(
            scene
                .try_client(&plan, version, Some(&good))
                .unwrap()
                .allowed
        );
        let refused = scene.try_client(&plan, version, Some(&bad)).unwrap_err();
        assert_eq!(refused.cause, Cause::Identity);
        assert_eq!(refused.words, "a.example.org is not in allow_identities");
        // Nobody walks around the list by showing nothing.
        let refused = scene.try_client(&plan, version, None).unwrap_err();
        assert_eq!(refused.words, "no certificate shown");
    }
}

#[test]
fn without_a_ca_a_pinned_key_passes_and_a_claimed_name_does_not() {
    let scene = scene();
    let client = self_signed(Leaf::named("a.example.org"));
    let plan = |pattern| DownstreamTls {
        client_ca: None,
        allow_identities: allow(vec![pattern]),
        ..scene.plan(VerifyClient::OptionalNoCa)
    };
    let by_key = plan(IdentityPattern::SpkiSha256(
        identity_of(&client).spki_sha256,
    ));
    let seen = scene
        .try_client(&by_key, Version::Tls13, Some(&client))
        .unwrap();
    assert_eq!((seen.allowed, seen.verified), (true, false));
    let by_name = plan(IdentityPattern::Dns(NamePattern::Exact(
        "a.example.org".into(),
    )));
    let refused = scene
        .try_client(&by_name, Version::Tls13, Some(&client))
        .unwrap_err();
    assert_eq!(refused.cause, Cause::Identity);
    assert!(
        refused.words.contains("unknown issuer"),
        "{}",
        refused.words
    );
}

#[test]
fn a_client_that_does_not_hold_the_key_is_refused() {
    let scene = scene();
    let mut thief = scene.client_ca.issue(Leaf::default());
    let victim = scene.client_ca.issue(Leaf::named("victim.example"));
    thief.chain_pem = victim.chain_pem;
    let certified = rustls::sign::CertifiedKey::new(
        thief.chain(),
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&thief.private_key()).unwrap(),
    );
    for mode in [VerifyClient::Required, VerifyClient::OptionalNoCa] {
        for version in BOTH {
            let mut config = plain_client(&scene.server_ca, version, None);
            config.client_auth_cert_resolver =
                Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone()));
            let tls = server_tls(&scene.plan(mode));
            let refused = connect(&by_name(&Arc::new(config), HOST), &tls.for_core())
                .err()
                .unwrap();
            assert_eq!(refused.cause, Cause::Certificate);
            assert_eq!(refused.words, super::super::reason::HANDSHAKE_NOT_SIGNED);
        }
    }
}

#[test]
fn no_damaged_certificate_verifies_or_panics() {
    use super::super::verify::{ChainRules, ClientDemand, ClientVerifier};
    use rustls::server::danger::ClientCertVerifier;

    let scene = scene();
    let middle = scene.client_ca.below("Middle");
    let chain = middle.issue(Leaf::named("pay.example.org")).chain();
    let anchor = scene.client_ca.der();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let rules = ChainRules {
        anchors: vec![
            webpki::anchor_from_trusted_cert(&anchor)
                .unwrap()
                .to_owned(),
        ],
        revocation_lists: vec![],
        lists_end: u64::MAX,
        depth_max: 1,
        usage: webpki::KeyUsage::client_auth(),
        algorithms: provider.signature_verification_algorithms,
    };
    let name = NamePattern::Exact("pay.example.org".into());
    let allowed = vec![IdentityPattern::Dns(name)];
    let verifier = ClientVerifier::new(rules, ClientDemand::Required, allowed);
    let now = rustls::pki_types::UnixTime::now();
    assert!(
        verifier
            .verify_client_cert(&chain[0], &chain[1..], now)
            .is_ok()
    );
    for damaged in 0..2 {
        for at in 0..chain[damaged].len() {
            let mut chain = chain.clone();
            let mut bytes = chain[damaged].to_vec();
            bytes[at] ^= 1 << (at % 8);
            chain[damaged] = bytes.into();
            let error = verifier
                .verify_client_cert(&chain[0], &chain[1..], now)
                .unwrap_err();
            let (cause, words) = failure(&error);
            assert_eq!(cause, Cause::Certificate, "byte {at}: {words}");
        }
    }
}
