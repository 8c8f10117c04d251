//! The files that the process can still open: what its plan names, and what it cannot do without.
//!
//! Landlock's rules hold on what a path leads to when the rule is made. A file that is replaced
//! (written beside, then renamed) is another one, so what stays open is each file's folder.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::config::{AccessLog, BindAddress, Located, Place, Plan, ServerAddress};

/// Where the CAs lie that a system trusts; their folders hold links to one another.
const SYSTEM_CERTIFICATES: [&str; 8] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
];

/// Other places for them, as OpenSSL has it.
const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What the names of servers are looked up with. Both files are replaced by whoever manages the
/// network, so their folder stays readable where the plan has names; the folder that one leads to as a
/// link, say /run/systemd/resolve, always does.
const NAME_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What metrics tell of the process.
const STATISTICS: [&str; 3] = ["/proc/self/fd", "/proc/self/statm", "/proc/self/task"];

/// The kernel makes what lies below /proc anew once it has forgotten it, and Landlock would not know
/// it again: held open, it is not forgotten.
pub(super) fn hold_statistics(plan: &Plan) -> Vec<File> {
    let wanted = plan.admin.iter().flat_map(|_| STATISTICS);
    wanted.filter_map(|path| File::open(path).ok()).collect()
}

/// Paths without links, each a folder with all below it or a single file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) read: BTreeSet<PathBuf>,
    /// Where log files are written and made.
    pub(super) logs: BTreeSet<PathBuf>,
    /// Where unix sockets are made and removed.
    pub(super) sockets: BTreeSet<PathBuf>,
}

impl Reach {
    /// What `plan`, which stands in `file`, needs now and after each later reading of its files.
    pub(super) fn of(plan: &Plan, file: &Path) -> Self {
        let mut reach = Self::default();
        reach.read.extend(folders(file));
        for named in named_files(plan) {
            reach.read.extend(folders(&named.value));
        }
        let extra = plan.sandbox.read.iter();
        reach
            .read
            .extend(extra.filter_map(|it| it.value.canonicalize().ok()));
        reach.read.extend(system_files(plan));
        let logs = log_files(plan);
        reach.logs = logs.iter().filter_map(|it| log_place(&it.value)).collect();
        reach.sockets = sockets(plan).filter_map(|it| folder(it.0)).collect();
        reach
    }

    /// Whether a file may be read that has this path now.
    pub(super) fn reads(&self, path: &Path) -> bool {
        is_within(path, &self.read)
    }

    pub(super) fn logs_to(&self, path: &Path) -> bool {
        log_place(path).is_none_or(|place| is_within(&place, &self.logs))
    }

    pub(super) fn binds(&self, path: &Path) -> bool {
        folder(path).is_none_or(|folder| is_within(&folder, &self.sockets))
    }

    pub(super) fn words(&self) -> String {
        let mut words = format!("reads {}", listed(&self.read));
        for (verb, paths) in [("writes", &self.logs), ("binds in", &self.sockets)] {
            if !paths.is_empty() {
                let _ = write!(words, "; {verb} {}", listed(paths));
            }
        }
        words
    }
}

/// Every file that a plan names to be read, with its place in the configuration.
pub(super) fn named_files(plan: &Plan) -> impl Iterator<Item = &Located<PathBuf>> {
    plan.files().into_iter().map(|named| named.file)
}

/// The files that TLS secrets are written to.
pub(super) fn key_logs(plan: &Plan) -> impl Iterator<Item = &Located<PathBuf>> {
    let downstream = plan.listeners.iter().filter_map(|it| it.tls.as_ref());
    let downstream = downstream.filter_map(|tls| tls.key_log.as_ref());
    let upstream = plan.upstreams.iter().filter_map(|it| it.tls.as_ref());
    let upstream = upstream.filter_map(|tls| tls.key_log.as_ref());
    downstream.chain(upstream).map(|it| &it.file)
}

/// Every file that a plan names to be written, with its place where that is known.
pub(super) fn log_files(plan: &Plan) -> Vec<Located<PathBuf>> {
    let access = match &plan.log.access {
        AccessLog::File(path) => Some(Located {
            value: path.clone(),
            place: Place::default(),
        }),
        _ => None,
    };
    access.into_iter().chain(key_logs(plan).cloned()).collect()
}

/// Every unix socket that a plan listens on, with its place where that is known.
pub(super) fn sockets(plan: &Plan) -> impl Iterator<Item = (&Path, Option<&Place>)> {
    let listeners = plan.listeners.iter().flat_map(|listener| &listener.binds);
    let admin = plan.admin.iter().flat_map(|admin| &admin.listen);
    let bound = listeners.chain(admin).filter_map(|bind| match &bind.value {
        BindAddress::Unix(path) => Some((path.as_path(), Some(&bind.place))),
        BindAddress::Tcp(_) => None,
    });
    let takeover = plan.runtime.takeover.iter();
    bound.chain(takeover.map(|path| (path.as_path(), None)))
}

/// The first server of the plan that is found by name, and its place.
pub(super) fn first_name(plan: &Plan) -> Option<&Located<ServerAddress>> {
    let mut servers = plan.upstreams.iter().flat_map(|it| &it.servers);
    let is_name = |address: &ServerAddress| {
        matches!(
            address,
            ServerAddress::Name { .. } | ServerAddress::Service(_)
        )
    };
    let found = servers.find(|server| is_name(&server.address.value))?;
    Some(&found.address)
}

/// The files that names of this plan are looked up with.
pub(super) fn name_files(plan: &Plan) -> impl Iterator<Item = &'static Path> {
    let needed = match plan.runtime.resolver.as_slice() {
        [] => &NAME_FILES[..],
        _ => &NAME_FILES[1..],
    };
    needed.iter().map(Path::new)
}

/// The folder that names a file and the folder that it lies in: certbot's `live` holds links into
/// `archive`.
fn folders(file: &Path) -> impl Iterator<Item = PathBuf> {
    let resolved = file.canonicalize().ok();
    let target = resolved
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_owned);
    folder(file).into_iter().chain(target)
}

fn folder(file: &Path) -> Option<PathBuf> {
    let parent = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent?,
    };
    parent.canonicalize().ok()
}

fn system_files(plan: &Plan) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let existing = |path: &Path| path.canonicalize().ok();
    found.extend(
        SYSTEM_CERTIFICATES
            .iter()
            .filter_map(|it| existing(Path::new(it))),
    );
    for variable in CERTIFICATE_VARIABLES {
        let value = std::env::var_os(variable).unwrap_or_default();
        found.extend(std::env::split_paths(&value).filter_map(|it| existing(&it)));
    }
    for file in NAME_FILES.map(Path::new) {
        let lead = existing(file).into_iter();
        let led_to = lead.filter_map(|it| Some(it.parent()?.to_owned()));
        found.extend(existing(file));
        found.extend(led_to.filter(|it| is_kept_in_run(it)));
        if first_name(plan).is_some() {
            found.extend(folders(file));
        }
    }
    let statistics = plan.admin.iter().flat_map(|_| STATISTICS);
    found.extend(statistics.filter_map(|path| existing(Path::new(path))));
    found
}

/// A folder that somebody who manages the network keeps, as /run/systemd/resolve is; not /run itself.
fn is_kept_in_run(folder: &Path) -> bool {
    folder.starts_with("/run") && folder != Path::new("/run")
}

/// The folder of a log file that may be moved away; a device or a pipe (`/dev/stdout`) itself.
/// `None`: it leads nowhere.
fn log_place(path: &Path) -> Option<PathBuf> {
    let is_special = |kind: std::fs::FileType| kind.is_char_device() || kind.is_fifo();
    match path.canonicalize() {
        Ok(resolved)
            if resolved
                .metadata()
                .is_ok_and(|it| is_special(it.file_type())) =>
        {
            Some(resolved)
        }
        _ => folder(path),
    }
}

/// A path that leads nowhere is forbidden by nobody: opening it says so.
fn is_within(path: &Path, places: &BTreeSet<PathBuf>) -> bool {
    path.canonicalize()
        .ok()
        .or_else(|| folder(path))
        .is_none_or(|path| places.iter().any(|place| path.starts_with(place)))
}

/// Each path once, and none that lies below another.
fn listed(paths: &BTreeSet<PathBuf>) -> String {
    let is_below = |path: &PathBuf| path.ancestors().skip(1).any(|it| paths.contains(it));
    let tops: Vec<String> = paths
        .iter()
        .filter(|path| !is_below(path))
        .map(|path| path.display().to_string())
        .collect();
    tops.join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::parse;

    /// A plan in a folder of its own.
    fn reach(folder: &Path, tables: &str, server: &str) -> Reach {
        let file = folder.join("ringway.toml");
        let text = format!(
            "{tables}\n[[listener]]\nname = \"a\"\nbind = [\"127.0.0.1:0\", \"unix:run/a.sock\"]\n\
             upstream = \"b\"\n[listener.tls]\ncertificate = \"live/a.crt\"\n\
             private_key = \"a.key\"\n[upstream.b]\nservers = [\"{server}\"]\n"
        );
        let loaded = parse(file.display().to_string(), text);
        Reach::of(loaded.plan().unwrap(), &file)
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        for name in ["live", "run", "log", "certs"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        (folder, path)
    }

    #[test]
    fn the_folders_of_all_named_files_are_read_and_no_others() {
        let (_folder, path) = folder();
        let reach = reach(&path, "[log]\naccess = \"log/access.log\"", "127.0.0.1:1");
        for file in ["ringway.toml", "a.key", "live/a.crt", "a.key.not-there-yet"] {
            assert!(reach.reads(&path.join(file)), "{file}");
        }
        for file in ["/etc/passwd", "/root/.profile", "/proc/self/environ"] {
            assert!(!reach.reads(Path::new(file)), "{file}");
        }
        assert!(reach.logs_to(&path.join("log/other.log")));
        assert!(!reach.logs_to(&path.join("certs/access.log")));
        assert!(reach.binds(&path.join("run/b.sock")) && !reach.binds(&path.join("b.sock")));
        let words = reach.words();
        assert!(
            words.starts_with("reads ") && words.contains("; writes "),
            "{words}"
        );
        assert!(
            words.ends_with(&format!("; binds in {}/run", path.display())),
            "{words}"
        );
    }

    #[test]
    fn the_admin_server_reads_what_its_metrics_tell_of_the_process_and_no_more_of_it() {
        let (_folder, path) = folder();
        let admin = "[admin]\nlisten = \"127.0.0.1:0\"";
        for (tables, readable) in [("", false), (admin, true)] {
            let reach = reach(&path, tables, "127.0.0.1:1");
            for file in STATISTICS {
                assert_eq!(reach.reads(Path::new(file)), readable, "{file}");
            }
            assert!(!reach.reads(Path::new("/proc/self/environ")));
        }
    }

    #[test]
    fn where_a_link_leads_is_read_too() {
        let (_folder, path) = folder();
        let archive = tempfile::tempdir().unwrap();
        fs::write(archive.path().join("1.crt"), "").unwrap();
        symlink(archive.path().join("1.crt"), path.join("live/a.crt")).unwrap();
        let reach = reach(&path, "", "127.0.0.1:1");
        assert!(reach.reads(&path.join("live/a.crt")));
        assert!(reach.reads(&archive.path().join("2.crt")), "its successor");
    }

    #[test]
    fn with_names_of_servers_the_folder_of_hosts_is_read_and_not_without() {
        let (_folder, path) = folder();
        for (server, readable) in [
            ("127.0.0.1:1", false),
            ("db.example:1", true),
            ("srv:_db._tcp.example", true),
        ] {
            let reach = reach(&path, "", server);
            assert_eq!(reach.reads(Path::new("/etc/passwd")), readable, "{server}");
        }
    }

    #[test]
    fn a_link_of_resolv_conf_opens_the_folder_in_run_that_it_leads_to_and_nothing_wider() {
        for (folder, opens) in [
            ("/run/systemd/resolve", true),
            ("/run/NetworkManager", true),
            ("/run", false),
            ("/etc", false),
            ("/nix/store", false),
        ] {
            assert_eq!(is_kept_in_run(Path::new(folder)), opens, "{folder}");
        }
    }

    #[test]
    fn what_the_sandbox_table_names_is_read_and_a_device_for_the_log_opens_no_folder() {
        let (_folder, path) = folder();
        let other = tempfile::tempdir().unwrap();
        let tables = format!(
            "[log]\naccess = \"/dev/null\"\n[sandbox]\nread = [\"{}\", \"not-there\"]",
            other.path().display()
        );
        let reach = reach(&path, &tables, "127.0.0.1:1");
        assert!(reach.reads(&other.path().join("later.crt")));
        assert!(reach.logs_to(Path::new("/dev/null")) && !reach.logs_to(Path::new("/dev/x")));
    }
}
