use std::net::SocketAddr;

/// An address that the name of a server led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub address: SocketAddr,
    /// Has connections only when no other server may be tried.
    pub backup: bool,
    /// Which of a service's hosts has it. A name is one host.
    pub host: u16,
    /// At least 1: the share of connections, relative to the others'.
    pub weight: u16,
}

impl Found {
    /// An address of a name, which says nothing of shares.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            backup: false,
            host: 0,
            weight: 1,
        }
    }

    /// Whether the same host can be reached there, by the other family.
    pub(super) fn is_other_family_of(&self, other: &Self) -> bool {
        self.host == other.host
            && self.address.port() == other.address.port()
            && self.address.is_ipv4() != other.address.is_ipv4()
    }
}
