//! Every key that a file may hold: what suggestions and cures are made of.

/// One key of one table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// A value as it could stand in the file; empty for tables.
    pub(super) example: &'static str,
}

/// One table, named as its header is written; `upstream.X` stands for any group.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) keys: &'static [Key],
}

const fn key(name: &'static str, example: &'static str) -> Key {
    Key { name, example }
}

pub(super) const TABLES: &[Table] = &[
    Table {
        name: "",
        keys: &[
            key("runtime", ""),
            key("log", ""),
            key("admin", ""),
            key("sandbox", ""),
            key("listener", ""),
            key("upstream", ""),
        ],
    },
    Table {
        name: "runtime",
        keys: &[
            key("workers", "4"),
            key("cpus", "\"0-3\""),
            key("drain_timeout", "\"30s\""),
            key("max_handshakes", "1024"),
            key("accept_batch", "64"),
            key("pipes", "256"),
            key("resolver", "[\"10.0.0.53\", \"[2001:db8::53]:5353\"]"),
            key("watch", "false"),
            key("takeover", "\"unix:/run/ringway/takeover.sock\""),
            key("user", "\"ringway\""),
            key("group", "\"ringway\""),
        ],
    },
    Table {
        name: "sandbox",
        keys: &[
            key("no_new_privs", "true"),
            key("landlock", "true"),
            key("seccomp", "true"),
            key("core_dumps", "false"),
            key("read", "\"/etc/letsencrypt\""),
        ],
    },
    Table {
        name: "log",
        keys: &[
            key("access", "\"stderr\""),
            key("format", "\"json\""),
            key("fields", "[\"time\", \"client\", \"end\"]"),
            key("sample", "100"),
            key("facility", "\"local0\""),
            key("tag", "\"ringway\""),
            key("queue", "8192"),
            key("refused", "100"),
        ],
    },
    Table {
        name: "admin",
        keys: &[
            key(
                "listen",
                "[\"unix:/run/ringway/admin.sock\", \"127.0.0.1:9180\"]",
            ),
            key("mode", "\"0660\""),
        ],
    },
    Table {
        name: "listener",
        keys: &[
            key("name", "\"database\""),
            key("bind", "[\"0.0.0.0:5432\", \"[::]:5432\"]"),
            key("upstream", "\"backend\""),
            key("route", ""),
            key("max_connections", "8192"),
            key("allow", "[\"10.0.0.0/8\", \"2001:db8::/32\"]"),
            key("deny", "\"192.0.2.0/24\""),
            key("max_connections_per_source", "100"),
            key("max_connections_per_prefix", "1000"),
            key("source_prefix_ipv4", "24"),
            key("source_prefix_ipv6", "56"),
            key("new_connections", "{ rate = 1000, burst = 2000 }"),
            key("new_connections_per_source", "{ rate = 20, burst = 100 }"),
            key("full_handshakes", "{ rate = 500, burst = 1000 }"),
            key("full_handshakes_per_source", "{ rate = 5, burst = 20 }"),
            key("max_upload_rate", "\"10MiB\""),
            key("max_download_rate", "\"10MiB\""),
            key("max_session", "\"12h\""),
            key("backlog", "4096"),
            key("steering", "\"kernel\""),
            key("client_hello_timeout", "\"5s\""),
            key("handshake_timeout", "\"10s\""),
            key("connect_timeout", "\"5s\""),
            key("idle_timeout", "\"10m\""),
            key("upstream_handshake_timeout", "\"5s\""),
            key(
                "next_upstream",
                "[\"refused\", \"connect-timeout\", \"handshake\", \"verification\"]",
            ),
            key("next_upstream_tries", "3"),
            key("next_upstream_timeout", "\"15s\""),
            key("tcp_nodelay", "true"),
            key(
                "keepalive",
                "{ idle = \"60s\", interval = \"15s\", probes = 4 }",
            ),
            key("tcp_user_timeout", "\"60s\""),
            key("relay_path", "\"auto\""),
            key("ktls_after", "\"256KiB\""),
            key("proxy_protocol", "\"required\""),
            key("proxy_trusted", "[\"10.0.0.0/8\"]"),
            key("proxy_allow_cn", "[\"payments\"]"),
            key("proxy_protocol_timeout", "\"3s\""),
            key("tls", ""),
        ],
    },
    Table {
        name: "listener.route",
        keys: &[
            key("sni", "\"app.example.org\""),
            key("alpn", "[\"h2\", \"http/1.1\"]"),
            key("source", "[\"10.0.0.0/8\"]"),
            key("plain", "true"),
            key("upstream", "\"backend\""),
        ],
    },
    Table {
        name: "listener.tls",
        keys: &[
            key("certificate", "\"/etc/ringway/edge.crt\""),
            key("private_key", "\"/etc/ringway/edge.key\""),
            key("ocsp_response", "\"/etc/ringway/edge.ocsp\""),
            key(
                "certificates",
                "[{ certificate = \"a.crt\", private_key = \"a.key\" }]",
            ),
            key("client_ca", "\"/etc/ringway/clients-ca.crt\""),
            key("verify_client", "\"required\""),
            key("verify_depth", "1"),
            key("crl", "\"/etc/ringway/clients.crl\""),
            key("close_revoked", "\"30s\""),
            key("allow_identities", "[\"dns:*.internal.example.org\"]"),
            key("protocols", "[\"TLSv1.2\", \"TLSv1.3\"]"),
            key("ciphers", "[\"TLS_AES_128_GCM_SHA256\"]"),
            key("groups", "[\"X25519\", \"P-256\"]"),
            key("alpn", "[\"h2\", \"http/1.1\"]"),
            key("session_resumption", "true"),
            key("session_lifetime", "\"1d\""),
            key("session_ticket_keys", "[\"/etc/ringway/ticket.key\"]"),
            key("session_cache", "4096"),
            key("session_tickets", "1"),
            key("key_log", "\"/root/ringway-keys.log\""),
            key("key_log_sources", "[\"10.0.0.7\"]"),
        ],
    },
    Table {
        name: "listener.tls.certificates",
        keys: CERTIFICATE,
    },
    Table {
        name: "upstream.X",
        keys: &[
            key("servers", "[\"backend1.example.com:5432\"]"),
            key("balance", "\"round-robin\""),
            key("max_connections", "100"),
            key("queue", "100"),
            key("queue_timeout", "\"5s\""),
            key("warm", "4"),
            key("warm_idle", "\"30s\""),
            key("max_fails", "1"),
            key("fail_timeout", "\"10s\""),
            key("slow_start", "\"30s\""),
            key("resolve_ttl_min", "\"5s\""),
            key("resolve_ttl_max", "\"5m\""),
            key("source_address", "\"10.0.0.5\""),
            key("transparent", "true"),
            key("resolve_drain", "\"30s\""),
            key("happy_eyeballs_delay", "\"250ms\""),
            key("tcp_nodelay", "true"),
            key(
                "keepalive",
                "{ idle = \"60s\", interval = \"15s\", probes = 4 }",
            ),
            key("tcp_user_timeout", "\"60s\""),
            key("relay_path", "\"auto\""),
            key("ktls_after", "\"256KiB\""),
            key("proxy_protocol", "\"v2\""),
            key("tls", ""),
            key("check", ""),
        ],
    },
    Table {
        name: "upstream.X.check",
        keys: &[
            key("type", "\"tcp\""),
            key("port", "8081"),
            key("send", r#""PING\r\n""#),
            key("expect", "\"+PONG\""),
            key("interval", "\"2s\""),
            key("timeout", "\"2s\""),
            key("rise", "2"),
            key("fall", "3"),
        ],
    },
    Table {
        name: "upstream.X.servers",
        keys: &[
            key("address", "\"10.0.5.21:5432\""),
            key("weight", "2"),
            key("backup", "true"),
            key("down", "true"),
            key("max_connections", "100"),
            key("max_fails", "1"),
            key("fail_timeout", "\"10s\""),
            key("slow_start", "\"30s\""),
        ],
    },
    Table {
        name: "upstream.X.tls",
        keys: &[
            key("certificate", "\"/etc/ringway/client.crt\""),
            key("private_key", "\"/etc/ringway/client.key\""),
            key("trusted_certificate", "\"/etc/ringway/internal-ca.crt\""),
            key("verify", "true"),
            key("verify_depth", "1"),
            key("crl", "\"/etc/ringway/internal.crl\""),
            key("close_revoked", "\"30s\""),
            key("server_name", "\"backend.internal\""),
            key("protocols", "[\"TLSv1.2\", \"TLSv1.3\"]"),
            key("ciphers", "[\"TLS_AES_128_GCM_SHA256\"]"),
            key("groups", "[\"X25519\", \"P-256\"]"),
            key("alpn", "[\"h2\", \"http/1.1\"]"),
            key("session_reuse", "true"),
            key("key_log", "\"/root/ringway-keys.log\""),
            key("key_log_sources", "[\"10.0.0.7\"]"),
        ],
    },
    Table {
        name: "listener.keepalive",
        keys: KEEPALIVE,
    },
    Table {
        name: "upstream.X.keepalive",
        keys: KEEPALIVE,
    },
    Table {
        name: "listener.new_connections",
        keys: RATE,
    },
    Table {
        name: "listener.new_connections_per_source",
        keys: RATE,
    },
    Table {
        name: "listener.full_handshakes",
        keys: RATE,
    },
    Table {
        name: "listener.full_handshakes_per_source",
        keys: RATE,
    },
];

const CERTIFICATE: &[Key] = &[
    key("certificate", "\"/etc/ringway/edge.crt\""),
    key("private_key", "\"/etc/ringway/edge.key\""),
    key("ocsp_response", "\"/etc/ringway/edge.ocsp\""),
];

const RATE: &[Key] = &[key("rate", "1000"), key("burst", "2000")];

const KEEPALIVE: &[Key] = &[
    key("idle", "\"60s\""),
    key("interval", "\"15s\""),
    key("probes", "4"),
];

/// nginx's stream directives and the keys that do their work here.
pub(super) const NGINX: &[(&str, &str)] = &[
    ("listen", "bind"),
    ("server", "servers"),
    ("proxy_pass", "upstream"),
    ("resolver", "resolver"),
    ("proxy_connect_timeout", "connect_timeout"),
    ("proxy_timeout", "idle_timeout"),
    ("proxy_next_upstream", "next_upstream"),
    ("proxy_next_upstream_tries", "next_upstream_tries"),
    ("proxy_next_upstream_timeout", "next_upstream_timeout"),
    ("max_conns", "max_connections"),
    ("least_conn", "balance"),
    ("so_keepalive", "keepalive"),
    ("reuseport", "workers"),
    ("worker_processes", "workers"),
    ("worker_cpu_affinity", "cpus"),
    ("worker_connections", "max_connections"),
    ("limit_conn", "max_connections_per_source"),
    ("proxy_upload_rate", "max_upload_rate"),
    ("proxy_download_rate", "max_download_rate"),
    ("proxy_bind", "source_address"),
    ("worker_shutdown_timeout", "drain_timeout"),
    ("access_log", "access"),
    ("log_format", "format"),
    ("ssl_certificate", "certificate"),
    ("ssl_certificate_key", "private_key"),
    ("ssl_client_certificate", "client_ca"),
    ("ssl_verify_client", "verify_client"),
    ("ssl_verify_depth", "verify_depth"),
    ("ssl_crl", "crl"),
    ("ssl_protocols", "protocols"),
    ("ssl_ciphers", "ciphers"),
    ("ssl_ecdh_curve", "groups"),
    ("ssl_alpn", "alpn"),
    ("ssl_handshake_timeout", "handshake_timeout"),
    ("set_real_ip_from", "proxy_trusted"),
    ("ssl_preread", "route"),
    ("preread_timeout", "client_hello_timeout"),
    ("ssl_session_cache", "session_cache"),
    ("ssl_session_timeout", "session_lifetime"),
    ("ssl_session_tickets", "session_resumption"),
    ("ssl_session_ticket_key", "session_ticket_keys"),
    ("ssl_stapling_file", "ocsp_response"),
    ("proxy_ssl", "tls"),
    ("proxy_ssl_certificate", "certificate"),
    ("proxy_ssl_certificate_key", "private_key"),
    ("proxy_ssl_trusted_certificate", "trusted_certificate"),
    ("proxy_ssl_verify", "verify"),
    ("proxy_ssl_verify_depth", "verify_depth"),
    ("proxy_ssl_crl", "crl"),
    ("proxy_ssl_name", "server_name"),
    ("proxy_ssl_server_name", "server_name"),
    ("proxy_ssl_protocols", "protocols"),
    ("proxy_ssl_ciphers", "ciphers"),
    ("proxy_ssl_session_reuse", "session_reuse"),
];

/// The table that a header or a path of keys stands for.
pub(super) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// A value to show for a key, wherever it stands.
pub(super) fn example(table_name: &str, key_name: &str) -> Option<&'static str> {
    let key = table(table_name)?
        .keys
        .iter()
        .find(|k| k.name == key_name)?;
    (!key.example.is_empty()).then_some(key.example)
}

/// How a table's header is written.
pub(super) fn header(name: &str) -> String {
    match name {
        "" => "the file's top level".to_owned(),
        "listener" | "listener.route" => format!("[[{name}]]"),
        _ => format!("[{name}]"),
    }
}

/// The word of `candidates` that `word` may be a slip for.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let slips = strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase());
            (slips, candidate)
        })
        .filter(|(slips, candidate)| *slips <= (candidate.len().max(3) / 3).min(4))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../docs/config.md");

    /// Section title and the keys of its table, in order.
    fn documented() -> Vec<(String, Vec<String>)> {
        let mut sections: Vec<(String, Vec<String>)> = Vec::new();
        for line in REFERENCE.lines() {
            if let Some(title) = line.trim_start_matches('#').strip_prefix(" `") {
                sections.push((title.trim_end_matches('`').to_owned(), Vec::new()));
            } else if line.starts_with("### ") {
                sections.push((line.to_owned(), Vec::new()));
            } else if let Some(row) = line.strip_prefix("| `")
                && let (Some((key, _)), Some((_, keys))) =
                    (row.split_once('`'), sections.last_mut())
            {
                keys.push(key.to_owned());
            }
        }
        sections
    }

    #[test]
    fn the_reference_has_every_key_in_its_table_and_no_other() {
        let documented = documented();
        for table in TABLES.iter().filter(|table| !table.name.is_empty()) {
            // Both legs' keepalive share a section; an array's certificates have the keys of one.
            let title = match table.name {
                "listener.keepalive" | "upstream.X.keepalive" => "keepalive".to_owned(),
                "listener.tls.certificates" => continue,
                "listener.new_connections"
                | "listener.new_connections_per_source"
                | "listener.full_handshakes"
                | "listener.full_handshakes_per_source" => "### Rates".to_owned(),
                "upstream.X.servers" => "servers".to_owned(),
                name => header(name),
            };
            let (_, keys) = documented
                .iter()
                .find(|(known, _)| *known == title)
                .unwrap_or_else(|| panic!("no section {title}"));
            for key in table.keys {
                assert!(
                    keys.iter().any(|known| known == key.name),
                    "{title} {}",
                    key.name
                );
            }
            for known in keys {
                assert!(
                    table.keys.iter().any(|key| key.name == known),
                    "{title} {known}"
                );
            }
        }
    }

    #[test]
    fn the_reference_has_every_default_and_its_why() {
        use crate::config::{Origin, parse};
        let text = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:1\"\nupstream = \"b\"\n\
                    [listener.tls]\ncertificate = \"a.crt\"\nprivate_key = \"a.key\"\n\
                    [upstream.b]\nservers = [\"10.0.0.1:1\"]\n[upstream.b.tls]\n[upstream.b.check]\n[admin]\n";
        let loaded = parse("x.toml", text);
        assert!(loaded.plan().is_some());
        for value in &loaded.effective {
            let Origin::Default { why } = value.origin else {
                continue;
            };
            let key = value.key.rsplit('.').next().unwrap_or_default();
            let row = REFERENCE.lines().find(|line| {
                line.starts_with(&format!("| `{key}` |"))
                    && line.contains(&format!("`{}`", value.value))
                    && line.contains(why)
            });
            assert!(row.is_some(), "{key} = {} ({why})", value.value);
        }
    }

    #[test]
    fn the_reference_has_every_word_of_nginx_that_leads_here() {
        for (theirs, ours) in NGINX {
            let row = REFERENCE.lines().find(|line| {
                line.starts_with(&format!("| `{ours}` |")) && line.contains(&format!("`{theirs}`"))
            });
            assert!(row.is_some(), "{theirs} -> {ours}");
        }
    }

    #[test]
    fn nearest_finds_slips_and_not_strangers() {
        let names = ["idle_timeout", "connect_timeout", "name"];
        assert_eq!(nearest("idel_timeout", names), Some("idle_timeout"));
        assert_eq!(nearest("nmae", names), Some("name"));
        assert_eq!(nearest("colour", names), None);
    }
}
