use rustls::server::WebPkiClientVerifier;

use super::pki::{Leaf, self_signed};
use super::*;
use crate::config::ServerAddress;
use crate::tls::ClientTls;

struct Scene {
    files: Files,
    ca: Authority,
}

fn scene() -> Scene {
    Scene {
        files: Files::new(),
        ca: Authority::root("Server CA"),
    }
}

fn host() -> ServerAddress {
    ServerAddress::Name {
        host: HOST.to_owned(),
        port: 443,
    }
}

impl Scene {
    fn plan(&self) -> UpstreamTls {
        verifying(&self.files, &self.ca)
    }

    fn try_server(
        &self,
        plan: &UpstreamTls,
        version: Version,
        server: &Issued,
    ) -> Result<PeerSeen, Box<Refused>> {
        let tls = client_tls(plan);
        let endpoint = tls.for_endpoint(&host()).unwrap();
        let finished = connect(&endpoint, &plain_server(version, server, None))?;
        Ok(tls.peer(finished.client.peer_certificates(), &finished.client_bound))
    }

    fn refuses(&self, plan: &UpstreamTls, server: &Issued, words: &str) {
        for version in BOTH {
            let refused = self.try_server(plan, version, server).unwrap_err();
            assert!(!refused.by_server, "{refused:?}");
            assert_eq!(refused.cause, Cause::Certificate);
            assert_eq!(refused.words, words, "{version:?}");
            assert!(
                matches!(refused.told, Some(Error::AlertReceived(_))),
                "{refused:?}"
            );
        }
    }
}

fn client_tls(plan: &UpstreamTls) -> ClientTls {
    ClientTls::with_clock(&crate::tls::Files::default(), plan, clock).unwrap()
}

/// A server of rustls's own making. With `clients` it demands certificates of that CA.
fn plain_server(
    version: Version,
    server: &Issued,
    clients: Option<&Authority>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(version.only())
        .unwrap();
    let builder = match clients {
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca.der()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(server.chain(), server.private_key())
        .unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    Arc::new(config)
}

#[test]
fn a_server_is_verified_by_its_host_name_and_known_by_it() {
    let scene = scene();
    for version in BOTH {
        let server = scene.ca.issue(Leaf::named(HOST));
        let seen = scene.try_server(&scene.plan(), version, &server).unwrap();
        assert!(seen.verified && seen.allowed);
        assert_eq!(seen.identity.unwrap().describe(), HOST);
    }
}

#[test]
fn a_server_with_a_bad_certificate_is_refused_with_the_reason() {
    let scene = scene();
    let expired = Leaf {
        begins: 1_600_000_000,
        ends: 1_709_210_000,
        ..Leaf::named(HOST)
    };
    let two_names = Leaf {
        names: vec!["a.example".into(), "b.example".into()],
        ..Leaf::default()
    };
    let middle = scene.ca.below("M1").below("M2");
    for (server, words) in [
        (scene.ca.issue(expired), "expired on 2024-02-29"),
        (
            scene.ca.issue(two_names),
            "issued for a.example, b.example (not db.example)",
        ),
        (
            scene.ca.issue(Leaf::default()),
            "issued for no name at all (not db.example)",
        ),
        (
            self_signed(Leaf {
                common_name: HOST,
                ..Leaf::named(HOST)
            }),
            "unknown issuer db.example",
        ),
        (
            Authority::root("Rogue CA").issue(Leaf::named(HOST)),
            "unknown issuer Rogue CA",
        ),
        (
            middle.issue(Leaf::named(HOST)),
            "chain too long (2 intermediates, verify_depth 1)",
        ),
    ] {
        scene.refuses(&scene.plan(), &server, words);
    }
    let revoked = UpstreamTls {
        crl: Some(
            scene
                .files
                .pem("crl", &scene.ca.revocation_list(&[1000], unix_now() + DAY)),
        ),
        ..scene.plan()
    };
    scene.refuses(&revoked, &scene.ca.issue(Leaf::named(HOST)), "revoked");
}

#[test]
fn a_configured_server_name_replaces_the_host_name() {
    let scene = scene();
    let server = scene.ca.issue(Leaf::named("backend.internal"));
    let plan = UpstreamTls {
        server_name: Some(located("backend.internal".to_owned())),
        ..scene.plan()
    };
    let endpoint = client_tls(&plan).for_endpoint(&host()).unwrap();
    let finished = connect(&endpoint, &plain_server(Version::Tls13, &server, None)).unwrap();
    assert_eq!(finished.server.server_name(), Some("backend.internal"));
    scene.refuses(
        &scene.plan(),
        &server,
        "issued for backend.internal (not db.example)",
    );
}

#[test]
fn an_address_is_verified_by_the_addresses_in_the_certificate() {
    let scene = scene();
    let address = ServerAddress::Ip("192.0.2.7:443".parse().unwrap());
    let endpoint = client_tls(&scene.plan()).for_endpoint(&address).unwrap();
    for (name, passes) in [("192.0.2.7", true), ("192.0.2.8", false)] {
        let server = scene.ca.issue(Leaf::named(name));
        let result = connect(&endpoint, &plain_server(Version::Tls13, &server, None));
        assert_eq!(result.is_ok(), passes, "{name}");
    }
}

#[test]
fn a_unix_socket_needs_a_server_name_unless_nothing_is_verified() {
    let scene = scene();
    let socket = ServerAddress::Unix("/run/db.sock".into());
    let error = client_tls(&scene.plan()).for_endpoint(&socket).unwrap_err();
    assert!(error.to_string().contains("set server_name"), "{error}");
    let unverified = UpstreamTls {
        verify: false,
        ..scene.plan()
    };
    let endpoint = client_tls(&unverified).for_endpoint(&socket).unwrap();
    let server = scene.ca.issue(Leaf::named(HOST));
    let finished = connect(&endpoint, &plain_server(Version::Tls13, &server, None)).unwrap();
    assert_eq!(finished.server.server_name(), None);
}

#[test]
fn verify_off_accepts_any_certificate_but_not_a_stolen_one() {
    let scene = scene();
    let plan = UpstreamTls {
        verify: false,
        ..scene.plan()
    };
    let server = Authority::root("Rogue CA").issue(Leaf::named("else.example"));
    for version in BOTH {
        let seen = scene.try_server(&plan, version, &server).unwrap();
        assert_eq!((seen.identity.is_some(), seen.verified), (true, false));
    }
    let thief = scene.ca.issue(Leaf::named(HOST));
    let certified = rustls::sign::CertifiedKey::new(
        server.chain(),
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&thief.private_key()).unwrap(),
    );
    for version in BOTH {
        let mut config = ServerConfig::clone(&plain_server(version, &thief, None));
        config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone()));
        let endpoint = client_tls(&plan).for_endpoint(&host()).unwrap();
        let refused = connect(&endpoint, &Arc::new(config)).err().unwrap();
        assert_eq!(refused.words, crate::tls::reason::HANDSHAKE_NOT_SIGNED);
    }
}

#[test]
fn the_client_certificate_is_shown_to_a_server_that_asks() {
    let scene = scene();
    let client_ca = Authority::root("Client CA");
    let server = scene.ca.issue(Leaf::named(HOST));
    let with_certificate = UpstreamTls {
        client_certificate: Some(scene.files.pair(&client_ca.issue(Leaf::default()))),
        ..scene.plan()
    };
    for version in BOTH {
        let demanding = plain_server(version, &server, Some(&client_ca));
        let endpoint = client_tls(&with_certificate).for_endpoint(&host()).unwrap();
        assert!(connect(&endpoint, &demanding).is_ok());
        let endpoint = client_tls(&scene.plan()).for_endpoint(&host()).unwrap();
        let refused = connect(&endpoint, &demanding).err().unwrap();
        assert_eq!(refused.words, "no certificate shown");
    }
}

#[test]
fn sessions_are_reused_per_endpoint_and_a_tls13_ticket_serves_once() {
    let scene = scene();
    let tls = client_tls(&scene.plan());
    for version in BOTH {
        let server = plain_server(version, &scene.ca.issue(Leaf::named(HOST)), None);
        let endpoint = tls.for_endpoint(&host()).unwrap();
        let other_endpoint = tls.for_endpoint(&host()).unwrap();
        assert!(!connect(&endpoint, &server).unwrap().resumed());
        for _ in 0..5 {
            let finished = connect(&endpoint, &server).unwrap();
            assert!(finished.resumed());
            let seen = tls.peer(finished.client.peer_certificates(), &finished.client_bound);
            assert!(seen.verified && seen.identity.is_some());
        }
        assert!(!connect(&other_endpoint, &server).unwrap().resumed());
    }
}

#[test]
fn each_ticket_of_a_server_serves_one_connection() {
    let scene = scene();
    let server = plain_server(Version::Tls13, &scene.ca.issue(Leaf::named(HOST)), None);
    let mut silent = ServerConfig::clone(&server);
    silent.send_tls13_tickets = 0;
    let silent = Arc::new(silent);
    let endpoint = client_tls(&scene.plan()).for_endpoint(&host()).unwrap();
    let tickets = connect(&endpoint, &server)
        .unwrap()
        .client
        .tls13_tickets_received();
    for _ in 0..tickets {
        assert!(connect(&endpoint, &silent).unwrap().resumed());
    }
    assert!(!connect(&endpoint, &silent).unwrap().resumed());
}

#[test]
fn a_server_that_sends_tickets_without_end_is_remembered_by_the_newest() {
    let scene = scene();
    let mut lavish = ServerConfig::clone(&plain_server(
        Version::Tls13,
        &scene.ca.issue(Leaf::named(HOST)),
        None,
    ));
    let mut silent = lavish.clone();
    lavish.send_tls13_tickets = 70;
    silent.send_tls13_tickets = 0;
    let (lavish, silent) = (Arc::new(lavish), Arc::new(silent));
    let endpoint = client_tls(&scene.plan()).for_endpoint(&host()).unwrap();
    connect(&endpoint, &lavish).unwrap();
    for _ in 0..64 {
        assert!(connect(&endpoint, &silent).unwrap().resumed());
    }
    assert!(!connect(&endpoint, &silent).unwrap().resumed());
}

#[test]
fn every_configuration_can_hand_its_secrets_to_another_record_layer() {
    let scene = scene();
    let server = plain_server(Version::Tls13, &scene.ca.issue(Leaf::named(HOST)), None);
    let endpoint = client_tls(&scene.plan()).for_endpoint(&host()).unwrap();
    let finished = connect(&endpoint, &server).unwrap();
    assert!(finished.client.dangerous_extract_secrets().is_ok());
}

#[test]
fn with_session_reuse_off_every_handshake_is_full() {
    let scene = scene();
    let plan = UpstreamTls {
        session_reuse: false,
        ..scene.plan()
    };
    for version in BOTH {
        let server = plain_server(version, &scene.ca.issue(Leaf::named(HOST)), None);
        let endpoint = client_tls(&plan).for_endpoint(&host()).unwrap();
        for _ in 0..3 {
            assert!(!connect(&endpoint, &server).unwrap().resumed());
        }
    }
}

#[test]
fn no_session_outlives_the_server_s_certificate() {
    let scene = scene();
    let short = scene.ca.issue(Leaf {
        ends: unix_now() + 1000,
        ..Leaf::named(HOST)
    });
    for version in BOTH {
        let server = plain_server(version, &short, None);
        let endpoint = client_tls(&scene.plan()).for_endpoint(&host()).unwrap();
        connect(&endpoint, &server).unwrap();
        CLOCK_AHEAD.set(900);
        assert!(connect(&endpoint, &server).unwrap().resumed());
        CLOCK_AHEAD.set(1100);
        let refused = connect(&endpoint, &server).err().unwrap();
        assert!(refused.words.starts_with("expired on"), "{}", refused.words);
        CLOCK_AHEAD.set(0);
    }
}

#[test]
fn alpn_is_what_the_client_agreed_on_or_what_is_configured() {
    let scene = scene();
    let from_client = client_tls(&scene.plan());
    assert_eq!(from_client.alpn(Some(b"h2")), [b"h2".to_vec()]);
    assert!(from_client.alpn(None).is_empty());
    let fixed = client_tls(&UpstreamTls {
        alpn: UpstreamAlpn::Fixed(vec![b"http/1.1".to_vec()]),
        ..scene.plan()
    });
    assert_eq!(fixed.alpn(Some(b"h2")), [b"http/1.1".to_vec()]);
}

#[test]
fn a_server_name_that_is_no_name_is_refused_with_its_place() {
    let scene = scene();
    let error = ClientTls::new(&UpstreamTls {
        server_name: Some(located("not a name".to_owned())),
        ..scene.plan()
    })
    .unwrap_err();
    assert_eq!(error.span, Some(3..7));
    assert!(error.what.contains("`not a name`"), "{error}");
}
