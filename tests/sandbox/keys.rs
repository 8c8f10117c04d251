//! Keys that are renewed under a proxy that is no longer root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};

use ringway_support::pki::{Credential, Leaf};
use ringway_support::reload::Pair;
use ringway_support::tls::ClientTls;
use ringway_support::toml::front_to_back;
use ringway_support::{House, Link, Peer, Proxy};

use crate::scene::{NOBODY, as_nobody, folder_with_log, give, open};
use crate::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[(
    Needs::Root,
    "a_reload_takes_a_key_that_its_user_may_read_and_refuses_one_that_root_alone_may",
    keys,
)];

/// A renewal by a tool of root's: the files are complete when they are put in place.
fn renew(pair: &Pair, credential: &Credential, owner_of_key: u32) {
    let beside = pair.key().with_extension("beside");
    fs::copy(&credential.private_key, &beside).unwrap();
    give(&beside, owner_of_key);
    pair.put_certificate(credential);
    fs::rename(beside, pair.key()).unwrap();
}

fn shows(proxy: &Proxy, house: &House, credential: &Credential) -> bool {
    let config = ClientTls::trusting(&house.ca).config();
    let link = Link::connect_tls(proxy.address("front"), &config, "localhost").unwrap();
    let shown = link.tls().peer_certificates().unwrap();
    shown[0] == credential.chain[0]
}

fn keys() {
    let house = House::new();
    let echo = Peer::plain().echo();
    let [first, second, third] = [(); 3].map(|()| house.ca.issue(&Leaf::server("localhost")));
    let pair = Pair::of(&first);
    open(pair.key().parent().unwrap());
    // Of root alone, as it is read before the user is another one.
    give(&pair.key(), 0);
    let (_folder, log) = folder_with_log();
    let toml = front_to_back("", &pair.toml(), echo.address());
    let mut proxy = as_nobody()
        .access(log.join("access.log").to_str().unwrap())
        .start(&toml);
    open(proxy.file().parent().unwrap());
    assert!(shows(&proxy, &house, &first));

    renew(&pair, &second, NOBODY);
    proxy.reload();
    assert!(shows(&proxy, &house, &second));

    renew(&pair, &third, 0);
    let _ = proxy.reload_refused();
    let key = pair.key().display().to_string();
    for words in [
        "everything stays as it was".to_owned(),
        format!(": error: {key}: cannot be read: Permission denied"),
        format!("uid {NOBODY}, read it: `chgrp {NOBODY} {key} && chmod g+r {key}`"),
    ] {
        proxy.wait_stderr(&[&words.to_lowercase()]);
    }
    assert!(shows(&proxy, &house, &second));

    // What the message says helps.
    chown(pair.key(), None, Some(NOBODY)).unwrap();
    fs::set_permissions(pair.key(), Permissions::from_mode(0o640)).unwrap();
    proxy.reload();
    assert!(shows(&proxy, &house, &third));
}
