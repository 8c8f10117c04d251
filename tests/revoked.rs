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
use ringway_support::tls::{ClientTls, ServerTls};
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
    let keys = format!(
        "close_revoked = \"1s\"\ncrl = \"{}\"\n",
        rules.list().display()
    );
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
