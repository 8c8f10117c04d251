//! The files of the system that say how names are looked up.
//!
//! They are read anew for each lookup: a network that comes up late, or changes, needs no restart. A
//! file that has been replaced may be closed to a process that has given up its rights, for Landlock
//! knows files and not their names. What was read last then goes on to hold.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

/// Both files, with what was last read of them. Its copies share that.
#[derive(Debug, Clone)]
pub struct SystemFiles {
    pub(super) hosts: Arc<NameFile>,
    pub(super) resolv_conf: Arc<NameFile>,
}

#[derive(Debug)]
pub(super) struct NameFile {
    path: PathBuf,
    last: Last,
}

#[expect(
    clippy::disallowed_types,
    reason = "of the control thread, never held across an await"
)]
type Last = std::sync::Mutex<Option<LastRead>>;

#[derive(Debug)]
struct LastRead {
    text: Vec<u8>,
    /// The file that is there now is closed to this process, which has been said.
    is_closed: bool,
}

impl Default for SystemFiles {
    fn default() -> Self {
        Self::with_hosts("/etc/hosts".into())
    }
}

impl SystemFiles {
    pub(super) fn with_hosts(hosts: PathBuf) -> Self {
        Self {
            hosts: Arc::new(NameFile::at(hosts)),
            resolv_conf: Arc::new(NameFile::at("/etc/resolv.conf".into())),
        }
    }
}

impl SystemFiles {
    /// Reads both while they can be: the names so far may need one of them alone.
    pub fn remember(&self) {
        for file in [&self.hosts, &self.resolv_conf] {
            // Whoever needs it will be told.
            let _ = file.read();
        }
    }
}

impl NameFile {
    fn at(path: PathBuf) -> Self {
        Self {
            path,
            last: Last::default(),
        }
    }

    /// What it says; what it last said where it may not be read any more.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let read = fs::read(&self.path);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &mut *last) {
            (Ok(text), last) => {
                *last = Some(LastRead {
                    text: text.clone(),
                    is_closed: false,
                });
                Ok(text)
            }
            (Err(error), Some(last)) if error.kind() == io::ErrorKind::PermissionDenied => {
                if !std::mem::replace(&mut last.is_closed, true) {
                    tracing::warn!(
                        "{} was replaced, and this process may not read the new file: names are \
                         looked up by the old one. Restart Ringway when it suits; or let its user read \
                         the file, and have `read = [\"/etc\"]` in [sandbox] from the next start on",
                        self.path.display()
                    );
                }
                Ok(last.text.clone())
            }
            (Err(error), _) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_read_anew_each_time_and_one_that_is_gone_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let file = NameFile::at(path.clone());
        for text in ["one", "two"] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.read().unwrap(), text.as_bytes());
        }
        fs::remove_file(&path).unwrap();
        let error = file.read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // Not closed, but no file either.
        symlink(&path, &path).unwrap();
        assert!(file.read().is_err());
    }
}
