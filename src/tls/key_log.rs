//! The TLS secrets of chosen clients, in a file, for whoever has to look into recorded traffic.
//!
//! Only the configuration turns it on, for clients that it names: each core has a second rustls
//! configuration for them, which differs in nothing else and shares the sessions of the first.

use std::fmt::{self, Write as _};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use rustix::process::geteuid;
use rustls::KeyLog;

use super::material::MaterialError;
use crate::config::{KeyLogPlan, Located};

/// Lines that may wait for the file: five a connection. More are dropped and counted.
const QUEUE_MAX: usize = 4096;

/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// The key log of one listener or upstream group: whose secrets, and to where.
#[derive(Debug)]
pub struct KeyTap {
    plan: KeyLogPlan,
    outlet: Arc<Outlet>,
}

/// The way to the file, with its thread and its descriptor. A table keeps it in reloads: with one for
/// each generation they would add up while old connections live, out of log rotation's reach.
#[derive(Debug)]
struct Outlet {
    file: Located<PathBuf>,
    tap: Arc<Tap>,
    waiting: Waiting,
}

/// The lines for a file that is not opened yet.
#[expect(
    clippy::disallowed_types,
    reason = "taken once for each configuration, by the control thread alone"
)]
type Waiting = std::sync::Mutex<Option<Receiver<String>>>;

impl KeyTap {
    /// Looks at what there is; [`open`](Self::open) opens it. The way to the file is the one that the
    /// table had `before`, if that was to the same.
    pub(super) fn new(plan: &KeyLogPlan, before: Option<&Self>) -> Result<Self, MaterialError> {
        let same = before.filter(|tap| tap.plan.file == plan.file);
        let outlet = match same {
            Some(tap) => Arc::clone(&tap.outlet),
            None => Arc::new(Outlet::to(&plan.file)?),
        };
        Ok(Self {
            plan: plan.clone(),
            outlet,
        })
    }

    /// Opens the file and starts the thread that writes, which ends with the last core's end of it.
    /// Later calls do nothing.
    ///
    /// Called once the process has given up its rights: the file is then its user's, who will open
    /// it again, and the thread has no more rights than the others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(&self) -> Result<(), MaterialError> {
        self.outlet.open()
    }

    /// Has the file opened anew, after log rotation has moved it away.
    pub fn reopen(&self) {
        self.outlet.tap.reopen();
    }

    /// A core's end.
    pub(super) fn log(&self) -> Arc<dyn KeyLog> {
        self.outlet.tap.clone()
    }

    pub(super) fn plan(&self) -> &KeyLogPlan {
        &self.plan
    }
}

impl Outlet {
    fn to(file: &Located<PathBuf>) -> Result<Self, MaterialError> {
        examine(file)?;
        let (lines, queued) = sync_channel(QUEUE_MAX);
        Ok(Self {
            file: file.clone(),
            tap: Arc::new(Tap {
                lines,
                state: Arc::default(),
            }),
            waiting: Waiting::new(Some(queued)),
        })
    }

    fn open(&self) -> Result<(), MaterialError> {
        let waiting = self.waiting.lock();
        let Some(queued) = waiting.unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let writer = Writer {
            file: open_file(&self.file)?,
            path: self.file.clone(),
            state: Arc::clone(&self.tap.state),
            is_failing: false,
        };
        let thread = thread::Builder::new().name("ringway-keys".into());
        let begun = thread.spawn(move || writer.run(&queued));
        begun.map(drop).map_err(|error| {
            let words = format!("the key log's thread cannot be started: {error}");
            MaterialError::file(&self.file, words)
                .with_cure("raise the limit of processes (ulimit -u, or TasksMax= of the service)")
        })
    }
}

/// What there is at the path may be used, if there is anything. For whoever wants to know before it
/// is opened: what is opened may be something else, and [`open_file`] looks again.
///
/// # Errors
/// Others than its owner may read it.
pub(super) fn examine(file: &Located<PathBuf>) -> Result<(), MaterialError> {
    match fs::symlink_metadata(&file.value) {
        Ok(metadata) => is_private(file, &metadata),
        Err(_) => Ok(()),
    }
}

fn is_private(file: &Located<PathBuf>, metadata: &Metadata) -> Result<(), MaterialError> {
    if !metadata.is_file() {
        let words = "the key log is there already, and is not a plain file";
        return Err(MaterialError::file(file, words).with_cure("name a file of its own"));
    }
    if metadata.mode() & OTHERS != 0 {
        let words = "the key log is there already, and others than its owner may use it";
        let cure = format!("`chmod 600 {}`, or delete it", file.value.display());
        return Err(MaterialError::file(file, words).with_cure(cure));
    }
    Ok(())
}

/// Who may write to the folder could have put another file there at any time until it is open. So
/// only what is open is believed, and it has to be our user's: its owner may read it.
fn open_file(file: &Located<PathBuf>) -> Result<File, MaterialError> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&file.value);
    let opened = opened.map_err(|error| unwritable(file, &error))?;
    let metadata = opened
        .metadata()
        .map_err(|error| unwritable(file, &error))?;
    is_private(file, &metadata)?;
    if metadata.uid() != geteuid().as_raw() {
        let words = format!(
            "the key log is there already, and user {} owns it, who may read it",
            metadata.uid()
        );
        return Err(MaterialError::file(file, words).with_cure(change_of_owner(file)));
    }
    Ok(opened)
}

fn unwritable(file: &Located<PathBuf>, error: &io::Error) -> MaterialError {
    let words = format!("the key log cannot be written: {error}");
    MaterialError::file(file, words).with_cure(match error.kind() {
        io::ErrorKind::PermissionDenied => change_of_owner(file),
        _ => "name a file in a directory that Ringway's user may write to".to_owned(),
    })
}

fn change_of_owner(file: &Located<PathBuf>) -> String {
    format!(
        "`chown {} {}`, or delete it: it is written by the user that Ringway runs as, who also needs \
         a folder to make it in",
        geteuid().as_raw(),
        file.value.display()
    )
}

/// A core's end: never waits for the file. What the queue locks is locked to wake the writer alone.
struct Tap {
    lines: SyncSender<String>,
    state: Arc<State>,
}

/// What cores and the writer tell each other beside the lines.
#[derive(Debug, Default)]
struct State {
    dropped: AtomicU64,
    /// The path is to be opened anew.
    is_moved: AtomicBool,
}

impl Tap {
    fn reopen(&self) {
        self.state.is_moved.store(true, Ordering::Relaxed);
        // An empty line wakes the thread; where there is no room for it, others do.
        let _ = self.lines.try_send(String::new());
    }
}

impl KeyLog for Tap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = line(label, client_random, secret);
        if self.lines.try_send(line).is_err() {
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

/// NSS's key log format, as Wireshark reads it: `LABEL CLIENT_RANDOM SECRET`.
fn line(label: &str, client_random: &[u8], secret: &[u8]) -> String {
    let mut line =
        String::with_capacity(label.len() + 2 * (client_random.len() + secret.len()) + 3);
    line.push_str(label);
    for part in [client_random, secret] {
        line.push(' ');
        for byte in part {
            // A String takes every write.
            let _ = write!(line, "{byte:02x}");
        }
    }
    line.push('\n');
    line
}

#[derive(Debug)]
struct Writer {
    path: Located<PathBuf>,
    file: File,
    state: Arc<State>,
    is_failing: bool,
}

impl Writer {
    fn run(mut self, queued: &Receiver<String>) {
        while let Ok(line) = queued.recv() {
            if self.state.is_moved.swap(false, Ordering::Relaxed) {
                self.reopen();
            }
            if !line.is_empty() {
                let written = self.file.write_all(line.as_bytes());
                self.tell(written);
            }
        }
    }

    fn reopen(&mut self) {
        match examine(&self.path).and_then(|()| open_file(&self.path)) {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::error!("not opened anew, secrets go on to the file before: {error}");
            }
        }
    }

    /// Says a failure once, and its end with what was lost.
    fn tell(&mut self, written: io::Result<()>) {
        let path = self.path.value.display();
        match written {
            Err(error) => {
                self.state.dropped.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        "key log {path} cannot be written: {error}; free space on its file \
                         system. Connections go on, their secrets are not written"
                    );
                }
            }
            Ok(()) => {
                self.is_failing = false;
                let dropped = self.state.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!("key log {path}: {dropped} secrets were dropped");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;

    use ringway_support::until;

    use super::*;
    use crate::config::Place;

    fn plan(path: &Path) -> KeyLogPlan {
        KeyLogPlan {
            file: Located {
                value: path.to_owned(),
                place: Place::default(),
            },
            sources: vec!["10.0.0.0/8".parse().unwrap()],
        }
    }

    #[test]
    fn a_line_is_label_client_random_and_secret_in_hexadecimal_digits() {
        assert_eq!(
            line("CLIENT_RANDOM", &[0, 0xab], &[0x0f, 0xff]),
            "CLIENT_RANDOM 00ab 0fff\n"
        );
    }

    #[test]
    fn only_clients_of_the_named_networks_are_covered() {
        let plan = plan(Path::new("/nowhere"));
        for (client, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(plan.covers(Some(client.parse().unwrap())), expected);
        }
        assert!(
            !plan.covers(None),
            "a client of a unix socket has no source"
        );
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = KeyTap::new(&plan(&path), None).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        let refused = KeyTap::new(&plan(&link), None).unwrap_err().to_string();
        assert!(refused.contains("not a plain file"), "{refused}");
    }

    #[test]
    fn a_new_file_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let tap = KeyTap::new(&plan(&path), None).unwrap();
        tap.log().log("A", &[1], &[2]);
        assert!(!path.exists(), "it waits for the user who will have it");
        tap.open().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & OTHERS, 0);
        expect(&path, "A 01 02\n");
    }

    #[test]
    fn a_file_that_comes_between_the_look_and_the_opening_gets_nothing_if_others_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        for mode in [0o666, 0o640, 0o602] {
            let tap = KeyTap::new(&plan(&path), None).unwrap();
            tap.log().log("A", &[1], &[2]);
            write_with_mode(&path, mode);
            let refused = tap.open().unwrap_err().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_that_another_user_owns_is_not_written_to_by_root_at_the_start_or_after_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let moved = directory.path().join("keys.1");
        let other = geteuid().as_raw() + 1;
        write_with_mode(&path, 0o600);
        if let Err(error) = chown(&path, Some(other), None) {
            println!("SKIPPED: only root can give a file away: {error}");
            return;
        }
        let tap = KeyTap::new(&plan(&path), None).unwrap();
        let refused = tap.open().unwrap_err().to_string();
        for words in [format!("user {other} owns it"), "`chown ".to_owned()] {
            assert!(refused.contains(&words), "{refused}");
        }
        fs::remove_file(&path).unwrap();

        let tap = KeyTap::new(&plan(&path), None).unwrap();
        tap.open().unwrap();
        fs::rename(&path, &moved).unwrap();
        write_with_mode(&path, 0o600);
        chown(&path, Some(other), None).unwrap();
        tap.reopen();
        tap.log().log("A", &[1], &[2]);
        expect(&moved, "A 01 02\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    fn write_with_mode(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn after_rotation_lines_go_to_a_new_file_and_to_the_old_one_if_there_can_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let moved = directory.path().join("keys.1");
        let tap = KeyTap::new(&plan(&path), None).unwrap();
        tap.open().unwrap();
        tap.log().log("A", &[1], &[2]);
        expect(&path, "A 01 02\n");
        fs::rename(&path, &moved).unwrap();
        symlink("elsewhere", &path).unwrap();
        tap.reopen();
        tap.log().log("B", &[1], &[2]);
        expect(&moved, "A 01 02\nB 01 02\n");
        fs::remove_file(&path).unwrap();
        tap.reopen();
        tap.log().log("C", &[1], &[2]);
        expect(&path, "C 01 02\n");
    }

    fn expect(path: &Path, text: &str) {
        until("the secrets", || {
            (fs::read_to_string(path).ok()? == text).then_some(())
        });
    }
}
