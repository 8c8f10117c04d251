use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process;

use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::{AdminPlan, BindAddress};
use crate::control::socket_file::{NO_SOCKET_CURE, remove_if_stale};

/// Clients that may wait for a place; the kernel refuses more.
const BACKLOG: i32 = 64;

/// Of a unix socket: 108 with the zero at its end (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// One address of the admin server.
#[derive(Debug)]
pub(super) enum Door {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, SocketAddr),
}

/// Who has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Let in by the file's permissions; the ids are the kernel's word (SO_PEERCRED, unix(7)).
    Local {
        uid: u32,
        pid: i32,
    },
    Network(SocketAddr),
}

/// Removes the path when it is dropped, unless another process has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

#[derive(Debug)]
pub(in crate::control) struct ListenError {
    address: String,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        let cure = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; `ss -ltnxp` names it",
            io::ErrorKind::PermissionDenied => {
                "a unix socket needs a folder that this user may write to"
            }
            io::ErrorKind::NotFound => {
                "the folder does not exist: make it, or let systemd do so (RuntimeDirectory=ringway)"
            }
            io::ErrorKind::AlreadyExists => NO_SOCKET_CURE,
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has the address",
            _ => "see bind(2) and listen(2) for this error",
        };
        write!(
            f,
            "`listen` of [admin]: cannot listen on {address}: {error}: {cure}"
        )
    }
}

impl Door {
    pub(super) fn open(address: &BindAddress, plan: &AdminPlan) -> Result<Self, ListenError> {
        Self::open_by(open_unix, address, plan)
    }

    /// The process that this one has followed, `before`, may still listen at the path of a unix
    /// socket: whoever comes from now on comes here.
    pub(super) fn succeed(
        address: &BindAddress,
        plan: &AdminPlan,
        before: u32,
    ) -> Result<Self, ListenError> {
        let replace = |path: &Path, mode| replace_unix(path, mode, before);
        Self::open_by(replace, address, plan)
    }

    fn open_by(
        unix: impl Fn(&Path, u32) -> io::Result<Self>,
        address: &BindAddress,
        plan: &AdminPlan,
    ) -> Result<Self, ListenError> {
        let opened = match address {
            BindAddress::Tcp(address) => open_tcp(*address),
            BindAddress::Unix(path) => unix(path, plan.mode),
        };
        opened.map_err(|error| ListenError {
            address: match address {
                BindAddress::Tcp(address) => address.to_string(),
                BindAddress::Unix(path) => format!("unix:{}", path.display()),
            },
            error,
        })
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = local(&stream)?;
                Ok((Stream::Unix(stream), peer))
            }
            Self::Tcp(listener, _) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Peer::Network(address)))
            }
        }
    }
}

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

fn open_unix(path: &Path, mode: u32) -> io::Result<Door> {
    remove_if_stale(path, Type::STREAM)?;
    listen_at(path, mode)
}

/// Listens beside the path and renames: at no moment is there nobody.
fn replace_unix(path: &Path, mode: u32, before: u32) -> io::Result<Door> {
    if !occupant(path).is_ok_and(|it| is_trusted(it, before)) {
        return open_unix(path, mode);
    }
    let beside = beside(path);
    if beside.as_os_str().len() > PATH_BYTES_MAX {
        return push_aside(path, &beside, mode);
    }
    let mut door = open_unix(&beside, mode)?;
    fs::rename(&beside, path)?;
    if let Door::Unix(_, file) = &mut door {
        path.clone_into(&mut file.path);
    }
    Ok(door)
}

/// A name that nobody else has: hidden, and with the number of this process.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", process::id()));
    path.with_file_name(name)
}

/// No socket can be made at the name beside, but renamed to it: there is nobody for a moment, and
/// whoever was there is again where this fails.
fn push_aside(path: &Path, beside: &Path, mode: u32) -> io::Result<Door> {
    fs::rename(path, beside)?;
    let opened = listen_at(path, mode);
    // What counts is whether anybody listens.
    let _ = match &opened {
        Ok(_) => fs::remove_file(beside),
        Err(_) => fs::rename(beside, path),
    };
    opened
}

/// Who listens there.
fn occupant(path: &Path) -> io::Result<Peer> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    probe.connect(&SockAddr::unix(path)?)?;
    local(&UnixStream::from_std(OwnedFd::from(probe).into())?)
}

fn local(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer::Local {
        uid: credentials.uid(),
        pid: credentials.pid().unwrap_or_default(),
    })
}

/// A process of root, of this one's user, or the one before this, which may have become another
/// user than this one has.
fn is_trusted(occupant: Peer, before: u32) -> bool {
    let Peer::Local { uid, pid } = occupant else {
        return false;
    };
    uid == 0 || uid == geteuid().as_raw() || u32::try_from(pid) == Ok(before)
}

/// The permissions stand before anybody can connect: that needs listen(2).
fn listen_at(path: &Path, mode: u32) -> io::Result<Door> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from_std(OwnedFd::from(socket).into())?;
    Ok(Door::Unix(listener, file))
}

/// Without SO_REUSEPORT: two processes must not share the address without a word.
fn open_tcp(address: SocketAddr) -> io::Result<Door> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok(Door::Tcp(listener, address))
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: inode(path)?,
        })
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            // Somebody may have removed it before us.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
            Self::Tcp(_, address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid } => write!(f, "user {uid}, process {pid}"),
            Self::Network(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Located;

    /// No process has this number.
    const BEFORE: u32 = u32::MAX;

    fn plan(mode: u32) -> AdminPlan {
        AdminPlan {
            listen: Vec::<Located<BindAddress>>::new(),
            mode,
        }
    }

    #[tokio::test]
    async fn a_socket_has_the_permissions_of_the_plan_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let address = BindAddress::Unix(path.clone());
        let door = Door::open(&address, &plan(0o640)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let taken = Door::open(&address, &plan(0o640)).unwrap_err().to_string();
        assert!(
            taken.contains("another process listens there") && taken.contains("[admin]"),
            "{taken}"
        );
        drop(door);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_another_process_has_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let address = BindAddress::Unix(path.clone());
        let old = Door::open(&address, &plan(0o600)).unwrap();
        fs::rename(&path, folder.path().join("old.sock")).unwrap();
        let new = Door::open(&address, &plan(0o600)).unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn who_follows_a_process_takes_its_place_without_a_moment_in_which_there_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        // No socket can have the name beside the second.
        let longest = PATH_BYTES_MAX - folder.path().as_os_str().len() - "/".len();
        for name in ["admin.sock", &"a".repeat(longest)] {
            let path = folder.path().join(name);
            let address = BindAddress::Unix(path.clone());
            let old = Door::open(&address, &plan(0o600)).unwrap();
            let new = Door::succeed(&address, &plan(0o640), BEFORE).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o640);
            drop(old);
            assert!(path.exists(), "{name}");
            let client = UnixStream::connect(&path).await.unwrap();
            assert!(matches!(new.accept().await.unwrap().1, Peer::Local { .. }));
            drop((client, new));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            // Without anybody before it is as any other.
            drop(Door::succeed(&address, &plan(0o600), BEFORE).unwrap());
        }
    }

    #[test]
    fn who_is_trusted_is_root_this_user_or_the_process_before_whatever_its_user() {
        let occupant = |uid| Peer::Local { uid, pid: 7 };
        let other = geteuid().as_raw() + 1;
        for uid in [0, geteuid().as_raw()] {
            assert!(is_trusted(occupant(uid), BEFORE));
        }
        assert!(!is_trusted(occupant(other), BEFORE));
        assert!(is_trusted(occupant(other), 7));
    }

    #[tokio::test]
    async fn files_that_are_no_sockets_are_neither_used_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ringway.sock");
        let address = BindAddress::Unix(path.clone());
        let others =
            ["ringway.new", "ringway.sock.new", "ringway"].map(|it| folder.path().join(it));
        others.iter().for_each(|it| fs::write(it, "kept").unwrap());
        let old = Door::open(&address, &plan(0o600)).unwrap();
        drop(Door::succeed(&address, &plan(0o600), BEFORE).unwrap());
        drop(old);
        assert!(!path.exists());
        let kept = others.map(|it| fs::read_to_string(it).unwrap());
        assert_eq!(kept, ["kept", "kept", "kept"]);

        fs::write(&path, "kept").unwrap();
        let plan = plan(0o600);
        let opened = [
            Door::open(&address, &plan),
            Door::succeed(&address, &plan, BEFORE),
        ];
        for opened in opened {
            let words = opened.unwrap_err().to_string();
            assert!(words.contains("is no socket and stays"), "{words}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        }
    }

    #[tokio::test]
    async fn where_the_place_cannot_be_taken_the_process_before_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let old = Door::open(&BindAddress::Unix(path.clone()), &plan(0o600)).unwrap();
        let beside = beside(&path);
        fs::create_dir(&beside).unwrap();
        replace_unix(&path, 0o600, BEFORE).unwrap_err();
        fs::remove_dir(&beside).unwrap();

        // Nobody can listen at a name that is too long.
        let long = folder.path().join("a".repeat(PATH_BYTES_MAX));
        fs::rename(&path, &long).unwrap();
        push_aside(&long, &beside, 0o600).unwrap_err();
        fs::rename(&long, &path).unwrap();

        let client = UnixStream::connect(&path).await.unwrap();
        old.accept().await.unwrap();
        drop((client, old));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_no_obstacle_and_a_missing_folder_has_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Door::open(&BindAddress::Unix(path), &plan(0o600)).unwrap());
        let nowhere = BindAddress::Unix(folder.path().join("none/admin.sock"));
        let words = Door::open(&nowhere, &plan(0o600)).unwrap_err().to_string();
        assert!(words.contains("RuntimeDirectory=ringway"), "{words}");
    }
}
