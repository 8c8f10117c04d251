use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::crc32c::Crc32c;
use super::tlv;
use super::{
    Ends, Family, ProxyError, ProxyHeader, Read, Tlvs, V2_BODY_BYTES_MAX, V2_FIXED_BYTES,
    V2_SIGNATURE, family,
};
use crate::proto::bytes::Bytes;

const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const UNSPEC: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// sun_path of either end (section 2.2).
const UNIX_PATH_BYTES: usize = 108;

/// Reads a header that begins with [`V2_SIGNATURE`].
pub(super) fn read(input: &[u8]) -> Read {
    let Some((fixed, rest)) = input.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., version_and_command, family, high, low] = *fixed;
    if version_and_command >> 4 != VERSION {
        return Err(ProxyError::V2Version);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BODY_BYTES_MAX {
        return Err(ProxyError::V2TooLong);
    }
    let bytes = V2_FIXED_BYTES.saturating_add(length);
    let (Some(body), Some(whole)) = (rest.get(..length), input.get(..bytes)) else {
        return Ok(None);
    };
    let header = match version_and_command & 0x0f {
        // "Must discard the protocol block" (section 2.2): nothing of it is looked at.
        LOCAL => ProxyHeader {
            ends: Ends::Local,
            tlvs: Tlvs::default(),
        },
        PROXY => {
            let mut body = Bytes(body);
            let ends = ends(family, &mut body)?;
            let tlvs = tlv::read(body, whole)?;
            ProxyHeader { ends, tlvs }
        }
        _ => return Err(ProxyError::V2Command),
    };
    Ok(Some((header, bytes)))
}

fn ends(family: u8, body: &mut Bytes<'_>) -> Result<Ends, ProxyError> {
    let ends = match family {
        TCP_OVER_IPV4 => ipv4(body),
        TCP_OVER_IPV6 => ipv6(body),
        UNIX_STREAM => unix(body),
        // Valid, and not for a stream: "falls back to the UNSPEC mode" (section 2.2).
        0x00..=0x02 => Some(Ends::Unknown),
        0x10 | 0x12 => ipv4(body).map(|_| Ends::Unknown),
        0x20 | 0x22 => ipv6(body).map(|_| Ends::Unknown),
        0x30 | 0x32 => unix(body).map(|_| Ends::Unknown),
        _ => return Err(ProxyError::V2Family),
    };
    ends.ok_or(ProxyError::V2Addresses)
}

fn ipv4(body: &mut Bytes<'_>) -> Option<Ends> {
    let source: [u8; 4] = body.array()?;
    let destination: [u8; 4] = body.array()?;
    Some(Ends::Ip {
        source: SocketAddr::new(Ipv4Addr::from(source).into(), body.u16()?),
        destination: SocketAddr::new(Ipv4Addr::from(destination).into(), body.u16()?),
    })
}

fn ipv6(body: &mut Bytes<'_>) -> Option<Ends> {
    let source: [u8; 16] = body.array()?;
    let destination: [u8; 16] = body.array()?;
    Some(Ends::Ip {
        source: SocketAddr::new(Ipv6Addr::from(source).into(), body.u16()?),
        destination: SocketAddr::new(Ipv6Addr::from(destination).into(), body.u16()?),
    })
}

fn unix(body: &mut Bytes<'_>) -> Option<Ends> {
    Some(Ends::Unix {
        source: path(body.take(UNIX_PATH_BYTES)?),
        destination: path(body.take(UNIX_PATH_BYTES)?),
    })
}

/// A name that begins with a zero byte is abstract (unix(7)).
fn path(field: &[u8]) -> Box<[u8]> {
    let abstract_bytes = match field {
        [0, 0, ..] => return Box::default(),
        [0, ..] => 1,
        _ => 0,
    };
    let name = field.iter().skip(abstract_bytes);
    let bytes = name.take_while(|byte| **byte != 0).count();
    let bytes = bytes.saturating_add(abstract_bytes);
    field.get(..bytes).unwrap_or_default().into()
}

pub(super) fn write(header: &ProxyHeader) -> Vec<u8> {
    let mut body = Vec::new();
    let (command, family) = write_ends(&header.ends, &mut body);
    if command == PROXY {
        tlv::write(&header.tlvs, &mut body);
    }
    // Both parts keep their bounds, so that this is no conversion that can fail.
    let length = body.len().saturating_add(tlv::CRC32C_BYTES);
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend([VERSION << 4 | command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes.extend(tlv::CRC32C_HEAD);
    let checksum = Crc32c::new().with(&bytes).with(&[0; 4]).value();
    bytes.extend(checksum.to_be_bytes());
    bytes
}

/// Command and family.
fn write_ends(ends: &Ends, body: &mut Vec<u8>) -> (u8, u8) {
    match ends {
        Ends::Unknown => (PROXY, UNSPEC),
        Ends::Local => (LOCAL, UNSPEC),
        Ends::Ip {
            source,
            destination,
        } => (PROXY, write_ip(*source, *destination, body)),
        Ends::Unix {
            source,
            destination,
        } => {
            write_path(source, body);
            write_path(destination, body);
            (PROXY, UNIX_STREAM)
        }
    }
}

fn write_ip(source: SocketAddr, destination: SocketAddr, body: &mut Vec<u8>) -> u8 {
    let family = match family(source, destination) {
        Family::V4(source, destination) => {
            body.extend(source.ip().octets());
            body.extend(destination.ip().octets());
            TCP_OVER_IPV4
        }
        Family::V6(source, destination) => {
            body.extend(source.ip().octets());
            body.extend(destination.ip().octets());
            TCP_OVER_IPV6
        }
    };
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    family
}

fn write_path(path: &[u8], body: &mut Vec<u8>) {
    let path = path.get(..UNIX_PATH_BYTES).unwrap_or(path);
    body.extend(path);
    body.resize(
        body.len()
            .saturating_add(UNIX_PATH_BYTES.saturating_sub(path.len())),
        0,
    );
}
