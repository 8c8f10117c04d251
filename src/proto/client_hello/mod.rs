//! The first flight of a TLS client, read without answering it: server name, application
//! protocols and versions (RFC 8446 4.1.2, RFC 6066 3, RFC 7301 3.1).

mod body;
#[cfg(test)]
mod tests;

use super::bytes::Bytes;
use super::record::{self, ContentType, HEADER_BYTES, Protection, RecordError};
use crate::types::Alert;

/// Most bytes of a first flight that are read, record headers included. The handshake's u24
/// length allows 16 MiB; rustls takes messages up to 65,535 bytes. Real hellos with a
/// post-quantum key share and ECH stay below 4 KiB, with a long ticket below 20 KiB.
pub const FIRST_FLIGHT_BYTES_MAX: usize = 64 * 1024;

/// Type and u24 length of a handshake message (RFC 8446 4).
const MESSAGE_HEADER_BYTES: usize = 4;

const CLIENT_HELLO: u8 = 1;

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A beginning of a ClientHello, or of something that will show itself soon.
    NeedMore,
    Complete(ClientHello),
    NotTls(NotTls),
    Invalid(HelloError),
}

/// What a ClientHello says in clear. With ECH it is the outer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// A valid DNS name without a trailing dot, in the case the client sent. An IP address,
    /// which RFC 6066 forbids here but some clients send, counts as no name, as in rustls.
    pub server_name: Option<Box<str>>,
    pub alpn: AlpnOffer,
    pub legacy_version: u16,
    /// GREASE values included (RFC 8701); empty: the extension was not sent.
    pub supported_versions: Vec<u16>,
}

/// The application protocols offered, in the client's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlpnOffer {
    /// As on the wire, checked: a length byte before each name.
    names: Box<[u8]>,
}

/// What came instead of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTls {
    Http,
    Sslv2,
    ProxyProtocol,
    Unknown,
}

/// Why a first flight that begins as TLS is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloError {
    Record(RecordError),
    /// A record of another type before the ClientHello was complete.
    NotHandshake,
    EmptyRecord,
    /// The first handshake message is another one.
    NotClientHello,
    TooLong,
    /// More bytes after the ClientHello in its record.
    Trailing,
    /// Lengths that contradict each other; the part of the hello.
    Malformed(&'static str),
    /// An extension, or a name in it, that came twice.
    Duplicate(&'static str),
    ServerName,
}

/// Puts a ClientHello together from any number of reads and records.
#[derive(Debug, Default)]
pub struct ClientHelloReader {
    /// Bytes of the input that are in whole records already read.
    read: usize,
    /// The handshake message so far, where it spans records.
    message: Vec<u8>,
}

impl ClientHelloReader {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at all bytes received so far. Each call's input begins with the last call's; after
    /// an answer other than [`Progress::NeedMore`] the reader has done its work.
    ///
    /// Ends at [`FIRST_FLIGHT_BYTES_MAX`]: a longer input never gets `NeedMore`.
    pub fn parse(&mut self, input: &[u8]) -> Progress {
        if self.read == 0
            && let Some(progress) = sniff(input)
        {
            return progress;
        }
        match self.read_records(input) {
            Ok(Some(hello)) => Progress::Complete(hello),
            Ok(None) if input.len() < FIRST_FLIGHT_BYTES_MAX => Progress::NeedMore,
            Ok(None) => Progress::Invalid(HelloError::TooLong),
            Err(error) => Progress::Invalid(error),
        }
    }

    fn read_records(&mut self, input: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        let flight = input.get(..FIRST_FLIGHT_BYTES_MAX).unwrap_or(input);
        while let Some((header, rest)) = flight
            .get(self.read..)
            .and_then(|rest| rest.split_first_chunk::<HEADER_BYTES>())
        {
            let length = fragment_length(header)?;
            let Some(fragment) = rest.get(..length) else {
                self.check_beginning(rest)?;
                return Ok(None);
            };
            if let Some(hello) = self.read_fragment(fragment)? {
                return Ok(Some(hello));
            }
            self.read = self
                .read
                .saturating_add(HEADER_BYTES)
                .saturating_add(length);
        }
        Ok(None)
    }

    /// Parses in place a message that lies in one record, as nearly all do.
    fn read_fragment(&mut self, fragment: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        if self.message.is_empty() {
            let hello = read_message(fragment)?;
            if hello.is_none() {
                self.message.extend_from_slice(fragment);
            }
            return Ok(hello);
        }
        self.message.extend_from_slice(fragment);
        read_message(&self.message)
    }

    /// Refuses at once what the first bytes of an unfinished record show to be hopeless.
    fn check_beginning(&self, fragment: &[u8]) -> Result<(), HelloError> {
        if self.message.is_empty() {
            message_length(fragment)?;
        }
        Ok(())
    }
}

fn fragment_length(header: &[u8; HEADER_BYTES]) -> Result<usize, HelloError> {
    let header = record::header(header)
        .and_then(|header| header.within(Protection::Plain))
        .map_err(HelloError::Record)?;
    if header.content_type != ContentType::Handshake {
        return Err(HelloError::NotHandshake);
    }
    if header.length == 0 {
        // Forbidden for handshake records (RFC 8446 5.1): a way to make us loop for nothing.
        return Err(HelloError::EmptyRecord);
    }
    Ok(usize::from(header.length))
}

/// `None`: the message is not complete.
fn read_message(message: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let Some(length) = message_length(message)? else {
        return Ok(None);
    };
    let body = message.get(MESSAGE_HEADER_BYTES..).unwrap_or_default();
    match body.split_at_checked(length) {
        None => Ok(None),
        Some((body, [])) => body::parse(Bytes(body)).map(Some),
        Some(_) => Err(HelloError::Trailing),
    }
}

/// Length of the message's body; `None`: its header is not complete.
fn message_length(message: &[u8]) -> Result<Option<usize>, HelloError> {
    let Some(kind) = message.first() else {
        return Ok(None);
    };
    if *kind != CLIENT_HELLO {
        return Err(HelloError::NotClientHello);
    }
    let Some([_, high, middle, low]) = message.first_chunk::<MESSAGE_HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, *high, *middle, *low]);
    match usize::try_from(length) {
        Ok(length) if length <= MESSAGE_BODY_BYTES_MAX => Ok(Some(length)),
        _ => Err(HelloError::TooLong),
    }
}

/// What fits into a flight in one record less its headers.
const MESSAGE_BODY_BYTES_MAX: usize = FIRST_FLIGHT_BYTES_MAX - HEADER_BYTES - MESSAGE_HEADER_BYTES;

/// First bytes of protocols that reach a TLS listener by mistake.
const TEXT_STARTS: [(&[u8], NotTls); 13] = [
    (b"GET ", NotTls::Http),
    (b"HEAD ", NotTls::Http),
    (b"POST ", NotTls::Http),
    (b"PUT ", NotTls::Http),
    (b"PATCH ", NotTls::Http),
    (b"DELETE ", NotTls::Http),
    (b"OPTIONS ", NotTls::Http),
    (b"CONNECT ", NotTls::Http),
    (b"TRACE ", NotTls::Http),
    (b"PRI * HTTP/2", NotTls::Http),
    (b"HTTP/1.", NotTls::Http),
    (b"PROXY ", NotTls::ProxyProtocol),
    (b"\r\n\r\n\0\r\nQUIT\n", NotTls::ProxyProtocol),
];

/// What the first bytes are if not TLS; `None`: they are a TLS record's.
fn sniff(input: &[u8]) -> Option<Progress> {
    match input {
        [20..=24, 3, ..] => None,
        [] | [20..=24] => Some(Progress::NeedMore),
        // A two-byte length with its top bit set, then the message's type: CLIENT-HELLO.
        [0x80..=0xff, _, CLIENT_HELLO, ..] => Some(Progress::NotTls(NotTls::Sslv2)),
        [0x80..=0xff] | [0x80..=0xff, _] => Some(Progress::NeedMore),
        _ => Some(sniff_text(input)),
    }
}

fn sniff_text(input: &[u8]) -> Progress {
    let known = TEXT_STARTS
        .iter()
        .find(|(start, _)| input.starts_with(start));
    match known {
        Some((_, what)) => Progress::NotTls(*what),
        None if TEXT_STARTS
            .iter()
            .any(|(start, _)| start.starts_with(input)) =>
        {
            Progress::NeedMore
        }
        None => Progress::NotTls(NotTls::Unknown),
    }
}

impl ClientHello {
    /// The newest version offered, GREASE left aside.
    #[must_use]
    pub fn version_max(&self) -> u16 {
        let real = self
            .supported_versions
            .iter()
            .filter(|version| *version >> 8 == 3);
        real.copied().max().unwrap_or(self.legacy_version)
    }
}

impl AlpnOffer {
    /// Never yields an empty name.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut names = Bytes(&self.names);
        std::iter::from_fn(move || names.vector_u8().map(|name| name.0))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        self.iter().any(|offered| offered == name)
    }
}

impl NotTls {
    /// For the access log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Http => "plain HTTP",
            Self::Sslv2 => "SSLv2 hello",
            Self::ProxyProtocol => "PROXY protocol header",
            Self::Unknown => "not a TLS record",
        }
    }
}

impl HelloError {
    /// What is wrong, for the access log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Record(error) => error.words(),
            Self::NotHandshake => "a TLS record that is not a handshake before the ClientHello",
            Self::EmptyRecord => "an empty handshake record",
            Self::NotClientHello => "the first handshake message is not a ClientHello",
            Self::TooLong => "a ClientHello longer than 64 KiB",
            Self::Trailing => "bytes after the ClientHello in its record",
            Self::Malformed(part) | Self::Duplicate(part) => part,
            Self::ServerName => "a server name that is not a DNS name",
        }
    }

    /// The alert that tells the client (RFC 8446 6.2).
    #[must_use]
    pub fn alert(self) -> Alert {
        match self {
            Self::Record(error) => error.alert(),
            Self::NotHandshake | Self::EmptyRecord | Self::NotClientHello | Self::Trailing => {
                Alert::UNEXPECTED_MESSAGE
            }
            Self::TooLong | Self::Duplicate(_) | Self::ServerName => Alert::ILLEGAL_PARAMETER,
            Self::Malformed(_) => Alert::DECODE_ERROR,
        }
    }
}
