//! Servers with names that come by a reload, and the files of /etc that these are looked up with.

use std::path::Path;

use ringway_support::reload::replace;
use ringway_support::toml::listener;
use ringway_support::{Link, Peer, Proxy, ringway};
use tempfile::TempDir;

use crate::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        Needs::Mounts,
        "the_first_server_with_a_name_is_taken_and_stays_when_etc_hosts_is_replaced",
        first_name,
    ),
    (
        Needs::Mounts,
        "resolv_conf_may_be_replaced_before_a_name_that_is_not_in_hosts_asks_for_it",
        second_name,
    ),
    (
        Needs::Mounts,
        "a_replaced_resolv_conf_that_no_name_needed_so_far_is_refused_with_the_cure",
        first_need,
    ),
    (
        Needs::Mounts,
        "a_first_name_whose_files_were_replaced_is_refused_with_the_cure",
        replaced_before,
    ),
    (
        Needs::Mounts,
        "with_a_name_from_the_start_or_etc_kept_readable_a_file_may_be_replaced",
        kept_readable,
    ),
];

const NAMED: &str = "127.0.0.1 backend.test\n";
const SIGHUP: i32 = 1;

/// What stands for /etc.
fn etc() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("hosts"), NAMED).unwrap();
    // Nobody answers there; no name of these tests is asked for.
    std::fs::write(folder.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    folder
}

fn toml(server: &str, sandbox: &str) -> String {
    let upstream = format!("[upstream.back]\nservers = [\"{server}\"]\nresolve_ttl_min = \"1s\"\n");
    listener("front", "back", "", "") + &upstream + sandbox
}

fn serves(proxy: &Proxy) {
    Link::connect(proxy.address("front"))
        .unwrap()
        .ping(b"hello");
}

/// By address and by name.
fn servers(address: &ringway_support::link::Address) -> [String; 2] {
    [
        address.to_string(),
        format!("backend.test:{}", address.port()),
    ]
}

fn replace_hosts(etc: &Path) {
    replace(&etc.join("hosts"), "127.0.0.2 another.test\n");
}

fn first_name() {
    let (echo, etc) = (Peer::plain().echo(), etc());
    let [by_address, by_name] = servers(echo.address());
    let mut proxy = ringway!().etc(etc.path()).start(&toml(&by_address, ""));
    proxy.reload_with(&toml(&by_name, ""));
    serves(&proxy);
    replace_hosts(etc.path());
    let line = proxy.stderr_line("/etc/hosts was replaced");
    assert!(
        line.contains("WARN") && line.contains("Restart Ringway"),
        "{line}"
    );
    serves(&proxy);
    // Nor is a reload refused for it, or the name asked for elsewhere.
    proxy.reload_with(&toml(
        &by_name,
        "\n[upstream.other]\nservers = [\"127.0.0.1:1\"]\n",
    ));
    serves(&proxy);
}

fn second_name() {
    let (echo, etc) = (Peer::plain().echo(), etc());
    let [by_address, by_name] = servers(echo.address());
    let mut proxy = ringway!().etc(etc.path()).start(&toml(&by_address, ""));
    proxy.reload_with(&toml(&by_name, ""));
    // So far /etc/hosts knew every name.
    replace(&etc.path().join("resolv.conf"), "nameserver 127.0.0.2\n");
    let other = "\n[upstream.other]\nservers = [\"nobody.test:1\"]\n";
    proxy.reload_with(&toml(&by_name, other));
    let line = proxy.stderr_line("/etc/resolv.conf was replaced");
    assert!(line.contains("WARN"), "{line}");
    serves(&proxy);
}

fn first_need() {
    let (echo, etc) = (Peer::plain().echo(), etc());
    let [_, by_name] = servers(echo.address());
    let by_address = echo.address().to_string();
    let resolver = "resolver = \"127.0.0.1:9\"\n";
    let ringway = ringway!().etc(etc.path()).runtime(resolver);
    let mut proxy = ringway.start(&toml(&by_address, ""));
    proxy.reload_with(&toml(&by_name, ""));
    replace(&etc.path().join("resolv.conf"), "nameserver 127.0.0.2\n");
    let text = std::fs::read_to_string(proxy.file()).unwrap();
    assert!(text.contains(resolver), "{text}");
    std::fs::write(proxy.file(), text.replace(resolver, "")).unwrap();
    let said = proxy.reload_refused();
    assert!(
        said.contains("with /etc/resolv.conf, which was replaced since the start"),
        "{said}"
    );
    serves(&proxy);
}

fn replaced_before() {
    let (echo, etc) = (Peer::plain().echo(), etc());
    let [by_address, by_name] = servers(echo.address());
    let proxy = ringway!().etc(etc.path()).start(&toml(&by_address, ""));
    replace(&etc.path().join("hosts"), NAMED);
    proxy.write(&toml(&by_name, ""));
    proxy.signal(SIGHUP);
    for words in [
        "not reloaded, everything stays as it was",
        "a name is looked up with /etc/hosts, which was replaced since the start",
        "servers = [\"backend.test:",
        "cure: restart ringway; `read = [\"/etc\"]` in [sandbox] keeps such files readable",
    ] {
        proxy.wait_stderr(&[words]);
    }
    assert!(!proxy.stderr().contains("with /etc/resolv.conf"));
    serves(&proxy);
}

fn kept_readable() {
    let echo = Peer::plain().echo();
    let [by_address, by_name] = servers(echo.address());
    let read = "[sandbox]\nread = \"/etc\"\n";
    for (first, sandbox) in [(&by_address, read), (&by_name, "")] {
        let etc = etc();
        let mut proxy = ringway!().etc(etc.path()).start(&toml(first, sandbox));
        replace(&etc.path().join("hosts"), NAMED);
        proxy.reload_with(&toml(&by_name, sandbox));
        serves(&proxy);
        assert!(
            !proxy.stderr().contains("was replaced"),
            "{}",
            proxy.stderr()
        );
    }
}
