//! The configuration read anew while connections go on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::sync::Arc;

use ringway_support::link::Address;
use ringway_support::peer::{ClosedPort, Service};
use ringway_support::pki::{Authority, Leaf, tester};
use ringway_support::proxy::until_refused;
use ringway_support::reload::{Pair, replace};
use ringway_support::tls::{ClientTls, ServerTls};
use ringway_support::toml::{front_to_back, listener, upstream};
use ringway_support::{Ending, House, Link, Peer, Proxy, Record, ringway, until};
use rustls::ClientConfig;
use tempfile::TempDir;

/// A server that says its word to whoever comes, and then echoes.
fn speaker(word: &'static str) -> Service {
    Peer::plain().serve(move |mut link| {
        let _ = link.send(word.as_bytes());
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = link.receive_some(&mut bytes) {
            if link.send(&bytes[..count]).is_err() {
                return;
            }
        }
        let _ = link.finish();
    })
}

fn expect_word(to: &Address, word: &str) -> Link {
    let mut link = Link::connect(to).unwrap();
    assert_eq!(link.receive(word.len()), word.as_bytes());
    link
}

fn finish(mut link: Link) {
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
}

/// One connection to an echo, and its record.
fn visit(proxy: &Proxy, config: &Arc<ClientConfig>) -> Record {
    let mut link = Link::connect_tls(proxy.address("front"), config, "localhost").unwrap();
    link.ping(b"hello");
    let local = link.local();
    finish(link);
    proxy.record_of(local)
}

/// The certificate that a client is shown.
fn shown(proxy: &Proxy, config: &Arc<ClientConfig>) -> Vec<u8> {
    let link = Link::connect_tls(proxy.address("front"), config, "localhost").unwrap();
    let chain = link.tls().peer_certificates().unwrap();
    chain[0].to_vec()
}

#[test]
fn new_connections_go_by_the_new_configuration_and_old_ones_go_on_by_theirs() {
    let (one, two) = (speaker("one"), speaker("two"));
    let mut proxy = ringway!().start(&front_to_back("", "", one.address()));
    let front = proxy.address("front").clone();
    let mut before = expect_word(&front, "one");
    let idle = "idle_timeout = \"1h\"";
    proxy.reload_with(&front_to_back(idle, "", two.address()));
    for _ in 0..8 {
        finish(expect_word(&front, "two"));
    }
    before.ping(b"still with the first");
    let local = before.local();
    finish(before);
    let record = proxy.record_of(local);
    record.expect(&[
        ("end", "finished"),
        ("server", &one.address().to_string()),
        ("listener", "front"),
    ]);
}

#[test]
fn a_connection_is_told_with_the_names_of_the_plan_that_it_began_with() {
    let (one, two) = (speaker("one"), speaker("two"));
    let first = listener("front", "blue", "", "") + &upstream("blue", &[one.address()], "");
    // The groups are numbered the other way round.
    let second = listener("front", "green", "", "")
        + &upstream("amber", &[one.address()], "")
        + &upstream("green", &[two.address()], "")
        + &listener("side", "amber", "", "");
    let mut proxy = ringway!().start(&first);
    let before = expect_word(proxy.address("front"), "one");
    proxy.reload_with(&second);
    let after = expect_word(proxy.address("front"), "two");
    for (link, group) in [(before, "blue"), (after, "green")] {
        let local = link.local();
        finish(link);
        proxy.record_of(local).expect(&[("upstream", group)]);
    }
}

#[test]
fn listeners_come_and_go_and_what_lives_on_them_goes_on() {
    let echo = Peer::plain().echo();
    let group = upstream("back", &[echo.address()], "");
    let (front, side) = (
        listener("front", "back", "", ""),
        listener("side", "back", "", ""),
    );
    let mut proxy = ringway!().start(&(front.clone() + &group));
    proxy.reload_with(&(front.clone() + &side + &group));
    let side_at = proxy.address("side").clone();
    let mut link = Link::connect(&side_at).unwrap();
    link.ping(b"a new listener");
    // The first is gone, and the second moves to its number.
    let front_at = proxy.address("front").clone();
    let mut old = Link::connect(&front_at).unwrap();
    old.ping(b"before");
    proxy.reload_with(&(side + &group));
    until_refused(&front_at);
    old.ping(b"its listener is gone");
    link.ping(b"its listener has another number");
    let mut new = Link::connect(&side_at).unwrap();
    new.ping(b"the same socket");
    for (link, name) in [(old, "front"), (link, "side"), (new, "side")] {
        let local = link.local();
        finish(link);
        proxy.record_of(local).expect(&[("listener", name)]);
    }
}

#[test]
fn a_unix_socket_is_kept_taken_away_and_made_again() {
    let echo = Peer::plain().echo();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.sock");
    let group = upstream("back", &[echo.address()], "");
    let with = listener("front", "back", "", "")
        + &format!(
            "[[listener]]\nname = \"local\"\nbind = \"unix:{}\"\nupstream = \"back\"\n",
            path.display()
        )
        + &group;
    let without = listener("front", "back", "", "") + &group;
    let address = Address::Unix(path.clone());
    let mut proxy = ringway!().start(&with);
    let mut link = Link::connect(&address).unwrap();
    proxy.reload();
    link.ping(b"kept");
    Link::connect(&address).unwrap().ping(b"kept, too");
    proxy.reload_with(&without);
    until("the socket is gone", || (!path.exists()).then_some(()));
    link.ping(b"goes on");
    proxy.reload_with(&with);
    Link::connect(&address).unwrap().ping(b"made again");
}

#[test]
fn a_refused_configuration_leaves_everything_as_it_was_with_the_words_of_check() {
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&front_to_back("", "", echo.address()));
    let mut link = Link::connect(proxy.address("front")).unwrap();
    link.ping(b"before");
    let broken = front_to_back("idle_timeout = \"soon\"\nverify = 7", "", echo.address());
    proxy.write(&broken);
    let said = proxy.reload_refused();
    let check = ringway!().command(&["check".as_ref(), proxy.file().as_os_str()]);
    check.expect_code(64);
    assert!(check.stderr.matches("error: ").count() >= 2);
    assert!(
        said.contains(&check.stderr),
        "check says\n{}\nand the reload\n{said}",
        check.stderr
    );
    link.ping(b"after");
    Link::connect(proxy.address("front")).unwrap().ping(b"new");
    proxy.reload_with(&front_to_back("", "", echo.address()));
    proxy.expect_alive();
}

#[test]
fn an_address_that_cannot_be_bound_leaves_everything_as_it_was() {
    let echo = Peer::plain().echo();
    let other = speaker("other");
    let taken = Peer::plain();
    let open = "[sandbox]\nlandlock = false\n";
    let first = front_to_back("", "", echo.address()) + open;
    let mut proxy = ringway!().start(&first);
    let folder = TempDir::new().unwrap();
    let made = folder.path().join("made.sock");
    // Others that could be bound are let go again.
    let second = front_to_back("", "", other.address())
        + &listener("free", "back", "", "")
        + &format!(
            "[[listener]]\nname = \"side\"\nbind = [\"unix:{}\", \"{}\"]\nupstream = \"back\"\n\
             [sandbox]\nlandlock = false\n",
            made.display(),
            taken.address()
        );
    proxy.write(&second);
    let files = proxy.open_files();
    for _ in 0..3 {
        let said = proxy.reload_refused();
        assert!(said.contains("another process listens there"), "{said}");
        assert!(!made.exists());
    }
    proxy.wait_no_more_files(files, 0);
    Link::connect(proxy.address("front")).unwrap().ping(b"echo");
    proxy.expect_alive();
}

#[test]
fn addresses_that_were_bound_for_a_reload_that_is_refused_are_given_up() {
    let echo = Peer::plain().echo();
    let taken = Peer::plain();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("early.sock");
    let free = ClosedPort::new();
    // A folder that is new would need a restart otherwise: see docs/sandbox.md.
    let open = "[sandbox]\nlandlock = false\n";
    let first = front_to_back("", "", echo.address()) + open;
    let mut proxy = ringway!().start(&first);
    let early = format!(
        "[[listener]]\nname = \"early\"\nbind = [\"unix:{}\", \"{}\"]\nupstream = \"back\"\n",
        path.display(),
        free.address()
    );
    let late = format!(
        "[[listener]]\nname = \"late\"\nbind = \"{}\"\nupstream = \"back\"\n",
        taken.address()
    );
    let files = proxy.open_files().sockets;
    proxy.write(&format!("{first}{early}{late}"));
    let said = proxy.reload_refused();
    assert!(said.contains("listener \"late\" cannot listen"), "{said}");
    assert!(!path.exists());
    until_refused(&free.address());
    assert_eq!(proxy.open_files().sockets, files);
    proxy.reload_with(&format!("{first}{early}"));
    for address in [Address::Unix(path), free.address()] {
        Link::connect(&address).unwrap().ping(b"bound now");
    }
}

#[test]
fn a_new_certificate_is_shown_after_the_reload_and_a_mismatch_never_is() {
    let house = House::new();
    let next = house.ca.issue(&Leaf::server("localhost"));
    let pair = Pair::of(&house.edge);
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&front_to_back("", &pair.toml(), echo.address()));
    let config = ClientTls::trusting(&house.ca).config();
    assert_eq!(shown(&proxy, &config), house.edge.chain[0].to_vec());

    pair.put_certificate(&next);
    let said = proxy.reload_refused();
    assert!(said.contains("the key does not belong to"), "{said}");
    assert_eq!(shown(&proxy, &config), house.edge.chain[0].to_vec());

    pair.put_key(&next);
    proxy.reload();
    assert_eq!(shown(&proxy, &config), next.chain[0].to_vec());
}

#[test]
fn servers_are_shown_a_new_client_certificate_once_its_pair_is_whole() {
    let house = House::new();
    let next = house.ca.issue(&tester());
    let pair = Pair::of(&house.client);
    let server = Peer::tls(
        ServerTls::with(&house.backend)
            .require_client(&house.ca)
            .config(),
    );
    let tls = house.originate("back") + &pair.toml().replace("[listener.tls]\n", "");
    let toml = listener("front", "back", "", "") + &upstream("back", &[server.address()], &tls);
    let mut proxy = ringway!().start(&toml);
    let shown = |proxy: &Proxy| {
        let mut client = Link::connect(proxy.address("front")).unwrap();
        client.send(b"hello").unwrap();
        let mut link = server.accept();
        assert_eq!(link.receive(5), b"hello");
        link.tls().peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(shown(&proxy), house.client.chain[0].to_vec());
    pair.put_key(&next);
    let said = proxy.reload_refused();
    assert!(said.contains("the key does not belong to"), "{said}");
    assert_eq!(shown(&proxy), house.client.chain[0].to_vec());
    pair.put_certificate(&next);
    proxy.reload();
    assert_eq!(shown(&proxy), next.chain[0].to_vec());
}

#[test]
fn another_client_ca_decides_over_new_clients_and_live_ones_go_on() {
    let house = House::new();
    let other = Authority::root("another root");
    let stranger = other.issue(&tester());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("clients.crt");
    replace(&file, std::fs::read(house.ca.file()).unwrap());
    let echo = Peer::plain().echo();
    let tls = format!(
        "{}client_ca = \"{}\"\nverify_client = \"required\"\n",
        house.terminate(),
        file.display()
    );
    let mut proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let known = ClientTls::trusting(&house.ca).identity(&house.client);
    let unknown = ClientTls::trusting(&house.ca).identity(&stranger);
    let passes = |proxy: &Proxy, client: &ClientTls| {
        let link = Link::connect_tls(proxy.address("front"), &client.config(), "localhost");
        let Ok(mut link) = link else { return false };
        // A TLS 1.3 client hears of its refusal after its handshake.
        link.send(b"ping").is_ok() && link.receive_some(&mut [0; 4]).is_ok_and(|count| count > 0)
    };
    let config = known.config();
    let mut live = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    live.ping(b"before");
    assert!(passes(&proxy, &known) && !passes(&proxy, &unknown));

    replace(&file, std::fs::read(other.file()).unwrap());
    proxy.reload();
    assert!(!passes(&proxy, &known) && passes(&proxy, &unknown));
    live.ping(b"after");
    // The ticket that it has was sealed under the other policy.
    let resumed = Link::connect_tls(proxy.address("front"), &config, "localhost");
    let refused = match resumed {
        Ok(mut link) => link.send(b"x").is_err() || link.receive_some(&mut [0; 1]).is_err(),
        Err(_) => true,
    };
    assert!(refused, "a ticket let in a client of the CA before");
}

#[test]
fn tickets_survive_a_reload_that_leaves_the_policy_as_it_is() {
    let house = House::new();
    let pair = Pair::of(&house.edge);
    let echo = Peer::plain().echo();
    let other = Peer::plain().echo();
    let tls = pair.toml();
    let mut proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
    let config = ClientTls::trusting(&house.ca).config();
    assert!(!visit(&proxy, &config).flag("downstream_resumed"));
    proxy.reload();
    assert!(
        visit(&proxy, &config).flag("downstream_resumed"),
        "nothing changed"
    );
    let longer = format!("{tls}session_lifetime = \"2d\"\n");
    proxy.reload_with(&front_to_back("", &longer, other.address()));
    assert!(
        visit(&proxy, &config).flag("downstream_resumed"),
        "another lifetime"
    );
    pair.put(&house.ca.issue(&Leaf::server("localhost")));
    proxy.reload();
    assert!(
        !visit(&proxy, &config).flag("downstream_resumed"),
        "another key"
    );
}

#[test]
fn sessions_with_servers_survive_a_reload_that_leaves_their_tls_as_it_is() {
    let house = House::new();
    let server = Peer::tls(ServerTls::with(&house.backend).config()).echo();
    let tls = house.originate("back");
    let toml = |keys: &str| {
        let group = upstream("back", &[server.address()], &format!("{keys}\n{tls}"));
        listener("front", "back", "", "") + &group
    };
    let mut proxy = ringway!().workers(1).start(&toml(""));
    let visit = |proxy: &Proxy| {
        let mut link = Link::connect(proxy.address("front")).unwrap();
        link.ping(b"hello");
        let local = link.local();
        finish(link);
        proxy.record_of(local).flag("upstream_resumed")
    };
    assert!(!visit(&proxy));
    assert!(visit(&proxy));
    proxy.reload();
    assert!(visit(&proxy), "nothing changed");
    proxy.reload_with(&toml("max_connections = 7"));
    assert!(visit(&proxy), "the group changed, its TLS did not");
}
