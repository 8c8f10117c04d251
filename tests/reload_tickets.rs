//! Session tickets through reloads: keys that come and go, policies that change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringway_support::peer::Service;
use ringway_support::reload::replace;
use ringway_support::tls::{ClientTls, TLS12, TLS13};
use ringway_support::toml::front_to_back;
use ringway_support::{Ending, House, Link, Peer, Proxy, Record, ringway};
use rustls::{ClientConfig, SupportedProtocolVersion};
use tempfile::TempDir;

const VERSIONS: [&SupportedProtocolVersion; 2] = [TLS12, TLS13];

/// One connection to an echo, with the sessions that `client` has.
fn visit(proxy: &Proxy, client: &Arc<ClientConfig>) -> Record {
    let mut link = Link::connect_tls(proxy.address("front"), client, "localhost").unwrap();
    link.ping(b"a ticket, please");
    let local = link.local();
    link.finish().unwrap();
    assert_eq!(link.expect_end(), Ending::Clean);
    proxy.record_of(local)
}

fn resumes(proxy: &Proxy, client: &Arc<ClientConfig>) -> bool {
    visit(proxy, client).flag("downstream_resumed")
}

/// What a listener with key files needs, and an echo behind it.
struct Rig {
    house: House,
    echo: Service,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self {
            house: House::new(),
            echo: Peer::plain().echo(),
            folder: TempDir::new().unwrap(),
        }
    }

    /// A key file of this name, with this key.
    fn key(&self, name: &str, key: u8) -> PathBuf {
        let path = self.folder.path().join(name);
        replace(&path, [key; 80]);
        path
    }

    fn toml(&self, keys: &[&Path]) -> String {
        let keys = keys.iter().map(|it| format!("\"{}\"", it.display()));
        let keys: Vec<String> = keys.collect();
        self.terminating(&format!("session_ticket_keys = [{}]\n", keys.join(", ")))
    }

    fn terminating(&self, keys: &str) -> String {
        let tls = self.house.terminate() + keys;
        front_to_back("", &tls, self.echo.address())
    }

    /// With a full handshake behind it.
    fn client(
        &self,
        proxy: &Proxy,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let client = ClientTls::trusting(&self.house.ca)
            .version(version)
            .config();
        assert!(!resumes(proxy, &client), "it had no session");
        client
    }
}

#[test]
fn a_newer_key_issues_the_tickets_after_a_reload_and_the_older_one_still_opens_its_own() {
    let rig = Rig::new();
    let (old, new) = (rig.key("old", 1), rig.key("new", 2));
    let other = ringway!().start(&rig.toml(&[&new]));
    for version in VERSIONS {
        let mut proxy = ringway!().start(&rig.toml(&[&old]));
        let [kept, shown, late] = [(); 3].map(|()| rig.client(&proxy, version));
        proxy.reload_with(&rig.toml(&[&new, &old]));
        assert!(
            resumes(&proxy, &kept),
            "{version:?}: the old key still opens"
        );
        assert!(!resumes(&other, &shown), "{version:?}: that has not got it");
        let fresh = rig.client(&proxy, version);
        assert!(
            resumes(&other, &fresh),
            "{version:?}: issued under the new key"
        );
        proxy.reload_with(&rig.toml(&[&new]));
        assert!(
            !resumes(&proxy, &late),
            "{version:?}: its key was taken out"
        );
        assert!(resumes(&proxy, &late), "{version:?}: and has a ticket anew");
    }
}

#[test]
fn keys_that_move_from_file_to_file_are_known_by_what_the_files_hold() {
    let rig = Rig::new();
    for version in VERSIONS {
        let files = [rig.key("current", 1), rig.key("previous", 9)];
        let files = files.each_ref().map(PathBuf::as_path);
        let mut proxy = ringway!().start(&rig.toml(&files));
        let [first, forgotten] = [(); 2].map(|()| rig.client(&proxy, version));
        rig.key("previous", 1);
        rig.key("current", 2);
        proxy.reload();
        assert!(resumes(&proxy, &first), "{version:?}");
        let second = rig.client(&proxy, version);
        rig.key("previous", 2);
        rig.key("current", 3);
        proxy.reload();
        assert!(resumes(&proxy, &second), "{version:?}");
        assert!(!resumes(&proxy, &forgotten), "{version:?}: its key is gone");
    }
}

#[test]
fn keys_of_files_and_keys_that_are_made_do_not_open_each_others_tickets() {
    let rig = Rig::new();
    let key = rig.key("key", 1);
    let mut proxy = ringway!().start(&rig.toml(&[&key]));
    let of_file = rig.client(&proxy, TLS13);
    proxy.reload_with(&rig.terminating(""));
    assert!(!resumes(&proxy, &of_file));
    let made = rig.client(&proxy, TLS13);
    proxy.reload_with(&rig.toml(&[&key]));
    assert!(!resumes(&proxy, &made));
    assert!(resumes(&proxy, &made));
}

/// Each is another policy than the one before.
fn policies(house: &House) -> [String; 6] {
    let verified = format!(
        "client_ca = \"{}\"\nverify_client = \"required\"\n",
        house.ca.file().display()
    );
    let revocations = house.ca.crl(&[]);
    [
        String::new(),
        verified.replace("required", "optional"),
        verified.clone(),
        format!("{verified}verify_depth = 3\n"),
        format!("{verified}allow_identities = [\"spiffe://example.org/tester\"]\n"),
        format!("{verified}crl = \"{}\"\n", revocations.display()),
    ]
}

#[test]
fn after_another_policy_the_first_handshake_is_full_whoever_made_the_keys() {
    let rig = Rig::new();
    let key = rig.key("key", 1);
    let from_file = format!("session_ticket_keys = [\"{}\"]\n", key.display());
    for (keys, version) in [
        ("", TLS12),
        ("", TLS13),
        (&from_file, TLS12),
        (&from_file, TLS13),
    ] {
        let client = ClientTls::trusting(&rig.house.ca);
        let client = client.version(version).identity(&rig.house.client).config();
        let mut proxy = ringway!().start(&rig.terminating(keys));
        for (turn, policy) in policies(&rig.house).iter().enumerate() {
            if turn > 0 {
                proxy.reload_with(&rig.terminating(&format!("{keys}{policy}")));
            }
            let words = format!("{version:?} {keys}: {policy}");
            assert!(!resumes(&proxy, &client), "of the policy before: {words}");
            assert!(resumes(&proxy, &client), "{words}");
            proxy.reload();
            assert!(resumes(&proxy, &client), "the same policy: {words}");
        }
    }
}

#[test]
fn a_ticket_of_a_protocol_that_is_not_spoken_any_more_leads_to_a_full_handshake() {
    let rig = Rig::new();
    let speaking = |version: &str| rig.terminating(&format!("protocols = [\"{version}\"]\n"));
    for (before, after) in [("TLSv1.2", "TLSv1.3"), ("TLSv1.3", "TLSv1.2")] {
        let client = ClientTls::trusting(&rig.house.ca).config();
        let mut proxy = ringway!().start(&speaking(before));
        assert!(!resumes(&proxy, &client) && resumes(&proxy, &client));
        proxy.reload_with(&speaking(after));
        let record = visit(&proxy, &client);
        record.expect(&[("downstream_protocol", after)]);
        assert!(!record.flag("downstream_resumed"), "{record}");
    }
}
