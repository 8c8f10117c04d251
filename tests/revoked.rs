//! Sessions whose certificates would no longer be taken: `close_revoked` ends them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::path::PathBuf;
use std::time::Duration;

use ringway_support::pki::{Authority, Credential, Leaf, tester};
use ringway_support::reload::replace;
use ringway_support::tls::{ClientTls, ServerTls, TLS12, TLS13};
use ringway_support::toml::front_to_back;
use ringway_support::wait::pause;
use ringway_support::{Ending, House, Link, Peer, Proxy, ringway};
use tempfile::TempDir;

/// What clients are judged by, in files that change.
struct Rules {
    folder: TempDir,
}

impl Rules {
    fn of(ca: &Authority) -> Self {
        let rules = Self {
            folder: TempDir::new().unwrap(),
        };
        rules.put_ca(ca);
        rules.put_list(ca, &[]);
        rules
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("ca.crl")
    }

    fn put_ca(&self, ca: &Authority) {
        replace(&self.ca(), std::fs::read(ca.file()).unwrap());
    }

    fn put_list(&self, ca: &Authority, revoked: &[&Credential]) {
        replace(&self.list(), std::fs::read(ca.crl(revoked)).unwrap());
    }

    /// `[listener.tls]` that asks for certificates by these rules.
    fn terminate(&self, house: &House, keys: &str) -> String {
        format!(
            "{}client_ca = \"{}\"\nverify_client = \"required\"\n{keys}",
            house.terminate(),
            self.ca().display()
        )
    }

    /// Sessions that the list revokes end within this time.
    fn closing(&self, time: &str) -> String {
        let list = self.list();
        format!("close_revoked = \"{time}\"\ncrl = \"{}\"\n", list.display())
    }
}

fn client(house: &House, identity: &Credential, proxy: &Proxy) -> Link {
    let tls = ClientTls::trusting(&house.ca).identity(identity).config();
    let mut link = Link::connect_tls(proxy.address("front"), &tls, "localhost").unwrap();
    link.ping(b"let in");
    link
}

/// It ends without a clean end, for this reason, and its record says so.
fn expect_closed(proxy: &Proxy, mut link: Link, end: &str, words: &str) {
    let address = link.local();
    let ending = link.expect_end();
    assert!(
        !matches!(ending, Ending::Clean | Ending::Silence),
        "{ending:?}"
    );
    let record = proxy.record_of(address);
    record.expect(&[("end", end), ("phase", "relay"), ("ended_by", "downstream")]);
    record.expect_reason(&[&format!("close_revoked: {words}")]);
}

#[test]
fn a_client_s_certificate_that_expires_ends_its_session_alone() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let echo = Peer::plain().echo();
    let tls = rules.terminate(&house, "close_revoked = \"1s\"\n");
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let short = house.ca.issue(&tester().ends_in(Duration::from_secs(3)));
    let mut other = client(&house, &house.client, &proxy);
    let expiring = client(&house, &short, &proxy);
    expect_closed(&proxy, expiring, "certificate_refused", "expired");
    other.ping(b"still there?");
}

#[test]
fn without_the_key_a_session_outlives_its_certificate() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let echo = Peer::plain().echo();
    let tls = rules.terminate(&house, "");
    let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let short = house.ca.issue(&tester().ends_in(Duration::from_secs(2)));
    let mut expired = client(&house, &short, &proxy);
    pause(Duration::from_secs(4));
    expired.ping(b"still there?");
}

#[test]
fn a_server_s_certificate_that_expires_ends_its_sessions() {
    let house = House::new();
    let short = Leaf::server("backend.internal").ends_in(Duration::from_secs(3));
    let short = house.ca.issue(&short);
    let peer = Peer::tls(ServerTls::with(&short).config());
    let toml = front_to_back("", "", peer.address())
        + &house.originate("back")
        + "close_revoked = \"1s\"\n";
    let proxy = ringway!().start(&toml);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    let mut server = peer.accept();
    client.send(b"hello").unwrap();
    assert_eq!(server.receive(5), b"hello");
    assert_eq!(client.expect_end(), Ending::Reset);
    // Its own alert tells the server why.
    let (_, ending) = server.receive_to_end();
    assert!(
        format!("{ending:?}").contains("CertificateExpired"),
        "{ending:?}"
    );
    let record = proxy.record_of(client.local());
    record.expect(&[
        ("end", "certificate_refused"),
        ("phase", "relay"),
        ("ended_by", "upstream"),
    ]);
    record.expect_reason(&["close_revoked: expired"]);
}

/// Every way in which a reload may think otherwise of a certificate that is in use.
#[test]
fn a_reload_ends_the_sessions_that_its_rules_would_not_let_in() {
    let house = House::new();
    let others = Authority::root("Another CA");
    let rules = Rules::of(&house.ca);
    let echo = Peer::plain().echo();
    let keys = rules.closing("1s");
    let toml = |more: &str| {
        let tls = rules.terminate(&house, &(keys.clone() + more));
        front_to_back("", &tls, echo.address())
    };
    let mut proxy = ringway!().start(&toml(""));
    let enter = |proxy: &Proxy, identity: &Credential| client(&house, identity, proxy);
    let revoked = house.ca.issue(&tester());
    let (mut stays, goes) = (enter(&proxy, &house.client), enter(&proxy, &revoked));
    rules.put_list(&house.ca, &[&revoked]);
    proxy.reload();
    expect_closed(&proxy, goes, "certificate_refused", "revoked");
    stays.ping(b"not revoked");

    let stranger = house.ca.issue(&Leaf::client("stranger"));
    let goes = enter(&proxy, &stranger);
    proxy.write(&toml("allow_identities = [\"cn:tester\"]\n"));
    proxy.reload();
    expect_closed(&proxy, goes, "identity_refused", "stranger");
    stays.ping(b"allowed");

    rules.put_ca(&others);
    rules.put_list(&others, &[]);
    proxy.reload();
    expect_closed(&proxy, stays, "certificate_refused", "");
}

#[test]
fn a_reload_that_still_trusts_a_server_lets_its_sessions_go_on_and_one_that_does_not_ends_them() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let toml = front_to_back("", "", server.address())
        + &format!(
            "[upstream.back.tls]\ntrusted_certificate = \"{}\"\nserver_name = \"backend.internal\"\n\
             crl = \"{}\"\nclose_revoked = \"1s\"\n",
            rules.ca().display(),
            rules.list().display()
        );
    let mut proxy = ringway!().start(&toml);
    let mut client = Link::connect(proxy.address("front")).unwrap();
    client.ping(b"hello");
    rules.put_list(&house.ca, &[&house.client]);
    proxy.reload();
    pause(Duration::from_secs(2));
    client.ping(b"another one is revoked");
    rules.put_list(&house.ca, &[&house.backend]);
    proxy.reload();
    let address = client.local();
    assert_eq!(client.expect_end(), Ending::Reset);
    let record = proxy.record_of(address);
    record.expect(&[("end", "certificate_refused"), ("ended_by", "upstream")]);
    record.expect_reason(&["close_revoked: revoked"]);
}

/// The lists and CAs that groups judge servers by, as those of listeners above.
fn originate(rules: &Rules, close_revoked: &str) -> String {
    format!(
        "[upstream.back.tls]\ntrusted_certificate = \"{}\"\nserver_name = \"backend.internal\"\n\
         crl = \"{}\"\nclose_revoked = \"{close_revoked}\"\n",
        rules.ca().display(),
        rules.list().display()
    )
}

#[test]
fn a_server_s_ca_that_is_not_trusted_any_more_ends_its_sessions_resumed_ones_among_them() {
    let house = House::new();
    let others = Authority::root("Another CA");
    let rules = Rules::of(&house.ca);
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let toml = front_to_back("", "", server.address()) + &originate(&rules, "1s");
    let mut proxy = ringway!().workers(1).start(&toml);
    let links = [(); 2].map(|()| {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        link
    });
    rules.put_ca(&others);
    rules.put_list(&others, &[]);
    proxy.reload();
    let mut resumed = Vec::new();
    for mut link in links {
        assert_eq!(link.expect_end(), Ending::Reset);
        let record = proxy.record_of(link.local());
        record.expect(&[("end", "certificate_refused"), ("ended_by", "upstream")]);
        record.expect_reason(&["close_revoked: "]);
        resumed.push(record.flag("upstream_resumed"));
    }
    assert_eq!(resumed, [false, true]);
    // Nor does the session that it has left let anybody in again.
    let mut link = Link::connect(proxy.address("front")).unwrap();
    let _ = link.send(b"hello");
    assert_eq!(link.expect_end(), Ending::Reset);
    let record = proxy.record_of(link.local());
    record.expect(&[
        ("end", "certificate_refused"),
        ("phase", "upstream_handshake"),
    ]);
}

#[test]
fn a_client_that_came_back_by_a_ticket_is_judged_by_what_it_had_shown_at_first() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let echo = Peer::plain().echo();
    let keys = rules.closing("1s");
    let tls = rules.terminate(&house, &keys);
    let mut proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let goes = house.ca.issue(&tester());
    for version in [TLS13, TLS12] {
        rules.put_list(&house.ca, &[]);
        proxy.reload();
        let config = ClientTls::trusting(&house.ca)
            .version(version)
            .identity(&goes)
            .config();
        let [_first, resumed] = [(); 2].map(|()| {
            let mut link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
            link.ping(b"let in");
            link
        });
        assert!(resumed.resumed(), "{version:?}");
        rules.put_list(&house.ca, &[&goes]);
        proxy.reload();
        expect_closed(&proxy, resumed, "certificate_refused", "revoked");
    }
}

#[test]
fn a_time_that_a_reload_makes_shorter_holds_from_then_on() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let toml = |time: &str| {
        let tls = rules.terminate(&house, &rules.closing(time));
        front_to_back("", &tls, server.address()) + &originate(&rules, time)
    };
    let mut proxy = ringway!().start(&toml("1d"));
    let goes = client(&house, &house.client, &proxy);
    rules.put_list(&house.ca, &[&house.client]);
    proxy.reload_with(&toml("1s"));
    expect_closed(&proxy, goes, "certificate_refused", "revoked");
}

#[test]
fn a_new_connection_is_judged_by_the_new_list_whether_or_not_sessions_are_closed() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let keys = format!("crl = \"{}\"\n", rules.list().display());
    let tls = rules.terminate(&house, &keys);
    let toml = front_to_back("", &tls, server.address())
        + &originate(&rules, "1d").replace("close_revoked = \"1d\"\n", "");
    let mut proxy = ringway!().workers(1).start(&toml);
    let mut live = client(&house, &house.client, &proxy);
    let other = house.ca.issue(&tester());
    let refused = |proxy: &Proxy, phase: &str| {
        let tls = ClientTls::trusting(&house.ca).identity(&other).config();
        let link = Link::connect(proxy.address("front")).unwrap();
        let address = link.local();
        // A TLS 1.3 client hears of its refusal after its handshake.
        if let Ok(mut shaken) = link.start_tls(&tls, "localhost") {
            let _ = shaken.send(b"hello");
            assert_ne!(shaken.expect_end(), Ending::Clean);
        }
        let record = proxy.record_of(address);
        record.expect(&[("end", "certificate_refused"), ("phase", phase)]);
        record.expect_reason(&["revoked"]);
    };
    rules.put_list(&house.ca, &[&other]);
    proxy.reload();
    refused(&proxy, "downstream_handshake");
    rules.put_list(&house.ca, &[&house.backend]);
    proxy.reload();
    refused(&proxy, "upstream_handshake");
    live.ping(b"nothing closes it");
}

#[test]
fn a_list_that_is_watched_closes_without_being_asked_to() {
    let house = House::new();
    let rules = Rules::of(&house.ca);
    let echo = Peer::plain().echo();
    let keys = rules.closing("1s");
    let tls = rules.terminate(&house, &keys);
    let proxy = ringway!()
        .runtime("watch = true")
        .start(&front_to_back("", &tls, echo.address()));
    let goes = client(&house, &house.client, &proxy);
    rules.put_list(&house.ca, &[&house.client]);
    expect_closed(&proxy, goes, "certificate_refused", "revoked");
}
