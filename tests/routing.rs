//! Routes: by server name, ALPN, source address, and for clients without TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringway_support::curl::Curl;
use ringway_support::hello::{hello_of, in_records_of, sslv2_hello};
use ringway_support::pki::{House, Leaf};
use ringway_support::tls::ClientTls;
use ringway_support::{Ending, Link, Peer, Proxy, ringway, toml};
use rustls::ClientConfig;

/// Servers by the name of their group, and a listener `front` with these routes before them.
struct Scene {
    house: House,
    proxy: Proxy,
    servers: Vec<(&'static str, Peer)>,
}

impl Scene {
    /// `listener`: lines of `[[listener]]`, then its tables.
    fn new(groups: &[&'static str], listener: impl FnOnce(&House) -> String) -> Self {
        let house = House::new();
        let servers: Vec<_> = groups.iter().map(|name| (*name, Peer::plain())).collect();
        let mut text = "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\n".to_owned();
        text += &listener(&house);
        for (name, server) in &servers {
            text += &toml::upstream(name, &[server.address()], "");
        }
        Self {
            proxy: ringway!().start(&text),
            house,
            servers,
        }
    }

    fn config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let config = ClientTls::trusting(&self.house.ca).config();
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.into()
    }

    fn connect(&self) -> Link {
        Link::connect(self.proxy.address("front")).unwrap()
    }

    /// The other end of the one connection that came to a server.
    fn server(&self, group: &str) -> Link {
        let (_, server) = self
            .servers
            .iter()
            .find(|(name, _)| *name == group)
            .unwrap();
        server.accept()
    }

    /// A word each way, and which group the log says it was.
    fn expect_carried(&self, mut client: Link, group: &str) {
        client.send(b"to").unwrap();
        let mut server = self.server(group);
        assert_eq!(server.receive(2), b"to", "{group}");
        server.send(b"fro").unwrap();
        assert_eq!(client.receive(3), b"fro", "{group}");
        client.finish().unwrap();
        assert!(server.expect_end().looks_complete());
        server.finish().unwrap();
        assert!(client.expect_end().looks_complete());
        let record = self.proxy.record_of(client.local());
        record.expect(&[("end", "finished"), ("upstream", group)]);
    }

    fn expect_none_reached(&self) {
        for (name, server) in &self.servers {
            let stray = server.accept_within(std::time::Duration::ZERO);
            assert!(stray.is_none(), "a refused client reached {name}");
        }
    }
}

fn route(lines: &str, upstream: &str) -> String {
    format!("[[listener.route]]\n{lines}\nupstream = \"{upstream}\"\n")
}

const FROM_2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

#[test]
fn terminated_tls_is_routed_by_name_and_protocol_in_the_files_order() {
    let names = ["a.localhost", "a.b.localhost", "other.example"];
    let scene = Scene::new(&["exact", "h2", "wild", "rest"], |house| {
        let leaf = names
            .iter()
            .fold(Leaf::server("localhost"), |leaf, name| leaf.dns(name));
        "upstream = \"rest\"\n".to_owned()
            + &route("sni = \"localhost\"\nalpn = \"h2\"", "h2")
            + &route("sni = \"localhost\"", "exact")
            + &route("sni = \"*.localhost\"", "wild")
            + "[listener.tls]\nalpn = [\"h2\", \"http/1.1\"]\n"
            + &house.ca.issue(&leaf).toml()
    });
    for (name, alpn, group) in [
        ("localhost", &[][..], "exact"),
        ("localhost", &["http/1.1"], "exact"),
        ("LOCALHOST", &["http/1.1", "h2"], "h2"),
        ("a.localhost", &["h2"], "wild"),
        ("a.b.localhost", &[], "rest"),
        ("other.example", &["h2"], "rest"),
    ] {
        let client = scene.connect().start_tls(&scene.config(alpn), name);
        scene.expect_carried(client.unwrap(), group);
    }
}

#[test]
fn a_name_without_a_route_is_told_so_before_any_handshake() {
    let scene = Scene::new(&["known"], |house| {
        route("sni = \"known.example\"", "known") + &house.terminate()
    });
    let client = scene.connect();
    let address = client.local();
    let refused = client.start_tls(&scene.config(&[]), "localhost").err();
    let words = refused.expect("no route").to_string();
    assert!(words.contains("UnrecognisedName"), "{words}");
    let record = scene.proxy.record_of(address);
    record.expect(&[
        ("end", "no_route"),
        ("phase", "client_hello"),
        ("alert", "unrecognized_name"),
        ("sni", "localhost"),
    ]);
    assert_eq!(record.find("downstream_protocol"), None, "{record}");
    scene.expect_none_reached();
}

#[test]
fn the_source_address_routes_plain_clients_whose_server_speaks_first() {
    let scene = Scene::new(&["two", "rest"], |_| {
        "upstream = \"rest\"\n".to_owned() + &route("source = \"127.0.0.2/31\"", "two")
    });
    for (from, group) in [(FROM_2, "two"), (Ipv4Addr::LOCALHOST.into(), "rest")] {
        let mut client = Link::connect_from(from, scene.proxy.address("front")).unwrap();
        let mut server = scene.server(group);
        server.send(b"220 ready").unwrap();
        assert_eq!(client.receive(9), b"220 ready");
        server.finish().unwrap();
        assert!(client.expect_end().looks_complete());
        client.finish().unwrap();
        let record = scene.proxy.record_of(client.local());
        record.expect(&[("end", "finished"), ("upstream", group)]);
        assert_eq!(
            record.0.get("client_hello_ms"),
            None,
            "nobody waited for one"
        );
    }
}

#[test]
fn a_source_address_without_a_route_is_refused() {
    let scene = Scene::new(&["two"], |_| route("source = \"127.0.0.2\"", "two"));
    let mut client = scene.connect();
    let (bytes, ending) = client.receive_to_end();
    assert!(bytes.is_empty() && !ending.looks_complete(), "{ending:?}");
    let record = scene.proxy.record_of(client.local());
    record.expect(&[("end", "no_route"), ("ended_by", "downstream")]);
    scene.expect_none_reached();
}

#[test]
fn name_and_source_must_both_match() {
    let scene = Scene::new(&["both", "rest"], |house| {
        "upstream = \"rest\"\n".to_owned()
            + &route(
                "sni = \"localhost\"\nsource = [\"127.0.0.2\", \"10.0.0.0/8\"]",
                "both",
            )
            + &house.terminate()
    });
    for (from, group) in [(FROM_2, "both"), (Ipv4Addr::LOCALHOST.into(), "rest")] {
        let client = Link::connect_from(from, scene.proxy.address("front")).unwrap();
        let client = client.start_tls(&scene.config(&[]), "localhost").unwrap();
        scene.expect_carried(client, group);
    }
}

#[test]
fn clients_with_and_without_tls_share_a_port() {
    let scene = Scene::new(&["plain", "tls"], |house| {
        "upstream = \"tls\"\n".to_owned() + &route("plain = true", "plain") + &house.terminate()
    });
    let client = scene.connect().start_tls(&scene.config(&[]), "localhost");
    scene.expect_carried(client.unwrap(), "tls");
    scene.expect_carried(scene.connect(), "plain");
    // curl's own bytes, whole.
    let front = scene.proxy.address("front");
    std::thread::scope(|threads| {
        let asked = threads.spawn(|| Curl::get("http", "localhost", front).run());
        let mut server = scene.server("plain");
        let request = server.receive(14);
        assert_eq!(request, b"GET / HTTP/1.1");
        server
            .send(b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello")
            .unwrap();
        drop(server);
        asked.join().unwrap().expect("hello");
    });
}

#[test]
fn what_is_neither_tls_nor_plain_is_refused_though_plain_clients_have_a_route() {
    let scene = Scene::new(&["plain"], |house| {
        "upstream = \"plain\"\n".to_owned() + &route("plain = true", "plain") + &house.terminate()
    });
    for (what, bytes) in [
        ("SSLv2", sslv2_hello()),
        (
            "a PROXY header",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n".to_vec(),
        ),
        ("a broken hello", vec![22, 3, 1, 0, 5, 1, 0, 0, 1, 0]),
    ] {
        let mut client = scene.connect();
        client.send_raw(&bytes).unwrap();
        let (_, ending) = client.receive_to_end();
        assert_ne!(ending, Ending::Silence, "{what}");
        let address = client.local();
        drop(client);
        let record = scene.proxy.record_of(address);
        record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
    }
    scene.expect_none_reached();
}

#[test]
fn a_plain_client_goes_neither_to_the_default_nor_to_the_route_of_another_source() {
    let scene = Scene::new(&["plain", "rest"], |house| {
        "upstream = \"rest\"\n".to_owned()
            + &route("plain = true\nsource = \"127.0.0.2\"", "plain")
            + &route("source = \"127.0.0.1\"", "rest")
            + &house.terminate()
    });
    let mut refused = scene.connect();
    refused.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let (_, ending) = refused.receive_to_end();
    assert_ne!(ending, Ending::Silence);
    let record = scene.proxy.record_of(refused.local());
    record.expect(&[("end", "no_route"), ("phase", "client_hello")]);
    scene.expect_none_reached();
    let client = Link::connect_from(FROM_2, scene.proxy.address("front")).unwrap();
    scene.expect_carried(client, "plain");
}

/// RFC 8446 5.1 lets a hello lie in many records, and TCP cuts where it likes.
#[test]
fn a_post_quantum_hello_in_pieces_is_routed_and_passed_through_untouched() {
    let scene = Scene::new(&["known"], |_| route("sni = \"known.example\"", "known"));
    let (_, hello) = hello_of(&scene.config(&["h2"]), "known.example");
    assert!(hello.len() > 1200, "an ML-KEM key share is in it");
    for record_bytes in [usize::from(u16::MAX), 700, 60, 1] {
        let hello = in_records_of(&hello, record_bytes);
        for write_bytes in [hello.len(), 500, 7] {
            let client = scene.connect();
            for piece in hello.chunks(write_bytes) {
                client.send_raw(piece).unwrap();
            }
            let mut server = scene.server("known");
            assert!(
                server.receive(hello.len()) == hello,
                "records of {record_bytes}, writes of {write_bytes}"
            );
            client.reset();
            drop(server);
        }
    }
}
