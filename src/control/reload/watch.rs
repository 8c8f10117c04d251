//! Sees that a file of the configuration has changed, by inotify(7).
//!
//! Folders are watched, not files: whoever replaces a file, or a symbolic link on the way to it,
//! leaves another one behind.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

/// Files that belong together are replaced one by one: nothing is read before all has been quiet
/// for so long.
const QUIET: Duration = Duration::from_secs(2);
/// Where it is never quiet the files are read all the same.
const UNREST_MAX: Duration = Duration::from_secs(20);
/// How often the kernel is asked what it has seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a refusal: who has not seen a change may have missed one.
const RETRY: Duration = Duration::from_secs(10);

/// Longer than any chain of links that the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Room for some events with names of the longest kind (inotify(7): NAME_MAX + 1 and 16 bytes).
const EVENT_BYTES: usize = 4096;

/// The names that matter in each folder.
type Names = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// Waits for changes of some files; of none, for ever.
#[derive(Default)]
pub(in crate::control) struct FileWatch {
    notes: Option<Notes>,
    /// When the files are to be read, and when the unrest began.
    due: Option<(Instant, Instant)>,
    /// What was said of the last refusal.
    pub(super) complaint: Option<String>,
}

struct Notes {
    inotify: OwnedFd,
    /// By the kernel's number of the folder.
    names: BTreeMap<i32, BTreeSet<OsString>>,
}

impl FileWatch {
    /// Watches these from now on, and no others.
    pub(super) fn watch<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        let mut names = Names::new();
        for path in paths {
            collect(path, &mut names);
        }
        if names.is_empty() {
            *self = Self::default();
            return;
        }
        let next = Notes::of(&names);
        // Now that nothing can happen unseen: what has changed since the files were read. Closing
        // what has seen it takes the kernel some 10 ms.
        self.look();
        match next {
            Ok(next) => self.notes = Some(next),
            Err(error) => {
                self.notes = None;
                tracing::warn!(
                    "the configuration's files are not watched: {error}: raise \
                     fs.inotify.max_user_instances or max_user_watches, or reload by hand"
                );
            }
        }
    }

    /// Something was refused: it is looked at again, whether or not a change is seen.
    pub(super) fn retry(&mut self) {
        if self.notes.is_some() && self.due.is_none() {
            let now = Instant::now();
            self.due = Some((now + RETRY, now));
        }
    }

    /// A file has changed, and since then it was quiet. Nothing is lost when this is dropped.
    pub(in crate::control) async fn changed(&mut self) {
        while self.notes.is_some() || self.due.is_some() {
            // First: whoever else wants the control thread, however often, does not put this off.
            self.look();
            if self.due.is_some_and(|(due, _)| due <= Instant::now()) {
                self.due = None;
                return;
            }
            sleep(LOOK_EVERY).await;
        }
        std::future::pending().await
    }

    fn look(&mut self) {
        match self.notes.as_ref().map(Notes::read) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.postpone(),
            Some(Err(error)) => {
                tracing::warn!("the configuration's files are not watched any more: {error}");
                self.notes = None;
            }
        }
    }

    fn postpone(&mut self) {
        let now = Instant::now();
        let began = self.due.map_or(now, |(_, began)| began);
        self.due = Some(((now + QUIET).min(began + UNREST_MAX), began));
    }
}

impl Notes {
    fn of(names: &Names) -> io::Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let events = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let mut known: BTreeMap<i32, BTreeSet<OsString>> = BTreeMap::new();
        for (folder, names) in names {
            match add_watch(&inotify, folder.as_path(), events) {
                Ok(number) => known.entry(number).or_default().extend(names.clone()),
                // What is not there yet shows in the folder above, or at the next reload.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self {
            inotify,
            names: known,
        })
    }

    /// Whether what has happened is about a file that matters.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut matters = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name();
                    let name = name.map(|it| OsStr::from_bytes(it.to_bytes()));
                    let known = self.names.get(&event.wd());
                    // Without a name it is the folder itself, or events were lost.
                    matters |= name.is_none_or(|name| known.is_some_and(|it| it.contains(name)));
                }
                Err(Errno::WOULDBLOCK) => return Ok(matters),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Every folder in which a change can make `path` another file, and the name that it would have.
fn collect(path: &Path, names: &mut Names) {
    let mut next = Some(path.to_owned());
    for _ in 0..LINKS_MAX {
        let Some(path) = next.take() else { return };
        for part in path.ancestors() {
            let (Some(folder), Some(name)) = (part.parent(), part.file_name()) else {
                continue;
            };
            let folder = match folder.as_os_str().is_empty() {
                true => Path::new("."),
                false => folder,
            };
            let target = std::fs::read_link(part).ok();
            if part == path.as_path() || target.is_some() {
                let known = names.entry(folder.to_owned()).or_default();
                known.insert(name.to_owned());
            }
            if let (Some(target), None) = (target, &next) {
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                next = Some(match rest.as_os_str().is_empty() {
                    true => folder.join(target),
                    false => folder.join(target).join(rest),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_to_a_file_is_watched_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        // As Kubernetes mounts a secret.
        fs::create_dir(root.join("..1")).unwrap();
        fs::write(root.join("..1/tls.crt"), "").unwrap();
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/tls.crt", root.join("tls.crt")).unwrap();
        let mut names = Names::new();
        collect(&root.join("tls.crt"), &mut names);
        let here = &names[&root];
        for name in ["tls.crt", "..data"] {
            assert!(here.contains(OsStr::new(name)), "{name}: {names:?}");
        }
        assert!(
            names[&root.join("..1")].contains(OsStr::new("tls.crt")),
            "{names:?}"
        );
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let mut names = Names::new();
        collect(&folder.path().join("a"), &mut names);
        assert_eq!(names[folder.path()].len(), 2);
    }
}
