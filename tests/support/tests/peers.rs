//! The peers against each other, without a proxy between: what fails here is a defect of the
//! tests, not of Ringway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::thread;

use ringway_support::curl::Curl;
use ringway_support::exchange::{Exchange, Finish};
use ringway_support::haproxy::Haproxy;
use ringway_support::nginx::Nginx;
use ringway_support::openssl::{SClient, SServer};
use ringway_support::peer::{Blackhole, ClosedPort};
use ringway_support::pki::tester;
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::{Ending, House, Link, Peer};

/// Both ends of one TLS connection.
fn pair(house: &House) -> (Link, Link) {
    let peer = Peer::tls(ServerTls::with(&house.edge).config());
    let config = ClientTls::trusting(&house.ca).config();
    let address = peer.address().clone();
    let client = thread::spawn(move || Link::connect_tls(&address, &config, "localhost").unwrap());
    let server = peer.accept();
    (client.join().unwrap(), server)
}

#[test]
fn a_link_tells_the_ways_to_end_apart() {
    let house = House::new();

    let (mut client, mut server) = pair(&house);
    client.send(b"bye").unwrap();
    client.finish().unwrap();
    assert_eq!(server.receive_to_end(), (b"bye".to_vec(), Ending::Clean));
    server.send(b"late").unwrap();
    server.finish().unwrap();
    assert_eq!(client.receive_to_end(), (b"late".to_vec(), Ending::Clean));

    let (mut client, mut server) = pair(&house);
    client.send(b"bye").unwrap();
    client.cut().unwrap();
    assert_eq!(server.receive_to_end(), (b"bye".to_vec(), Ending::Cut));

    let (client, mut server) = pair(&house);
    client.reset();
    assert_eq!(server.expect_end(), Ending::Reset);

    let (mut client, mut server) = pair(&house);
    client.send_raw(b"no TLS at all").unwrap();
    assert!(matches!(server.expect_end(), Ending::Broken(_)));
    assert!(matches!(client.expect_end(), Ending::Broken(_)), "an alert");
}

#[test]
fn an_exchange_carries_both_directions_in_either_closing_order() {
    let house = House::new();
    for finish in [Finish::First, Finish::AfterPeer] {
        let (mut client, mut server) = pair(&house);
        let plan = Exchange {
            send: 3_000_000,
            send_seed: 1,
            receive: 2_000_000,
            receive_seed: 2,
            finish,
        };
        let other = thread::spawn(move || server.exchange(&plan.mirrored()));
        client.exchange(&plan).unwrap();
        other.join().unwrap().unwrap();
    }
}

#[test]
fn s_client_talks_to_s_server_and_resumes() {
    let house = House::new();
    let server = SServer::requiring(&house.backend, &house.ca.file(), 2);
    let session = tempfile::NamedTempFile::new().unwrap();
    let client = SClient::to(server.address())
        .verify(&house.ca.file(), "backend.internal")
        .identity(&house.client);
    let first = client.arg("-sess_out").arg(session.path());
    assert!(!first.talk("hello", "olleh").resumed());
    let second = SClient::to(server.address())
        .verify(&house.ca.file(), "backend.internal")
        .identity(&house.client)
        .arg("-sess_in")
        .arg(session.path());
    assert!(second.talk("hello", "olleh").resumed());
}

#[test]
fn s_server_refuses_a_client_without_certificate() {
    let house = House::new();
    let server = SServer::requiring(&house.backend, &house.ca.file(), 2);
    let said = SClient::to(server.address()).fail();
    said.expect("certificate required");
    assert!(!said.success);
}

#[test]
fn a_rustls_client_and_an_s_server_agree_on_an_intermediate_and_rsa() {
    let house = House::new();
    let below = house.ca.chain(2);
    let leaf = below.issue(&ringway_support::pki::Leaf::server("backend.internal").rsa());
    let server = SServer::start(&leaf, &[]);
    for version in [TLS12, TLS13] {
        let config = ClientTls::trusting(&house.ca).version(version).config();
        let mut link = Link::connect_tls(server.address(), &config, "backend.internal").unwrap();
        link.send(b"abc\n").unwrap();
        assert_eq!(link.receive(4), b"cba\n");
    }
}

#[test]
fn an_echo_counts_full_and_resumed_handshakes() {
    let house = House::new();
    for version in [TLS12, TLS13] {
        let tls = ServerTls::with(&house.edge).require_client(&house.ca);
        let echo = Peer::tls(tls.config()).echo();
        let config = ClientTls::trusting(&house.ca)
            .version(version)
            .identity(&house.client)
            .config();
        for _ in 0..3 {
            let mut link = Link::connect_tls(echo.address(), &config, "localhost").unwrap();
            link.ping(b"12345");
            link.finish().unwrap();
            assert_eq!(link.expect_end(), Ending::Clean);
        }
        assert_eq!((echo.counts().full(), echo.counts().resumed()), (1, 2));
    }
}

#[test]
fn nginx_serves_http_and_stream_to_curl() {
    let house = House::new();
    let http = Nginx::http("listen LISTEN; location / { return 200 \"host=$host\"; }");
    Curl::get("http", "app.example.org", http.address())
        .run()
        .expect("host=app.example.org");
    let files = format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        house.edge.certificate.display(),
        house.edge.private_key.display()
    );
    let stream = Nginx::stream(&format!(
        "listen LISTEN ssl; {files} proxy_pass {};",
        http.address()
    ));
    Curl::get("https", "localhost", stream.address())
        .verify(&house.ca.file())
        .run()
        .expect("host=localhost");
    Curl::get("https", "localhost", stream.address())
        .run()
        .expect_failure();
    assert!(http.access_log().contains("host=localhost"));
}

#[test]
fn haproxy_names_curl_s_address_to_nginx() {
    let house = House::new();
    let http = Nginx::http(
        "listen LISTEN proxy_protocol; location / { return 200 \"$proxy_protocol_addr\"; }",
    );
    let sections = format!(
        "listen in\n    mode tcp\n    bind LISTEN ssl crt HOME/edge.pem\n    server a {} send-proxy-v2\n",
        http.address()
    );
    let haproxy = Haproxy::start(&sections, &[("edge.pem", &house.edge)]);
    Curl::get("https", "localhost", haproxy.address())
        .verify(&house.ca.file())
        .run()
        .expect("127.0.0.1");
}

#[test]
fn a_revoked_an_expired_and_a_foreign_certificate_are_what_they_say() {
    let house = House::new();
    let revoked = house.ca.issue(&tester());
    let verify = |credential: &ringway_support::Credential, crl: bool| {
        let mut command = std::process::Command::new("openssl");
        command.args(["verify", "-CAfile"]).arg(house.ca.file());
        if crl {
            command.args(["-crl_check", "-CRLfile"]);
            command.arg(house.ca.crl(&[&revoked]));
        }
        command.arg(&credential.certificate);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(verify(&house.client, true), "");
    assert!(verify(&revoked, true).contains("revoked"));
    assert!(verify(&house.ca.issue(&tester().expired()), false).contains("expired"));
    assert!(verify(&house.ca.issue(&tester().not_yet_valid()), false).contains("not yet valid"));
    let foreign = House::new().client;
    assert!(verify(&foreign, false).contains("unable to get local issuer"));
}

#[test]
fn a_closed_port_refuses_and_a_blackhole_is_silent() {
    let closed = ClosedPort::new();
    let refused = Link::connect(&closed.address()).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let hole = Blackhole::new();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let wait = std::time::Duration::from_millis(300);
    let error = socket.connect_timeout(&hole.address().ip().into(), wait);
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
