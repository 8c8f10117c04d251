//! Files of unix sockets that a process has left behind.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// What to do where [`remove_if_stale`] finds something else.
pub(super) const NO_SOCKET_CURE: &str =
    "what is there is no socket and stays: name another path, or take it away";

/// A socket file that nobody listens on any more is left over from a process that was killed.
/// Never waits: a listener whose queue is full answers EAGAIN (connect(2)), and is alive.
///
/// # Errors
/// `AlreadyExists`, which bind(2) never says: there is something else than a socket. connect(2)
/// refuses that as it refuses a socket without a listener, and it is not ours to remove.
pub(super) fn remove_if_stale(path: &Path, kind: Type) -> io::Result<()> {
    let Ok(there) = fs::symlink_metadata(path) else {
        // bind(2) says what is wrong, if anything is.
        return Ok(());
    };
    if !there.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let probe = Socket::new(Domain::UNIX, kind.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_without_a_listener_goes_and_one_with_a_listener_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        for kind in [Type::STREAM, Type::SEQPACKET] {
            remove_if_stale(&path, kind).unwrap();
            assert!(path.exists());
        }
        drop(listener);
        remove_if_stale(&path, Type::STREAM).unwrap();
        assert!(!path.exists());
        remove_if_stale(&path, Type::STREAM).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "kept").unwrap();
        fs::create_dir(at("folder")).unwrap();
        drop(UnixListener::bind(at("stale.sock")).unwrap());
        for (name, to) in [("to-file", "file"), ("to-socket", "stale.sock")] {
            symlink(at(to), at(name)).unwrap();
        }
        for name in ["file", "folder", "to-file", "to-socket"] {
            for kind in [Type::STREAM, Type::SEQPACKET] {
                let error = remove_if_stale(&at(name), kind).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
                assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
            }
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "kept");
        assert!(at("stale.sock").exists());
    }
}
