use super::crc32c::Crc32c;
use super::{ProxyError, TlsSeen, Tlvs, UNIQUE_ID_BYTES_MAX, V2_BODY_BYTES_MAX};
use crate::proto::bytes::Bytes;

/// Types of section 2.2 of the specification.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_SIG_ALG: u8 = 0x24;
const SSL_KEY_ALG: u8 = 0x25;
const NETNS: u8 = 0x30;

/// Type and length in front of the checksum.
pub(super) const CRC32C_HEAD: [u8; 3] = [CRC32C, 0, 4];
pub(super) const CRC32C_BYTES: usize = CRC32C_HEAD.len() + 4;

/// Longest value written: names in TLS and DNS have 255 bytes, a common name 64 (X.520).
const VALUE_BYTES_MAX: usize = 256;

/// Nine values with type and length, the addresses of unix sockets, what SSL begins with.
const _: () = assert!(
    9 * (VALUE_BYTES_MAX + 3) + 2 * 108 + 3 + 5 + CRC32C_BYTES <= V2_BODY_BYTES_MAX,
    "what is written can be read"
);

/// Reads all of `list`, the end of `header`.
pub(super) fn read(mut list: Bytes<'_>, header: &[u8]) -> Result<Tlvs, ProxyError> {
    let mut tlvs = Tlvs::default();
    let mut checked = None;
    while !list.is_empty() {
        let (kind, value) = next(&mut list)?;
        match kind {
            ALPN => once(&mut tlvs.alpn, value.0.into())?,
            AUTHORITY => once(&mut tlvs.authority, text(value))?,
            CRC32C => once(&mut checked, check(value, list, header)?)?,
            UNIQUE_ID if value.0.len() > UNIQUE_ID_BYTES_MAX => return Err(ProxyError::UniqueId),
            UNIQUE_ID => once(&mut tlvs.unique_id, value.0.into())?,
            SSL => once(&mut tlvs.tls, tls(value)?)?,
            NETNS => once(&mut tlvs.netns, text(value))?,
            // NOOP, and what is not known: senders may have types of their own.
            _ => {}
        }
    }
    Ok(tlvs)
}

fn next<'a>(list: &mut Bytes<'a>) -> Result<(u8, Bytes<'a>), ProxyError> {
    let kind = list.u8().ok_or(ProxyError::Tlv)?;
    let value = list.vector_u16().ok_or(ProxyError::Tlv)?;
    Ok((kind, value))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ProxyError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ProxyError::Duplicate),
    }
}

fn text(value: Bytes<'_>) -> Box<str> {
    String::from_utf8_lossy(value.0).into()
}

/// The checksum is over the whole header, with zeros where it stands itself.
fn check(value: Bytes<'_>, behind: Bytes<'_>, header: &[u8]) -> Result<(), ProxyError> {
    let said = <[u8; 4]>::try_from(value.0).map_err(|_| ProxyError::Tlv)?;
    let before = header.len().saturating_sub(behind.0.len());
    let before = header.get(..before.saturating_sub(said.len()));
    let sum = Crc32c::new()
        .with(before.unwrap_or_default())
        .with(&[0; 4])
        .with(behind.0);
    if sum.value() == u32::from_be_bytes(said) {
        Ok(())
    } else {
        Err(ProxyError::Crc32c)
    }
}

fn tls(mut value: Bytes<'_>) -> Result<TlsSeen, ProxyError> {
    let client = value.u8().ok_or(ProxyError::Tlv)?;
    let verify = value.array().ok_or(ProxyError::Tlv)?;
    let mut seen = TlsSeen {
        client,
        verify: u32::from_be_bytes(verify),
        ..TlsSeen::default()
    };
    while !value.is_empty() {
        let (kind, value) = next(&mut value)?;
        let slot = match kind {
            SSL_VERSION => &mut seen.version,
            SSL_CN => &mut seen.common_name,
            SSL_CIPHER => &mut seen.cipher,
            SSL_SIG_ALG => &mut seen.signature_algorithm,
            SSL_KEY_ALG => &mut seen.key_algorithm,
            _ => continue,
        };
        once(slot, text(value))?;
    }
    Ok(seen)
}

pub(super) fn write(tlvs: &Tlvs, out: &mut Vec<u8>) {
    let unique_id = tlvs.unique_id.as_deref();
    put(out, ALPN, tlvs.alpn.as_deref());
    put(out, AUTHORITY, bytes(&tlvs.authority));
    put(
        out,
        UNIQUE_ID,
        unique_id.filter(|id| id.len() <= UNIQUE_ID_BYTES_MAX),
    );
    if let Some(seen) = &tlvs.tls {
        let value = tls_value(seen);
        head(out, SSL, value.len());
        out.extend(value);
    }
    put(out, NETNS, bytes(&tlvs.netns));
}

fn tls_value(seen: &TlsSeen) -> Vec<u8> {
    let mut value = vec![seen.client];
    value.extend(seen.verify.to_be_bytes());
    put(&mut value, SSL_VERSION, bytes(&seen.version));
    put(&mut value, SSL_CN, bytes(&seen.common_name));
    put(&mut value, SSL_CIPHER, bytes(&seen.cipher));
    put(&mut value, SSL_SIG_ALG, bytes(&seen.signature_algorithm));
    put(&mut value, SSL_KEY_ALG, bytes(&seen.key_algorithm));
    value
}

fn bytes(text: &Option<Box<str>>) -> Option<&[u8]> {
    text.as_deref().map(str::as_bytes)
}

fn put(out: &mut Vec<u8>, kind: u8, value: Option<&[u8]>) {
    if let Some(value) = value.filter(|value| value.len() <= VALUE_BYTES_MAX) {
        head(out, kind, value.len());
        out.extend(value);
    }
}

fn head(out: &mut Vec<u8>, kind: u8, length: usize) {
    // The bound that is asserted above is far below.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    out.push(kind);
    out.extend(length.to_be_bytes());
}
