//! nginx's stream module as its operator would tune it, one worker a core.

use std::fmt::Write;
use std::path::Path;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Group, Handshake, Role};

/// From `nginx -V`: the label, and what it was built with.
pub(super) fn identity(said: &str) -> (String, String) {
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("nginx version: "))
        .unwrap_or("nginx/unknown");
    (version.trim().replace('/', " "), said.trim().to_owned())
}

pub(super) fn configuration(setting: &Setting<'_>, about: &str) -> String {
    let mut text = stream_module(about);
    let dir = setting.dir.display();
    let masks: Vec<_> = setting
        .cores
        .iter()
        .map(|core| format!("1{}", "0".repeat(*core)))
        .collect();
    let _ = write!(
        text,
        "daemon off;\nworker_processes {};\nworker_cpu_affinity {};\nworker_rlimit_nofile 20000;\n\
         pid {dir}/nginx.pid;\nerror_log stderr crit;\n\
         events {{\n    worker_connections 19000;\n}}\n\
         stream {{\n    access_log off;\n    tcp_nodelay on;\n    proxy_connect_timeout 5s;\n    \
         proxy_timeout 10m;\n    upstream backend {{\n",
        masks.len(),
        masks.join(" ")
    );
    for server in setting.servers() {
        let _ = writeln!(text, "        server {server};");
    }
    let ssl = if setting.work.role.terminates() {
        " ssl"
    } else {
        ""
    };
    let (choice, target) = match setting.work.role {
        Role::Passthrough => (
            format!(
                "    map $ssl_preread_server_name $chosen {{\n        {UPSTREAM_NAME} backend;\n    }}\n"
            ),
            "$chosen;\n        ssl_preread on",
        ),
        _ => (String::new(), "backend"),
    };
    let port = setting.listen_port;
    let _ = write!(
        text,
        "    }}\n{choice}    server {{\n        listen 0.0.0.0:{port}{ssl} reuseport backlog=4096;\n        \
         proxy_pass {target};\n"
    );
    if setting.work.role.terminates() {
        text += &downstream_tls(setting);
    }
    if setting.work.role.originates() {
        text += &upstream_tls(setting);
    }
    text + "    }\n}\n"
}

/// Debian builds the stream module as a file of its own; others have it inside.
fn stream_module(about: &str) -> String {
    let option = |name: &str| {
        about
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name))
    };
    match (option("--with-stream="), option("--modules-path=")) {
        (Some("dynamic"), Some(dir)) => {
            format!(
                "load_module {};\n",
                Path::new(dir).join("ngx_stream_module.so").display()
            )
        }
        _ => String::new(),
    }
}

fn downstream_tls(setting: &Setting<'_>) -> String {
    let edge = setting.pki.edge(setting.work.key);
    let mut text = format!(
        "        ssl_certificate {};\n        ssl_certificate_key {};\n        \
         ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_session_cache shared:bench:10m;\n        \
         ssl_session_tickets on;\n        ssl_session_timeout 1h;\n",
        edge.certificate_file.display(),
        edge.key_file.display()
    );
    if setting.work.group == Group::X25519MlKem768 {
        text += "        ssl_ecdh_curve X25519MLKEM768:X25519:prime256v1;\n";
    }
    if setting.work.client == ClientIdentity::Certificate {
        let ca = setting.pki.ca_file.display();
        let _ = writeln!(
            text,
            "        ssl_client_certificate {ca};\n        ssl_verify_client on;"
        );
    }
    text
}

fn upstream_tls(setting: &Setting<'_>) -> String {
    let reuse = match setting.work.mode.handshake() {
        Some(Handshake::Full) => "off",
        _ => "on",
    };
    let mut text = format!(
        "        proxy_ssl on;\n        proxy_ssl_protocols TLSv1.2 TLSv1.3;\n        \
         proxy_ssl_trusted_certificate {};\n        proxy_ssl_verify on;\n        \
         proxy_ssl_verify_depth 2;\n        proxy_ssl_name {UPSTREAM_NAME};\n        \
         proxy_ssl_server_name on;\n        proxy_ssl_session_reuse {reuse};\n",
        setting.pki.ca_file.display()
    );
    if setting.work.group == Group::X25519MlKem768 {
        text += "        proxy_ssl_conf_command Groups X25519MLKEM768;\n";
    }
    if setting.work.client == ClientIdentity::Certificate {
        let client = &setting.pki.client;
        let _ = write!(
            text,
            "        proxy_ssl_certificate {};\n        proxy_ssl_certificate_key {};\n",
            client.certificate_file.display(),
            client.key_file.display()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_module_is_loaded_only_where_it_is_a_file_of_its_own() {
        let debian = "configure arguments: --modules-path=/m --with-stream=dynamic";
        assert_eq!(
            stream_module(debian),
            "load_module /m/ngx_stream_module.so;\n"
        );
        assert_eq!(stream_module("configure arguments: --with-stream"), "");
    }
}
