//! Sessions resumed: on other cores, under the right policy only, on both legs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::net::IpAddr;
use std::sync::Arc;

use ringway_support::bridge::Leg;
use ringway_support::openssl::SClient;
use ringway_support::peer::Service;
use ringway_support::pki::{Authority, tester};
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Bridge, Ending, House, Link, Peer, Proxy, Record, ringway};
use rustls::{ClientConfig, SupportedProtocolVersion};

const VERSIONS: [&SupportedProtocolVersion; 2] = [TLS12, TLS13];

/// Tries before the kernel's choice of core is called biased: 2^-64 for two cores.
const TRIES: usize = 64;

/// One connection to an echo through the proxy, and its record.
fn visit(proxy: &Proxy, front: &str, config: &Arc<ClientConfig>) -> Record {
    let link = Link::connect(proxy.address(front)).unwrap();
    talk(proxy, link.start_tls(config, "localhost").unwrap())
}

fn visit_from(proxy: &Proxy, source: IpAddr, config: &Arc<ClientConfig>) -> Record {
    let link = Link::connect_from(source, proxy.address("front")).unwrap();
    talk(proxy, link.start_tls(config, "localhost").unwrap())
}

/// Tickets come before the echo, so afterwards the client has them.
fn talk(proxy: &Proxy, mut link: Link) -> Record {
    link.ping(b"hello");
    let resumed = link.resumed();
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    let record = proxy.record_of(link.local());
    assert_eq!(
        record.flag("downstream_resumed"),
        resumed,
        "the client's view against the record {record}"
    );
    record
}

fn terminating(house: &House, tls: &str) -> (Proxy, Service) {
    let echo = Peer::plain().echo();
    let tls = format!("{}{tls}", house.terminate());
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    (proxy, echo)
}

#[test]
fn a_client_resumes_on_another_core_than_the_one_that_issued_its_ticket() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "");
    for version in VERSIONS {
        let crossed = (0..TRIES).any(|_| {
            let config = ClientTls::trusting(&house.ca).version(version).config();
            let first = visit(&proxy, "front", &config);
            let second = visit(&proxy, "front", &config);
            assert!(
                !first.flag("downstream_resumed"),
                "the first visit is full: {first}"
            );
            assert!(
                second.flag("downstream_resumed"),
                "{version:?}: issued by {first}, not resumed by {second}"
            );
            first.count("core") != second.count("core")
        });
        assert!(crossed, "{TRIES} pairs of connections all met one core");
    }
}

#[test]
fn openssl_resumes_what_another_core_issued() {
    let house = House::new();
    let backend = ringway_support::openssl::SServer::start(&house.backend, &[]);
    // s_server reverses lines; it is a TLS server, so the proxy originates TLS as well.
    let toml = listener("front", "back", "", &house.terminate())
        + &upstream("back", &[backend.address()], &house.originate("back"));
    let proxy = ringway!().start(&toml);
    let mut visits = 0;
    for version in ["-tls1_2", "-tls1_3"] {
        let session = tempfile::NamedTempFile::new().unwrap();
        let client = || {
            SClient::to(proxy.address("front"))
                .verify(&house.ca.file(), "localhost")
                .arg(version)
        };
        let first = client().arg("-sess_out").arg(session.path());
        first.talk("hello", "olleh").expect("New, ");
        let issuer = last_record(&proxy, &mut visits).count("core");
        let crossed = (0..TRIES).any(|_| {
            let again = client().arg("-sess_in").arg(session.path());
            again.talk("hello", "olleh").expect("Reused, ");
            let record = last_record(&proxy, &mut visits);
            assert!(record.flag("downstream_resumed"), "{version}: {record}");
            record.count("core") != issuer
        });
        assert!(crossed, "{version}: {TRIES} visits all met core {issuer}");
    }
}

/// The record of the visit that has just ended; `visits` counts those before it.
fn last_record(proxy: &Proxy, visits: &mut usize) -> Record {
    *visits += 1;
    proxy.wait_records(*visits).swap_remove(*visits - 1)
}

#[test]
fn a_client_with_a_certificate_resumes_and_keeps_its_identity() {
    let house = House::new();
    let tls = format!(
        "client_ca = \"{}\"\nverify_client = \"required\"\n",
        house.ca.file().display()
    );
    let (proxy, _echo) = terminating(&house, &tls);
    for version in VERSIONS {
        let config = ClientTls::trusting(&house.ca)
            .version(version)
            .identity(&house.client)
            .config();
        let first = visit(&proxy, "front", &config);
        let second = visit(&proxy, "front", &config);
        assert!(second.flag("downstream_resumed"), "{version:?}: {second}");
        for record in [first, second] {
            record.expect(&[("client_identity", "spiffe://example.org/tester")]);
            assert!(record.flag("client_verified"), "{record}");
        }
    }
}

/// A listener that asks for clients of `ca`.
fn verified(house: &House, name: &str, ca: &Authority, mode: &str) -> String {
    let tls = format!(
        "{}client_ca = \"{}\"\nverify_client = \"{mode}\"\n",
        house.terminate(),
        ca.file().display()
    );
    listener(name, "back", "", &tls)
}

/// All listeners of the file under one key: what then keeps their tickets apart is their policy.
fn under_one_key(toml: &str) -> (String, tempfile::NamedTempFile) {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), [9; 80]).unwrap();
    let tls = format!(
        "[listener.tls]\nsession_ticket_keys = [\"{}\"]\n",
        key.path().display()
    );
    assert!(toml.contains("[listener.tls]\n"), "{toml}");
    (toml.replace("[listener.tls]\n", &tls), key)
}

#[test]
fn a_ticket_of_a_listener_with_one_client_ca_is_refused_on_a_listener_with_another() {
    let house = House::new();
    let other_ca = Authority::root("Another root");
    let echo = Peer::plain().echo();
    let toml = verified(&house, "ours", &house.ca, "required")
        + &verified(&house, "twin", &house.ca, "required")
        + &verified(&house, "theirs", &other_ca, "required")
        + &verified(&house, "open", &other_ca, "optional")
        + &upstream("back", &[echo.address()], "");
    let (toml, _key) = under_one_key(&toml);
    let proxy = ringway!().start(&toml);
    for version in VERSIONS {
        let config = ClientTls::trusting(&house.ca)
            .version(version)
            .identity(&house.client)
            .config();
        let first = visit(&proxy, "ours", &config);
        assert!(!first.flag("downstream_resumed"));
        assert!(visit(&proxy, "ours", &config).flag("downstream_resumed"));
        // The same policy on another listener: the key alone would let all of them resume.
        assert!(visit(&proxy, "twin", &config).flag("downstream_resumed"));

        for listener in ["theirs", "open"] {
            let before = echo.counts().accepted();
            let link = Link::connect(proxy.address(listener)).unwrap();
            let address = link.local();
            // TLS 1.3: the client learns of the refusal after its own handshake.
            if let Ok(mut link) = link.start_tls(&config, "localhost") {
                assert!(!link.resumed(), "{version:?}: resumed on `{listener}`");
                let ending = link.expect_end();
                assert!(matches!(ending, Ending::Broken(_)), "{ending:?}");
            }
            let record = proxy.record_of(address);
            record.expect(&[
                ("end", "certificate_refused"),
                ("phase", "downstream_handshake"),
            ]);
            assert_eq!(
                echo.counts().accepted(),
                before,
                "a client refused by `{listener}` reached the server: {record}"
            );
        }
    }
}

#[test]
fn a_ticket_of_an_open_listener_does_not_open_one_that_requires_a_certificate() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let toml = listener("open", "back", "", &house.terminate())
        + &verified(&house, "closed", &house.ca, "required")
        + &upstream("back", &[echo.address()], "");
    let (toml, _key) = under_one_key(&toml);
    let proxy = ringway!().start(&toml);
    for version in VERSIONS {
        let config = ClientTls::trusting(&house.ca).version(version).config();
        let _ = visit(&proxy, "open", &config);
        assert!(visit(&proxy, "open", &config).flag("downstream_resumed"));
        let link = Link::connect(proxy.address("closed")).unwrap();
        let address = link.local();
        if let Ok(mut link) = link.start_tls(&config, "localhost") {
            assert!(!link.resumed(), "{version:?}");
            let ending = link.expect_end();
            assert!(matches!(ending, Ending::Broken(_)), "{ending:?}");
        }
        let record = proxy.record_of(address);
        record.expect(&[("end", "certificate_refused")]);
    }
}

#[test]
fn a_ticket_of_a_listener_without_crl_is_refused_on_a_listener_that_revoked_the_client() {
    let house = House::new();
    let revoked = house.ca.issue(&tester());
    let crl = house.ca.crl(&[&revoked]);
    let echo = Peer::plain().echo();
    let strict = verified(&house, "strict", &house.ca, "required");
    let toml = verified(&house, "lax", &house.ca, "required")
        + &format!("{strict}crl = \"{}\"\n", crl.display())
        + &upstream("back", &[echo.address()], "");
    let (toml, _key) = under_one_key(&toml);
    let proxy = ringway!().start(&toml);
    for version in VERSIONS {
        let config = ClientTls::trusting(&house.ca)
            .version(version)
            .identity(&revoked)
            .config();
        let _ = visit(&proxy, "lax", &config);
        let link = Link::connect(proxy.address("strict")).unwrap();
        let address = link.local();
        if let Ok(mut link) = link.start_tls(&config, "localhost") {
            let ending = link.expect_end();
            assert!(matches!(ending, Ending::Broken(_)), "{ending:?}");
        }
        let record = proxy.record_of(address);
        record.expect(&[("end", "certificate_refused")]);
        record.expect_reason(&["revoked"]);
    }
}

#[test]
fn session_resumption_false_makes_every_handshake_full() {
    let house = House::new();
    let (proxy, _echo) = terminating(&house, "session_resumption = false\n");
    for version in VERSIONS {
        let config = ClientTls::trusting(&house.ca).version(version).config();
        for _ in 0..3 {
            let record = visit(&proxy, "front", &config);
            assert!(!record.flag("downstream_resumed"), "{version:?}: {record}");
        }
    }
}

#[test]
fn a_client_of_session_ids_resumes_where_the_source_address_steers_it() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let keys = "steering = \"source-address\"";
    let toml = front_to_back(keys, &house.terminate(), echo.address());
    let proxy = ringway!().start(&toml);
    for last in 1..=6 {
        let source = IpAddr::from([127, 0, 0, last]);
        let config = ClientTls::trusting(&house.ca)
            .version(TLS12)
            .session_ids_only()
            .config();
        let first = visit_from(&proxy, source, &config);
        for _ in 0..4 {
            let next = visit_from(&proxy, source, &config);
            assert_eq!(
                next.count("core"),
                first.count("core"),
                "{source} met another core"
            );
            assert!(
                next.flag("downstream_resumed"),
                "{source}: after {first} not resumed: {next}"
            );
        }
    }
}

#[test]
fn tickets_made_with_a_key_file_are_taken_by_another_process_with_the_same_file() {
    let house = House::new();
    let echo = Peer::plain().echo();
    for length in [48, 80] {
        let key = tempfile::NamedTempFile::new().unwrap();
        let bytes = ringway_support::pattern::Pattern::new(length).take(80);
        let length = usize::try_from(length).unwrap();
        std::fs::write(key.path(), &bytes[..length]).unwrap();
        let tls = format!(
            "{}session_ticket_keys = [\"{}\"]\n",
            house.terminate(),
            key.path().display()
        );
        let toml = front_to_back("", &tls, echo.address());
        for version in VERSIONS {
            let config = ClientTls::trusting(&house.ca).version(version).config();
            let one = ringway!().start(&toml);
            let first = visit(&one, "front", &config);
            assert!(!first.flag("downstream_resumed"));
            drop(one);
            let other = ringway!().start(&toml);
            let second = visit(&other, "front", &config);
            assert!(
                second.flag("downstream_resumed"),
                "{length} bytes, {version:?}: {second}"
            );
        }
    }
}

/// Connections before the stores are filled: each core and server pair once, and some more.
const WARM_UP: usize = 40;
const STEADY: usize = 240;

#[test]
fn upstream_sessions_are_reused_over_95_percent_with_three_servers() {
    for version in VERSIONS {
        let house = House::new();
        let tls = ServerTls::with(&house.backend)
            .require_client(&house.ca)
            .version(version)
            .config();
        let servers: Vec<_> = (0..3).map(|_| Peer::tls(Arc::clone(&tls)).echo()).collect();
        let addresses: Vec<_> = servers.iter().map(Service::address).collect();
        let originate = format!("{}{}", house.originate("back"), house.client.toml());
        let toml = listener("front", "back", "", "") + &upstream("back", &addresses, &originate);
        let proxy = ringway!().start(&toml);
        let visit = || {
            let mut link = Link::connect(proxy.address("front")).unwrap();
            link.ping(b"hello");
            link.finish().unwrap();
            assert_eq!(link.expect_end(), Ending::Clean);
            link.local()
        };
        for _ in 0..WARM_UP {
            visit();
        }
        let seen = |count: fn(&Service) -> u64| servers.iter().map(count).sum::<u64>();
        let full_before = seen(|s| s.counts().full());
        let resumed_before = seen(|s| s.counts().resumed());

        let steady: Vec<_> = (0..STEADY).map(|_| visit()).collect();

        let full = seen(|s| s.counts().full()) - full_before;
        let resumed = seen(|s| s.counts().resumed()) - resumed_before;
        assert_eq!(full + resumed, STEADY as u64, "handshakes at the servers");
        let records = proxy.wait_records(WARM_UP + STEADY);
        let logged = records
            .iter()
            .filter(|r| {
                steady
                    .iter()
                    .any(|c| r.find("client") == Some(&c.to_string()))
            })
            .filter(|r| r.flag("upstream_resumed"))
            .count();
        assert_eq!(logged as u64, resumed, "resumed by the log and the servers");
        assert!(
            resumed * 100 >= 95 * STEADY as u64,
            "{version:?}: {resumed} of {STEADY} resumed"
        );
    }
}

#[test]
fn session_reuse_false_makes_every_upstream_handshake_full() {
    let house = House::new();
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let originate = format!("{}session_reuse = false\n", house.originate("back"));
    let toml =
        listener("front", "back", "", "") + &upstream("back", &[server.address()], &originate);
    let proxy = ringway!().workers(1).start(&toml);
    for _ in 0..4 {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        let record = proxy.record_of(link.local());
        assert!(!record.flag("upstream_resumed"), "{record}");
    }
    assert_eq!((server.counts().full(), server.counts().resumed()), (4, 0));
}

#[test]
fn a_server_that_forgot_its_tickets_costs_a_full_handshake_and_no_connection() {
    for leg in [Leg::Tls13, Leg::Tls12] {
        let bridge = Bridge::start(ringway!().workers(1), (Leg::Plain, leg), "");
        bridge.expect_service();
        let Bridge {
            proxy, peer, house, ..
        } = bridge;
        let address = peer.address().clone();
        drop(peer);
        let restarted = Peer::listen(&address, 64);
        let mut client = Link::connect(proxy.address("front")).unwrap();
        let config = ServerTls::with(&house.backend).config();
        let mut server = restarted.accept_raw().accept_tls(&config).unwrap();
        assert!(!server.resumed(), "the tickets' key is gone");
        client.send(b"hello").unwrap();
        assert_eq!(server.receive(5), b"hello");
    }
}
