//! Each file of configs/, run against OpenSSL, nginx and curl with its ports and paths replaced.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeSet;

use ringway::sys::{ktls_words, probe_ktls};
use ringway_support::curl::Curl;
use ringway_support::link::Address;
use ringway_support::nginx::Nginx;
use ringway_support::openssl::{SClient, SServer};
use ringway_support::pki::{Leaf, tester};
use ringway_support::scenario::Scenario;
use ringway_support::{Authority, Credential, Ending, House, Link, Proxy, Record, ringway};

fn load(name: &str) -> Scenario {
    Scenario::load(env!("CARGO_MANIFEST_DIR"), name)
}

/// The file passes `ringway check`, and runs.
fn run(scenario: &Scenario) -> Proxy {
    let file = scenario.file();
    let exit = ringway!().command(&["check".as_ref(), file.as_os_str()]);
    exit.expect_code(0);
    let exit = ringway!().command(&["explain".as_ref(), file.as_os_str()]);
    exit.expect_code(0);
    let kernel_tls = ktls_words(probe_ktls());
    let kernel_tls = format!("# kernel TLS here: {kernel_tls}\n");
    assert!(exit.stdout.ends_with(&kernel_tls), "{}", exit.stdout);
    ringway!().start(scenario.text())
}

/// A leaf for the group's servers: of its `server_name`, under one intermediate.
fn server_leaf(scenario: &Scenario, ca: &Authority, upstream: &str) -> Credential {
    let name = scenario.server_name(upstream);
    let name = name.unwrap_or_else(|| "localhost".to_owned());
    ca.issue(&Leaf::server(&name))
}

/// An edge certificate for every name that a route asks for, and for `localhost`.
fn edge(scenario: &Scenario, ca: &Authority) -> Credential {
    let names = scenario.routes().into_iter().filter_map(|route| route.sni);
    let leaf = names.fold(Leaf::server("localhost"), |leaf, name| leaf.dns(&name));
    ca.issue(&leaf)
}

/// The record of the last connection of `count`.
fn last_record(proxy: &Proxy, count: usize) -> Record {
    proxy.wait_records(count).swap_remove(count - 1)
}

/// One line to a server that reverses it, from a plain client.
fn talk_plain(address: &Address) -> Link {
    let mut link = Link::connect(address).unwrap();
    link.send(b"hello\n").unwrap();
    assert_eq!(link.receive(6), b"olleh\n");
    link.finish().unwrap();
    let (_, ending) = link.receive_to_end();
    assert_ne!(ending, Ending::Silence);
    link
}

/// nginx's lines for TLS with a required client certificate.
fn nginx_mtls(server: &Credential, ca: &Authority) -> String {
    format!(
        "listen LISTEN ssl; ssl_certificate {}; ssl_certificate_key {}; \
         ssl_client_certificate {}; ssl_verify_client on; ssl_verify_depth 2;",
        server.certificate.display(),
        server.private_key.display(),
        ca.file().display()
    )
}

#[test]
fn every_file_of_configs_has_its_test() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");
    let files: BTreeSet<_> = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    let tested = [
        "backend-verify-client.toml",
        "http-upstream-mtls.toml",
        "passthrough-sni.toml",
        "tcp-upstream-mtls.toml",
        "terminate-verify-client.toml",
        "zero-trust-edge.toml",
    ];
    assert_eq!(files, tested.map(str::to_owned).into());
}

#[test]
fn tcp_upstream_mtls_carries_plain_clients_to_verified_openssl_servers() {
    let mut scenario = load("tcp-upstream-mtls.toml");
    let house = House::new();
    let upstream = scenario.upstreams().remove(0);
    assert_eq!(scenario.server_count(&upstream), 3);
    let leaf = server_leaf(&scenario, &house.ca.chain(1), &upstream);
    let servers: Vec<_> = (0..3)
        .map(|_| SServer::requiring(&leaf, &house.ca.file(), 2))
        .collect();
    let addresses: Vec<_> = servers.iter().map(SServer::address).collect();
    scenario.put_servers(&upstream, &addresses);
    scenario.put_identity(&house.client);
    scenario.put_trusted(&house.ca.file());
    let proxy = run(&scenario);

    let front = proxy.address(&scenario.listener());
    let mut resumed = 0;
    let mut seen = BTreeSet::new();
    for _ in 0..18 {
        let link = talk_plain(front);
        let record = proxy.record_of(link.local());
        assert!(record.flag("server_verified"), "{record}");
        seen.insert(record.text("server").to_owned());
        resumed += u32::from(record.flag("upstream_resumed"));
    }
    assert_eq!(seen.len(), 3, "all servers had their turn: {seen:?}");
    assert!(resumed >= 6, "sessions are reused, {resumed} of 18 were");
}

#[test]
fn tcp_upstream_mtls_sends_nothing_to_servers_it_cannot_verify() {
    let mut scenario = load("tcp-upstream-mtls.toml");
    let (house, stranger) = (House::new(), House::new());
    let upstream = scenario.upstreams().remove(0);
    let leaf = server_leaf(&scenario, &stranger.ca, &upstream);
    let server = SServer::start(&leaf, &[]);
    scenario.put_every_server(server.address());
    scenario.put_identity(&house.client);
    scenario.put_trusted(&house.ca.file());
    let proxy = run(&scenario);

    let mut link = Link::connect(proxy.address(&scenario.listener())).unwrap();
    link.send(b"secret\n").unwrap();
    let (bytes, ending) = link.receive_to_end();
    assert!(bytes.is_empty() && ending != Ending::Silence, "{ending:?}");
    let record = proxy.record_of(link.local());
    record.expect_end(
        &["certificate_refused", "no_server"],
        &["upstream_handshake"],
    );
    record.expect_reason(&["unknown issuer", "issuer"]);
    let output = server.output();
    assert!(!output.contains("CONNECTION ESTABLISHED"), "{output}");
}

#[test]
fn http_upstream_mtls_carries_curl_to_nginx_with_its_host_untouched() {
    let mut scenario = load("http-upstream-mtls.toml");
    let house = House::new();
    let upstream = scenario.upstreams().remove(0);
    let leaf = server_leaf(&scenario, &house.ca.chain(1), &upstream);
    let server = format!(
        "{} location / {{ return 200 \"host=$host verify=$ssl_client_verify\"; }}",
        nginx_mtls(&leaf, &house.ca)
    );
    let count = scenario.server_count(&upstream);
    let servers: Vec<_> = (0..count).map(|_| Nginx::http(&server)).collect();
    let addresses: Vec<_> = servers.iter().map(Nginx::address).collect();
    scenario.put_servers(&upstream, &addresses);
    scenario.put_identity(&house.client);
    scenario.put_trusted(&house.ca.file());
    let proxy = run(&scenario);

    let front = proxy.address(&scenario.listener());
    for _ in 0..6 * count {
        Curl::get("http", "app.example.org", front)
            .run()
            .expect("host=app.example.org verify=SUCCESS");
    }
    let records = proxy.wait_records(6 * count);
    let resumed = records.iter().filter(|r| r.flag("upstream_resumed"));
    // Two cores meet each server for the first time once.
    assert!(resumed.count() >= 3 * count, "sessions are reused");
    for server in &servers {
        let log = server.access_log();
        assert!(
            log.contains("reused=r"),
            "nginx saw no reused session: {log}"
        );
    }
}

#[test]
fn backend_verify_client_serves_curl_with_and_without_a_certificate() {
    let mut scenario = load("backend-verify-client.toml");
    let house = House::new();
    let application = Nginx::http("listen LISTEN; location / { return 200 \"served\"; }");
    scenario.put_every_server(application.address());
    scenario.put_edge(&edge(&scenario, &house.ca));
    scenario.put_client_ca(&house.ca.file());
    scenario.put_crl(&house.ca.crl(&[]));
    let client = house.ca.issue(&scenario.allowed_client());
    let proxy = run(&scenario);

    let front = proxy.address(&scenario.listener());
    let curl = || Curl::get("https", "localhost", front).verify(&house.ca.file());
    curl().run().expect("served");
    let record = last_record(&proxy, 1);
    assert!(record.find("client_identity").is_none(), "{record}");

    curl().identity(&client).run().expect("served");
    let record = last_record(&proxy, 2);
    assert!(record.flag("client_verified"), "{record}");

    curl().identity(&House::new().client).run().expect_failure();
    let record = last_record(&proxy, 3);
    record.expect(&[("end", "certificate_refused")]);
}

/// What the edge's tests share: both upstreams up, one client allowed, one revoked.
struct Edge {
    proxy: Proxy,
    scenario: Scenario,
    house: House,
    client: Credential,
    revoked: Credential,
    _servers: Vec<SServer>,
}

fn zero_trust_edge() -> Edge {
    let mut scenario = load("zero-trust-edge.toml");
    let house = House::new();
    let mut servers = Vec::new();
    for upstream in scenario.upstreams() {
        let leaf = server_leaf(&scenario, &house.ca, &upstream);
        let group: Vec<_> = (0..scenario.server_count(&upstream))
            .map(|_| SServer::requiring(&leaf, &house.ca.file(), 2))
            .collect();
        let addresses: Vec<_> = group.iter().map(SServer::address).collect();
        scenario.put_servers(&upstream, &addresses);
        servers.extend(group);
    }
    assert!(servers.len() >= 2, "two upstreams");
    let client = house.ca.issue(&scenario.allowed_client());
    let revoked = house.ca.issue(&scenario.allowed_client());
    scenario.put_edge(&edge(&scenario, &house.ca));
    scenario.put_identity(&house.client);
    scenario.put_client_ca(&house.ca.file());
    scenario.put_trusted(&house.ca.file());
    scenario.put_crl(&house.ca.crl(&[&revoked]));
    Edge {
        proxy: run(&scenario),
        scenario,
        house,
        client,
        revoked,
        _servers: servers,
    }
}

impl Edge {
    fn s_client(&self, name: &str) -> SClient {
        let front = self.proxy.address(&self.scenario.listener());
        SClient::to(front).verify(&self.house.ca.file(), name)
    }

    /// A name that leads to a server.
    fn name(&self) -> String {
        let names = self.scenario.routes().into_iter().filter_map(|r| r.sni);
        names
            .into_iter()
            .next()
            .unwrap_or_else(|| "localhost".into())
    }
}

#[test]
fn zero_trust_edge_carries_allowed_clients_to_both_upstreams() {
    let edge = zero_trust_edge();
    let mut names: Vec<_> = edge
        .scenario
        .routes()
        .into_iter()
        .filter_map(|r| r.sni)
        .collect();
    if edge.scenario.default_upstream().is_some() {
        names.push("localhost".into());
    }
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for name in names {
        for _ in 0..4 {
            let said = edge.s_client(&name).identity(&edge.client);
            said.talk("hello", "olleh").expect("TLSv1.3");
            count += 1;
            let record = last_record(&edge.proxy, count);
            record.expect(&[("downstream_protocol", "TLSv1.3")]);
            assert!(record.flag("client_verified"), "{record}");
            assert!(record.flag("server_verified"), "{record}");
            seen.insert(record.text("server").to_owned());
        }
    }
    assert!(seen.len() >= 2, "two upstreams are used: {seen:?}");
}

#[test]
fn zero_trust_edge_refuses_whom_it_cannot_prove() {
    let edge = zero_trust_edge();
    let name = edge.name();
    let _ = edge.s_client(&name).identity(&edge.revoked).fail();
    let record = last_record(&edge.proxy, 1);
    record.expect(&[("end", "certificate_refused")]);
    record.expect_reason(&["revoked"]);

    let _ = edge.s_client(&name).fail();
    let record = last_record(&edge.proxy, 2);
    record.expect(&[("end", "certificate_refused")]);

    let _ = edge.s_client(&name).identity(&House::new().client).fail();
    let record = last_record(&edge.proxy, 3);
    record.expect(&[("end", "certificate_refused")]);

    let old = edge
        .s_client(&name)
        .identity(&edge.client)
        .args(&["-tls1_2"]);
    old.fail().expect("alert protocol version");
    let record = last_record(&edge.proxy, 4);
    record.expect(&[("end", "protocol_error")]);

    assert!(edge.scenario.allows_by_name(), "identities allowed by name");
    let unnamed = Leaf::client("nobody").uri("spiffe://nowhere.invalid/nobody");
    let unnamed = edge.house.ca.issue(&unnamed);
    let _ = edge.s_client(&name).identity(&unnamed).fail();
    let record = last_record(&edge.proxy, 5);
    record.expect(&[("end", "identity_refused")]);
    record.expect_reason(&["spiffe://nowhere.invalid/nobody"]);
}

#[test]
fn terminate_verify_client_serves_clients_of_chains_up_to_its_depth_only() {
    let mut scenario = load("terminate-verify-client.toml");
    let house = House::new();
    let application = Nginx::http("listen LISTEN; location / { return 200 \"served\"; }");
    scenario.put_every_server(application.address());
    scenario.put_edge(&edge(&scenario, &house.ca));
    scenario.put_client_ca(&house.ca.file());
    scenario.put_crl(&house.ca.crl(&[]));
    let proxy = run(&scenario);

    let front = proxy.address(&scenario.listener());
    let curl = || Curl::get("https", "localhost", front).verify(&house.ca.file());
    for depth in 0..=2 {
        let client = house.ca.chain(depth).issue(&scenario.allowed_client());
        curl().identity(&client).run().expect("served");
        let record = last_record(&proxy, depth + 1);
        assert!(record.flag("client_verified"), "{record}");
    }
    let deep = house.ca.chain(3).issue(&scenario.allowed_client());
    curl().identity(&deep).run().expect_failure();
    let record = last_record(&proxy, 4);
    record.expect(&[("end", "certificate_refused")]);
    record.expect_reason(&["too long", "too deep", "depth"]);

    curl().run().expect_failure();
    let record = last_record(&proxy, 5);
    record.expect(&[("end", "certificate_refused")]);

    let s_client = SClient::to(front)
        .verify(&house.ca.file(), "localhost")
        .identity(&house.ca.issue(&scenario.allowed_client()))
        .args(&["-quiet", "-no_ign_eof"]);
    let request = "GET / HTTP/1.0\r\nHost: localhost\r\n\r";
    let _ = s_client.talk(request, "served");
}

#[test]
fn passthrough_sni_leads_each_name_to_its_own_openssl_server_untouched() {
    let mut scenario = load("passthrough-sni.toml");
    let house = House::new();
    let routes = scenario.routes();
    assert!(!routes.is_empty(), "routed by SNI");
    let names: Vec<_> = routes.iter().filter_map(|r| r.sni.clone()).collect();
    let protocols: BTreeSet<_> = routes.iter().filter_map(|r| r.alpn.clone()).collect();
    let protocols: Vec<_> = protocols.into_iter().collect();

    let mut servers = Vec::new();
    for upstream in scenario.upstreams() {
        // The common name tells the groups apart at the client.
        let leaf = names
            .iter()
            .fold(Leaf::server(&upstream), |leaf, name| leaf.dns(name));
        let leaf = house.ca.issue(&leaf.dns("unknown.example"));
        let joined = protocols.join(",");
        let arguments: &[&str] = if joined.is_empty() {
            &[]
        } else {
            &["-alpn", &joined]
        };
        let group: Vec<_> = (0..scenario.server_count(&upstream))
            .map(|_| SServer::start(&leaf, arguments))
            .collect();
        let addresses: Vec<_> = group.iter().map(SServer::address).collect();
        scenario.put_servers(&upstream, &addresses);
        servers.extend(group);
    }
    let proxy = run(&scenario);

    let front = proxy.address(&scenario.listener());
    let mut count = 0;
    for route in &routes {
        let name = route.sni.as_deref().unwrap_or("unknown.example");
        let mut client = SClient::to(front).verify(&house.ca.file(), name);
        if let Some(alpn) = &route.alpn {
            client = client.args(&["-alpn", alpn]);
        }
        let said = client.talk("hello", "olleh");
        said.expect(&format!("CN = {}", route.upstream));
        count += 1;
        let record = last_record(&proxy, count);
        record.expect(&[("sni", name), ("upstream", &route.upstream)]);
        assert!(record.find("downstream_protocol").is_none(), "{record}");
    }

    let unknown = SClient::to(front).verify(&house.ca.file(), "unknown.example");
    match scenario.default_upstream() {
        Some(upstream) => {
            let said = unknown.talk("hello", "olleh");
            said.expect(&format!("CN = {upstream}"));
        }
        None => {
            let _ = unknown.fail();
            let record = last_record(&proxy, count + 1);
            record.expect(&[("end", "no_route"), ("sni", "unknown.example")]);
        }
    }
}

#[test]
fn a_scenario_holds_its_clients_sessions_with_openssl() {
    let mut scenario = load("terminate-verify-client.toml");
    let house = House::new();
    let application = Nginx::http("listen LISTEN; location / { return 200 \"served\"; }");
    scenario.put_every_server(application.address());
    scenario.put_edge(&edge(&scenario, &house.ca));
    scenario.put_client_ca(&house.ca.file());
    scenario.put_crl(&house.ca.crl(&[]));
    let leaf = if scenario.allows_by_name() {
        scenario.allowed_client()
    } else {
        tester()
    };
    let client = house.ca.issue(&leaf);
    let proxy = run(&scenario);

    let session = tempfile::NamedTempFile::new().unwrap();
    let s_client = || {
        SClient::to(proxy.address(&scenario.listener()))
            .verify(&house.ca.file(), "localhost")
            .identity(&client)
    };
    let request = "GET / HTTP/1.0\r\nHost: localhost\r\n\r";
    let first = s_client().arg("-sess_out").arg(session.path());
    assert!(!first.talk(request, "served").resumed());
    let second = s_client().arg("-sess_in").arg(session.path());
    assert!(second.talk(request, "served").resumed());
    let record = last_record(&proxy, 2);
    assert!(record.flag("downstream_resumed"), "{record}");
    assert!(record.flag("client_verified"), "{record}");
}
