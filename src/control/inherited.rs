//! Listening sockets that somebody else has opened: a service manager, or the process before this.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::{SockRef, Type};

use super::sockets::written;
use crate::config::BindAddress;
use crate::sys::Activated;

/// What has not been claimed yet. Closed with it, which loses nothing: who opened them has them, too.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sets: Vec<SocketSet>,
}

/// The sockets of one address, in the order in which they joined their SO_REUSEPORT group.
#[derive(Debug)]
pub(super) struct SocketSet {
    /// The listener that they were opened for; for a service manager its name of them.
    pub(super) name: String,
    /// The address as a configuration has it.
    pub(super) bind: String,
    pub(super) origin: Origin,
    pub(super) fds: Vec<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Or another service manager of its kind.
    Systemd,
    Predecessor {
        id: u32,
        /// It has them of a service manager.
        keeps_file: bool,
    },
}

impl SocketSet {
    /// With the port that the kernel chose; `None` for a unix socket.
    fn address(&self) -> Option<SocketAddr> {
        let bound = self.fds.first().map(|fd| SockRef::from(fd).local_addr());
        let address = match bound {
            Some(Ok(address)) => address.as_socket(),
            _ => self.bind.parse().ok(),
        };
        address.filter(|address| address.port() != 0)
    }
}

impl Origin {
    /// Whether the file of a unix socket is a service manager's.
    pub(super) fn keeps_file(self) -> bool {
        match self {
            Self::Systemd => true,
            Self::Predecessor { keeps_file, .. } => keeps_file,
        }
    }
}

/// A socket that cannot be listened on.
#[derive(Debug)]
pub(super) struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Inherited {
    pub(super) fn add(&mut self, set: SocketSet) {
        self.sets.push(set);
    }

    /// Adds what a service manager has opened: one set for each address.
    pub(super) fn add_activated(&mut self, activated: Vec<Activated>) -> Result<(), Unfit> {
        for Activated { fd, name } in activated {
            let bind = address_of(&fd, &name)?;
            let mut sets = self.sets.iter_mut();
            if let Some(set) = sets.find(|set| set.bind == bind) {
                set.fds.push(fd);
            } else {
                self.sets.push(SocketSet {
                    name,
                    bind,
                    origin: Origin::Systemd,
                    fds: vec![fd],
                });
            }
        }
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.sets.iter().map(|set| set.fds.len()).sum()
    }

    /// The sockets of an address, preferably of the listener of this name: where the port is 0 no
    /// other listener can mean the same address.
    pub(super) fn claim(&mut self, listener: &str, address: &BindAddress) -> Option<SocketSet> {
        let bind = written(address);
        let has_name = |set: &SocketSet| set.bind == bind && set.name == listener;
        let has_address = |set: &SocketSet| match address {
            BindAddress::Tcp(wanted) => set.address() == Some(*wanted),
            BindAddress::Unix(_) => set.bind == bind,
        };
        let at = self.sets.iter().position(has_name);
        let at = at.or_else(|| self.sets.iter().position(has_address))?;
        Some(self.sets.remove(at))
    }

    /// Whether the process before this listens on an address that overlaps with this one, and will
    /// go on until it has drained.
    pub(super) fn overlaps(&self, address: SocketAddr) -> bool {
        let of_predecessor = |set: &&SocketSet| set.origin != Origin::Systemd;
        let others = self.sets.iter().filter(of_predecessor);
        let mut others = others.filter_map(SocketSet::address);
        others.any(|other| {
            let is_any = address.ip().is_unspecified() || other.ip().is_unspecified();
            other.port() == address.port() && other.is_ipv4() == address.is_ipv4() && is_any
        })
    }

    /// An error where there is a socket of the service manager that no listener wants.
    pub(super) fn unclaimed(&self) -> Result<(), Unfit> {
        let of_systemd = |set: &&SocketSet| set.origin == Origin::Systemd;
        let Some(SocketSet { name, bind, .. }) = self.sets.iter().find(of_systemd) else {
            return Ok(());
        };
        Err(Unfit(format!(
            "the service manager listens on {bind} (\"{name}\"), and no listener has that in `bind`: \
             add it there, or take the ListenStream= out of the socket unit"
        )))
    }
}

/// Makes sure that the sockets are what they are said to be, and gives the address that they have;
/// `None` for a unix socket. The port of `wanted` may be 0.
pub(super) fn inspect(set: &SocketSet, wanted: &BindAddress) -> io::Result<Option<SocketAddr>> {
    let mut found = None;
    for fd in &set.fds {
        let socket = SockRef::from(fd);
        let bound = socket.local_addr()?;
        let address = bound.as_socket();
        let is_wanted = match wanted {
            BindAddress::Unix(path) => bound.as_pathname() == Some(path.as_path()),
            BindAddress::Tcp(wanted) => address.is_some_and(|address| {
                let is_port = wanted.port() == 0 || address.port() == wanted.port();
                let is_same = found.is_none_or(|first| first == address);
                address.ip() == wanted.ip() && is_port && is_same
            }),
        };
        if !is_wanted || !socket.is_listener()? {
            let words = format!("a socket that was passed for {} is another one", set.bind);
            return Err(io::Error::other(words));
        }
        found = address;
    }
    Ok(found)
}

/// The address of a service manager's socket, as a configuration has it.
fn address_of(fd: &OwnedFd, name: &str) -> Result<String, Unfit> {
    let socket = SockRef::from(fd);
    let unfit = |words: &str| {
        Unfit(format!(
            "the service manager passed a socket (\"{name}\") {words}"
        ))
    };
    let of_system = |error: io::Error| unfit(&format!("that cannot be used: {error}"));
    let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    if !is_stream || !socket.is_listener().unwrap_or(false) {
        let words = "that does not listen for streams: use ListenStream= with Accept=no";
        return Err(unfit(words));
    }
    socket.set_nonblocking(true).map_err(of_system)?;
    let address = socket.local_addr().map_err(of_system)?;
    if let Some(address) = address.as_socket() {
        let is_dual = address.is_ipv6() && address.ip().is_unspecified();
        if is_dual && !socket.only_v6().map_err(of_system)? {
            let words = "that takes IPv4 as well: set BindIPv6Only=ipv6-only in the socket unit, \
                         and give IPv4 a ListenStream= of its own";
            return Err(unfit(words));
        }
        return Ok(written(&BindAddress::Tcp(address)));
    }
    match address.as_pathname() {
        Some(path) => Ok(written(&BindAddress::Unix(path.to_owned()))),
        None => Err(unfit("that has neither an IP address nor a path")),
    }
}

/// Whether more sockets may join the group of this one.
pub(super) fn may_have_more(fd: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_reuseport(fd).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, bind: &str, origin: Origin) -> SocketSet {
        SocketSet {
            name: name.to_owned(),
            bind: bind.to_owned(),
            origin,
            fds: Vec::new(),
        }
    }

    const BEFORE: Origin = Origin::Predecessor {
        id: 0,
        keeps_file: false,
    };

    fn tcp(text: &str) -> BindAddress {
        BindAddress::Tcp(text.parse().unwrap())
    }

    #[test]
    fn sockets_are_claimed_by_address_and_of_two_by_the_listeners_name() {
        let mut inherited = Inherited::default();
        for (name, bind) in [
            ("a", "127.0.0.1:0"),
            ("b", "127.0.0.1:0"),
            ("a", "[::]:443"),
            ("c", "unix:/run/c.sock"),
        ] {
            inherited.add(set(name, bind, BEFORE));
        }
        let mut claim = |listener: &str, address: &BindAddress| {
            let set = inherited.claim(listener, address)?;
            Some((set.name, set.bind))
        };
        let any_port = tcp("127.0.0.1:0");
        assert_eq!(claim("x", &any_port), None, "another listener's port");
        let of_b = ("b".to_owned(), "127.0.0.1:0".to_owned());
        assert_eq!(claim("b", &any_port), Some(of_b));
        assert_eq!(claim("b", &any_port), None, "claimed before");
        let renamed = ("a".to_owned(), "[::]:443".to_owned());
        assert_eq!(claim("renamed", &tcp("[::]:443")), Some(renamed));
        assert_eq!(claim("a", &tcp("0.0.0.0:443")), None);
        let path = BindAddress::Unix("/run/c.sock".into());
        assert!(claim("c", &path).is_some());
        assert_eq!(inherited.sets.len(), 1, "the first is left");
    }

    #[test]
    fn a_socket_that_is_not_what_it_was_said_to_be_is_found_out() {
        let listening = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let with = |fds: Vec<OwnedFd>| SocketSet {
            fds,
            ..set("a", "127.0.0.1:0", BEFORE)
        };
        let (one, other) = (listening(), listening());
        let address = one.local_addr().unwrap();
        let any_port = tcp("127.0.0.1:0");
        let twin = one.try_clone().unwrap();
        let twins = with(vec![one.into(), twin.into()]);
        assert_eq!(inspect(&twins, &any_port).unwrap(), Some(address));
        assert!(inspect(&twins, &tcp("127.0.0.2:0")).is_err());
        assert!(inspect(&twins, &BindAddress::Unix("/run/x.sock".into())).is_err());
        let SocketSet { mut fds, .. } = twins;
        fds.push(other.into());
        assert!(inspect(&with(fds), &any_port).is_err(), "two addresses");
        let bound = socket2::Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        bound
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        assert!(
            inspect(&with(vec![bound.into()]), &any_port).is_err(),
            "no listener"
        );
    }

    #[test]
    fn an_address_overlaps_with_every_address_of_its_family_and_port() {
        let mut inherited = Inherited::default();
        inherited.add(set("a", "0.0.0.0:80", BEFORE));
        inherited.add(set("b", "10.0.0.1:81", BEFORE));
        inherited.add(set("c", "[::]:82", Origin::Systemd));
        let overlaps = |text: &str| inherited.overlaps(text.parse().unwrap());
        assert!(overlaps("10.0.0.1:80") && overlaps("0.0.0.0:81"));
        assert!(!overlaps("10.0.0.2:81") && !overlaps("[::]:80"));
        assert!(!overlaps("[::1]:82"), "of a service manager it stays taken");
    }

    #[test]
    fn what_systemd_opened_and_nobody_wants_is_named() {
        let mut inherited = Inherited::default();
        inherited.add(set("a", "[::]:443", BEFORE));
        assert!(inherited.unclaimed().is_ok());
        inherited.add(set("web.socket", "0.0.0.0:443", Origin::Systemd));
        let words = inherited.unclaimed().unwrap_err().to_string();
        assert!(words.contains("0.0.0.0:443") && words.contains("web.socket"));
    }
}
