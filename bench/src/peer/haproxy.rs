//! HAProxy in TCP mode as its operator would tune it for one core.

use std::fmt::Write;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Handshake, Mode, Role};

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
    let mut text = format!(
        "global\n    nbthread 1\n    cpu-map 1/1 {}\n    maxconn 9000\n{pipes}\
         defaults\n    mode tcp\n{splice}    timeout connect 5s\n    timeout client 10m\n    \
         timeout server 10m\n\
         frontend bench\n    bind 0.0.0.0:{}{} backlog 4096\n    default_backend backend\n\
         backend backend\n    balance roundrobin\n",
        setting.core,
        setting.listen_port,
        bind_tls(setting)
    );
    let tls = server_tls(setting);
    for (number, server) in setting.servers().enumerate() {
        let _ = writeln!(text, "    server server{number} {server}{tls}");
    }
    text
}

fn bind_tls(setting: &Setting<'_>) -> String {
    if !setting.work.role.terminates() {
        return String::new();
    }
    let bundle = setting.pki.edge.bundle_file.display();
    let verify = match setting.work.client {
        ClientIdentity::Anonymous => String::new(),
        ClientIdentity::Certificate => {
            format!(" ca-file {} verify required", setting.pki.ca_file.display())
        }
    };
    format!(" ssl crt {bundle} ssl-min-ver TLSv1.2{verify}")
}

fn server_tls(setting: &Setting<'_>) -> String {
    if !setting.work.role.originates() {
        return String::new();
    }
    let reuse = match setting.work.mode {
        Mode::Connect(Handshake::Full) => " no-ssl-reuse",
        _ => "",
    };
    format!(
        " ssl verify required ca-file {} sni str({UPSTREAM_NAME}) verifyhost {UPSTREAM_NAME}{reuse}",
        setting.pki.ca_file.display()
    )
}
