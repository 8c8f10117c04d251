//! Ringway as its operator would tune it for one core, access log off like everybody's.

use std::fmt::Write;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Group, Handshake, Role};

pub(super) fn configuration(setting: &Setting<'_>, relay_path: Option<&str>) -> String {
    let path = relay_path.map_or_else(String::new, |path| format!("relay_path = \"{path}\"\n"));
    let cores: Vec<_> = setting.cores.iter().map(usize::to_string).collect();
    let mut text = format!(
        "[runtime]\ncpus = \"{}\"\ndrain_timeout = \"1s\"\n\n\
         [log]\naccess = \"off\"\n\n\
         [[listener]]\nname = \"bench\"\nbind = \"0.0.0.0:{}\"\n\
         max_connections = 10000\nbacklog = 4096\n",
        cores.join(","),
        setting.listen_port
    );
    text += &path;
    text += &match setting.work.role {
        Role::Passthrough => {
            format!("\n[[listener.route]]\nsni = \"{UPSTREAM_NAME}\"\nupstream = \"backend\"\n")
        }
        _ => "upstream = \"backend\"\n".to_owned(),
    };
    if setting.work.role.terminates() {
        text += &listener_tls(setting);
    }
    let servers: Vec<_> = setting
        .servers()
        .map(|server| format!("\"{server}\""))
        .collect();
    let _ = write!(
        text,
        "\n[upstream.backend]\nservers = [{}]\n{path}",
        servers.join(", ")
    );
    if setting.work.role.originates() {
        text += &upstream_tls(setting);
    }
    text
}

fn listener_tls(setting: &Setting<'_>) -> String {
    let edge = setting.pki.edge(setting.work.key);
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

/// One group, as the other proxies' first key share is: a second share would be work that the
/// server then has no use for.
fn upstream_tls(setting: &Setting<'_>) -> String {
    let reuse = setting.work.mode.handshake() != Some(Handshake::Full);
    let mut text = format!(
        "\n[upstream.backend.tls]\ntrusted_certificate = \"{}\"\nserver_name = \"{UPSTREAM_NAME}\"\n\
         groups = [\"{}\"]\nsession_reuse = {reuse}\n",
        setting.pki.ca_file.display(),
        setting.work.group.name()
    );
    // Without a group that TLS 1.2 has, Ringway wants to be told that 1.2 is off.
    if setting.work.group == Group::X25519MlKem768 {
        text += "protocols = [\"TLSv1.3\"]\n";
    }
    if setting.work.client == ClientIdentity::Certificate {
        let client = &setting.pki.client;
        let _ = write!(
            text,
            "certificate = \"{}\"\nprivate_key = \"{}\"\n",
            client.certificate_file.display(),
            client.key_file.display()
        );
    }
    text
}
