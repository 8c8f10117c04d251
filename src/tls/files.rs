//! The files of a configuration as they were at one moment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

/// SHA-256 of a file's bytes; `None`: it could not be read.
type Digest = Option<[u8; 32]>;

/// Every file that is asked for, each read once: what was checked is what is used, also while
/// somebody replaces it.
#[derive(Default)]
pub struct Files {
    read: RefCell<BTreeMap<PathBuf, Read>>,
    system: RefCell<Option<Vec<CertificateDer<'static>>>>,
}

enum Read {
    Bytes(Rc<Zeroizing<Vec<u8>>>),
    Refused(io::ErrorKind, String),
}

/// What [`Files`] held, without its secrets: tells whether a file is still the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests {
    files: BTreeMap<PathBuf, Digest>,
    /// Of the system's CA certificates, where they were asked for.
    system: Digest,
}

impl Files {
    pub(super) fn read(&self, path: &Path) -> io::Result<Rc<Zeroizing<Vec<u8>>>> {
        let mut known = self.read.borrow_mut();
        let read = known
            .entry(path.to_owned())
            .or_insert_with(|| match read_path(path) {
                Ok(bytes) => Read::Bytes(Rc::new(Zeroizing::new(bytes))),
                Err(error) => Read::Refused(error.kind(), error.to_string()),
            });
        match read {
            Read::Bytes(bytes) => Ok(Rc::clone(bytes)),
            Read::Refused(kind, words) => Err(io::Error::new(*kind, words.clone())),
        }
    }

    /// What `read` gives of the system's CA certificates, kept.
    pub(super) fn system<E>(
        &self,
        read: impl FnOnce() -> Result<Vec<CertificateDer<'static>>, E>,
    ) -> Result<Vec<CertificateDer<'static>>, E> {
        let mut known = self.system.borrow_mut();
        if known.is_none() {
            *known = Some(read()?);
        }
        Ok(known.clone().unwrap_or_default())
    }

    #[must_use]
    pub fn digests(&self) -> Digests {
        let read = self.read.borrow();
        let of = |read: &Read| match read {
            Read::Bytes(bytes) => Some(sha256(&[bytes])),
            Read::Refused(..) => None,
        };
        let system = self.system.borrow();
        Digests {
            files: read
                .iter()
                .map(|(path, read)| (path.clone(), of(read)))
                .collect(),
            system: system.as_ref().map(|certificates| {
                let parts: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
                sha256(&parts)
            }),
        }
    }
}

impl Digests {
    /// Whether `path` was read both times and had the same bytes.
    #[must_use]
    pub fn agree_on(&self, other: &Self, path: &Path) -> bool {
        let (ours, theirs) = (self.files.get(path), other.files.get(path));
        ours == theirs && ours.is_some_and(Option::is_some)
    }

    #[must_use]
    pub fn agree_on_system(&self, other: &Self) -> bool {
        self.system == other.system
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(part);
    }
    let mut result = [0; 32];
    result.copy_from_slice(hash.finish().as_ref());
    result
}

/// A pipe or a device would block or never end.
fn read_path(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    std::fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_was_when_it_was_first_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let (before, after) = (Files::default(), Files::default());
        assert_eq!(before.read(&path).unwrap().as_slice(), b"one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(before.read(&path).unwrap().as_slice(), b"one");
        assert_eq!(after.read(&path).unwrap().as_slice(), b"two");
        assert!(before.digests().agree_on(&before.digests(), &path));
        assert!(!before.digests().agree_on(&after.digests(), &path));
    }

    #[test]
    fn a_file_that_was_not_read_agrees_with_nothing() {
        let missing = Path::new("/nonexistent/file");
        let files = Files::default();
        assert!(!files.digests().agree_on(&files.digests(), missing));
        let error = files.read(missing).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            files.read(missing).unwrap_err().to_string(),
            error.to_string()
        );
        assert!(!files.digests().agree_on(&files.digests(), missing));
    }
}
