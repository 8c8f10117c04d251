//! HAProxy in TCP mode as its operator would tune it, one thread a core.

use std::fmt::Write;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Group, Handshake, Mode, Role};

/// From `haproxy -vv`: the label, and the lines that name its version and TLS library.
pub(super) fn identity(said: &str) -> (String, String) {
    let version = said
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(2))
        .map_or("unknown", |version| {
            version.split('-').next().unwrap_or(version)
        });
    let about: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("HAProxy version") || line.contains("SSL version"))
        .collect();
    (format!("HAProxy {version}"), about.join("\n"))
}

pub(super) fn configuration(setting: &Setting<'_>) -> String {
    // Bulk that no TLS leg touches is what splice is for; elsewhere it has nothing to do.
    let (pipes, splice) = match (setting.work.role, setting.work.mode) {
        (Role::Plain, Mode::Bulk(_)) => (
            "    maxpipes 256\n",
            "    option splice-request\n    option splice-response\n",
        ),
        _ => ("", ""),
    };
    let cores: Vec<_> = setting.cores.iter().map(usize::to_string).collect();
    let mut text = format!(
        "global\n    nbthread {threads}\n    cpu-map 1/1-{threads} {}\n    maxconn 9000\n{pipes}\
         defaults\n    mode tcp\n{splice}    timeout connect 5s\n    timeout client 10m\n    \
         timeout server 10m\n\
         frontend bench\n    bind 0.0.0.0:{}{} backlog 4096\n{}\
         backend backend\n    balance roundrobin\n",
        cores.join(" "),
        setting.listen_port,
        bind_tls(setting),
        choice(setting.work.role),
        threads = cores.len()
    );
    let tls = server_tls(setting);
    for (number, server) in setting.servers().enumerate() {
        let _ = writeln!(text, "    server server{number} {server}{tls}");
    }
    text
}

fn choice(role: Role) -> String {
    match role {
        Role::Passthrough => format!(
            "    tcp-request inspect-delay 5s\n    \
             tcp-request content accept if {{ req.ssl_hello_type 1 }}\n    \
             use_backend backend if {{ req.ssl_sni -i {UPSTREAM_NAME} }}\n"
        ),
        _ => "    default_backend backend\n".to_owned(),
    }
}

fn bind_tls(setting: &Setting<'_>) -> String {
    if !setting.work.role.terminates() {
        return String::new();
    }
    let bundle = setting.pki.edge(setting.work.key).bundle_file.display();
    let verify = match setting.work.client {
        ClientIdentity::Anonymous => String::new(),
        ClientIdentity::Certificate => {
            format!(" ca-file {} verify required", setting.pki.ca_file.display())
        }
    };
    let curves = match setting.work.group {
        Group::X25519 => "",
        Group::X25519MlKem768 => " curves X25519MLKEM768:X25519:P-256",
    };
    format!(" ssl crt {bundle} ssl-min-ver TLSv1.2{curves}{verify}")
}

fn server_tls(setting: &Setting<'_>) -> String {
    if !setting.work.role.originates() {
        return String::new();
    }
    let mut options = String::new();
    if setting.work.mode.handshake() == Some(Handshake::Full) {
        options += " no-ssl-reuse";
    }
    if setting.work.group == Group::X25519MlKem768 {
        options += " curves X25519MLKEM768";
    }
    if setting.work.client == ClientIdentity::Certificate {
        let _ = write!(options, " crt {}", setting.pki.client.bundle_file.display());
    }
    format!(
        " ssl verify required ca-file {} sni str({UPSTREAM_NAME}) verifyhost {UPSTREAM_NAME}{options}",
        setting.pki.ca_file.display()
    )
}
