//! What the handshakes agree on, on both legs, and what the log says of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use ringway_support::link::client_connection;
use ringway_support::openssl::SClient;
use ringway_support::peer::Service;
use ringway_support::pki::{Leaf, tester};
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{
    Authority, Bridge, Credential, DEADLINE, Ending, House, Leg, Link, Peer, Proxy, Record,
    ringway, until,
};
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::{CipherSuite, Connection};

/// A proxy that terminates with these lines of `[listener.tls]`, in front of an echo.
fn terminating(house: &House, tls: &str) -> (Proxy, Service) {
    let echo = Peer::plain().echo();
    let tls = format!("{}{tls}", house.terminate());
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    (proxy, echo)
}

/// One connection that works, and its record.
fn visit(proxy: &Proxy, client: &ClientTls, name: &str) -> Record {
    let front = proxy.address("front");
    let mut link = match Link::connect_tls(front, &client.config(), name) {
        Ok(link) => link,
        Err(error) => panic!("TLS handshake for {name}: {error}"),
    };
    link.ping(b"hello");
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    proxy.record_of(link.local())
}

/// One connection that the handshake refuses, and its record.
fn refused(proxy: &Proxy, client: &ClientTls, name: &str) -> Record {
    let link = Link::connect(proxy.address("front")).unwrap();
    let address = link.local();
    if let Ok(mut link) = link.start_tls(&client.config(), name) {
        let ending = link.expect_end();
        assert!(
            matches!(ending, Ending::Broken(_)),
            "expected an alert, got {ending:?}"
        );
    }
    proxy.record_of(address)
}

#[test]
fn each_protocol_is_spoken_and_logged() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "");
    for (version, word) in [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")] {
        let client = ClientTls::trusting(&house.ca).version(version);
        let record = visit(&proxy, &client, "localhost");
        record.expect(&[
            ("downstream_protocol", word),
            ("sni", "localhost"),
            ("end", "finished"),
        ]);
        assert!(!record.flag("downstream_resumed"), "{record}");
        assert!(record.find("client_identity").is_none(), "{record}");
    }
}

#[test]
fn a_client_below_or_above_the_listeners_protocols_is_refused() {
    let house = House::new();
    for (allowed, offered) in [("TLSv1.3", TLS12), ("TLSv1.2", TLS13)] {
        let (proxy, _echo) = terminating(&house, &format!("protocols = [\"{allowed}\"]\n"));
        let client = ClientTls::trusting(&house.ca).version(offered);
        let record = refused(&proxy, &client, "localhost");
        record.expect_end(
            &["protocol_error"],
            &["client_hello", "downstream_handshake"],
        );
        record.expect_reason(&["version", "protocol"]);
        let other = if offered == TLS12 { TLS13 } else { TLS12 };
        let client = ClientTls::trusting(&house.ca).version(other);
        visit(&proxy, &client, "localhost").expect(&[("downstream_protocol", allowed)]);
    }
}

#[test]
fn an_openssl_client_of_tls_1_1_is_refused_with_an_alert() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "");
    let said = SClient::to(proxy.address("front"))
        .args(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
        .fail();
    // protocol_version, or what else its hello of 2006 lacks.
    assert!(
        said.text.contains("alert protocol version")
            || said.text.contains("alert handshake failure"),
        "expected a fatal alert, s_client wrote:\n{}",
        said.text
    );
}

/// The name that IANA registered, from rustls's.
fn iana(suite: CipherSuite) -> String {
    format!("{suite:?}").replace("TLS13_", "TLS_")
}

const SUITES: [CipherSuite; 9] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn version_of(suite: CipherSuite) -> &'static rustls::SupportedProtocolVersion {
    if format!("{suite:?}").starts_with("TLS13") {
        TLS13
    } else {
        TLS12
    }
}

/// `certificates = [..]` of these.
fn certificates(credentials: &[&Credential]) -> String {
    let tables = credentials.iter().map(|credential| {
        format!(
            "{{ certificate = \"{}\", private_key = \"{}\" }}",
            credential.certificate.display(),
            credential.private_key.display()
        )
    });
    let tables: Vec<_> = tables.collect();
    format!("[listener.tls]\ncertificates = [{}]\n", tables.join(", "))
}

#[test]
fn each_cipher_suite_is_spoken_downstream_with_the_key_type_it_needs() {
    let house = House::new();
    let rsa = house.ca.issue(&Leaf::server("localhost").rsa());
    let echo = Peer::plain().echo();
    let tls = certificates(&[&house.edge, &rsa]);
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    for suite in SUITES {
        let client = ClientTls::trusting(&house.ca)
            .version(version_of(suite))
            .suite(suite);
        let record = visit(&proxy, &client, "localhost");
        record.expect(&[("downstream_cipher", &iana(suite))]);
    }
}

#[test]
fn each_cipher_suite_is_spoken_upstream() {
    let house = House::new();
    let rsa = house.ca.issue(&Leaf::server("backend.internal").rsa());
    for suite in SUITES {
        let needs_rsa = format!("{suite:?}").contains("_RSA_");
        let credential = if needs_rsa { &rsa } else { &house.backend };
        let tls = ServerTls::with(credential)
            .version(version_of(suite))
            .suite(suite);
        let echo = Peer::tls(tls.config()).echo();
        let toml = listener("front", "back", "", "")
            + &upstream("back", &[echo.address()], &house.originate("back"));
        let proxy = ringway!().workers(1).start(&toml);
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        let record = proxy.record_of(link.local());
        record.expect(&[("upstream_cipher", &iana(suite))]);
    }
}

#[test]
fn the_listeners_order_of_ciphers_beats_the_clients() {
    let house = House::new();
    for (ciphers, client, protocol, chosen) in [
        (
            "\"TLS_CHACHA20_POLY1305_SHA256\", \"TLS_AES_256_GCM_SHA384\"",
            "-ciphersuites TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
            "TLSv1.3",
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
        (
            "\"ECDHE-ECDSA-AES128-GCM-SHA256\", \"ECDHE-ECDSA-AES256-GCM-SHA384\"",
            "-cipher ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLSv1.2",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
    ] {
        let lines = format!("protocols = [\"{protocol}\"]\nciphers = [{ciphers}]\n");
        let (proxy, _echo) = terminating(&house, &lines);
        let arguments: Vec<_> = client.split(' ').collect();
        let said = SClient::to(proxy.address("front"))
            .verify(&house.ca.file(), "localhost")
            .args(&arguments)
            .talk("xyzzy-42", "xyzzy-42");
        assert!(said.success, "{}", said.text);
        let record = proxy.wait_record("s_client", |_| true);
        record.expect(&[("downstream_cipher", chosen)]);
    }
}

#[test]
fn a_cipher_that_is_not_configured_is_refused() {
    let house = House::new();
    let (proxy, _echo) = terminating(
        &house,
        "protocols = [\"TLSv1.3\"]\nciphers = [\"TLS_AES_128_GCM_SHA256\"]\n",
    );
    let client = ClientTls::trusting(&house.ca)
        .version(TLS13)
        .suite(CipherSuite::TLS13_AES_256_GCM_SHA384);
    let record = refused(&proxy, &client, "localhost");
    record.expect_end(
        &["protocol_error"],
        &["client_hello", "downstream_handshake"],
    );
    record.expect_reason(&["cipher", "suite"]);
}

/// rustls's group, the configuration's name, and IANA's name as in the log.
fn groups() -> [(&'static dyn SupportedKxGroup, &'static str, &'static str); 4] {
    [
        (kx_group::X25519MLKEM768, "X25519MLKEM768", "x25519mlkem768"),
        (kx_group::X25519, "X25519", "x25519"),
        (kx_group::SECP256R1, "P-256", "secp256r1"),
        (kx_group::SECP384R1, "P-384", "secp384r1"),
    ]
}

#[test]
fn each_group_is_offered_downstream_by_default_and_logged() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "");
    for (group, _, word) in groups() {
        let client = ClientTls::trusting(&house.ca).version(TLS13).group(group);
        let record = visit(&proxy, &client, "localhost");
        assert_eq!(
            record.text("downstream_group").to_lowercase(),
            word,
            "{record}"
        );
    }
}

#[test]
fn the_configured_group_is_the_only_one_on_either_leg() {
    let house = House::new();
    for (group, name, word) in groups() {
        let echo = Peer::tls(ServerTls::with(&house.backend).version(TLS13).config()).echo();
        let lines = format!("protocols = [\"TLSv1.3\"]\ngroups = [\"{name}\"]\n");
        let toml = listener("front", "back", "", &(house.terminate() + &lines))
            + &upstream(
                "back",
                &[echo.address()],
                &(house.originate("back") + &lines),
            );
        let proxy = ringway!().start(&toml);
        let client = ClientTls::trusting(&house.ca).version(TLS13);
        let record = visit(&proxy, &client, "localhost");
        for field in ["downstream_group", "upstream_group"] {
            assert_eq!(record.text(field).to_lowercase(), word, "{field}: {record}");
        }
        for (other, ..) in groups() {
            if other.name() != group.name() {
                let client = ClientTls::trusting(&house.ca).version(TLS13).group(other);
                let record = refused(&proxy, &client, "localhost");
                record.expect(&[("end", "protocol_error")]);
            }
        }
    }
}

#[test]
fn a_post_quantum_client_gets_a_post_quantum_group_by_default() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "");
    let client = ClientTls::trusting(&house.ca).version(TLS13);
    let record = visit(&proxy, &client, "localhost");
    assert_eq!(
        record.text("downstream_group").to_lowercase(),
        "x25519mlkem768",
        "{record}"
    );
}

#[test]
fn certificates_are_chosen_by_sni_exact_then_wildcard_then_default() {
    let ca = Authority::root("root");
    let fallback = ca.issue(&Leaf::server("default.example"));
    let exact = ca.issue(&Leaf::server("www.wild.example"));
    let wild = ca.issue(&Leaf::server("*.wild.example"));
    let echo = Peer::plain().echo();
    let tls = certificates(&[&fallback, &wild, &exact]);
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let shown = |name: &str| {
        let config = ClientTls::trusting_anyone().config();
        let link = Link::connect_tls(proxy.address("front"), &config, name).unwrap();
        link.tls().peer_certificates().unwrap()[0].clone()
    };
    for (name, credential, what) in [
        ("www.wild.example", &exact, "the exact name"),
        ("WWW.Wild.Example", &exact, "the exact name in other case"),
        ("api.wild.example", &wild, "the wildcard"),
        ("a.b.wild.example", &fallback, "two labels: the default"),
        ("wild.example", &fallback, "no label: the default"),
        ("unknown.example", &fallback, "another name: the default"),
        ("127.0.0.1", &fallback, "no SNI: the default"),
    ] {
        assert_eq!(shown(name), credential.chain[0], "{name}: expected {what}");
    }
}

#[test]
fn the_key_type_is_what_the_client_can_verify() {
    let house = House::new();
    let rsa = house.ca.issue(&Leaf::server("localhost").rsa());
    let echo = Peer::plain().echo();
    for order in [[&house.edge, &rsa], [&rsa, &house.edge]] {
        let tls = certificates(&order);
        let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
        for (version, signatures, expected) in [
            ("-tls1_3", "RSA-PSS+SHA256", "Peer signature type: RSA-PSS"),
            ("-tls1_3", "ECDSA+SHA256", "Peer signature type: ECDSA"),
            (
                "-tls1_2",
                "RSA+SHA256:RSA-PSS+SHA256",
                "Peer signature type: RSA",
            ),
            ("-tls1_2", "ECDSA+SHA256", "Peer signature type: ECDSA"),
        ] {
            // The CA signs with ECDSA, which a client of RSA alone cannot verify.
            let said = SClient::to(proxy.address("front"))
                .args(&["-servername", "localhost", "-sigalgs", signatures, version])
                .talk("xyzzy-42", "xyzzy-42");
            said.expect(expected);
        }
    }
}

#[test]
fn alpn_is_agreed_by_the_listeners_preference_and_passed_to_the_server() {
    let house = House::new();
    let tls = ServerTls::with(&house.backend).alpn(&["h2", "http/1.1", "smtp"]);
    let echo = Peer::tls(tls.config()).echo();
    let terminate = house.terminate() + "alpn = [\"h2\", \"http/1.1\"]\n";
    let toml = listener("front", "back", "", &terminate)
        + &upstream("back", &[echo.address()], &house.originate("back"));
    let proxy = ringway!().start(&toml);
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], "h2"),
        (&["http/1.1"], "http/1.1"),
        (&["smtp", "http/1.1"], "http/1.1"),
    ] {
        let client = ClientTls::trusting(&house.ca).alpn(offered);
        let record = visit(&proxy, &client, "localhost");
        record.expect(&[("downstream_alpn", agreed), ("upstream_alpn", agreed)]);
    }
    let record = visit(&proxy, &ClientTls::trusting(&house.ca), "localhost");
    assert!(record.find("downstream_alpn").is_none(), "{record}");
    assert!(record.find("upstream_alpn").is_none(), "{record}");

    let client = ClientTls::trusting(&house.ca).alpn(&["smtp"]);
    let record = refused(&proxy, &client, "localhost");
    record.expect_end(
        &["protocol_error"],
        &["client_hello", "downstream_handshake"],
    );
    record.expect_reason(&["alpn", "application protocol", "application_protocol"]);
}

#[test]
fn a_fixed_upstream_alpn_is_offered_whatever_the_client_said() {
    let house = House::new();
    let tls = ServerTls::with(&house.backend).alpn(&["postgresql"]);
    let echo = Peer::tls(tls.config()).echo();
    let originate = house.originate("back") + "alpn = [\"postgresql\"]\n";
    let toml = listener("front", "back", "", &house.terminate())
        + &upstream("back", &[echo.address()], &originate);
    let proxy = ringway!().start(&toml);
    let record = visit(&proxy, &ClientTls::trusting(&house.ca), "localhost");
    record.expect(&[("upstream_alpn", "postgresql")]);
}

fn trusted(house: &House, mode: &str) -> String {
    format!(
        "client_ca = \"{}\"\nverify_client = \"{mode}\"\n",
        house.ca.file().display()
    )
}

#[test]
fn verify_client_off_asks_for_no_certificate() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "verify_client = \"off\"\n");
    let client = ClientTls::trusting(&house.ca).identity(&house.client);
    let record = visit(&proxy, &client, "localhost");
    assert!(record.find("client_identity").is_none(), "{record}");
}

#[test]
fn verify_client_required_takes_only_verified_certificates() {
    let house = House::new();
    let (proxy, echo) = terminating(&house, &trusted(&house, "required"));
    for version in [TLS12, TLS13] {
        let with = ClientTls::trusting(&house.ca)
            .version(version)
            .identity(&house.client);
        let record = visit(&proxy, &with, "localhost");
        record.expect(&[("client_identity", "spiffe://example.org/tester")]);
        assert!(record.flag("client_verified"), "{record}");

        let before = echo.counts().accepted();
        let without = ClientTls::trusting(&house.ca).version(version);
        let record = refused(&proxy, &without, "localhost");
        record.expect(&[
            ("end", "certificate_refused"),
            ("phase", "downstream_handshake"),
            ("ended_by", "downstream"),
        ]);
        assert_eq!(echo.counts().accepted(), before, "{record}");
    }
}

#[test]
fn verify_client_optional_takes_none_and_verified_ones_but_no_others() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, &trusted(&house, "optional"));
    let anonymous = ClientTls::trusting(&house.ca);
    let record = visit(&proxy, &anonymous, "localhost");
    assert!(record.find("client_identity").is_none(), "{record}");

    let known = anonymous.clone().identity(&house.client);
    assert!(visit(&proxy, &known, "localhost").flag("client_verified"));

    let stranger = anonymous.identity(&House::new().client);
    let record = refused(&proxy, &stranger, "localhost");
    record.expect(&[("end", "certificate_refused")]);
}

#[test]
fn verify_client_optional_no_ca_takes_any_and_says_what_was_not_verified() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, &trusted(&house, "optional-no-ca"));
    let anonymous = ClientTls::trusting(&house.ca);
    let record = visit(&proxy, &anonymous, "localhost");
    assert!(record.find("client_identity").is_none(), "{record}");

    let stranger = anonymous.clone().identity(&House::new().client);
    let record = visit(&proxy, &stranger, "localhost");
    record.expect(&[("client_identity", "spiffe://example.org/tester")]);
    assert!(!record.flag("client_verified"), "{record}");
}

#[test]
fn a_client_chain_may_be_as_deep_as_verify_depth() {
    let house = House::new();
    for depth in 0..=3_usize {
        let lines = format!("{}verify_depth = {depth}\n", trusted(&house, "required"));
        let (proxy, _echo) = terminating(&house, &lines);
        let client = house.ca.chain(depth).issue(&tester());
        let client = ClientTls::trusting(&house.ca).identity(&client);
        assert!(visit(&proxy, &client, "localhost").flag("client_verified"));

        let deeper = house.ca.chain(depth + 1).issue(&tester());
        let deeper = ClientTls::trusting(&house.ca).identity(&deeper);
        let record = refused(&proxy, &deeper, "localhost");
        record.expect(&[("end", "certificate_refused")]);
    }
}

#[test]
fn each_kind_of_allowed_identity_lets_its_client_in_and_others_stay_out() {
    let house = House::new();
    let other = Leaf::client("other")
        .uri("spiffe://example.org/other")
        .dns("other.example.net");
    let other = ClientTls::trusting(&house.ca).identity(&house.ca.issue(&other));
    let tester = ClientTls::trusting(&house.ca).identity(&house.client);
    for pattern in [
        "spiffe://example.org/tester",
        "spiffe://example.org/test*",
        "dns:tester.internal.example.org",
        "dns:*.internal.example.org",
        "cn:tester",
    ] {
        let lines = format!(
            "{}allow_identities = [\"{pattern}\"]\n",
            trusted(&house, "required")
        );
        let (proxy, echo) = terminating(&house, &lines);
        visit(&proxy, &tester, "localhost").expect(&[("end", "finished")]);
        let record = refused(&proxy, &other, "localhost");
        record.expect(&[("end", "identity_refused")]);
        record.expect_reason(&["spiffe://example.org/other"]);
        assert_eq!(echo.counts().accepted(), 1, "{pattern}: {record}");
    }
}

#[test]
fn a_client_certificate_is_shown_to_the_server_that_asks() {
    let house = House::new();
    for version in [TLS12, TLS13] {
        let tls = ServerTls::with(&house.backend)
            .require_client(&house.ca)
            .version(version);
        let peer = Peer::tls(tls.config());
        let originate = house.originate("back") + &house.client.toml();
        let toml =
            listener("front", "back", "", "") + &upstream("back", &[peer.address()], &originate);
        let proxy = ringway!().start(&toml);
        let mut client = Link::connect(proxy.address("front")).unwrap();
        let mut server = peer.accept();
        let shown = server.tls().peer_certificates().unwrap();
        assert_eq!(shown, house.client.chain);
        client.send(b"up").unwrap();
        assert_eq!(server.receive(2), b"up");
    }
}

#[test]
fn the_servers_name_is_sent_as_sni_and_checked() {
    let house = House::new();
    let server = house.ca.issue(&Leaf::server("localhost"));
    for (line, address, sni) in [
        (
            "server_name = \"localhost\"\n",
            "127.0.0.1",
            Some("localhost"),
        ),
        // Without server_name it is the server's own host.
        ("", "localhost", Some("localhost")),
        ("", "127.0.0.1", None),
    ] {
        let peer = Peer::tls(ServerTls::with(&server).config());
        let toml = listener("front", "back", "", "")
            + &format!(
                "[upstream.back]\nservers = [\"{address}:{}\"]\n[upstream.back.tls]\n\
                 trusted_certificate = \"{}\"\n{line}",
                peer.address().port(),
                house.ca.file().display()
            );
        let proxy = ringway!().start(&toml);
        let mut client = Link::connect(proxy.address("front")).unwrap();
        let mut link = peer.accept();
        client.send(b"up").unwrap();
        assert_eq!(link.receive(2), b"up");
        match link.tls() {
            rustls::Connection::Server(tls) => assert_eq!(tls.server_name(), sni, "{address}"),
            rustls::Connection::Client(_) => unreachable!("the peer is a server"),
        }
    }
}

#[test]
fn the_systems_cas_decide_which_server_is_trusted() {
    let (house, stranger) = (House::new(), House::new());
    // Without the key it is the system as well.
    for key in ["trusted_certificate = \"system\"\n", ""] {
        let echo = Peer::tls(ServerTls::with(&house.backend).config()).echo();
        let tls = format!("[upstream.back.tls]\n{key}server_name = \"backend.internal\"\n");
        let toml = listener("front", "back", "", "") + &upstream("back", &[echo.address()], &tls);
        let visit = |system: &Authority| {
            let ringway = ringway!().environment("SSL_CERT_FILE", system.file());
            let proxy = ringway.start(&toml);
            let mut link = Link::connect(proxy.address("front")).unwrap();
            // Early, so that it lies ready for a server that is wrongly trusted.
            link.send(b"hello").unwrap();
            link.cut().unwrap();
            let (echoed, _) = link.receive_to_end();
            (echoed, proxy.record_of(link.local()))
        };

        let (echoed, record) = visit(&house.ca);
        assert_eq!(echoed, b"hello", "{record}");
        record.expect(&[("end", "finished")]);
        assert!(record.flag("server_verified"), "{record}");

        let (echoed, record) = visit(&stranger.ca);
        assert_eq!(echoed, b"", "{record}");
        record.expect_end(
            &["certificate_refused", "no_server"],
            &["upstream_handshake"],
        );
        record.expect_reason(&["issuer"]);
        assert_eq!(echo.counts().full(), 1, "a refused server was not let go");
    }
}

#[test]
fn verify_off_takes_any_server_and_the_log_says_so() {
    let house = House::new();
    let stranger = House::new();
    let echo = Peer::tls(ServerTls::with(&stranger.edge).config()).echo();
    let originate = house.originate("back") + "verify = false\n";
    let toml = listener("front", "back", "", "") + &upstream("back", &[echo.address()], &originate);
    let proxy = ringway!().start(&toml);
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"hello");
    link.finish().unwrap();
    let record = proxy.record_of(link.local());
    assert!(!record.flag("server_verified"), "{record}");
}

#[test]
fn nothing_is_routed_to_a_server_before_the_clients_handshake_is_done() {
    let house = House::new();
    let (proxy, echo) = terminating(&house, "");
    let config = ClientTls::trusting(&house.ca).config();
    let (_, hello) = ringway_support::hello::hello_of(&config, "localhost");
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.send_raw(&hello).unwrap();
    link.cut().unwrap();
    let _ = link.receive_to_end();
    let _ = proxy.record_of(link.local());
    assert_eq!(echo.counts().accepted(), 0);
}

#[test]
fn the_client_sees_the_whole_chain_and_no_more() {
    let house = House::new();
    let deep = house.ca.chain(2).issue(&Leaf::server("localhost"));
    let echo = Peer::plain().echo();
    let tls = format!("[listener.tls]\n{}", deep.toml());
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let config = ClientTls::trusting(&house.ca).config();
    let link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    assert_eq!(link.tls().peer_certificates().unwrap(), deep.chain);
}

fn tickets(link: &Link) -> u32 {
    match link.tls() {
        Connection::Client(client) => client.tls13_tickets_received(),
        Connection::Server(_) => 0,
    }
}

fn expect_ticket(client: &mut Link) {
    client.limit(Duration::from_millis(100)).unwrap();
    until("a ticket", || {
        let nothing = client.receive_some(&mut [0; 1]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        (tickets(client) > 0).then_some(())
    });
}

/// They travel with the server's answer, but do not wait for one that does not come.
#[test]
fn tickets_reach_a_client_whose_server_is_silent() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let (mut silent, _server) = bridge.pair();
    expect_ticket(&mut silent);
    let (mut asking, mut server) = bridge.pair();
    asking.send(b"question").unwrap();
    assert_eq!(server.receive(8), b"question");
    expect_ticket(&mut asking);
    server.finish().unwrap();
    let _ = asking.limit(DEADLINE);
    assert_eq!(asking.expect_end(), Ending::Clean);
}

#[test]
fn tickets_come_with_close_notify_where_nothing_else_comes() {
    let bridge = Bridge::start(ringway!(), (Leg::Tls13, Leg::Plain), "");
    let (mut client, mut server) = ask_at_once(&bridge);
    server.finish().unwrap();
    assert_eq!(client.receive_to_end(), (Vec::new(), Ending::Clean));
    assert!(tickets(&client) > 0);
}

const QUESTION: &[u8] = &[b'?'; 100];

/// A client whose question goes in one flight with its Finished, and the server that has it.
fn ask_at_once(bridge: &Bridge) -> (Link, Link) {
    let config = ClientTls::trusting(&bridge.house.ca).config();
    let mut tls = client_connection(&config, "localhost");
    tls.writer().write_all(QUESTION).unwrap();
    let mut client = Link::connect(bridge.proxy.address("front")).unwrap();
    client.use_tls(tls.into());
    client.handshake().unwrap();
    let mut server = bridge.peer.accept();
    assert_eq!(server.receive(QUESTION.len()), QUESTION);
    (client, server)
}

/// The end of each handshake goes with the first data: a hello to the server, a flight to the
/// client, Finished with the question, tickets with the answer.
#[test]
fn a_question_and_its_answer_take_four_sends_with_tls_on_both_legs() {
    let sends = "write,writev,sendto,sendmsg";
    let bridge = Bridge::start(ringway!().traced(sends), (Leg::Tls13, Leg::Tls13), "");
    let calls = || bridge.proxy.while_stopped(|| bridge.proxy.traced_calls());
    let before = calls().len();
    let (mut client, mut server) = ask_at_once(&bridge);
    server.send(&[b'!'; 100]).unwrap();
    assert_eq!(client.receive(100), [b'!'; 100]);
    assert_eq!(calls().len() - before, 4, "{:?}", calls());
}
