//! Hitch as its operator would tune it, one worker a core. It terminates TLS towards one server.

use std::fmt::Write;

use super::Setting;
use crate::work::{ClientIdentity, Role, Work};

/// From `hitch --version`.
pub(super) fn identity(said: &str, library: &str) -> (String, String) {
    let line = said.lines().next().unwrap_or("hitch unknown").trim();
    let version = line.strip_prefix("hitch ").unwrap_or(line);
    (format!("Hitch {version}"), format!("{line}, {library}"))
}

/// Why this work is none for it.
pub(super) fn lacks(work: &Work) -> Option<&'static str> {
    (work.role != Role::Terminate).then_some("it only terminates TLS")
}

pub(super) fn configuration(setting: &Setting<'_>) -> String {
    let server = setting.servers().next().unwrap_or_default();
    let (address, port) = server.split_once(':').unwrap_or_default();
    let mut text = format!(
        "daemon = off\nlog-level = 1\nworkers = {}\nbacklog = 4096\n\
         frontend = \"[0.0.0.0]:{}\"\nbackend = \"[{address}]:{port}\"\n\
         pem-file = \"{}\"\ntls-protos = TLSv1.2 TLSv1.3\n",
        setting.cores.len(),
        setting.listen_port,
        setting.pki.edge(setting.work.key).bundle_file.display()
    );
    // Started by root it insists on becoming somebody else.
    if rustix::process::geteuid().is_root() {
        text += "user = \"nobody\"\n";
    }
    if setting.work.client == ClientIdentity::Certificate {
        let ca = setting.pki.ca_file.display();
        let _ = write!(
            text,
            "client-verify = required\nclient-verify-ca = \"{ca}\"\n"
        );
    }
    text
}
