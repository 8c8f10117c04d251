//! The PROXY protocol: whose word counts for who a client is, and what servers are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::proto::proxy::{self, Ends, Progress, ProxyHeader, TlsSeen, Tlvs};
use ringway_support::curl::Curl;
use ringway_support::haproxy::Haproxy;
use ringway_support::hello::hello_of;
use ringway_support::link::Address;
use ringway_support::nginx::Nginx;
use ringway_support::peer::ClosedPort;
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::wait::pause;
use ringway_support::{Bystander, Ending, House, Link, Peer, Proxy, Record, ringway, until};

const TRUSTING: &str = "proxy_protocol = \"required\"\nproxy_trusted = \"127.0.0.0/8\"";
const TRUSTING_IF_SENT: &str = "proxy_protocol = \"optional\"\nproxy_trusted = \"127.0.0.0/8\"";
/// Where no peer of these tests comes from.
const ELSEWHERE: &str = "proxy_trusted = [\"127.0.0.2\", \"10.0.0.0/8\"]";

const CLIENT: &str = "192.0.2.1:40000";
const CAME_TO: &str = "198.51.100.2:443";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n";

fn said(tlvs: Tlvs) -> ProxyHeader {
    ProxyHeader {
        ends: Ends::Ip {
            source: CLIENT.parse().unwrap(),
            destination: CAME_TO.parse().unwrap(),
        },
        tlvs,
    }
}

/// Bytes of version 2 with this command, family and block.
fn v2_bytes(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    bytes
}

/// A listener with these keys in front of an echo, and a bystander.
struct Scene {
    proxy: Proxy,
    bystander: Bystander,
    house: House,
    _echo: ringway_support::peer::Service,
}

impl Scene {
    fn plain(keys: &str) -> Self {
        Self::start(keys, "", House::new())
    }

    fn tls(keys: &str) -> Self {
        let house = House::new();
        Self::start(keys, &house.terminate(), house)
    }

    fn start(keys: &str, tls: &str, house: House) -> Self {
        let echo = Peer::plain().echo();
        let toml = front_to_back(keys, tls, echo.address());
        let (proxy, bystander) = Bystander::beside(ringway!(), &toml);
        Self {
            proxy,
            bystander,
            house,
            _echo: echo,
        }
    }

    fn connect(&self) -> Link {
        Link::connect(self.proxy.address("front")).unwrap()
    }

    /// A connection that goes to its end behind these bytes: its record.
    fn visit(&self, mut link: Link) -> Record {
        link.ping(b"hello");
        link.finish().unwrap();
        assert_eq!(link.expect_end(), Ending::Clean);
        record_by(&self.proxy, link.local())
    }

    /// A connection that is refused after these bytes: its record.
    fn refused(&self, bytes: &[u8]) -> Record {
        self.refused_by(self.connect(), bytes)
    }

    fn refused_by(&self, mut link: Link, bytes: &[u8]) -> Record {
        // A reset that is there already ends the send, and the read then finds no more of it.
        let sent = link.send_raw(bytes);
        let (answer, ending) = link.receive_to_end();
        assert!(answer.is_empty());
        assert!(sent.is_err() || ending == Ending::Reset, "{ending:?}");
        self.proxy.record_of(link.local())
    }
}

/// The record of the connection that this peer made, whoever the client was.
fn record_by(proxy: &Proxy, peer: SocketAddr) -> Record {
    let peer = peer.to_string();
    proxy.wait_record(&format!("the connection by {peer}"), |record| {
        let by = record.find("proxied_by").or(record.find("client"));
        by == Some(&peer)
    })
}

/// Reads a header off the front of what the proxy sends, byte by byte.
fn read_header(link: &mut Link) -> ProxyHeader {
    let mut bytes = Vec::new();
    loop {
        bytes.extend(link.receive(1));
        match proxy::parse(&bytes) {
            Progress::Undecided | Progress::NeedMore => {}
            Progress::Complete { header, .. } => return *header,
            other => panic!("{other:?}: {bytes:?}"),
        }
    }
}

fn ip_ends(header: &ProxyHeader) -> (SocketAddr, SocketAddr) {
    match &header.ends {
        Ends::Ip {
            source,
            destination,
        } => (*source, *destination),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trusted_header_of_either_version_says_who_the_client_is() {
    for scene in [Scene::plain(TRUSTING), Scene::plain(TRUSTING_IF_SENT)] {
        for header in [LINE.to_vec(), said(Tlvs::default()).v2()] {
            let link = scene.connect();
            link.send_raw(&header).unwrap();
            let by = link.local().to_string();
            let record = scene.visit(link);
            record.expect(&[
                ("client", CLIENT),
                ("local", CAME_TO),
                ("proxied_by", &by),
                ("end", "finished"),
            ]);
            assert_eq!(record.count("bytes_up"), 5, "{record}");
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let mut scene = Scene::tls(TRUSTING);
    for header in [LINE.to_vec(), said(Tlvs::default()).v2()] {
        let link = scene.connect();
        for byte in &header {
            link.send_raw(&[*byte]).unwrap();
            link.wait_delivered();
        }
        let config = ClientTls::trusting(&scene.house.ca).config();
        let record = scene.visit(link.start_tls(&config, "localhost").unwrap());
        record.expect(&[("client", CLIENT), ("end", "finished")]);
    }
    scene.bystander.settled(&scene.proxy);
}

#[test]
fn what_follows_a_header_in_its_segment_is_not_lost() {
    let scene = Scene::plain(TRUSTING);
    let mut link = scene.connect();
    link.send_raw(&[LINE, b"early"].concat()).unwrap();
    assert_eq!(link.receive(5), b"early");
    let record = scene.visit(link);
    assert_eq!(record.count("bytes_up"), 10, "{record}");

    let scene = Scene::tls(TRUSTING);
    let config = ClientTls::trusting(&scene.house.ca).config();
    for whole in [true, false] {
        let (connection, hello) = hello_of(&config, "localhost");
        let (now, later) = hello.split_at(if whole { hello.len() } else { 7 });
        let mut link = scene.connect();
        link.send_raw(&[LINE, now].concat()).unwrap();
        link.wait_delivered();
        link.send_raw(later).unwrap();
        link.use_tls(connection.into());
        link.handshake().unwrap();
        let record = scene.visit(link);
        record.expect(&[("client", CLIENT), ("sni", "localhost")]);
    }
}

#[test]
fn a_header_that_does_not_come_is_waited_for_no_longer_than_its_time_limit() {
    let keys = format!("{TRUSTING}\nproxy_protocol_timeout = \"400ms\"");
    let mut scene = Scene::tls(&keys);
    for part in [0, 3, 20] {
        let begun = Instant::now();
        let record = scene.refused(&LINE[..part]);
        assert!(begun.elapsed() >= Duration::from_millis(380));
        record.expect(&[
            ("end", "timeout"),
            ("phase", "proxy_header"),
            ("detail", "proxy_protocol_timeout"),
        ]);
    }
    let link = scene.connect();
    for byte in LINE.iter().take(40) {
        if link.send_raw(&[*byte]).is_err() {
            break;
        }
        pause(Duration::from_millis(100));
    }
    let record = scene.proxy.record_of(link.local());
    record.expect(&[("end", "timeout"), ("phase", "proxy_header")]);
    assert!(record.number("total_ms") < 3500.0, "{record}");
    scene.bystander.settled(&scene.proxy);
}

#[test]
fn what_is_no_header_where_one_is_required_is_refused_with_its_reason() {
    let house = House::new();
    let config = ClientTls::trusting(&house.ca).config();
    let (_, hello) = hello_of(&config, "localhost");
    let oversize = {
        let mut bytes = v2_bytes(0x21, 0x11, &[]);
        bytes.splice(14.., [0xff, 0xff]);
        bytes
    };
    let mut wrong_sum = said(Tlvs::default()).v2();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let mut scene = Scene::tls(TRUSTING);
    for (bytes, words) in [
        (&hello[..], "no proxy header"),
        (b"GET / HTTP/1.1\r\n\r\n", "no proxy header"),
        (&[0xa5; 300], "no proxy header"),
        (b"PROXY TCP4 192.0.2.1 1 2 3\r\n", "address"),
        (&endless, "107 bytes"),
        (&oversize, "4 kib"),
        (&wrong_sum, "checksum"),
        (&v2_bytes(0x21, 0x11, &[1, 2, 3]), "too short"),
        (&v2_bytes(0x2f, 0x11, &[0; 12]), "command"),
    ] {
        let record = scene.refused(bytes);
        record.expect(&[("end", "protocol_error"), ("ended_by", "downstream")]);
        record.expect(&[("phase", "proxy_header")]);
        record.expect_reason(&[words]);
    }
    scene.bystander.settled(&scene.proxy);
}

#[test]
fn a_client_that_leaves_before_its_header_is_whole_is_said_to_have_closed() {
    let scene = Scene::plain(TRUSTING);
    for part in [0, 3, 30] {
        let mut link = scene.connect();
        link.send_raw(&LINE[..part]).unwrap();
        link.finish().unwrap();
        let _ = link.receive_to_end();
        let record = scene.proxy.record_of(link.local());
        record.expect(&[("end", "closed"), ("phase", "proxy_header")]);
    }
}

#[test]
fn a_peer_that_is_not_trusted_is_refused_where_a_header_is_required() {
    let keys = format!("proxy_protocol = \"required\"\n{ELSEWHERE}");
    let mut scene = Scene::tls(&keys);
    for bytes in [LINE, b""] {
        let record = scene.refused(bytes);
        record.expect(&[("end", "untrusted_peer"), ("phase", "proxy_header")]);
        record.expect_reason(&["proxy_trusted"]);
        assert_eq!(record.find("proxied_by"), None, "{record}");
    }
    scene.bystander.settled(&scene.proxy);
}

#[test]
fn a_header_forged_by_a_peer_that_is_not_trusted_changes_nothing() {
    let keys = format!("proxy_protocol = \"optional\"\n{ELSEWHERE}");
    let scene = Scene::plain(&keys);
    for header in [LINE.to_vec(), said(Tlvs::default()).v2()] {
        let mut link = scene.connect();
        // It is the client's data, and goes to the server as such.
        link.ping(&header);
        let own = link.local().to_string();
        let record = scene.visit(link);
        record.expect(&[("client", &own), ("end", "finished")]);
        assert_eq!(record.find("proxied_by"), None, "{record}");
    }
    let scene = Scene::tls(&keys);
    let mut link = scene.connect();
    link.send_raw(LINE).unwrap();
    let _ = link.receive_to_end();
    let record = scene.proxy.record_of(link.local());
    record.expect(&[("end", "protocol_error"), ("phase", "client_hello")]);
}

#[test]
fn a_peer_within_one_of_the_networks_is_trusted_and_its_neighbour_is_not() {
    let keys = format!("proxy_protocol = \"required\"\n{ELSEWHERE}");
    let scene = Scene::plain(&keys);
    let front = scene.proxy.address("front");
    let link = Link::connect_from("127.0.0.2".parse().unwrap(), front).unwrap();
    link.send_raw(LINE).unwrap();
    scene.visit(link).expect(&[("client", CLIENT)]);
    let other = Link::connect_from("127.0.0.3".parse().unwrap(), front).unwrap();
    let record = scene.refused_by(other, LINE);
    record.expect(&[("end", "untrusted_peer")]);
}

#[test]
fn headers_without_addresses_leave_the_socket_s_own() {
    let scene = Scene::plain(TRUSTING);
    let local = scene.proxy.address("front").to_string();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.1 198.51.100.2 1 2\r\n".to_vec(),
        v2_bytes(0x20, 0x11, &[1; 12]),
        v2_bytes(0x20, 0x00, &[]),
        v2_bytes(0x21, 0x00, &[]),
        v2_bytes(0x21, 0x12, &[1; 12]),
    ] {
        let link = scene.connect();
        link.send_raw(&header).unwrap();
        let own = link.local().to_string();
        let record = scene.visit(link);
        record.expect(&[("client", &own), ("local", &local), ("end", "finished")]);
        assert_eq!(record.find("proxied_by"), None, "{record}");
    }
}

#[test]
fn a_trusted_peer_may_leave_an_optional_header_out() {
    let scene = Scene::plain(TRUSTING_IF_SENT);
    let mut link = scene.connect();
    link.ping(b"PROX");
    let own = link.local().to_string();
    scene.visit(link).expect(&[("client", &own)]);

    let scene = Scene::tls(TRUSTING_IF_SENT);
    let config = ClientTls::trusting(&scene.house.ca).config();
    let link = scene.connect().start_tls(&config, "localhost").unwrap();
    scene.visit(link).expect(&[("end", "finished")]);
}

#[test]
fn a_client_that_waits_for_the_server_s_first_words_gets_them_after_the_time_limit() {
    let peer = Peer::plain();
    let keys = format!("{TRUSTING_IF_SENT}\nproxy_protocol_timeout = \"300ms\"");
    let proxy = ringway!().start(&front_to_back(&keys, "", peer.address()));
    let mut client = Link::connect(proxy.address("front")).unwrap();
    let mut server = peer.accept();
    server.send(b"220 ready").unwrap();
    assert_eq!(client.receive(9), b"220 ready");
    client.send(b"EHLO").unwrap();
    assert_eq!(server.receive(4), b"EHLO");
    // A header that has begun is waited for and then missed.
    let mut half = Link::connect(proxy.address("front")).unwrap();
    half.send_raw(&LINE[..20]).unwrap();
    assert_eq!(half.receive_to_end().1, Ending::Reset);
    let record = proxy.record_of(half.local());
    record.expect(&[("end", "timeout"), ("phase", "proxy_header")]);
}

#[test]
fn peers_of_a_unix_socket_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("front.sock");
    let echo = Peer::plain().echo();
    let toml = format!(
        "[[listener]]\nname = \"front\"\nbind = \"unix:{}\"\nupstream = \"back\"\n\
         proxy_protocol = \"required\"\n{}",
        socket.display(),
        upstream("back", &[echo.address()], "")
    );
    let proxy = ringway!().start(&toml);
    let mut link = Link::connect(&Address::Unix(socket)).unwrap();
    link.send_raw(LINE).unwrap();
    link.ping(b"hello");
    drop(link);
    let record = proxy.wait_record("the connection", |record| {
        record.find("client") == Some(CLIENT)
    });
    record.expect(&[("local", CAME_TO), ("proxied_by", "unix:")]);
}

#[test]
fn what_a_header_says_of_the_client_s_tls_is_in_the_log() {
    let tls = TlsSeen {
        client: proxy::CLIENT_TLS | proxy::CLIENT_CERTIFICATE_SESSION,
        verify: 0,
        version: Some("TLSv1.2".into()),
        cipher: Some("ECDHE-RSA-AES128-GCM-SHA256".into()),
        common_name: Some("Payments 1".into()),
        ..TlsSeen::default()
    };
    let header = said(Tlvs {
        authority: Some("app.example.org".into()),
        unique_id: Some((*b"\x01\xff").into()),
        tls: Some(tls),
        ..Tlvs::default()
    });
    let scene = Scene::plain(TRUSTING);
    let link = scene.connect();
    link.send_raw(&header.v2()).unwrap();
    let record = scene.visit(link);
    record.expect(&[
        ("proxied_authority", "app.example.org"),
        ("proxied_id", "01ff"),
        ("proxied_protocol", "TLSv1.2"),
        ("proxied_cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("proxied_cn", "Payments 1"),
    ]);
    assert!(record.flag("proxied_verified"));
}

/// TLS ended before: what the header tells of it stands for the ClientHello that nobody sends here.
#[test]
fn a_trusted_header_s_name_protocol_and_address_choose_the_route() {
    let routes = [
        ("h2", "sni = \"app.example.org\"\nalpn = \"h2\""),
        ("app", "sni = \"app.example.org\""),
        ("near", "source = \"192.0.2.0/24\""),
    ];
    let servers: Vec<_> = routes.iter().map(|_| Peer::plain()).collect();
    let mut toml = format!("[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\n{TRUSTING}\n");
    for (group, lines) in routes {
        toml += &format!("[[listener.route]]\n{lines}\nupstream = \"{group}\"\n");
    }
    for ((group, _), server) in routes.iter().zip(&servers) {
        toml += &upstream(group, &[server.address()], "");
    }
    let proxy = ringway!().start(&toml);
    let told = |name: &str, alpn: Option<&[u8]>| {
        said(Tlvs {
            authority: Some(name.into()),
            alpn: alpn.map(Into::into),
            ..Tlvs::default()
        })
    };
    for (header, group) in [
        (told("app.example.org", Some(b"h2")), 0),
        (told("App.example.org", Some(b"http/1.1")), 1),
        (told("app.example.org", None), 1),
        (told("other.example.org", None), 2),
    ] {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.send_raw(&header.v2()).unwrap();
        let mut server = servers[group].accept();
        server.send(b"first words").unwrap();
        assert_eq!(link.receive(11), b"first words");
        link.finish().unwrap();
        server.finish().unwrap();
        assert!(link.expect_end().looks_complete());
        let record = record_by(&proxy, link.local());
        record.expect(&[("end", "finished"), ("upstream", routes[group].0)]);
    }
}

/// Connections by one peer, each with a header that names this client.
fn named(proxy: &Proxy, client: &str) -> Link {
    let link = Link::connect(proxy.address("front")).unwrap();
    let line = format!("PROXY TCP4 {client} 198.51.100.2 40000 443\r\n");
    link.send_raw(line.as_bytes()).unwrap();
    link
}

#[test]
fn clients_are_admitted_and_counted_by_the_address_of_a_trusted_header() {
    let keys = format!(
        "{TRUSTING}\nallow = \"192.0.2.0/24\"\ndeny = \"192.0.2.66\"\nmax_connections_per_source = 1"
    );
    let scene = Scene::plain(&keys);
    let expect_refused = |client: &str, end: &str| {
        let mut link = named(&scene.proxy, client);
        let (bytes, ending) = link.receive_to_end();
        assert!(
            bytes.is_empty() && !ending.looks_complete(),
            "{client}: {ending:?}"
        );
        let record = record_by(&scene.proxy, link.local());
        record.expect(&[("end", end), ("phase", "proxy_header")]);
    };
    // The peer itself is in no list.
    let mut first = named(&scene.proxy, "192.0.2.1");
    first.ping(b"hello");
    expect_refused("192.0.2.66", "denied");
    expect_refused("198.51.100.7", "denied");
    expect_refused("192.0.2.1", "limit");
    let mut second = named(&scene.proxy, "192.0.2.2");
    second.ping(b"hello");
    first.finish().unwrap();
    assert_eq!(first.expect_end(), Ending::Clean);
    let _ = record_by(&scene.proxy, first.local());
    let mut again = named(&scene.proxy, "192.0.2.1");
    again.ping(b"hello");
}

#[test]
fn only_clients_pass_whose_allowed_name_a_trusted_header_says_was_proved() {
    let scene = Scene::plain(&format!(
        "{TRUSTING_IF_SENT}\nproxy_allow_cn = \"payments\""
    ));
    let certificate = proxy::CLIENT_TLS | proxy::CLIENT_CERTIFICATE_SESSION;
    let told = |client: u8, verify: u32, name: &str| {
        let tls = TlsSeen {
            client,
            verify,
            common_name: Some(name.into()),
            ..TlsSeen::default()
        };
        said(Tlvs {
            tls: Some(tls),
            ..Tlvs::default()
        })
        .v2()
    };
    let link = scene.connect();
    link.send_raw(&told(certificate, 0, "payments")).unwrap();
    scene.visit(link).expect(&[("proxied_cn", "payments")]);
    for (what, header) in [
        ("another name", told(certificate, 0, "Payments")),
        ("not verified", told(certificate, 1, "payments")),
        ("no certificate", told(proxy::CLIENT_TLS, 0, "payments")),
        ("nothing of TLS", said(Tlvs::default()).v2()),
        ("no header", b"hello".to_vec()),
    ] {
        let link = scene.connect();
        let address = link.local();
        let _ = scene_refusal(link, &header);
        let record = record_by(&scene.proxy, address);
        record.expect(&[("end", "identity_refused"), ("phase", "proxy_header")]);
        assert_eq!(record.find("upstream"), None, "{what}: {record}");
    }
}

/// How a connection ended that is refused behind these bytes.
fn scene_refusal(mut link: Link, bytes: &[u8]) -> Ending {
    let _ = link.send_raw(bytes);
    link.receive_to_end().1
}

#[test]
fn the_address_of_a_trusted_header_is_what_a_group_hashes() {
    let echoes: Vec<_> = (0..4).map(|_| Peer::plain().echo()).collect();
    let servers: Vec<_> = echoes.iter().map(|echo| echo.address()).collect();
    let toml = listener("front", "back", TRUSTING, "")
        + &upstream("back", &servers, "balance = \"hash-source\"");
    let proxy = ringway!().start(&toml);
    let server_of = |client: &str| {
        let mut link = named(&proxy, client);
        link.ping(b"hello");
        link.finish().unwrap();
        let _ = link.receive_to_end();
        record_by(&proxy, link.local()).text("server").to_owned()
    };
    let clients: Vec<_> = (1..=24).map(|last| format!("192.0.2.{last}")).collect();
    let chosen: Vec<_> = clients.iter().map(|client| server_of(client)).collect();
    let again: Vec<_> = clients.iter().map(|client| server_of(client)).collect();
    assert_eq!(chosen, again, "a client keeps its server");
    assert!(
        chosen.iter().any(|server| *server != chosen[0]),
        "one peer, many servers"
    );
}

/// Listener and upstream with these keys, and the server in hand.
fn announcing(listener_keys: &str, tls: &str, upstream_keys: &str, server: &Peer) -> Proxy {
    let toml = listener("front", "back", listener_keys, tls)
        + &upstream("back", &[server.address()], upstream_keys);
    ringway!().start(&toml)
}

#[test]
fn a_server_is_sent_the_client_s_address_in_front_of_its_bytes() {
    let peer = Peer::plain();
    for version in ["v1", "v2"] {
        let keys = format!("proxy_protocol = \"{version}\"");
        let proxy = announcing("", "", &keys, &peer);
        let front = proxy.address("front").ip();
        let mut client = Link::connect(proxy.address("front")).unwrap();
        // The client has not said a word yet.
        let mut server = peer.accept();
        let header = read_header(&mut server);
        assert_eq!(ip_ends(&header), (client.local(), front), "{version}");
        client.send(b"hello").unwrap();
        assert_eq!(server.receive(5), b"hello");
        drop((client, server));
        let record = proxy.wait_records(1).remove(0);
        let id = header
            .tlvs
            .unique_id
            .as_deref()
            .map(String::from_utf8_lossy);
        let told = (version == "v2").then(|| record.text("id"));
        assert_eq!(id.as_deref(), told);
        assert_eq!(
            record.count("bytes_up"),
            5,
            "the header is not the client's"
        );
    }
}

#[test]
fn a_server_is_sent_the_address_of_a_trusted_header_and_not_the_peer_s() {
    let peer = Peer::plain();
    let proxy = announcing(TRUSTING, "", "proxy_protocol = \"v1\"", &peer);
    let client = Link::connect(proxy.address("front")).unwrap();
    client.send_raw(&said(Tlvs::default()).v2()).unwrap();
    let mut server = peer.accept();
    assert_eq!(server.receive(LINE.len()), LINE);
}

#[test]
fn the_header_goes_out_before_the_handshake_with_the_server_and_to_each_server_tried() {
    let house = House::new();
    let closed = ClosedPort::new();
    let peer = Peer::tls(ServerTls::with(&house.backend).config());
    for version in ["v1", "v2"] {
        let keys = format!(
            "proxy_protocol = \"{version}\"\n{}",
            house.originate("back")
        );
        let toml = listener("front", "back", "", "")
            + &upstream("back", &[&closed.address(), peer.address()], &keys);
        let proxy = ringway!().workers(1).start(&toml);
        for _ in 0..2 {
            let mut client = Link::connect(proxy.address("front")).unwrap();
            let mut raw = peer.accept_raw();
            let header = read_header(&mut raw);
            assert_eq!(ip_ends(&header).0, client.local());
            let mut server = peer.secure(raw).unwrap();
            client.send(b"hello").unwrap();
            assert_eq!(server.receive(5), b"hello");
            server.send(b"world").unwrap();
            assert_eq!(client.receive(5), b"world");
        }
    }
}

#[test]
fn header_and_client_hello_leave_in_one_send() {
    let house = House::new();
    let peer = Peer::tls(ServerTls::with(&house.backend).config());
    let keys = format!("proxy_protocol = \"v2\"\n{}", house.originate("back"));
    let toml = listener("front", "back", "", "") + &upstream("back", &[peer.address()], &keys);
    let proxy = ringway!().traced("sendto").start(&toml);
    let client = Link::connect(proxy.address("front")).unwrap();
    let mut raw = peer.accept_raw();
    let header = read_header(&mut raw);
    let record = raw.receive(5);
    let body = raw.receive(usize::from(u16::from_be_bytes([record[3], record[4]])));
    let bytes = (header.v2().len() + record.len() + body.len()) as u64;
    // strace writes a call down after it was made.
    until("one send of both is traced", || {
        proxy.traced_calls().contains(&bytes).then_some(())
    });
    drop(client);
}

#[test]
fn version_2_tells_of_the_client_s_tls_and_certificate() {
    let house = House::new();
    let peer = Peer::plain();
    let tls = house.terminate_verified("optional") + "alpn = [\"h2\"]\n";
    let proxy = announcing("", &tls, "proxy_protocol = \"v2\"", &peer);
    for (version, name, cipher) in [
        (TLS13, "TLSv1.3", "TLS_"),
        (TLS12, "TLSv1.2", "ECDHE-ECDSA-"),
    ] {
        let client = ClientTls::trusting(&house.ca)
            .version(version)
            .alpn(&["h2"]);
        let config = client.identity(&house.client).config();
        for resumed in [false, true] {
            let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
            let mut server = peer.accept();
            let tlvs = read_header(&mut server).tlvs;
            assert_eq!(tlvs.alpn.as_deref(), Some(&b"h2"[..]));
            assert_eq!(tlvs.authority.as_deref(), Some("localhost"));
            let seen = tlvs.tls.unwrap();
            assert_eq!((seen.verified(), seen.verify), (Some(true), 0));
            let on_this_one = seen.client & proxy::CLIENT_CERTIFICATE_CONNECTION != 0;
            assert_eq!(on_this_one, !resumed, "{name}");
            assert_eq!(seen.version.as_deref(), Some(name));
            assert_eq!(seen.common_name.as_deref(), Some("tester"));
            assert!(seen.cipher.unwrap().starts_with(cipher));
            // The ticket comes with the first data.
            server.send(b"x").unwrap();
            link.receive(1);
            assert_eq!(link.resumed(), resumed);
        }
    }
    let config = ClientTls::trusting(&house.ca).config();
    let _link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    let tlvs = read_header(&mut peer.accept()).tlvs;
    let seen = tlvs.tls.unwrap();
    assert_eq!((seen.client, seen.verified()), (proxy::CLIENT_TLS, None));
    assert_eq!((seen.common_name, tlvs.alpn), (None, None));
    assert_ne!(seen.verify, 0);
}

#[test]
fn a_name_in_a_certificate_that_was_not_verified_is_not_passed_on() {
    let house = House::new();
    let stranger = House::new().client;
    let peer = Peer::plain();
    let tls = house.terminate() + "verify_client = \"optional-no-ca\"\n";
    let proxy = announcing("", &tls, "proxy_protocol = \"v2\"", &peer);
    let config = ClientTls::trusting(&house.ca).identity(&stranger).config();
    let _link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    let seen = read_header(&mut peer.accept()).tlvs.tls.unwrap();
    assert_eq!(seen.verified(), Some(false));
    assert_eq!(seen.common_name, None);
}

#[test]
fn a_name_that_is_passed_through_is_told_and_tls_is_not() {
    let house = House::new();
    let peer = Peer::tls(ServerTls::with(&house.backend).config());
    let route = "[[listener.route]]\nsni = \"backend.internal\"\nupstream = \"back\"\n";
    let proxy = announcing("", route, "proxy_protocol = \"v2\"", &peer);
    let config = ClientTls::trusting(&house.ca).config();
    let (connection, hello) = hello_of(&config, "backend.internal");
    let mut client = Link::connect(proxy.address("front")).unwrap();
    client.send_raw(&hello).unwrap();
    client.use_tls(connection.into());
    let mut raw = peer.accept_raw();
    let tlvs = read_header(&mut raw).tlvs;
    assert_eq!(tlvs.authority.as_deref(), Some("backend.internal"));
    assert_eq!(tlvs.tls, None);
    let other = std::thread::spawn(move || peer.secure(raw).unwrap());
    client.handshake().unwrap();
    let mut server = other.join().unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(server.receive(5), b"hello");
}

#[test]
fn a_client_of_a_unix_socket_is_unknown_to_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("front.sock");
    let peer = Peer::plain();
    for version in ["v1", "v2"] {
        let toml = format!(
            "[[listener]]\nname = \"front\"\nbind = \"unix:{}\"\nupstream = \"back\"\n{}",
            socket.display(),
            upstream(
                "back",
                &[peer.address()],
                &format!("proxy_protocol = \"{version}\"")
            )
        );
        let _proxy = ringway!().start(&toml);
        let _client = Link::connect(&Address::Unix(socket.clone())).unwrap();
        assert_eq!(read_header(&mut peer.accept()).ends, Ends::Unknown);
    }
}

/// One Ringway behind another: TLS ends at the first, and the second tells its server of it.
#[test]
fn what_the_first_of_two_proxies_knows_of_the_client_comes_to_the_server() {
    let house = House::new();
    let peer = Peer::plain();
    let tls = house.terminate();
    let second = announcing(TRUSTING, &tls, "proxy_protocol = \"v2\"", &peer);
    let inner = format!(
        "proxy_protocol = \"v2\"\n{}",
        house
            .originate("back")
            .replace("backend.internal", "localhost")
    );
    let first = ringway!().start(
        &(listener("front", "back", "", &house.terminate_verified("required"))
            + &upstream("back", &[second.address("front")], &inner)),
    );
    let config = ClientTls::trusting(&house.ca)
        .version(TLS12)
        .identity(&house.client)
        .config();
    let client = Link::connect_tls(first.address("front"), &config, "localhost").unwrap();
    let header = read_header(&mut peer.accept());
    assert_eq!(
        ip_ends(&header),
        (client.local(), first.address("front").ip())
    );
    let seen = header.tlvs.tls.unwrap();
    assert_eq!(seen.version.as_deref(), Some("TLSv1.2"));
    assert_eq!(seen.common_name.as_deref(), Some("tester"));
    let own = client.local();
    drop(client);
    let outer = first.record_of(own);
    let inner = second.record_of(own);
    inner.expect(&[
        ("proxied_id", outer.text("id")),
        ("proxied_protocol", "TLSv1.2"),
        ("downstream_protocol", "TLSv1.3"),
        ("proxied_cn", "tester"),
        ("proxied_authority", "localhost"),
    ]);
}

#[test]
fn haproxy_s_headers_are_understood() {
    let mut scene = Scene::plain(TRUSTING);
    let all =
        "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,unique-id,crc32c";
    for send in [
        "send-proxy".to_owned(),
        "send-proxy-v2".to_owned(),
        format!("send-proxy-v2 {all}"),
        "send-proxy-v2-ssl-cn".to_owned(),
    ] {
        let sections = format!(
            "listen in\n    mode tcp\n    bind LISTEN\n    unique-id-format id-%pid-%rt\n    \
             server a {} {send}\n",
            scene.proxy.address("front")
        );
        let haproxy = Haproxy::start(&sections, &[]);
        let mut link = Link::connect(haproxy.address()).unwrap();
        link.ping(b"hello");
        let (own, front) = (link.local(), haproxy.address().to_string());
        drop(link);
        let record = scene.proxy.record_of(own);
        record.expect(&[("local", &front)]);
        assert!(record.find("proxied_by").is_some(), "{record}");
    }
    scene.bystander.settled(&scene.proxy);
}

#[test]
fn haproxy_s_word_of_a_client_s_tls_is_logged() {
    let house = House::new();
    let scene = Scene::tls(TRUSTING);
    // TLS on both sides: haproxy ends the client's, and speaks its own to us.
    let sections = format!(
        "listen in\n    mode tcp\n    bind LISTEN ssl crt HOME/edge.pem ca-file {} verify optional\n    \
         server a {} send-proxy-v2-ssl-cn proxy-v2-options crc32c,ssl-cipher,authority \
         ssl verify none\n",
        house.ca.file().display(),
        scene.proxy.address("front")
    );
    let haproxy = Haproxy::start(&sections, &[("edge.pem", &house.edge)]);
    let config = ClientTls::trusting(&house.ca)
        .version(TLS12)
        .identity(&house.client)
        .config();
    let mut link = Link::connect_tls(haproxy.address(), &config, "localhost").unwrap();
    link.ping(b"hello");
    let own = link.local();
    drop(link);
    let record = scene.proxy.record_of(own);
    record.expect(&[
        ("proxied_protocol", "TLSv1.2"),
        ("proxied_cn", "tester"),
        ("proxied_authority", "localhost"),
        ("downstream_protocol", "TLSv1.3"),
    ]);
    assert!(record.text("proxied_cipher").starts_with("ECDHE-ECDSA-"));
    assert!(record.flag("proxied_verified"));
}

/// What a client gets through `proxy` from a server that answers with what it knows.
fn ask(proxy: &Proxy) -> (SocketAddr, String) {
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .unwrap();
    let (answer, _) = link.receive_to_end();
    (link.local(), String::from_utf8(answer).unwrap())
}

#[test]
fn haproxy_understands_our_headers_before_tls_too() {
    let house = House::new();
    let answer = "http-request return status 200 content-type text/plain lf-string \
                  \"src=%[src]:%[src_port] dst=%[dst]:%[dst_port] authority=%[fc_pp_authority] \
                  id=%[fc_pp_unique_id]\"";
    for (bind, originates) in [("", false), (" ssl crt HOME/backend.pem", true)] {
        let sections = format!(
            "frontend in\n    mode http\n    bind LISTEN accept-proxy{bind}\n    {answer}\n"
        );
        let haproxy = Haproxy::start(&sections, &[("backend.pem", &house.backend)]);
        for version in ["v1", "v2"] {
            let tls = if originates {
                house.originate("back")
            } else {
                String::new()
            };
            let keys = format!("proxy_protocol = \"{version}\"\n{tls}");
            let toml =
                listener("front", "back", "", "") + &upstream("back", &[haproxy.address()], &keys);
            let proxy = ringway!().start(&toml);
            let (own, answer) = ask(&proxy);
            let ends = format!("src={own} dst={} ", proxy.address("front"));
            assert!(answer.contains(&ends), "{version}: {answer}");
            let record = proxy.record_of(own);
            let id = format!("id={}", record.text("id"));
            assert_eq!(answer.contains(&id), version == "v2", "{answer}");
        }
    }
}

#[test]
fn haproxy_takes_all_that_version_2_says_of_a_client_s_tls() {
    let house = House::new();
    let sections = "frontend in\n    mode http\n    bind LISTEN accept-proxy\n    \
                    http-request return status 200 content-type text/plain lf-string \
                    \"src=%[src]:%[src_port] authority=%[fc_pp_authority]\"\n";
    let haproxy = Haproxy::start(sections, &[]);
    let toml = listener("front", "back", "", &house.terminate_verified("required"))
        + &upstream("back", &[haproxy.address()], "proxy_protocol = \"v2\"");
    let proxy = ringway!().start(&toml);
    let config = ClientTls::trusting(&house.ca)
        .identity(&house.client)
        .config();
    let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    link.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .unwrap();
    let (answer, _) = link.receive_to_end();
    let answer = String::from_utf8(answer).unwrap();
    let expected = format!("src={} authority=localhost", link.local());
    assert!(answer.contains(&expected), "{answer}");
}

#[test]
fn nginx_and_ringway_understand_each_other() {
    let front = Nginx::stream(
        "listen LISTEN proxy_protocol; return \"$proxy_protocol_addr:$proxy_protocol_port \
         $proxy_protocol_server_addr:$proxy_protocol_server_port\";",
    );
    for version in ["v1", "v2"] {
        let keys = format!("proxy_protocol = \"{version}\"");
        let toml = listener("front", "back", "", "") + &upstream("back", &[front.address()], &keys);
        let proxy = ringway!().start(&toml);
        let mut link = Link::connect(proxy.address("front")).unwrap();
        let (answer, _) = link.receive_to_end();
        let expected = format!("{} {}", link.local(), proxy.address("front"));
        assert_eq!(String::from_utf8(answer).unwrap(), expected, "{version}");
    }

    let scene = Scene::plain(TRUSTING);
    let nginx = Nginx::stream(&format!(
        "listen LISTEN; proxy_protocol on; proxy_pass {};",
        scene.proxy.address("front")
    ));
    let mut link = Link::connect(nginx.address()).unwrap();
    link.ping(b"hello");
    let own = link.local();
    drop(link);
    let record = scene.proxy.record_of(own);
    record.expect(&[("local", &nginx.address().to_string())]);
}

#[test]
fn curl_s_header_comes_before_tls_and_reaches_nginx() {
    let house = House::new();
    let nginx = Nginx::http(
        "listen LISTEN proxy_protocol; location / { return 200 \"$proxy_protocol_addr\"; }",
    );
    for (scheme, tls) in [("http", String::new()), ("https", house.terminate())] {
        let toml = listener("front", "back", TRUSTING, &tls)
            + &upstream("back", &[nginx.address()], "proxy_protocol = \"v1\"");
        let proxy = ringway!().start(&toml);
        Curl::get(scheme, "localhost", proxy.address("front"))
            .verify(&house.ca.file())
            .args(&["--haproxy-protocol"])
            .run()
            .expect("127.0.0.1");
        let record = proxy.wait_records(1).remove(0);
        // curl names its own address: header and socket say the same.
        assert_eq!(record.find("proxied_by"), record.find("client"));
        Curl::get(scheme, "localhost", proxy.address("front"))
            .verify(&house.ca.file())
            .run()
            .expect_failure();
    }
}
