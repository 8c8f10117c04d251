//! nginx's stream module as its operator would tune it for one core.

use std::fmt::Write;
use std::path::Path;

use super::Setting;
use crate::pki::UPSTREAM_NAME;
use crate::work::{ClientIdentity, Handshake, Mode};

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
    let mask = format!("1{}", "0".repeat(setting.core));
    let _ = write!(
        text,
        "daemon off;\nworker_processes 1;\nworker_cpu_affinity {mask};\nworker_rlimit_nofile 20000;\n\
         pid {dir}/nginx.pid;\nerror_log stderr crit;\n\
         events {{\n    worker_connections 19000;\n}}\n\
         stream {{\n    access_log off;\n    tcp_nodelay on;\n    proxy_connect_timeout 5s;\n    \
         proxy_timeout 10m;\n    upstream backend {{\n"
    );
    for server in setting.servers() {
        let _ = writeln!(text, "        server {server};");
    }
    let ssl = if setting.work.role.terminates() {
        " ssl"
    } else {
        ""
    };
    let port = setting.listen_port;
    let _ = write!(
        text,
        "    }}\n    server {{\n        listen 0.0.0.0:{port}{ssl} reuseport backlog=4096;\n        \
         proxy_pass backend;\n"
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
    let edge = &setting.pki.edge;
    let mut text = format!(
        "        ssl_certificate {};\n        ssl_certificate_key {};\n        \
         ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_session_cache shared:bench:10m;\n        \
         ssl_session_tickets on;\n        ssl_session_timeout 1h;\n",
        edge.certificate_file.display(),
        edge.key_file.display()
    );
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
    let reuse = match setting.work.mode {
        Mode::Connect(Handshake::Full) => "off",
        _ => "on",
    };
    format!(
        "        proxy_ssl on;\n        proxy_ssl_protocols TLSv1.2 TLSv1.3;\n        \
         proxy_ssl_trusted_certificate {};\n        proxy_ssl_verify on;\n        \
         proxy_ssl_verify_depth 2;\n        proxy_ssl_name {UPSTREAM_NAME};\n        \
         proxy_ssl_server_name on;\n        proxy_ssl_session_reuse {reuse};\n",
        setting.pki.ca_file.display()
    )
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
