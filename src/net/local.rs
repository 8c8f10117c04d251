//! The address of our own that a server sees, where the configuration says it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Socket, Type};

use crate::config::{Diagnostic, LocalAddress, Plan, UpstreamPlan};
use crate::sys::leave_port_to_connect;

/// Where a connection to a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    address: IpAddr,
    /// It is another host's.
    foreign: bool,
}

/// The origin of a client's connection to a server at `server`; `None`: the kernel chooses it.
///
/// # Errors
/// Words: there is no address that reaches this server.
pub fn origin(
    local: &LocalAddress,
    client: Option<IpAddr>,
    server: IpAddr,
) -> Result<Option<Origin>, &'static str> {
    let same_family = |address: &IpAddr| address.is_ipv4() == server.is_ipv4();
    match local {
        LocalAddress::Kernel => Ok(None),
        LocalAddress::Fixed(addresses) => {
            let mut addresses = addresses.iter().map(|address| address.value);
            let address = addresses
                .find(same_family)
                .ok_or("source_address has no address of the server's family")?;
            Ok(Some(Origin {
                address,
                foreign: false,
            }))
        }
        LocalAddress::Client(_) => {
            let client = client.ok_or("transparent: the client has no address")?;
            let address = Some(client.to_canonical()).filter(same_family).ok_or(
                "transparent: the client's address is of another family than the server's",
            )?;
            Ok(Some(Origin {
                address,
                foreign: true,
            }))
        }
    }
}

impl Origin {
    /// Binds a socket that is about to be connected. The kernel chooses the port with the server.
    ///
    /// # Errors
    /// What bind(2) reports: the address is gone from this host, its ports are used up.
    pub fn bind(self, socket: &Socket) -> io::Result<()> {
        if self.foreign {
            set_transparent(socket, self.address)?;
        }
        leave_port_to_connect(socket.as_fd())?;
        socket.bind(&SocketAddr::new(self.address, 0).into())
    }
}

fn set_transparent(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Looks whether this host has each `source_address`, and this process the rights for
/// `transparent`.
#[must_use]
pub fn inspect(plan: &Plan) -> Vec<Diagnostic> {
    plan.upstreams.iter().flat_map(findings).collect()
}

fn findings(upstream: &UpstreamPlan) -> Vec<Diagnostic> {
    match &upstream.local {
        LocalAddress::Kernel => Vec::new(),
        LocalAddress::Fixed(addresses) => {
            let finding = |address: &crate::config::Located<IpAddr>| {
                let error = try_bind(address.value).err()?;
                let words = format!("`{}` cannot be bound: {error}", address.value);
                let cure = "give the address to an interface (`ip address add`), or name one that \
                            `ip address` shows";
                let finding = Diagnostic::error(words).at_place(&address.place);
                Some(finding.cure(cure))
            };
            addresses.iter().filter_map(finding).collect()
        }
        LocalAddress::Client(flag) => {
            let refused = try_transparent().err().map(|error| {
                let words = format!("`transparent` is not permitted: {error}");
                let cure = "give the process CAP_NET_RAW (AmbientCapabilities=CAP_NET_RAW of the service), \
                            or take the line out";
                Diagnostic::error(words).at_place(&flag.place).cure(cure)
            });
            refused.into_iter().collect()
        }
    }
}

fn try_bind(address: IpAddr) -> io::Result<()> {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())
}

/// Either family, on a host that may have but one of them.
fn try_transparent() -> io::Result<()> {
    let any = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let attempt = |address: IpAddr| {
        let domain = Domain::for_address(SocketAddr::new(address, 0));
        set_transparent(&Socket::new(domain, Type::STREAM, None)?, address)
    };
    let [ipv4, ipv6] = any.map(attempt);
    ipv4.or(ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Located, Place};

    fn fixed(addresses: &[&str]) -> LocalAddress {
        let located = |text: &&str| Located {
            value: text.parse().unwrap(),
            place: Place::default(),
        };
        LocalAddress::Fixed(addresses.iter().map(located).collect())
    }

    fn transparent() -> LocalAddress {
        LocalAddress::Client(Located {
            value: (),
            place: Place::default(),
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_origin_is_of_the_servers_family_or_there_is_none() {
        let both = fixed(&["10.0.0.5", "2001:db8::5"]);
        let found = |local: &LocalAddress, client: Option<&str>, server: &str| {
            let found = origin(local, client.map(ip), ip(server));
            found.map(|origin| origin.map(|origin| origin.address))
        };
        assert_eq!(
            found(&LocalAddress::Kernel, Some("::1"), "10.0.0.1"),
            Ok(None)
        );
        assert_eq!(found(&both, None, "10.0.0.1"), Ok(Some(ip("10.0.0.5"))));
        assert_eq!(found(&both, None, "::1"), Ok(Some(ip("2001:db8::5"))));
        assert!(found(&fixed(&["10.0.0.5"]), None, "::1").is_err());
        let client = Some("::ffff:192.0.2.1");
        assert_eq!(
            found(&transparent(), client, "10.0.0.1"),
            Ok(Some(ip("192.0.2.1")))
        );
        assert!(found(&transparent(), client, "::1").is_err());
        assert!(found(&transparent(), None, "10.0.0.1").is_err());
    }

    /// 192.0.2.0/24 is for documents (RFC 5737): no interface has it.
    #[test]
    fn another_hosts_address_is_bound_where_the_rights_are_there_and_not_without_the_option() {
        let address = ip("192.0.2.1");
        let refused = try_bind(address).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        if let Err(error) = try_transparent() {
            println!("SKIPPED: IP_TRANSPARENT is not permitted here: {error}");
            return;
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let origin = Origin {
            address,
            foreign: true,
        };
        origin.bind(&socket).unwrap();
        let bound = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(
            bound,
            SocketAddr::new(address, 0),
            "the port comes with the server"
        );
    }
}
