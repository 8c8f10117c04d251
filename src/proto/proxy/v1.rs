use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{
    Ends, Family, ProxyError, ProxyHeader, Read, Tlvs, V1_BYTES_MAX, V1_SIGNATURE, family,
};

const UNKNOWN: &[u8] = b"UNKNOWN";

/// Reads a line that begins with [`V1_SIGNATURE`].
pub(super) fn read(input: &[u8]) -> Read {
    let window = input.get(..V1_BYTES_MAX).unwrap_or(input);
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return unfinished(window);
    };
    let (line, rest) = window.split_at_checked(end).unwrap_or((window, &[]));
    match rest {
        [b'\r', b'\n', ..] => {}
        [b'\r'] => return unfinished(window),
        _ => return Err(ProxyError::V1LineEnd),
    }
    let fields = line.get(V1_SIGNATURE.len()..).unwrap_or_default();
    let header = ProxyHeader {
        ends: ends(fields)?,
        tlvs: Tlvs::default(),
    };
    Ok(Some((header, end.saturating_add(2))))
}

fn unfinished(window: &[u8]) -> Read {
    if window.len() < V1_BYTES_MAX {
        Ok(None)
    } else {
        Err(ProxyError::V1TooLong)
    }
}

fn ends(fields: &[u8]) -> Result<Ends, ProxyError> {
    // "The receiver must ignore anything presented before the CRLF" (section 2.1).
    if let Some([] | [b' ', ..]) = fields.strip_prefix(UNKNOWN) {
        return Ok(Ends::Unknown);
    }
    let text = std::str::from_utf8(fields).map_err(|_| ProxyError::V1Fields)?;
    let (family, rest) = text.split_once(' ').ok_or(ProxyError::V1Family)?;
    match family {
        "TCP4" => addresses::<Ipv4Addr>(rest),
        "TCP6" => addresses::<Ipv6Addr>(rest),
        _ => Err(ProxyError::V1Family),
    }
}

fn addresses<A: FromStr + Into<IpAddr>>(rest: &str) -> Result<Ends, ProxyError> {
    let mut fields = rest.split(' ');
    let (Some(source), Some(destination), Some(from), Some(to), None) = (
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
    ) else {
        return Err(ProxyError::V1Fields);
    };
    let ip = |text: &str| {
        let parsed = text.parse::<A>();
        parsed.map(Into::into).map_err(|_| ProxyError::V1Address)
    };
    Ok(Ends::Ip {
        source: SocketAddr::new(ip(source)?, port(from)?),
        destination: SocketAddr::new(ip(destination)?, port(to)?),
    })
}

/// "Heading zeroes are not permitted" (section 2.1).
fn port(text: &str) -> Result<u16, ProxyError> {
    let plain = match text.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let port = text.parse().ok().filter(|_| plain);
    port.ok_or(ProxyError::V1Port)
}

pub(super) fn write(ends: &Ends) -> Vec<u8> {
    let line = match ends {
        Ends::Ip {
            source,
            destination,
        } => match family(*source, *destination) {
            Family::V4(from, to) => tcp("TCP4", (from.ip(), from.port()), (to.ip(), to.port())),
            Family::V6(from, to) => tcp("TCP6", (from.ip(), from.port()), (to.ip(), to.port())),
        },
        Ends::Unknown | Ends::Local | Ends::Unix { .. } => "PROXY UNKNOWN\r\n".to_owned(),
    };
    line.into_bytes()
}

fn tcp<A: std::fmt::Display>(family: &str, from: (A, u16), to: (A, u16)) -> String {
    format!("PROXY {family} {} {} {} {}\r\n", from.0, to.0, from.1, to.1)
}
