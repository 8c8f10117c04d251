//! A running proxy that reads its configuration anew.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::pki::Credential;
use crate::proxy::Proxy;
use crate::wait::{DEADLINE, within};

const SIGHUP: i32 = 1;

impl Proxy {
    /// The file that it was started with.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Puts other tables into its file, whole at once; those for `[runtime]` and `[log]` stay.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, toml: &str) {
        replace(&self.file, format!("{}{toml}", self.own));
    }

    /// Reloads, successfully.
    ///
    /// # Panics
    /// When the reload is refused, or not over in time.
    pub fn reload(&mut self) {
        let line = self.hang_up();
        assert!(!line.contains("not reloaded"), "{line}{}", self.story());
        self.look_for_addresses();
    }

    /// Reloads with other tables, successfully.
    pub fn reload_with(&mut self, toml: &str) {
        self.write(toml);
        self.reload();
    }

    /// Reloads in vain. What it said since then.
    ///
    /// # Panics
    /// When the reload is not refused.
    #[must_use]
    pub fn reload_refused(&self) -> String {
        let before = self.stderr().len();
        let line = self.hang_up();
        assert!(line.contains("not reloaded"), "{line}{}", self.story());
        self.stderr()[before..].to_owned()
    }

    /// Sends SIGHUP, and waits for what comes of it.
    fn hang_up(&self) -> String {
        let before = self.stderr_lines("reloaded").len();
        self.signal(SIGHUP);
        let line = within(DEADLINE, || {
            self.stderr_lines("reloaded").get(before).cloned()
        });
        line.unwrap_or_else(|| panic!("no reload in {DEADLINE:?}{}", self.story()))
    }
}

/// Replaces a file so that nobody ever reads half of it.
///
/// # Panics
/// When it cannot be written.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, content).expect("a writable folder");
    fs::rename(&beside, path).expect("a file to replace");
}

/// A certificate with its key in files that change.
pub struct Pair {
    folder: TempDir,
}

impl Pair {
    /// In a folder of its own.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn of(credential: &Credential) -> Self {
        let pair = Self {
            folder: TempDir::new().expect("a folder and files"),
        };
        pair.put(credential);
        pair
    }

    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("edge.crt")
    }

    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("edge.key")
    }

    pub fn put(&self, credential: &Credential) {
        self.put_certificate(credential);
        self.put_key(credential);
    }

    /// # Panics
    /// When it cannot be written.
    pub fn put_certificate(&self, credential: &Credential) {
        replace(
            &self.certificate(),
            fs::read(&credential.certificate).expect("a folder and files"),
        );
    }

    /// # Panics
    /// When it cannot be written.
    pub fn put_key(&self, credential: &Credential) {
        replace(
            &self.key(),
            fs::read(&credential.private_key).expect("a folder and files"),
        );
    }

    /// `[listener.tls]` with the pair.
    #[must_use]
    pub fn toml(&self) -> String {
        format!(
            "[listener.tls]\ncertificate = \"{}\"\nprivate_key = \"{}\"\n",
            self.certificate().display(),
            self.key().display()
        )
    }
}
