//! The header of a TLS record (RFC 8446 5.1, RFC 5246 6.2.1).

use crate::types::{Alert, TLS_PLAINTEXT_BYTES_MAX};

/// Content type, version, length.
pub const HEADER_BYTES: usize = 5;

/// Longest body of a record that TLS 1.3 protects: 2^14 + 256 (RFC 8446 5.2).
pub const TLS13_CIPHERTEXT_BYTES_MAX: usize = TLS_PLAINTEXT_BYTES_MAX + 256;

/// Longest body of a record that TLS 1.2 protects: 2^14 + 2048 (RFC 5246 6.2.3).
pub const TLS12_CIPHERTEXT_BYTES_MAX: usize = TLS_PLAINTEXT_BYTES_MAX + 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub content_type: ContentType,
    /// As on the wire. TLS 1.3 freezes it at 0x0303 or 0x0301 and ignores it (RFC 8446 5.1).
    pub version: u16,
    /// Bytes of the body that follows the header.
    pub length: u16,
}

/// IANA's registry of TLS content types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
    Heartbeat,
}

/// How long a record's body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not yet encrypted.
    Plain,
    Tls12,
    Tls13,
}

/// Why five bytes are not the header of an acceptable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    ContentType(u8),
    Version(u16),
    TooLong(u16),
}

/// Reads a header within the widest bound, TLS 1.2's. Once the version and the protection are
/// known, [`Header::within`] holds the narrower one.
pub fn header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, RecordError> {
    let [content_type, major, minor, high, low] = *bytes;
    let content_type = ContentType::from_wire(content_type)?;
    let version = u16::from_be_bytes([major, minor]);
    if major != 3 {
        return Err(RecordError::Version(version));
    }
    let length = u16::from_be_bytes([high, low]);
    let header = Header {
        content_type,
        version,
        length,
    };
    header.within(Protection::Tls12)
}

/// A fatal alert as an unprotected record, for a peer whose first bytes are refused.
#[must_use]
pub fn fatal_alert(alert: Alert) -> [u8; 7] {
    // The version of a record before one is agreed on (RFC 8446 5.1); 2 is "fatal".
    [21, 3, 1, 0, 2, 2, alert.0]
}

impl Header {
    /// Itself, if its body is not longer than records of this protection may be.
    pub fn within(self, protection: Protection) -> Result<Self, RecordError> {
        if usize::from(self.length) > protection.body_bytes_max() {
            return Err(RecordError::TooLong(self.length));
        }
        Ok(self)
    }
}

impl Protection {
    #[must_use]
    pub fn body_bytes_max(self) -> usize {
        match self {
            Self::Plain => TLS_PLAINTEXT_BYTES_MAX,
            Self::Tls12 => TLS12_CIPHERTEXT_BYTES_MAX,
            Self::Tls13 => TLS13_CIPHERTEXT_BYTES_MAX,
        }
    }
}

impl ContentType {
    fn from_wire(byte: u8) -> Result<Self, RecordError> {
        match byte {
            20 => Ok(Self::ChangeCipherSpec),
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::ApplicationData),
            24 => Ok(Self::Heartbeat),
            other => Err(RecordError::ContentType(other)),
        }
    }
}

impl RecordError {
    /// What is wrong, for the access log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ContentType(_) => "a record of a type that TLS has not got",
            Self::Version(_) => "a record of a version that is not TLS",
            Self::TooLong(_) => "a record longer than TLS allows",
        }
    }

    /// The alert that tells the peer (RFC 8446 6.2).
    #[must_use]
    pub fn alert(self) -> Alert {
        match self {
            Self::ContentType(_) => Alert::UNEXPECTED_MESSAGE,
            Self::Version(_) => Alert::PROTOCOL_VERSION,
            Self::TooLong(_) => Alert::RECORD_OVERFLOW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(length: usize) -> Result<Header, RecordError> {
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        header(&[23, 3, 3, high, low])
    }

    #[test]
    fn a_header_is_type_version_and_length() {
        assert_eq!(
            header(&[22, 3, 1, 2, 0]),
            Ok(Header {
                content_type: ContentType::Handshake,
                version: 0x0301,
                length: 512,
            })
        );
    }

    #[test]
    fn each_protection_has_its_own_bound() {
        for (protection, bound) in [
            (Protection::Plain, 16_384),
            (Protection::Tls13, 16_640),
            (Protection::Tls12, 18_432),
        ] {
            let widest = with_length(bound).and_then(|header| header.within(protection));
            assert_eq!(widest.map(|header| usize::from(header.length)), Ok(bound));
            let too_long = with_length(bound + 1).and_then(|header| header.within(protection));
            assert!(
                matches!(too_long, Err(RecordError::TooLong(_))),
                "{protection:?}"
            );
        }
    }

    #[test]
    fn every_first_five_bytes_are_a_header_or_an_error_with_words() {
        for first in 0..=u8::MAX {
            for major in 0..=u8::MAX {
                match header(&[first, major, 3, 0, 1]) {
                    Ok(header) => {
                        assert!((20..=24).contains(&first) && major == 3, "{header:?}");
                    }
                    Err(error) => {
                        assert!(!error.words().is_empty() && error.alert().name().is_some())
                    }
                }
            }
        }
    }

    #[test]
    fn an_alert_is_a_record_that_the_parser_itself_takes() {
        let alert = fatal_alert(Alert::UNRECOGNIZED_NAME);
        let (start, body) = alert.split_first_chunk().unwrap();
        let header = header(start).unwrap();
        assert_eq!(header.content_type, ContentType::Alert);
        assert_eq!(usize::from(header.length), body.len());
    }
}
