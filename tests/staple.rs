//! OCSP responses that a listener staples, as OpenSSL's client sees them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_support::ocsp::{Responder, Status, ago, with_times};
use ringway_support::openssl::{SClient, Said};
use ringway_support::peer::Service;
use ringway_support::pki::Leaf;
use ringway_support::reload::replace;
use ringway_support::toml::front_to_back;
use ringway_support::{House, Peer, Proxy, ringway, until};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

/// A listener with a response in a file that changes.
struct Scene {
    house: House,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            house: House::new(),
            folder: TempDir::new().unwrap(),
        }
    }

    fn good(&self) -> Vec<u8> {
        Responder::of(&self.house.ca).answer(&self.house.edge)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("edge.ocsp")
    }

    fn put(&self, response: &[u8]) {
        replace(&self.file(), response);
    }

    fn start(&self, response: &[u8]) -> (Proxy, Service) {
        self.put(response);
        let echo = Peer::plain().echo();
        let line = format!("ocsp_response = \"{}\"\n", self.file().display());
        let tls = self.house.terminate() + &line;
        let proxy = ringway!().start(&front_to_back("", &tls, echo.address()));
        (proxy, echo)
    }

    fn visit(&self, proxy: &Proxy, version: &str) -> Said {
        SClient::to(proxy.address("front"))
            .verify(&self.house.ca.file(), "localhost")
            .args(&["-status", version])
            .talk("xyzzy-42", "xyzzy-42")
    }

    fn sees(&self, proxy: &Proxy, words: &str) {
        for version in ["-tls1_2", "-tls1_3"] {
            self.visit(proxy, version).expect(words);
        }
    }
}

const STAPLED: &str = "OCSP Response Status: successful";
const NOTHING: &str = "OCSP response: no response sent";

#[test]
fn a_reload_staples_the_new_response_and_none_that_is_out_of_date() {
    let scene = Scene::new();
    let (mut proxy, _echo) = scene.start(&scene.good());
    scene.sees(&proxy, STAPLED);

    let signer = scene.house.ca.issue(&Leaf::responder("The successor"));
    let next = Responder::of(&scene.house.ca).signer(&signer);
    let next = next.answer(&scene.house.edge);
    scene.put(&next);
    proxy.reload();
    scene.sees(&proxy, "The successor");

    scene.put(&with_times(&next, ago(HOUR * 48), ago(HOUR)));
    proxy.reload();
    scene.sees(&proxy, NOTHING);
    let warned = proxy.stderr_lines("ended less than a day ago and is not stapled");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("the OCSP response for localhost"));

    scene.put(&next);
    proxy.reload();
    scene.sees(&proxy, "The successor");
}

#[test]
fn a_wrong_response_refuses_the_reload_in_the_words_of_check_and_the_old_one_stays() {
    let scene = Scene::new();
    let (proxy, _echo) = scene.start(&scene.good());
    let revoked = Responder::of(&scene.house.ca).status(Status::Revoked);
    let other = scene.house.ca.issue(&Leaf::server("localhost"));
    for (wrong, words) in [
        (revoked.answer(&scene.house.edge), "was revoked on"),
        (
            Responder::of(&scene.house.ca).answer(&other),
            "the OCSP response is for serial number",
        ),
        (b"nonsense".to_vec(), "this is not an OCSP response in DER"),
    ] {
        scene.put(&wrong);
        let check = ringway!().command(&[OsStr::new("check"), proxy.file().as_os_str()]);
        check.expect_code(64).expect_words(&[words]);
        let refused = proxy.reload_refused();
        assert!(refused.contains(words), "{refused}");
        scene.sees(&proxy, STAPLED);
    }
}

#[test]
fn a_response_that_ends_while_the_proxy_runs_is_not_stapled_any_more_and_the_log_says_so() {
    let scene = Scene::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = UNIX_EPOCH + Duration::from_secs(now.as_secs() + 5);
    let (proxy, _echo) = scene.start(&with_times(&scene.good(), ago(HOUR), end));
    until("nothing is stapled", || {
        let before = SystemTime::now();
        let said = scene.visit(&proxy, "-tls1_3");
        let after = SystemTime::now();
        let is_stapled = said.text.contains(STAPLED);
        assert!(!is_stapled || before < end, "stapled after its end");
        assert!(is_stapled || after >= end, "not stapled before its end");
        (!is_stapled).then_some(())
    });
    until("the log says so", || {
        let ended = proxy.stderr_lines("ended less than a day ago and is not stapled");
        (!ended.is_empty()).then_some(())
    });
}
