//! Files of logs under a proxy that is no longer root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ringway_support::toml::front_to_back;
use ringway_support::{House, Peer, until};

use crate::proxy::exchange;
use crate::scene::{NOBODY, as_nobody, folder_with_log, give, open};
use crate::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        Needs::Root,
        "access_log_and_key_log_are_opened_anew_by_the_user_that_they_belong_to",
        logs,
    ),
    (
        Needs::Root,
        "a_key_log_of_root_is_refused_at_the_start_with_the_cure",
        key_log_of_root,
    ),
];

const SIGUSR1: i32 = 10;

fn key_log(house: &House, file: &Path) -> String {
    let file = file.display();
    let tls = house.terminate();
    format!("{tls}key_log = \"{file}\"\nkey_log_sources = \"127.0.0.1\"\n")
}

fn logs() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let (_folder, log) = folder_with_log();
    let files = ["access.log", "keys"].map(|name| log.join(name));
    let toml = front_to_back("", &key_log(&house, &files[1]), echo.address());
    let mut proxy = as_nobody().access(files[0].to_str().unwrap()).start(&toml);
    let have_lines = |what: &str| {
        exchange(&proxy, &house);
        until(what, || {
            let written = |file| fs::metadata(file).is_ok_and(|it| it.len() > 0);
            files.iter().all(written).then_some(())
        });
    };
    have_lines("lines");
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().uid(), NOBODY);
        fs::rename(file, file.with_extension("1")).unwrap();
    }
    proxy.signal(SIGUSR1);
    until("new files", || {
        files.iter().all(|file| file.exists()).then_some(())
    });
    have_lines("lines in the new files");

    // A reload opens it by itself where the path is another one.
    let moved = log.join("other-keys");
    open(proxy.file().parent().unwrap());
    for file in [&house.edge.certificate, &house.edge.private_key] {
        open(file.parent().unwrap());
        give(file, NOBODY);
    }
    let [before, after] = [&files[1], &moved].map(|file| file.display().to_string());
    let again = toml.replace(&before, &after);
    proxy.reload_with(&again);
    exchange(&proxy, &house);
    until("secrets after the reload", || {
        let secrets = fs::read_to_string(&moved).ok()?;
        secrets.contains("CLIENT_TRAFFIC_SECRET_0").then_some(())
    });
}

fn key_log_of_root() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let (_folder, log) = folder_with_log();
    let keys = log.join("keys");
    fs::write(&keys, "").unwrap();
    give(&keys, 0);
    let toml = front_to_back("", &key_log(&house, &keys), echo.address());
    let exit = as_nobody().access("stderr").run_to_end(&toml);
    let cure = format!("`chown {NOBODY} {}`", keys.display());
    exit.expect_code(64).expect_words(&[&cure]);
}
