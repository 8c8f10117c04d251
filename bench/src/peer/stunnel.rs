//! stunnel as its operator would tune it. It has TLS on one leg, and a thread for each connection.

use std::fmt::Write;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Handshake, Role, Work};

/// From `stunnel -version`: the label, and the lines that name its version and TLS library.
pub(super) fn identity(said: &str) -> (String, String) {
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("stunnel "))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("unknown");
    let about: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("stunnel ") || line.contains("OpenSSL "))
        .map(str::trim)
        .collect();
    (format!("stunnel {version}"), about.join("\n"))
}

/// Why this work is none for it.
pub(super) fn lacks(work: &Work) -> Option<&'static str> {
    match work.role {
        Role::Terminate | Role::Originate => None,
        Role::Plain | Role::Passthrough => Some("it always has one end of TLS"),
        Role::Both => Some("its services have TLS on one leg; two would have to be chained"),
    }
}

pub(super) fn configuration(setting: &Setting<'_>) -> String {
    let mut text = format!(
        "foreground = yes\npid =\nsyslog = no\ndebug = err\n\
         socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
         [bench]\naccept = 0.0.0.0:{}\nfailover = rr\nsslVersionMin = TLSv1.2\n\
         options = -NO_TICKET\nsessionCacheSize = 20000\n",
        setting.listen_port
    );
    for server in setting.servers() {
        let _ = writeln!(text, "connect = {server}");
    }
    text + &match setting.work.role {
        Role::Originate => upstream_tls(setting),
        _ => downstream_tls(setting),
    }
}

fn downstream_tls(setting: &Setting<'_>) -> String {
    let edge = setting.pki.edge(setting.work.key);
    let mut text = format!(
        "cert = {}\nkey = {}\n",
        edge.certificate_file.display(),
        edge.key_file.display()
    );
    if setting.work.client == ClientIdentity::Certificate {
        let ca = setting.pki.ca_file.display();
        let _ = write!(
            text,
            "CAfile = {ca}\nverifyChain = yes\nrequireCert = yes\n"
        );
    }
    text
}

fn upstream_tls(setting: &Setting<'_>) -> String {
    let resume = match setting.work.mode.handshake() {
        Some(Handshake::Full) => "no",
        _ => "yes",
    };
    let mut text = format!(
        "client = yes\nCAfile = {}\nverifyChain = yes\ncheckHost = {UPSTREAM_NAME}\n\
         sni = {UPSTREAM_NAME}\nsessionResume = {resume}\n",
        setting.pki.ca_file.display()
    );
    if setting.work.client == ClientIdentity::Certificate {
        let client = &setting.pki.client;
        let _ = write!(
            text,
            "cert = {}\nkey = {}\n",
            client.certificate_file.display(),
            client.key_file.display()
        );
    }
    text
}
