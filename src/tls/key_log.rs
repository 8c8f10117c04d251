//! The TLS secrets of chosen clients, in a file, for whoever has to look into recorded traffic.
//!
//! Only the configuration turns it on, for clients that it names: each core has a second rustls
//! configuration for them, which differs in nothing else and shares the sessions of the first.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use rustls::KeyLog;

use super::material::MaterialError;
use crate::config::{KeyLogPlan, Located};

/// Lines that may wait for the file: five a connection. More are dropped and counted.
const QUEUE_MAX: usize = 4096;

/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// The key log of one listener or upstream group.
#[derive(Debug)]
pub(super) struct KeyTap {
    plan: KeyLogPlan,
    log: Arc<dyn KeyLog>,
    held: Held,
}

#[expect(
    clippy::disallowed_types,
    reason = "taken once for each configuration of a core, never per connection"
)]
type Held = std::sync::Mutex<Option<(Writer, Receiver<String>)>>;

impl KeyTap {
    /// Opens the file.
    pub(super) fn open(plan: &KeyLogPlan) -> Result<Self, MaterialError> {
        let unusable = |error: &io::Error| {
            MaterialError::file(
                &plan.file,
                format!("the key log cannot be written: {error}"),
            )
            .with_cure("name a file in a directory that Ringway's user may write to")
        };
        examine(&plan.file)?;
        let file = open_file(&plan.file.value).map_err(|error| unusable(&error))?;
        let (lines, queued) = sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            path: plan.file.value.clone(),
            file,
            dropped: Arc::clone(&dropped),
            is_failing: false,
        };
        Ok(Self {
            plan: plan.clone(),
            log: Arc::new(Tap { lines, dropped }),
            held: Held::new(Some((writer, queued))),
        })
    }

    /// For a core's configuration. The first one starts the thread that writes, for by then the
    /// process has given up the rights that a thread would keep; it ends with the last one.
    pub(super) fn log(&self) -> Arc<dyn KeyLog> {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((writer, queued)) = held {
            let thread = thread::Builder::new().name("ringway-keys".into());
            if let Err(error) = thread.spawn(move || writer.run(&queued)) {
                let path = self.plan.file.value.display();
                tracing::error!("key log {path}: its thread cannot be started: {error}");
            }
        }
        Arc::clone(&self.log)
    }

    pub(super) fn plan(&self) -> &KeyLogPlan {
        &self.plan
    }
}

/// What there is at the path may be used, if there is anything.
///
/// # Errors
/// Others than its owner may read it.
pub(super) fn examine(file: &Located<PathBuf>) -> Result<(), MaterialError> {
    let Ok(metadata) = fs::symlink_metadata(&file.value) else {
        return Ok(());
    };
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

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

/// A core's end: never waits for the file. What the queue locks is locked to wake the writer alone.
struct Tap {
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
}

impl KeyLog for Tap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = line(label, client_random, secret);
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
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
    path: PathBuf,
    file: File,
    dropped: Arc<AtomicU64>,
    is_failing: bool,
}

impl Writer {
    fn run(mut self, queued: &Receiver<String>) {
        while let Ok(line) = queued.recv() {
            let written = self.file.write_all(line.as_bytes());
            self.tell(written);
        }
    }

    /// Says a failure once, and its end with what was lost.
    fn tell(&mut self, written: io::Result<()>) {
        let path = self.path.display();
        match written {
            Err(error) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        "key log {path} cannot be written: {error}; free space on its file \
                         system. Connections go on, their secrets are not written"
                    );
                }
            }
            Ok(()) => {
                self.is_failing = false;
                let dropped = self.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!("key log {path}: {dropped} secrets were dropped");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        let refused = KeyTap::open(&plan(&path)).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        let refused = KeyTap::open(&plan(&link)).unwrap_err().to_string();
        assert!(refused.contains("not a plain file"), "{refused}");
    }

    #[test]
    fn a_new_file_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let tap = KeyTap::open(&plan(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & OTHERS, 0);
        tap.log().log("A", &[1], &[2]);
        let begun = std::time::Instant::now();
        while fs::read_to_string(&path).unwrap() != "A 01 02\n" {
            assert!(begun.elapsed().as_secs() < 20);
            thread::yield_now();
        }
    }
}
