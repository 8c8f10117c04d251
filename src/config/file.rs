//! The file as it is written: one struct a table, every key optional, nothing checked yet.
//!
//! No `flatten` and no tagged or untagged enums of serde: they buffer, and so lose spans and
//! swallow unknown keys. The few keys of more than one shape have visitors of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

pub(super) type Text = Option<Spanned<String>>;
pub(super) type Whole = Option<Spanned<i64>>;
pub(super) type Flag = Option<Spanned<bool>>;
pub(super) type Texts = Option<Spanned<OneOrMany>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRoot {
    pub(super) runtime: Option<Spanned<Table<RuntimeFile>>>,
    pub(super) log: Option<Spanned<Table<LogFile>>>,
    pub(super) admin: Option<Spanned<Table<AdminFile>>>,
    pub(super) sandbox: Option<Spanned<Table<SandboxFile>>>,
    #[serde(default)]
    pub(super) listener: Vec<Spanned<Table<ListenerFile>>>,
    #[serde(default)]
    pub(super) upstream: BTreeMap<Spanned<String>, Spanned<Table<UpstreamFile>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuntimeFile {
    pub(super) workers: Option<Spanned<TextOrWhole>>,
    pub(super) cpus: Text,
    pub(super) drain_timeout: Text,
    pub(super) max_handshakes: Whole,
    pub(super) accept_batch: Whole,
    pub(super) pipes: Whole,
    pub(super) resolver: Texts,
    pub(super) watch: Flag,
    pub(super) takeover: Text,
    pub(super) user: Text,
    pub(super) group: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogFile {
    pub(super) access: Text,
    pub(super) format: Text,
    pub(super) fields: Texts,
    pub(super) sample: Whole,
    pub(super) facility: Text,
    pub(super) tag: Text,
    pub(super) queue: Whole,
    pub(super) refused: Whole,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminFile {
    pub(super) listen: Texts,
    pub(super) mode: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SandboxFile {
    pub(super) no_new_privs: Flag,
    pub(super) landlock: Flag,
    pub(super) seccomp: Flag,
    pub(super) core_dumps: Flag,
    pub(super) read: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerFile {
    pub(super) name: Text,
    pub(super) bind: Texts,
    pub(super) upstream: Text,
    #[serde(default)]
    pub(super) route: Vec<Spanned<Table<RouteFile>>>,
    pub(super) max_connections: Whole,
    pub(super) allow: Texts,
    pub(super) deny: Texts,
    pub(super) max_connections_per_source: Whole,
    pub(super) max_connections_per_prefix: Whole,
    pub(super) source_prefix_ipv4: Whole,
    pub(super) source_prefix_ipv6: Whole,
    pub(super) new_connections: RateTable,
    pub(super) new_connections_per_source: RateTable,
    pub(super) full_handshakes: RateTable,
    pub(super) full_handshakes_per_source: RateTable,
    pub(super) max_upload_rate: Text,
    pub(super) max_download_rate: Text,
    pub(super) max_session: Text,
    pub(super) backlog: Whole,
    pub(super) steering: Text,
    pub(super) client_hello_timeout: Text,
    pub(super) handshake_timeout: Text,
    pub(super) connect_timeout: Text,
    pub(super) idle_timeout: Text,
    pub(super) next_upstream_tries: Whole,
    pub(super) upstream_handshake_timeout: Text,
    pub(super) next_upstream: Texts,
    pub(super) next_upstream_timeout: Text,
    pub(super) tcp_nodelay: Flag,
    pub(super) keepalive: Option<Spanned<FlagOrKeepalive>>,
    pub(super) tcp_user_timeout: Text,
    pub(super) relay_path: Text,
    pub(super) ktls_after: Text,
    pub(super) proxy_protocol: Text,
    pub(super) proxy_trusted: Texts,
    pub(super) proxy_allow_cn: Texts,
    pub(super) proxy_protocol_timeout: Text,
    pub(super) tls: Option<Spanned<Table<DownstreamTlsFile>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteFile {
    pub(super) sni: Texts,
    pub(super) alpn: Texts,
    pub(super) source: Texts,
    pub(super) plain: Flag,
    pub(super) upstream: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DownstreamTlsFile {
    pub(super) certificate: Text,
    pub(super) private_key: Text,
    pub(super) ocsp_response: Text,
    pub(super) certificates: Option<Vec<Spanned<Table<CertificateFile>>>>,
    pub(super) client_ca: Text,
    pub(super) verify_client: Text,
    pub(super) verify_depth: Whole,
    pub(super) crl: Text,
    pub(super) close_revoked: Text,
    pub(super) allow_identities: Texts,
    pub(super) protocols: Texts,
    pub(super) ciphers: Texts,
    pub(super) groups: Texts,
    pub(super) alpn: Texts,
    pub(super) session_resumption: Flag,
    pub(super) session_lifetime: Text,
    pub(super) session_ticket_keys: Texts,
    pub(super) session_cache: Whole,
    pub(super) session_tickets: Whole,
    pub(super) key_log: Text,
    pub(super) key_log_sources: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateFile {
    pub(super) certificate: Text,
    pub(super) private_key: Text,
    pub(super) ocsp_response: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamFile {
    #[serde(default)]
    pub(super) servers: Vec<Spanned<TextOrServer>>,
    pub(super) balance: Text,
    pub(super) max_connections: Whole,
    pub(super) max_fails: Whole,
    pub(super) fail_timeout: Text,
    pub(super) slow_start: Text,
    pub(super) queue: Whole,
    pub(super) queue_timeout: Text,
    pub(super) warm: Whole,
    pub(super) warm_idle: Text,
    pub(super) resolve_ttl_min: Text,
    pub(super) resolve_ttl_max: Text,
    pub(super) source_address: Texts,
    pub(super) transparent: Flag,
    pub(super) resolve_drain: Text,
    pub(super) happy_eyeballs_delay: Text,
    pub(super) tcp_nodelay: Flag,
    pub(super) keepalive: Option<Spanned<FlagOrKeepalive>>,
    pub(super) tcp_user_timeout: Text,
    pub(super) relay_path: Text,
    pub(super) ktls_after: Text,
    pub(super) proxy_protocol: Text,
    pub(super) tls: Option<Spanned<Table<UpstreamTlsFile>>>,
    pub(super) check: Option<Spanned<Table<CheckFile>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckFile {
    #[serde(rename = "type")]
    pub(super) kind: Text,
    pub(super) port: Whole,
    pub(super) send: Text,
    pub(super) expect: Text,
    pub(super) interval: Text,
    pub(super) timeout: Text,
    pub(super) rise: Whole,
    pub(super) fall: Whole,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerFile {
    pub(super) address: Text,
    pub(super) weight: Whole,
    pub(super) backup: Flag,
    pub(super) down: Flag,
    pub(super) max_connections: Whole,
    pub(super) max_fails: Whole,
    pub(super) fail_timeout: Text,
    pub(super) slow_start: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpstreamTlsFile {
    pub(super) certificate: Text,
    pub(super) private_key: Text,
    pub(super) trusted_certificate: Text,
    pub(super) verify: Flag,
    pub(super) verify_depth: Whole,
    pub(super) crl: Text,
    pub(super) close_revoked: Text,
    pub(super) server_name: Text,
    pub(super) protocols: Texts,
    pub(super) ciphers: Texts,
    pub(super) groups: Texts,
    pub(super) alpn: Texts,
    pub(super) session_reuse: Flag,
    pub(super) key_log: Text,
    pub(super) key_log_sources: Texts,
}

pub(super) type RateTable = Option<Spanned<Table<RateFile>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateFile {
    pub(super) rate: Whole,
    pub(super) burst: Whole,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepaliveFile {
    pub(super) idle: Text,
    pub(super) interval: Text,
    pub(super) probes: Whole,
}

/// A struct that only a table fills. serde's derived structs take arrays too, by position.
#[derive(Debug, Default)]
pub(super) struct Table<T>(pub(super) T);

#[derive(Debug)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<Spanned<String>>),
}

#[derive(Debug)]
pub(super) enum TextOrWhole {
    Text(String),
    Whole(i64),
}

#[derive(Debug)]
pub(super) enum FlagOrKeepalive {
    Flag(bool),
    Table(KeepaliveFile),
}

#[derive(Debug)]
pub(super) enum TextOrServer {
    Text(String),
    Table(Box<ServerFile>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Shape<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Shape(PhantomData)).map(Table)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut many = Vec::new();
                while let Some(text) = seq.next_element()? {
                    many.push(text);
                }
                Ok(OneOrMany::Many(many))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for TextOrWhole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl Visitor<'_> for Shape {
            type Value = TextOrWhole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextOrWhole, E> {
                Ok(TextOrWhole::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<TextOrWhole, E> {
                Ok(TextOrWhole::Whole(number))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for FlagOrKeepalive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = FlagOrKeepalive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a table")
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<FlagOrKeepalive, E> {
                Ok(FlagOrKeepalive::Flag(flag))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FlagOrKeepalive, A::Error> {
                KeepaliveFile::deserialize(MapAccessDeserializer::new(map))
                    .map(FlagOrKeepalive::Table)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for TextOrServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = TextOrServer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextOrServer, E> {
                Ok(TextOrServer::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOrServer, A::Error> {
                let table = ServerFile::deserialize(MapAccessDeserializer::new(map))?;
                Ok(TextOrServer::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
