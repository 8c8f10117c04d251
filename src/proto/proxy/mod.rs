//! The PROXY protocol, versions 1 and 2: whom a connection is from, told in front of its first
//! byte by the proxy that made it ("The PROXY protocol, versions 1 & 2", HAProxy Technologies).

mod crc32c;
#[cfg(test)]
mod tests;
mod tlv;
mod v1;
mod v2;

use std::net::SocketAddr;

/// Longest line of version 1, its CRLF included (section 2.1).
pub const V1_BYTES_MAX: usize = 107;

/// Bytes of version 2 before its addresses: signature, version and command, family, length.
pub const V2_FIXED_BYTES: usize = 16;

/// Most bytes that may follow those. The length allows 65,535; unix addresses take 216, TLVs of
/// real senders a few hundred, and nginx takes 4,096 of everything.
pub const V2_BODY_BYTES_MAX: usize = 4096;

/// "An opaque byte sequence of up to 128 bytes" (section 2.2.5).
pub const UNIQUE_ID_BYTES_MAX: usize = 128;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Too few to say whether a header begins here.
    Undecided,
    /// A header that is not complete.
    NeedMore,
    /// A header, and how many bytes it took.
    Complete {
        header: Box<ProxyHeader>,
        bytes: usize,
    },
    NotProxy,
    Invalid(ProxyError),
}

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    pub ends: Ends,
    pub tlvs: Tlvs,
}

/// The two ends of the connection that the sender accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ends {
    /// The sender does not know them, or they are of a kind that no stream has.
    #[default]
    Unknown,
    /// The sender's own connection, a health check say: its socket's addresses are the right ones.
    Local,
    Ip {
        source: SocketAddr,
        destination: SocketAddr,
    },
    /// Paths up to their zero byte; an abstract name keeps the one that it begins with.
    Unix {
        source: Box<[u8]>,
        destination: Box<[u8]>,
    },
}

/// What version 2 can say beside the addresses. Texts are read with U+FFFD for what is not UTF-8.
/// Types that are not here are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs {
    pub alpn: Option<Box<[u8]>>,
    /// Host name that the client asked for: its server name, where it spoke TLS.
    pub authority: Option<Box<str>>,
    pub unique_id: Option<Box<[u8]>>,
    pub tls: Option<TlsSeen>,
    /// Network namespace.
    pub netns: Option<Box<str>>,
}

/// The TLS that the client spoke with the sender (`PP2_TYPE_SSL`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSeen {
    /// `CLIENT_…` of this module.
    pub client: u8,
    /// 0: the client showed a certificate and it was verified.
    pub verify: u32,
    pub version: Option<Box<str>>,
    pub common_name: Option<Box<str>>,
    pub cipher: Option<Box<str>>,
    pub signature_algorithm: Option<Box<str>>,
    pub key_algorithm: Option<Box<str>>,
}

/// The client spoke TLS.
pub const CLIENT_TLS: u8 = 0x01;
/// It showed a certificate on this connection.
pub const CLIENT_CERTIFICATE_CONNECTION: u8 = 0x02;
/// It showed one in the session that this connection belongs to.
pub const CLIENT_CERTIFICATE_SESSION: u8 = 0x04;

/// Why bytes that begin as a header are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    V1TooLong,
    V1LineEnd,
    V1Family,
    V1Fields,
    V1Address,
    V1Port,
    V2TooLong,
    V2Version,
    V2Command,
    V2Family,
    V2Addresses,
    /// A TLV whose length contradicts what is around it.
    Tlv,
    /// A TLV that may come once came twice.
    Duplicate,
    UniqueId,
    Crc32c,
}

/// Looks at all bytes received so far, from the connection's first on.
#[must_use]
pub fn parse(input: &[u8]) -> Progress {
    let read = if input.starts_with(V2_SIGNATURE) {
        v2::read(input)
    } else if input.starts_with(V1_SIGNATURE) {
        v1::read(input)
    } else if V1_SIGNATURE.starts_with(input) || V2_SIGNATURE.starts_with(input) {
        return Progress::Undecided;
    } else {
        return Progress::NotProxy;
    };
    match read {
        Ok(Some((header, bytes))) => Progress::Complete {
            header: Box::new(header),
            bytes,
        },
        Ok(None) => Progress::NeedMore,
        Err(error) => Progress::Invalid(error),
    }
}

/// A header and its bytes; `None`: it is not complete.
type Read = Result<Option<(ProxyHeader, usize)>, ProxyError>;

impl ProxyHeader {
    /// The header as a line of version 1: at most [`V1_BYTES_MAX`]. Ends other than IP addresses
    /// are UNKNOWN, and TLVs do not fit in.
    #[must_use]
    pub fn v1(&self) -> Vec<u8> {
        v1::write(&self.ends)
    }

    /// The header in version 2, with a checksum: at most [`V2_FIXED_BYTES`] and
    /// [`V2_BODY_BYTES_MAX`]. A value over 256 bytes is left out.
    #[must_use]
    pub fn v2(&self) -> Vec<u8> {
        v2::write(self)
    }
}

impl TlsSeen {
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.client & CLIENT_TLS != 0
    }

    /// `None`: the client showed no certificate.
    #[must_use]
    pub fn verified(&self) -> Option<bool> {
        let shown = self.client & (CLIENT_CERTIFICATE_CONNECTION | CLIENT_CERTIFICATE_SESSION);
        (shown != 0).then_some(self.verify == 0)
    }
}

impl ProxyError {
    /// What is wrong, for the access log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::V1TooLong => "a PROXY line without an end within 107 bytes",
            Self::V1LineEnd => "a PROXY line that does not end in CR and LF",
            Self::V1Family => "a PROXY line for neither TCP4, TCP6 nor UNKNOWN",
            Self::V1Fields => "a PROXY line without two addresses and two ports",
            Self::V1Address => "a PROXY line with an address that is none of its family",
            Self::V1Port => "a PROXY line with a port that is none",
            Self::V2TooLong => "a PROXY header longer than 4 KiB",
            Self::V2Version => "a PROXY header of a version other than 1 and 2",
            Self::V2Command => "a PROXY header with an unknown command",
            Self::V2Family => "a PROXY header with an unknown address family or protocol",
            Self::V2Addresses => "a PROXY header too short for its addresses",
            Self::Tlv => "a PROXY header with a TLV whose length is wrong",
            Self::Duplicate => "a PROXY header with a TLV that came twice",
            Self::UniqueId => "a PROXY header with a unique id longer than 128 bytes",
            Self::Crc32c => "a PROXY header with a wrong checksum",
        }
    }
}

/// Both ends in one family: IPv4 if both are, else IPv6 with the other one mapped (RFC 4291
/// 2.5.5.2).
enum Family {
    V4(std::net::SocketAddrV4, std::net::SocketAddrV4),
    V6(std::net::SocketAddrV6, std::net::SocketAddrV6),
}

fn family(source: SocketAddr, destination: SocketAddr) -> Family {
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => Family::V4(source, destination),
        (source, destination) => Family::V6(mapped(source), mapped(destination)),
    }
}

fn mapped(address: SocketAddr) -> std::net::SocketAddrV6 {
    match address {
        SocketAddr::V4(address) => {
            let ip = address.ip().to_ipv6_mapped();
            std::net::SocketAddrV6::new(ip, address.port(), 0, 0)
        }
        SocketAddr::V6(address) => address,
    }
}
