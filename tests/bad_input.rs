//! What peers may send that they should not: the right side is told, the connection ends in
//! bounded time, the reason is logged, nothing leaks, and other connections go on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::time::{Duration, Instant};

use ringway_support::hello::{hello_of, in_records_of, oversized_hello, sslv2_hello, with_name};
use ringway_support::openssl::SClient;
use ringway_support::pattern::Pattern;
use ringway_support::peer::Service;
use ringway_support::pki::{Leaf, tester};
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::{listener, upstream};
use ringway_support::{
    Bridge, Bystander, Credential, Ending, House, Leg, Link, Peer, Proxy, Record, Witness, ringway,
};

/// Where TLS is not yet agreed on, a refusal may be logged in either of these.
const HELLO_PHASES: [&str; 2] = ["client_hello", "downstream_handshake"];

/// A proxy that terminates TLS, and a good connection through it.
struct Scene {
    bridge: Bridge,
    witness: Witness,
}

impl Scene {
    fn new(listener_keys: &str) -> Self {
        let legs = (Leg::Tls13, Leg::Plain);
        let bridge = Bridge::start(ringway!(), legs, listener_keys);
        let witness = bridge.witness();
        Self { bridge, witness }
    }

    fn connect(&self) -> Link {
        Link::connect(self.bridge.proxy.address("front")).unwrap()
    }

    /// A ClientHello for `localhost` as a client of ours sends it.
    fn hello(&self) -> Vec<u8> {
        let config = ClientTls::trusting(&self.bridge.house.ca).config();
        hello_of(&config, "localhost").1
    }

    /// Sends `bytes` to the listener and returns what came back, how it ended, and the record.
    fn send(&self, bytes: &[u8]) -> (Vec<u8>, Ending, Record) {
        let start = Instant::now();
        let mut link = self.connect();
        // The proxy may refuse before it has read all.
        let _ = link.send_raw(bytes);
        let (answer, ending) = link.receive_to_end();
        assert!(
            ending != Ending::Silence && start.elapsed() < Duration::from_secs(12),
            "no end in bounded time: {ending:?} after {:?}",
            start.elapsed()
        );
        let address = link.local();
        // Else the proxy waits for the client to read its last words.
        drop(link);
        (answer, ending, self.bridge.proxy.record_of(address))
    }

    /// After all: no server was asked, nothing is left, and other connections go on.
    fn close(mut self) {
        let stray = self.bridge.peer.accept_within(Duration::ZERO);
        assert!(stray.is_none(), "a refused client reached the server");
        self.bridge.settled(&mut self.witness);
    }
}

/// A fatal alert in a record of its own: type 21, level 2.
fn expect_alert(answer: &[u8]) {
    assert!(
        answer.len() == 7 && answer[0] == 21 && answer[5] == 2,
        "expected a fatal alert, got {answer:?}"
    );
}

#[test]
fn random_bytes_to_a_tls_listener_are_a_protocol_error() {
    let scene = Scene::new("client_hello_timeout = \"2s\"");
    for seed in 0..20 {
        let mut bytes = Pattern::new(seed).take(1000);
        // A first byte of 22 would be the start of a handshake, which the next test has.
        bytes[0] = 0x40 | (bytes[0] & 0x3F);
        let (_, _, record) = scene.send(&bytes);
        record.expect_end(&["protocol_error"], &HELLO_PHASES);
        record.expect(&[("ended_by", "downstream")]);
    }
    scene.close();
}

#[test]
fn random_bytes_in_a_handshake_record_are_a_protocol_error() {
    let scene = Scene::new("client_hello_timeout = \"1s\"");
    for seed in 0..10 {
        let mut bytes = vec![22, 3, 1, 2, 0];
        bytes.extend(Pattern::new(seed).take(512));
        let (_, _, record) = scene.send(&bytes);
        // A length among the random bytes may ask for more than came.
        record.expect_end(&["protocol_error", "timeout", "limit"], &HELLO_PHASES);
    }
    scene.close();
}

#[test]
fn plain_http_to_a_tls_listener_is_a_protocol_error_and_the_client_gets_an_alert() {
    let scene = Scene::new("");
    let (answer, _, record) = scene.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    expect_alert(&answer);
    record.expect_end(&["protocol_error"], &HELLO_PHASES);
    scene.close();
}

#[test]
fn an_sslv2_hello_is_a_protocol_error() {
    let scene = Scene::new("");
    let (_, _, record) = scene.send(&sslv2_hello());
    record.expect_end(&["protocol_error"], &HELLO_PHASES);
    scene.close();
}

#[test]
fn a_hello_of_64_kib_is_refused() {
    let scene = Scene::new("");
    let (answer, _, record) = scene.send(&oversized_hello());
    assert!(
        answer.first() != Some(&22),
        "the hello was answered with a handshake message"
    );
    record.expect_end(&["protocol_error", "limit"], &HELLO_PHASES);
    scene.close();
}

#[test]
fn a_hello_record_that_claims_to_be_endless_is_refused() {
    let scene = Scene::new("client_hello_timeout = \"2s\"");
    // A handshake message of 16 MiB, fed in records of 16 KiB.
    let mut message = vec![1, 0xFF, 0xFF, 0xFF];
    message.extend(vec![0; 200 * 1024]);
    let record_of = |piece: &[u8]| {
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
        record.extend(piece);
        record
    };
    let bytes: Vec<_> = message.chunks(16_384).flat_map(record_of).collect();
    let (_, _, record) = scene.send(&bytes);
    record.expect_end(&["protocol_error", "limit"], &HELLO_PHASES);
    scene.close();
}

#[test]
fn a_hello_one_byte_at_a_time_is_served() {
    let scene = Scene::new("");
    let config = ClientTls::trusting(&scene.bridge.house.ca).config();
    let (connection, hello) = hello_of(&config, "localhost");
    let mut link = scene.connect();
    for byte in &hello {
        link.send_raw(&[*byte]).unwrap();
    }
    link.use_tls(connection.into());
    link.handshake().unwrap();
    let mut server = scene.bridge.peer.accept();
    link.send(b"hello").unwrap();
    assert_eq!(server.receive(5), b"hello");
    drop((link, server));
    scene.close();
}

#[test]
fn a_hello_cut_into_small_records_is_served() {
    let scene = Scene::new("");
    for piece in [1, 7, 100] {
        let config = ClientTls::trusting(&scene.bridge.house.ca).config();
        let (connection, hello) = hello_of(&config, "localhost");
        let mut link = scene.connect();
        link.send_raw(&in_records_of(&hello, piece)).unwrap();
        link.use_tls(connection.into());
        match link.handshake() {
            Ok(()) => {
                let mut server = scene.bridge.peer.accept();
                link.send(b"hello").unwrap();
                assert_eq!(server.receive(5), b"hello");
            }
            // A limit on the number of records is a fair answer to one byte in each.
            Err(error) => assert_eq!(piece, 1, "{error}"),
        }
    }
    scene.close();
}

#[test]
fn a_hello_cut_in_half_by_a_close_is_logged_as_closed() {
    let scene = Scene::new("");
    let hello = scene.hello();
    let mut link = scene.connect();
    link.send_raw(&hello[..hello.len() / 2]).unwrap();
    link.cut().unwrap();
    let (_, ending) = link.receive_to_end();
    assert_ne!(ending, Ending::Silence);
    let record = scene.bridge.record(&link);
    record.expect(&[
        ("end", "closed"),
        ("phase", "client_hello"),
        ("ended_by", "downstream"),
    ]);
    scene.close();
}

#[test]
fn silence_ends_by_the_client_hello_timeout() {
    let scene = Scene::new("client_hello_timeout = \"300ms\"");
    let (_, _, record) = scene.send(b"");
    record.expect(&[("end", "timeout"), ("phase", "client_hello")]);
    scene.close();
}

#[test]
fn a_bad_server_name_is_refused_or_served_by_the_default_but_never_believed() {
    let scene = Scene::new("");
    let config = ClientTls::trusting_anyone().config();
    for bad in [
        &b"a\0b.example"[..],
        b"under_score",
        b"..........x",
        b"\xFF\xFE\xFD\xFC\xFB\xFA\xF9\xF8\xF7\xF6\xF5",
        b"a\r\nb: c\r\nde",
    ] {
        let (_, hello) = hello_of(&config, "aaaa.bbbb.c");
        let link = scene.connect();
        link.send_raw(&with_name(&hello, "aaaa.bbbb.c", bad))
            .unwrap();
        // Enough to see that the proxy lives; the client gives up here whatever came.
        link.cut().unwrap();
        let record = scene.bridge.record(&link);
        assert_ne!(record.text("end"), "internal_error", "{record}");
        assert_ne!(record.text("end"), "finished", "{record}");
        let logged = record.find("sni").unwrap_or_default();
        assert!(
            !logged.chars().any(char::is_control),
            "control bytes in the log: {record}"
        );
    }
    scene.close();
}

#[test]
fn application_data_before_the_handshake_is_a_protocol_error() {
    let scene = Scene::new("");
    let (_, _, record) = scene.send(&[23, 3, 3, 0, 3, 1, 2, 3]);
    record.expect_end(&["protocol_error"], &HELLO_PHASES);
    scene.close();
}

#[test]
fn garbage_after_the_hello_is_a_protocol_error() {
    let scene = Scene::new("");
    let mut bytes = scene.hello();
    bytes.extend([99, 3, 3, 0, 5, 1, 2, 3, 4, 5]);
    let (_, _, record) = scene.send(&bytes);
    record.expect_end(&["protocol_error"], &HELLO_PHASES);
    scene.close();
}

#[test]
fn an_alert_in_place_of_a_hello_is_logged() {
    let scene = Scene::new("");
    // Fatal handshake_failure.
    let (_, _, record) = scene.send(&[21, 3, 1, 0, 2, 2, 40]);
    record.expect_end(&["alert", "protocol_error"], &HELLO_PHASES);
    record.expect(&[("ended_by", "downstream")]);
    scene.close();
}

#[test]
fn bad_hellos_to_a_listener_that_routes_by_sni_are_refused_as_well() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let toml = format!(
        "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nclient_hello_timeout = \"500ms\"\n\
         [[listener.route]]\nsni = \"app.example\"\nupstream = \"back\"\n{}",
        upstream("back", &[echo.address()], "")
    );
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let config = ClientTls::trusting(&house.ca).config();
    let (_, unknown) = hello_of(&config, "other.example");
    let (_, known) = hello_of(&config, "app.example");
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        (
            "http",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            &["protocol_error"],
        ),
        ("sslv2", sslv2_hello(), &["protocol_error"]),
        (
            "64 KiB",
            oversized_hello(),
            &["protocol_error", "limit", "no_route"],
        ),
        ("silence", Vec::new(), &["timeout"]),
        ("half", known[..known.len() / 2].to_vec(), &["timeout"]),
        ("another name", unknown, &["no_route"]),
    ];
    for (what, bytes, causes) in cases {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        let _ = link.send_raw(&bytes);
        let (_, ending) = link.receive_to_end();
        assert_ne!(ending, Ending::Silence, "{what}");
        let record = proxy.record_of(link.local());
        assert!(
            causes.contains(&record.text("end")),
            "{what}: expected one of {causes:?} in {record}"
        );
        assert_eq!(echo.counts().accepted(), 0, "{what} reached the server");
        bystander.settled(&proxy);
    }
}

/// A listener that requires clients of the house's CA, with these lines more.
fn guarded(house: &House, lines: &str) -> (Proxy, Bystander, Service) {
    let echo = Peer::plain().echo();
    let tls = house.terminate_verified("required") + lines;
    let toml = listener("front", "back", "", &tls) + &upstream("back", &[echo.address()], "");
    let (proxy, bystander) = Bystander::beside(ringway!(), &toml);
    (proxy, bystander, echo)
}

/// A client that must not get in; `words` must be among the reasons.
fn expect_client_refused(
    house: &House,
    lines: &str,
    identity: Option<&Credential>,
    (end, words): (&str, &[&str]),
) {
    let (proxy, mut bystander, echo) = guarded(house, lines);
    for version in [TLS12, TLS13] {
        let mut tls = ClientTls::trusting(&house.ca).version(version);
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let link = Link::connect(proxy.address("front")).unwrap();
        let address = link.local();
        let told = match link.start_tls(&tls.config(), "localhost") {
            Ok(mut link) => {
                let _ = link.send(b"secret");
                format!("{:?}", link.expect_end())
            }
            Err(error) => error.to_string(),
        };
        assert!(
            told.contains("alert"),
            "{version:?}: the client is told by an alert, got {told}"
        );
        let record = proxy.record_of(address);
        record.expect(&[
            ("end", end),
            ("phase", "downstream_handshake"),
            ("ended_by", "downstream"),
        ]);
        record.expect_reason(words).expect_alert(&told);
        bystander.settled(&proxy);
    }
    assert_eq!(
        echo.counts().accepted(),
        0,
        "a refused client reached the server"
    );

    // Others go on.
    let tls = ClientTls::trusting(&house.ca).identity(&house.client);
    let mut link = Link::connect_tls(proxy.address("front"), &tls.config(), "localhost").unwrap();
    link.ping(b"hello");
}

const REFUSED: &str = "certificate_refused";

#[test]
fn a_client_without_certificate_is_refused() {
    let house = House::new();
    let words: &[&str] = &["certificate"];
    expect_client_refused(&house, "", None, (REFUSED, words));
}

#[test]
fn a_client_with_an_expired_certificate_is_refused() {
    let house = House::new();
    let expired = house.ca.issue(&tester().expired());
    expect_client_refused(&house, "", Some(&expired), (REFUSED, &["expired"]));
}

#[test]
fn a_client_with_a_certificate_not_yet_valid_is_refused() {
    let house = House::new();
    let early = house.ca.issue(&tester().not_yet_valid());
    expect_client_refused(
        &house,
        "",
        Some(&early),
        (REFUSED, &["not yet valid", "not valid"]),
    );
}

#[test]
fn a_client_with_a_revoked_certificate_is_refused() {
    let house = House::new();
    let revoked = house.ca.issue(&tester());
    let line = format!("crl = \"{}\"\n", house.ca.crl(&[&revoked]).display());
    expect_client_refused(&house, &line, Some(&revoked), (REFUSED, &["revoked"]));
}

#[test]
fn a_client_of_another_ca_is_refused() {
    let house = House::new();
    let stranger = House::new().client;
    let words: &[&str] = &["unknown issuer", "issuer"];
    expect_client_refused(&house, "", Some(&stranger), (REFUSED, words));
}

#[test]
fn a_client_with_too_deep_a_chain_is_refused() {
    let house = House::new();
    let deep = house.ca.chain(2).issue(&tester());
    let words: &[&str] = &["too long", "too deep", "depth"];
    expect_client_refused(&house, "verify_depth = 1\n", Some(&deep), (REFUSED, words));
}

#[test]
fn a_client_with_a_servers_certificate_is_refused() {
    let house = House::new();
    let server = house.backend.clone();
    let words: &[&str] = &["purpose", "usage", "client"];
    expect_client_refused(&house, "", Some(&server), (REFUSED, words));
}

#[test]
fn a_client_whose_identity_is_not_allowed_is_refused_and_named() {
    let house = House::new();
    let intruder = Leaf::client("intruder").uri("spiffe://example.org/intruder");
    let intruder = house.ca.issue(&intruder);
    let line = "allow_identities = [\"spiffe://example.org/tester\"]\n";
    let words: &[&str] = &["spiffe://example.org/intruder"];
    expect_client_refused(&house, line, Some(&intruder), ("identity_refused", words));
}

#[test]
fn openssl_clients_are_refused_with_the_alert_that_fits() {
    let house = House::new();
    let revoked = house.ca.issue(&tester());
    let line = format!("crl = \"{}\"\n", house.ca.crl(&[&revoked]).display());
    let (proxy, mut bystander, echo) = guarded(&house, &line);
    let expired = house.ca.issue(&tester().expired());
    let stranger = House::new().client;
    for (identity, alert) in [
        (None, "certificate required"),
        (Some(&expired), "certificate expired"),
        (Some(&revoked), "certificate revoked"),
        (Some(&stranger), "unknown ca"),
    ] {
        let client = SClient::to(proxy.address("front")).args(&["-tls1_3"]);
        let client = match identity {
            Some(identity) => client.identity(identity),
            None => client,
        };
        client.fail().expect(&format!("alert {alert}"));
        bystander.settled(&proxy);
    }
    assert_eq!(echo.counts().accepted(), 0);
}

/// A server that must not get a byte of the client's; `words` must be among the reasons.
fn expect_server_refused(house: &House, lines: &str, shown: &Credential, words: &[&str]) {
    for version in [TLS12, TLS13] {
        for downstream_tls in [false, true] {
            let peer = Peer::tls(ServerTls::with(shown).version(version).config());
            let terminate = if downstream_tls {
                house.terminate()
            } else {
                String::new()
            };
            let originate = house.originate("back") + lines;
            let toml = listener("front", "back", "next_upstream_tries = 1", &terminate)
                + &upstream("back", &[peer.address()], &originate);
            let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
            let mut client = Link::connect(proxy.address("front")).unwrap();
            if downstream_tls {
                let config = ClientTls::trusting(&house.ca).config();
                client = client.start_tls(&config, "localhost").unwrap();
            }
            // Early, so that it lies ready when the server is connected.
            client.send(b"secret").unwrap();

            let raw = peer.accept_raw();
            let told = match peer.secure(raw) {
                Ok(_) => panic!("{version:?}: the handshake must not come to its end"),
                Err(error) => error.to_string(),
            };
            assert!(
                told.contains("alert"),
                "{version:?}: the server is told by an alert, got {told}"
            );
            let (bytes, ending) = client.receive_to_end();
            assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
            let record = proxy.record_of(client.local());
            record.expect_end(&[REFUSED, "no_server"], &["upstream_handshake"]);
            record.expect_reason(words).expect_alert(&told);
            record.expect(&[("upstream_sni", "backend.internal")]);
            assert_eq!(record.count("tries"), 1, "{record}");
            bystander.settled(&proxy);
        }
    }
}

fn backend() -> Leaf {
    Leaf::server("backend.internal")
}

#[test]
fn a_server_with_an_expired_certificate_receives_nothing() {
    let house = House::new();
    let expired = house.ca.issue(&backend().expired());
    expect_server_refused(&house, "", &expired, &["expired on", "expired"]);
}

#[test]
fn a_server_with_a_certificate_not_yet_valid_receives_nothing() {
    let house = House::new();
    let early = house.ca.issue(&backend().not_yet_valid());
    expect_server_refused(&house, "", &early, &["not yet valid", "not valid"]);
}

#[test]
fn a_server_with_a_revoked_certificate_receives_nothing() {
    let house = House::new();
    let revoked = house.ca.issue(&backend());
    let line = format!("crl = \"{}\"\n", house.ca.crl(&[&revoked]).display());
    expect_server_refused(&house, &line, &revoked, &["revoked"]);
}

#[test]
fn a_server_of_another_ca_receives_nothing() {
    let house = House::new();
    let stranger = House::new().backend;
    expect_server_refused(&house, "", &stranger, &["unknown issuer", "issuer"]);
}

#[test]
fn a_server_with_too_deep_a_chain_receives_nothing() {
    let house = House::new();
    let deep = house.ca.chain(2).issue(&backend());
    let words: &[&str] = &["too long", "too deep", "depth"];
    expect_server_refused(&house, "verify_depth = 1\n", &deep, words);
}

#[test]
fn a_server_of_another_name_receives_nothing_and_its_name_is_logged() {
    let house = House::new();
    let other = house.ca.issue(&Leaf::server("other.internal"));
    expect_server_refused(&house, "", &other, &["other.internal"]);
}

#[test]
fn a_server_with_a_clients_certificate_receives_nothing() {
    let house = House::new();
    let client = Leaf::client("backend").dns("backend.internal");
    let client = house.ca.issue(&client);
    expect_server_refused(&house, "", &client, &["purpose", "usage", "server"]);
}

#[test]
fn a_server_that_refuses_our_certificate_is_logged_with_its_alert() {
    let house = House::new();
    let other = House::new();
    let tls = ServerTls::with(&house.backend)
        .require_client(&other.ca)
        .version(TLS12);
    let peer = Peer::tls(tls.config());
    let originate = house.originate("back") + &house.client.toml();
    let toml = listener("front", "back", "next_upstream_tries = 1", "")
        + &upstream("back", &[peer.address()], &originate);
    let (proxy, mut bystander) = Bystander::beside(ringway!(), &toml);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    assert!(peer.secure(peer.accept_raw()).is_err());
    let (_, ending) = client.receive_to_end();
    assert_ne!(ending, Ending::Silence);
    let record = proxy.record_of(client.local());
    record.expect_end(&["alert", "no_server"], &["upstream_handshake"]);
    record.expect_reason(&["alert", "unknown", "certificate"]);
    bystander.settled(&proxy);
}
