//! Ringway as its operator would tune it for one core, access log off like everybody's.

use std::fmt::Write;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Handshake, Mode};

pub(super) fn configuration(setting: &Setting<'_>) -> String {
    let mut text = format!(
        "[runtime]\ncpus = \"{}\"\ndrain_timeout = \"1s\"\n\n\
         [log]\naccess = \"off\"\n\n\
         [[listener]]\nname = \"bench\"\nbind = \"0.0.0.0:{}\"\nupstream = \"backend\"\n\
         max_connections = 10000\nbacklog = 4096\n",
        setting.core, setting.listen_port
    );
    if setting.work.role.terminates() {
        text += &listener_tls(setting);
    }
    let servers: Vec<_> = setting
        .servers()
        .map(|server| format!("\"{server}\""))
        .collect();
    let _ = write!(
        text,
        "\n[upstream.backend]\nservers = [{}]\n",
        servers.join(", ")
    );
    if setting.work.role.originates() {
        text += &upstream_tls(setting);
    }
    text
}

fn listener_tls(setting: &Setting<'_>) -> String {
    let edge = &setting.pki.edge;
    let mut text = format!(
        "\n[listener.tls]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n",
        edge.certificate_file.display(),
        edge.key_file.display()
    );
    if setting.work.client == ClientIdentity::Certificate {
        let ca = setting.pki.ca_file.display();
        let _ = write!(text, "client_ca = \"{ca}\"\nverify_client = \"required\"\n");
    }
    text
}

/// X25519 alone, as the other proxies' first key share is: a hybrid share would be work that the
/// server then has no use for.
fn upstream_tls(setting: &Setting<'_>) -> String {
    let reuse = setting.work.mode != Mode::Connect(Handshake::Full);
    format!(
        "\n[upstream.backend.tls]\ntrusted_certificate = \"{}\"\nserver_name = \"{UPSTREAM_NAME}\"\n\
         groups = [\"X25519\"]\nsession_reuse = {reuse}\n",
        setting.pki.ca_file.display()
    )
}
