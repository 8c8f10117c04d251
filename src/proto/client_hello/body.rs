use std::net::IpAddr;

use super::{AlpnOffer, ClientHello, HelloError};
use crate::proto::bytes::Bytes;

/// IANA's registry of TLS extension types.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The only name type that RFC 6066 defines.
const HOST_NAME: u8 = 0;

/// RFC 1035 2.3.4.
const HOST_NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

/// RFC 8446 4.1.2.
const RANDOM_BYTES: usize = 32;
const SESSION_ID_BYTES_MAX: usize = 32;

/// What was found in the extensions; `None`: the extension was not sent.
#[derive(Default)]
struct Found {
    /// The inner `None`: sent without a usable name.
    server_name: Option<Option<Box<str>>>,
    alpn: Option<AlpnOffer>,
    versions: Option<Vec<u16>>,
}

/// Reads the body of a ClientHello message, all of it.
pub(super) fn parse(mut body: Bytes<'_>) -> Result<ClientHello, HelloError> {
    let legacy_version = body.u16().ok_or(CUT_SHORT)?;
    body.take(RANDOM_BYTES).ok_or(CUT_SHORT)?;
    let session_id = body.vector_u8().ok_or(CUT_SHORT)?;
    let suites = body.vector_u16().ok_or(CUT_SHORT)?;
    let compressions = body.vector_u8().ok_or(CUT_SHORT)?;
    if session_id.0.len() > SESSION_ID_BYTES_MAX {
        return Err(HelloError::Malformed("a session id longer than 32 bytes"));
    }
    if suites.is_empty() || suites.0.len() % 2 != 0 {
        return Err(HelloError::Malformed(
            "a list of cipher suites of a wrong length",
        ));
    }
    if compressions.is_empty() {
        return Err(HelloError::Malformed(
            "an empty list of compression methods",
        ));
    }
    let found = extensions(body)?;
    Ok(ClientHello {
        server_name: found.server_name.flatten(),
        alpn: found.alpn.unwrap_or_default(),
        legacy_version,
        supported_versions: found.versions.unwrap_or_default(),
    })
}

const CUT_SHORT: HelloError = HelloError::Malformed("a ClientHello that ends too early");

/// None at all is allowed before TLS 1.3 (RFC 5246 7.4.1.2).
fn extensions(mut body: Bytes<'_>) -> Result<Found, HelloError> {
    let mut found = Found::default();
    if body.is_empty() {
        return Ok(found);
    }
    let mut list = body.vector_u16().ok_or(BAD_EXTENSIONS)?;
    if !body.is_empty() {
        return Err(BAD_EXTENSIONS);
    }
    while !list.is_empty() {
        let kind = list.u16().ok_or(BAD_EXTENSIONS)?;
        let data = list.vector_u16().ok_or(BAD_EXTENSIONS)?;
        found.take_up(kind, data)?;
    }
    Ok(found)
}

const BAD_EXTENSIONS: HelloError =
    HelloError::Malformed("extensions whose lengths contradict each other");

impl Found {
    /// Others, ECH and GREASE among them, are the server's to judge.
    fn take_up(&mut self, kind: u16, data: Bytes<'_>) -> Result<(), HelloError> {
        match kind {
            SERVER_NAME => once(&mut self.server_name, server_name(data)?),
            ALPN => once(&mut self.alpn, alpn(data)?),
            SUPPORTED_VERSIONS => once(&mut self.versions, supported_versions(data)?),
            _ => Ok(()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), HelloError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(HelloError::Duplicate("an extension sent twice")),
    }
}

fn server_name(mut data: Bytes<'_>) -> Result<Option<Box<str>>, HelloError> {
    let mut list = data.vector_u16().ok_or(BAD_SERVER_NAMES)?;
    if list.is_empty() || !data.is_empty() {
        return Err(BAD_SERVER_NAMES);
    }
    let mut host_name_bytes = None;
    while !list.is_empty() {
        let kind = list.u8().ok_or(BAD_SERVER_NAMES)?;
        // Names of other types must begin with the same length, so as to be skipped (RFC 6066 3).
        let name = list.vector_u16().ok_or(BAD_SERVER_NAMES)?;
        if kind == HOST_NAME && host_name_bytes.replace(name.0).is_some() {
            return Err(HelloError::Duplicate("two server names of one type"));
        }
    }
    host_name_bytes.map_or(Ok(None), host_name)
}

const BAD_SERVER_NAMES: HelloError =
    HelloError::Malformed("a list of server names whose lengths contradict each other");

/// `None` for an IP address.
fn host_name(bytes: &[u8]) -> Result<Option<Box<str>>, HelloError> {
    if bytes.len() > HOST_NAME_BYTES_MAX {
        return Err(HelloError::ServerName);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| HelloError::ServerName)?;
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.split('.').all(is_label) {
        Ok(Some(name.into()))
    } else {
        Err(HelloError::ServerName)
    }
}

/// Underscores are no part of host names, but of names that are in use.
fn is_label(label: &str) -> bool {
    let is_ldh = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_ldh)
}

fn alpn(mut data: Bytes<'_>) -> Result<AlpnOffer, HelloError> {
    let list = data.vector_u16().ok_or(BAD_ALPN)?;
    if list.is_empty() || !data.is_empty() {
        return Err(BAD_ALPN);
    }
    let mut names = list;
    while !names.is_empty() {
        let name = names.vector_u8().ok_or(BAD_ALPN)?;
        if name.is_empty() {
            return Err(BAD_ALPN);
        }
    }
    Ok(AlpnOffer {
        names: list.0.into(),
    })
}

const BAD_ALPN: HelloError =
    HelloError::Malformed("a list of application protocols that is broken");

fn supported_versions(mut data: Bytes<'_>) -> Result<Vec<u16>, HelloError> {
    let mut list = data.vector_u8().ok_or(BAD_VERSIONS)?;
    if list.is_empty() || !data.is_empty() {
        return Err(BAD_VERSIONS);
    }
    let mut versions = Vec::new();
    while !list.is_empty() {
        versions.push(list.u16().ok_or(BAD_VERSIONS)?);
    }
    Ok(versions)
}

const BAD_VERSIONS: HelloError = HelloError::Malformed("a list of TLS versions that is broken");
