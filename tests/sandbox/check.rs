//! What `ringway check` says of the user that the process will become.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use ringway_support::{House, ringway};

use crate::scene::folder_with_log;
use crate::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        Needs::Root,
        "check_warns_of_what_the_user_could_not_open",
        warns,
    ),
    (
        Needs::Nothing,
        "check_refuses_a_user_and_a_group_that_are_not_there",
        nobody_there,
    ),
    (
        Needs::Nothing,
        "check_warns_of_folders_that_are_not_there",
        no_folder,
    ),
];

fn check(text: &str) -> ringway_support::proxy::Exit {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringway.toml");
    fs::write(&file, text).unwrap();
    ringway!().command(&["check".as_ref(), file.as_ref()])
}

const UPSTREAM: &str = "[upstream.b]\nservers = [\"127.0.0.1:1\"]\n";

fn listener(tls: &str) -> String {
    format!(
        "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n{tls}\n{UPSTREAM}"
    )
}

fn warns() {
    let house = House::new();
    let (folder, log) = folder_with_log();
    let tables = |log: &std::path::Path| {
        format!(
            "[runtime]\nuser = \"nobody\"\n[log]\naccess = \"{}\"\n",
            log.display()
        )
    };
    let socket = format!("\"unix:{}/a.sock\"", folder.path().display());
    let text = tables(&folder.path().join("access.log")) + &listener(&house.terminate());
    let text = text.replace("\"127.0.0.1:0\"", &socket);
    let exit = check(&text);
    exit.expect_code(0)
        .expect_words(&["`user` nobody cannot read it, so a reload would fail"])
        .expect_words(&["so no socket can be made there after the start"])
        .expect_words(&["cannot make files there, so the log cannot be opened"]);

    let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
    let credential = &house.edge;
    fs::copy(&credential.certificate, &certificate).unwrap();
    fs::copy(&credential.private_key, &key).unwrap();
    for file in [&certificate, &key] {
        fs::set_permissions(file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(file, None, Some(crate::scene::NOBODY)).unwrap();
    }
    let tls = format!(
        "[listener.tls]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let exit = check(&(tables(&log.join("access.log")) + &listener(&tls)));
    exit.expect_code(0);
    assert!(!exit.stderr.contains("`user` nobody"), "{}", exit.stderr);
}

fn nobody_there() {
    let text = "[runtime]\nuser = \"not-there\"\n".to_owned() + &listener("");
    check(&text)
        .expect_code(64)
        .expect_words(&["there is no user not-there"])
        .expect_words(&["useradd --system"]);
    let text = "[runtime]\nuser = \"nobody\"\ngroup = \"not-there\"\n".to_owned() + &listener("");
    check(&text)
        .expect_code(64)
        .expect_words(&["there is no group not-there"])
        .expect_words(&["groupadd --system"]);
    let text = "[runtime]\nuser = \"54321\"\n".to_owned() + &listener("");
    check(&text)
        .expect_code(64)
        .expect_words(&["name its `group`"]);
}

fn no_folder() {
    let text = "[sandbox]\nread = \"/not/there\"\n".to_owned() + &listener("");
    check(&text)
        .expect_code(0)
        .expect_words(&["/not/there is not there, so it is not kept readable"]);
}
