//! A file of configs/ made to run here: ports and paths replaced in its text, the rest untouched.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toml::{Table, Value};

use crate::link::Address;
use crate::pki::{Credential, Leaf};

/// A configuration file and what it says.
pub struct Scenario {
    name: String,
    text: String,
    /// The file as it stands in configs/.
    table: Table,
    directory: TempDir,
}

/// A route by the ClientHello, as the file has it.
#[derive(Debug, Clone)]
pub struct Route {
    /// A name that the route's patterns match, if it has any.
    pub sni: Option<String>,
    /// The first protocol, if it has any.
    pub alpn: Option<String>,
    pub upstream: String,
}

impl Scenario {
    /// Reads `configs/NAME` below `root`; binds, log and ticket keys are replaced at once.
    ///
    /// # Panics
    /// When the file is missing or no TOML.
    #[must_use]
    pub fn load(root: &str, name: &str) -> Self {
        let path = Path::new(root).join("configs").join(name);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let table = text
            .parse::<Table>()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut scenario = Self {
            name: name.to_owned(),
            text,
            table,
            directory: TempDir::new().expect("a temporary directory"),
        };
        scenario.replace_binds();
        scenario.replace_log();
        scenario.replace_ticket_keys();
        scenario
    }

    /// The text to run.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text in a file, for `ringway check`.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        let path = self.directory.path().join(&self.name);
        fs::write(&path, &self.text).expect("a writable temporary directory");
        path
    }

    /// Name of the first listener.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn listener(&self) -> String {
        let name = self.listeners().next().and_then(|l| string(l.get("name")));
        name.unwrap_or_else(|| panic!("{}: no listener with a name", self.name))
    }

    /// Names of all upstream groups.
    #[must_use]
    pub fn upstreams(&self) -> Vec<String> {
        self.groups().map(|(name, _)| name.clone()).collect()
    }

    /// The group that the first listener leads to without a route.
    #[must_use]
    pub fn default_upstream(&self) -> Option<String> {
        string(self.listeners().next()?.get("upstream"))
    }

    /// How many servers the group has.
    #[must_use]
    pub fn server_count(&self, upstream: &str) -> usize {
        self.servers(upstream).len()
    }

    /// `server_name` of the group's TLS.
    #[must_use]
    pub fn server_name(&self, upstream: &str) -> Option<String> {
        string(self.group(upstream)?.get("tls")?.get("server_name"))
    }

    /// Routes of all listeners.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        let routes = self.listeners().filter_map(|l| l.get("route")?.as_array());
        let route = |route: &Value| Route {
            sni: strings(route.get("sni"))
                .first()
                .map(|name| name.replace('*', "any")),
            alpn: strings(route.get("alpn")).into_iter().next(),
            upstream: string(route.get("upstream")).unwrap_or_default(),
        };
        routes.flatten().map(route).collect()
    }

    /// Whether the first listener names the identities it allows.
    #[must_use]
    pub fn allows_by_name(&self) -> bool {
        !self.allowed().is_empty()
    }

    /// A client that the first listener allows, to be issued.
    #[must_use]
    pub fn allowed_client(&self) -> Leaf {
        let allowed = self.allowed();
        let Some(pattern) = allowed.first() else {
            return crate::pki::tester();
        };
        let name = pattern.replace('*', "tester");
        match name.split_once(':') {
            Some(("dns", name)) => Leaf::client("tester").dns(name),
            Some(("cn", name)) => Leaf::client(name),
            Some(("uri", uri)) => Leaf::client("tester").uri(uri),
            _ => Leaf::client("tester").uri(&name),
        }
    }

    /// The listeners' certificate.
    pub fn put_edge(&mut self, edge: &Credential) {
        self.put_paths(Place::Listeners, "certificate", &edge.certificate);
        self.put_paths(Place::Listeners, "private_key", &edge.private_key);
    }

    pub fn put_client_ca(&mut self, ca: &Path) {
        self.put_paths(Place::Listeners, "client_ca", ca);
    }

    /// CRLs of both legs.
    pub fn put_crl(&mut self, crl: &Path) {
        self.put_paths(Place::Listeners, "crl", crl);
        self.put_paths(Place::Upstreams, "crl", crl);
    }

    /// What the proxy shows to servers.
    pub fn put_identity(&mut self, identity: &Credential) {
        self.put_paths(Place::Upstreams, "certificate", &identity.certificate);
        self.put_paths(Place::Upstreams, "private_key", &identity.private_key);
    }

    pub fn put_trusted(&mut self, ca: &Path) {
        self.put_paths(Place::Upstreams, "trusted_certificate", ca);
    }

    /// One address for each server of the group, in order.
    ///
    /// # Panics
    /// When their numbers differ.
    pub fn put_servers(&mut self, upstream: &str, addresses: &[&Address]) {
        let servers = self.servers(upstream);
        assert_eq!(
            servers.len(),
            addresses.len(),
            "{}: servers of {upstream}",
            self.name
        );
        for (server, address) in servers.iter().zip(addresses) {
            self.put(server, &address.to_string());
        }
    }

    /// The same address for every server of every group.
    pub fn put_every_server(&mut self, address: &Address) {
        for upstream in self.upstreams() {
            for server in self.servers(&upstream) {
                self.put(&server, &address.to_string());
            }
        }
    }

    fn listeners(&self) -> impl Iterator<Item = &Table> {
        let listeners = self.table.get("listener").and_then(Value::as_array);
        listeners.into_iter().flatten().filter_map(Value::as_table)
    }

    fn groups(&self) -> impl Iterator<Item = (&String, &Value)> {
        let groups = self.table.get("upstream").and_then(Value::as_table);
        groups.into_iter().flatten()
    }

    fn group(&self, name: &str) -> Option<&Value> {
        self.groups()
            .find(|(n, _)| *n == name)
            .map(|(_, group)| group)
    }

    fn servers(&self, upstream: &str) -> Vec<String> {
        let servers = self.group(upstream).and_then(|g| g.get("servers"));
        let servers = servers.and_then(Value::as_array).into_iter().flatten();
        let address = |server: &Value| match server {
            Value::Table(table) => string(table.get("address")),
            other => string(Some(other)),
        };
        servers.filter_map(address).collect()
    }

    fn allowed(&self) -> Vec<String> {
        let tls = self.listeners().next().and_then(|l| l.get("tls"));
        strings(tls.and_then(|tls| tls.get("allow_identities")))
    }

    fn put_paths(&mut self, place: Place, key: &str, path: &Path) {
        let within = match place {
            Place::Listeners => self.table.get("listener"),
            Place::Upstreams => self.table.get("upstream"),
        };
        let mut old = Vec::new();
        if let Some(within) = within {
            find(within, key, &mut old);
        }
        let new = path.display().to_string();
        for old in old.iter().filter(|old| *old != "system") {
            self.put(old, &new);
        }
    }

    fn replace_binds(&mut self) {
        let binds: Vec<_> = self
            .listeners()
            .flat_map(|l| strings(l.get("bind")))
            .collect();
        for (number, bind) in binds.iter().enumerate() {
            let new = match bind {
                unix if unix.starts_with("unix:") => {
                    let directory = self.directory.path().display();
                    format!("unix:{directory}/{number}.sock")
                }
                v6 if v6.starts_with('[') => "[::1]:0".to_owned(),
                _ => "127.0.0.1:0".to_owned(),
            };
            self.put(bind, &new);
        }
    }

    /// To stderr and as JSON, where the tests read it.
    fn replace_log(&mut self) {
        let log = self.table.get("log");
        let has = |key: &str| log.is_some_and(|log| log.get(key).is_some());
        for (key, value) in [("access", "stderr"), ("format", "json")] {
            if !has(key) {
                continue;
            }
            // By line and not by value: a short word like "off" stands elsewhere too.
            let is_key = |line: &str| {
                let rest = line.trim_start().strip_prefix(key);
                rest.is_some_and(|rest| rest.trim_start().starts_with('='))
            };
            let replace = |line: &str| match is_key(line) {
                true => format!("{key} = \"{value}\""),
                false => line.to_owned(),
            };
            let lines: Vec<_> = self.text.lines().map(replace).collect();
            self.text = lines.join("\n") + "\n";
        }
    }

    fn replace_ticket_keys(&mut self) {
        let mut files = Vec::new();
        for listener in self.listeners() {
            let tls = listener.get("tls");
            files.extend(strings(tls.and_then(|t| t.get("session_ticket_keys"))));
        }
        for (number, file) in files.iter().enumerate() {
            let path = self.directory.path().join(format!("{number}.key"));
            let key = crate::pattern::Pattern::new(number as u64).take(80);
            fs::write(&path, key).expect("a writable temporary directory");
            self.put(file, &path.display().to_string());
        }
    }

    /// Replaces a quoted string wherever it stands outside comments.
    fn put(&mut self, old: &str, new: &str) {
        let (old, new) = (format!("\"{old}\""), format!("\"{new}\""));
        let replace = |line: &str| match line.trim_start().starts_with('#') {
            true => line.to_owned(),
            false => line.replace(&old, &new),
        };
        let lines: Vec<_> = self.text.lines().map(replace).collect();
        self.text = lines.join("\n") + "\n";
        assert!(
            self.text.contains(&new),
            "{}: {old} is not written as a plain string",
            self.name
        );
    }
}

/// Where a key that both legs have is meant.
#[derive(Debug, Clone, Copy)]
enum Place {
    Listeners,
    Upstreams,
}

fn string(value: Option<&Value>) -> Option<String> {
    value?.as_str().map(str::to_owned)
}

/// A string, or an array of strings.
fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(|v| string(Some(v))).collect(),
        _ => Vec::new(),
    }
}

/// All strings under `key`, however deep.
fn find(within: &Value, key: &str, found: &mut Vec<String>) {
    match within {
        Value::Array(values) => values.iter().for_each(|value| find(value, key, found)),
        Value::Table(table) => {
            for (name, value) in table {
                if name == key {
                    found.extend(strings(Some(value)));
                }
                find(value, key, found);
            }
        }
        _ => {}
    }
}
