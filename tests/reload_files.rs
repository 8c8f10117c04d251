//! Reloads that are asked for by command, by the admin server, and by files that change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringway_support::pki::{Credential, Leaf};
use ringway_support::proxy::Exit;
use ringway_support::reload::{Pair, replace};
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::{House, Link, Peer, Proxy, ringway, until};
use rustls::ClientConfig;
use tempfile::TempDir;

/// `ringway` with these arguments.
fn command(arguments: &[&str]) -> Exit {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    ringway!().command(&arguments)
}

/// The certificate that a client is shown.
fn shown(proxy: &Proxy, config: &Arc<ClientConfig>) -> Vec<u8> {
    let link = Link::connect_tls(proxy.address("front"), config, "localhost").unwrap();
    let chain = link.tls().peer_certificates().unwrap();
    chain[0].to_vec()
}

fn until_shown(proxy: &Proxy, config: &Arc<ClientConfig>, credential: &Credential) {
    until("the new certificate is shown", || {
        (shown(proxy, config) == credential.chain[0].to_vec()).then_some(())
    });
}

#[test]
fn a_command_reloads_by_the_admin_socket_and_says_what_changed_or_what_check_says() {
    let echo = Peer::plain().echo();
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    let admin = format!("[admin]\nlisten = \"unix:{socket}\"\n");
    let toml = |keys: &str| format!("{admin}{}", front_to_back(keys, "", echo.address()));
    let mut proxy = ringway!().start(&toml(""));

    proxy.write(&toml("idle_timeout = \"1h\""));
    let words = "~ listener.front.idle_timeout: \"10m\" -> \"1h\"";
    let diff = command(&["diff", "--socket", socket]);
    diff.expect_code(0).expect_words(&[words]);
    assert!(
        proxy.stderr_lines("reloaded").is_empty(),
        "diff changes nothing"
    );
    let reload = command(&["reload", "--socket", socket]);
    reload.expect_code(0).expect_words(&[words]);
    let again = command(&["reload", "--socket", socket]);
    again.expect_code(0).expect_words(&["nothing changes"]);

    proxy.write(&toml("idle_timeout = \"soon\""));
    let check = command(&["check", proxy.file().to_str().unwrap()]);
    for verb in ["diff", "reload"] {
        let refused = command(&[verb, "--socket", socket]);
        refused.expect_code(64);
        let rest = refused.stderr.strip_prefix(&check.stderr);
        let rest = rest.unwrap_or_else(|| panic!("{}\nand not\n{}", refused.stderr, check.stderr));
        assert_eq!(rest, "\nringway: not taken, everything stays as it was\n");
    }
    Link::connect(proxy.address("front")).unwrap().ping(b"echo");
    proxy.expect_alive();
}

#[test]
fn a_command_tells_a_process_to_reload_by_its_id() {
    let echo = Peer::plain().echo();
    let proxy = ringway!().start(&front_to_back("", "", echo.address()));
    command(&["reload", "--pid", &proxy.pid().to_string()]).expect_code(0);
    until("it reloads", || {
        (!proxy.stderr_lines("reloaded, generation 1").is_empty()).then_some(())
    });
    command(&["reload", "--pid", "0"]).expect_code(71);
    // Most programs would end by the signal, as would this one.
    let own = std::process::id().to_string();
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    command(&["reload", "--pid", &own])
        .expect_code(71)
        .expect_words(&[&format!("it is `{}`", name.trim())])
        .expect_words(&["cure: name the process of `ringway run`"]);
    command(&["reload", "--pid", &own, "--socket", "x"]).expect_code(2);
}

#[test]
fn two_files_are_compared_without_a_process() {
    let echo = Peer::plain();
    let folder = TempDir::new().unwrap();
    let paths = ["before.toml", "after.toml"].map(|name| folder.path().join(name));
    let texts = ["1", "2"].map(|workers| {
        format!(
            "[runtime]\nworkers = {workers}\n{}",
            front_to_back("", "", echo.address())
        )
    });
    for (path, text) in paths.iter().zip(texts) {
        fs::write(path, text).unwrap();
    }
    let [before, after] = paths.each_ref().map(|path| path.to_str().unwrap());
    let diff = command(&["diff", before, after]);
    diff.expect_code(0);
    assert_eq!(diff.stdout, "~ runtime.workers: 1 -> 2 (needs a restart)\n");
    fs::write(after, "nonsense").unwrap();
    command(&["diff", before, after]).expect_code(64);
}

#[test]
fn what_needs_a_restart_is_said_and_stays_as_it_was() {
    let echo = Peer::plain().echo();
    let toml = front_to_back("", "", echo.address());
    let mut proxy = ringway!().start(&toml);
    let text = fs::read_to_string(proxy.file()).unwrap();
    replace(proxy.file(), text.replace("workers = 2", "workers = 1"));
    for _ in 0..2 {
        proxy.reload();
    }
    let lines = proxy.stderr_lines("runtime.workers: 2 -> 1: needs a restart, stays as it was");
    assert_eq!(lines.len(), 2, "as long as it is so");
}

#[test]
fn a_watched_pair_that_is_replaced_file_by_file_is_used_when_it_is_whole() {
    let house = House::new();
    let next = house.ca.issue(&Leaf::server("localhost"));
    let pair = Pair::of(&house.edge);
    let echo = Peer::plain().echo();
    let toml = front_to_back("", &pair.toml(), echo.address());
    let proxy = ringway!().runtime("watch = true").start(&toml);
    let config = ClientTls::trusting(&house.ca).config();
    assert_eq!(shown(&proxy, &config), house.edge.chain[0].to_vec());

    pair.put_certificate(&next);
    until("the mismatch is said", || {
        (!proxy.stderr_lines("but not reloaded").is_empty()).then_some(())
    });
    assert_eq!(shown(&proxy, &config), house.edge.chain[0].to_vec());
    // Again a change, and again half a pair.
    pair.put_certificate(&next);
    ringway_support::wait::pause(Duration::from_millis(3500));
    assert_eq!(proxy.stderr_lines("but not reloaded").len(), 1, "said once");
    pair.put_key(&next);
    until_shown(&proxy, &config, &next);
}

#[test]
fn the_configuration_itself_is_watched_and_a_file_that_is_not_its_own_is_not() {
    let (one, two) = (Peer::plain().echo(), Peer::plain().echo());
    let proxy = ringway!()
        .runtime("watch = true")
        .start(&front_to_back("", "", one.address()));
    fs::write(proxy.file().with_file_name("other"), "not ours").unwrap();
    proxy.write(&front_to_back("", "", two.address()));
    until("it reloads", || {
        (!proxy.stderr_lines("reloaded, generation 1").is_empty()).then_some(())
    });
    Link::connect(proxy.address("front"))
        .unwrap()
        .ping(b"hello");
    assert_eq!(two.counts().accepted(), 1);
}

/// What Kubernetes does: a folder of the new files, and one link that is swapped.
fn swap(root: &Path, version: &str, credential: &Credential) {
    let folder = root.join(version);
    fs::create_dir(&folder).unwrap();
    fs::copy(&credential.certificate, folder.join("tls.crt")).unwrap();
    fs::copy(&credential.private_key, folder.join("tls.key")).unwrap();
    symlink(version, root.join("..tmp")).unwrap();
    fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
}

#[test]
fn a_link_that_is_swapped_is_seen_each_time() {
    let house = House::new();
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    swap(root, "..1", &house.edge);
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), root.join(name)).unwrap();
    }
    let tls = format!(
        "[listener.tls]\ncertificate = \"{0}/tls.crt\"\nprivate_key = \"{0}/tls.key\"\n",
        root.display()
    );
    let echo = Peer::plain().echo();
    let proxy = ringway!()
        .runtime("watch = true")
        .start(&front_to_back("", &tls, echo.address()));
    let config = ClientTls::trusting(&house.ca).config();
    for version in ["..2", "..3"] {
        let next = house.ca.issue(&Leaf::server("localhost"));
        swap(root, version, &next);
        until_shown(&proxy, &config, &next);
    }
}

#[test]
fn a_certificate_that_ends_within_30_days_is_warned_of_at_start_and_at_each_reload() {
    let house = House::new();
    let short = Leaf::server("localhost").ends_in(Duration::from_secs(12 * 24 * 3600 + 60));
    let pair = Pair::of(&house.ca.issue(&short));
    let echo = Peer::plain().echo();
    let mut proxy = ringway!().start(&front_to_back("", &pair.toml(), echo.address()));
    let words = format!("in {} ends in 12 days", pair.certificate().display());
    let line = proxy.stderr_line(&words);
    assert!(
        line.contains("listener.front: the certificate of"),
        "{line}"
    );
    proxy.reload();
    assert_eq!(proxy.stderr_lines(&words).len(), 2);
    pair.put(&house.edge);
    proxy.reload();
    assert_eq!(proxy.stderr_lines(&words).len(), 2);
}
