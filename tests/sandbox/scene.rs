//! A configuration with its files, and the process inside.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ringway_support::sys::die_with_parent;
use ringway_support::{Ringway, ringway};
use tempfile::TempDir;

use crate::inside;

/// The user and group `nobody` of nearly every system; no file of it is needed.
pub(crate) const NOBODY: u32 = 65_534;

pub(crate) struct Scene {
    folder: TempDir,
    /// Where the certificate lies that `live.crt` links to, and where `log` does.
    _elsewhere: [TempDir; 2],
}

impl Scene {
    /// `tables` are `[runtime]`, `[sandbox]` and the like; `listener` is lines for its table.
    pub(crate) fn new(tables: &str, listener: &str) -> Self {
        let (folder, archive, log) = (open_folder(), open_folder(), open_folder());
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.key"), "a key").unwrap();
        fs::set_permissions(path("a.key"), Permissions::from_mode(0o644)).unwrap();
        fs::write(archive.path().join("1.crt"), "a certificate").unwrap();
        symlink(archive.path().join("1.crt"), path("live.crt")).unwrap();
        symlink(log.path(), path("log")).unwrap();
        // Refused where this is not root, and not needed then.
        let _ = chown(log.path(), Some(NOBODY), Some(NOBODY));
        for key in ["earlier.key", "later.key"] {
            fs::write(path(key), "to be removed").unwrap();
        }
        fs::write(path("ringway.toml"), text(tables, listener)).unwrap();
        Self {
            folder,
            _elsewhere: [archive, log],
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn enter(&self) -> Inside {
        self.enter_as(None)
    }

    /// As if whoever starts the proxy were not root.
    pub(crate) fn enter_as(&self, user: Option<u32>) -> Inside {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(inside::FILE, self.path("ringway.toml"));
        if let Some(user) = user {
            command.env(inside::STARTED_AS, user.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        Inside { child, said, first }
    }
}

pub(crate) fn text(tables: &str, listener: &str) -> String {
    format!(
        "{tables}\n[log]\naccess = \"log/access.log\"\n[[listener]]\nname = \"a\"\nbind = \
         \"127.0.0.1:0\"\nupstream = \"b\"\n{listener}\n[listener.tls]\ncertificate = \"live.crt\"\n\
         private_key = \"a.key\"\n[upstream.b]\nservers = [\"127.0.0.1:1\"]\n"
    )
}

fn open_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    folder
}

/// The process inside, which waits to be let go on.
pub(crate) struct Inside {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    first: String,
}

impl Inside {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said instead of being confined.
    pub(crate) fn refusal(mut self) -> String {
        self.child.wait().unwrap();
        self.first
            .strip_prefix("refused\t")
            .expect(&self.first)
            .to_owned()
    }

    /// What became of each attempt, and the lines behind them.
    pub(crate) fn go_on(mut self) -> Said {
        assert_eq!(self.first, "confined\n");
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut text = String::new();
        self.said.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        Said { text }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) text: String,
}

impl Said {
    /// By attempt: its outcome on a thread that began `earlier` or `later`.
    pub(crate) fn outcomes(&self, thread: &str) -> BTreeMap<&str, &str> {
        let lines = self.text.lines();
        lines
            .filter_map(|line| {
                line.strip_prefix(thread)?
                    .strip_prefix('\t')?
                    .split_once('\t')
            })
            .collect()
    }
}

/// One field of `/proc/PID/task/*/status`, by the threads' names.
pub(crate) fn of_every_thread(pid: u32, field: &str) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = threads.map(|it| fs::read_to_string(it.unwrap().path().join("status")).unwrap());
    let value = |status: &str, field: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {status}"))
            .trim()
            .to_owned()
    };
    statuses
        .map(|it| (value(&it, "Name"), value(&it, field)))
        .collect()
}

pub(crate) fn has_landlock() -> bool {
    // The version: landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION).
    ringway_support::sys::call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0]).is_ok()
}

pub(crate) fn has_raw_sockets() -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_ip_transparent_v4(true).is_ok()
}

/// A folder that everybody may pass through, whose `log` is the property of [`NOBODY`].
pub(crate) fn folder_with_log() -> (TempDir, PathBuf) {
    let folder = open_folder();
    let log = folder.path().join("log");
    fs::create_dir(&log).unwrap();
    chown(&log, Some(NOBODY), Some(NOBODY)).unwrap();
    (folder, log)
}

/// A proxy that becomes [`NOBODY`].
pub(crate) fn as_nobody() -> Ringway {
    ringway!().runtime(&format!("user = \"nobody\"\ngroup = \"{NOBODY}\""))
}

/// Lets everybody pass through a folder.
pub(crate) fn open(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
}

/// So that this user alone may read it.
pub(crate) fn give(file: &Path, user: u32) {
    chown(file, Some(user), Some(user)).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

/// As a renewal does it: the new file is written beside, and then renamed.
pub(crate) fn renew(path: &Path) {
    let beside = path.with_extension("new");
    fs::write(&beside, "a newer key").unwrap();
    fs::set_permissions(&beside, Permissions::from_mode(0o644)).unwrap();
    fs::rename(beside, path).unwrap();
}
