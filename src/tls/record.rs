//! The record layer after the handshake: sealing and opening in place, no buffer of its own.
//!
//! rustls does the handshake and keeps the secrets for key updates; the traffic keys it hands
//! over are used here, on bytes that stay where recv(2) put them (RFC 8446 5.2, RFC 5246 6.2.3.3).
//! `docs/decisions/0006-record-layer.md` says why this is ours.

use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use crate::types::{Alert, TLS_PLAINTEXT_BYTES_MAX};

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
const EXPLICIT_NONCE_BYTES: usize = 8; // RFC 5288 3
const CONTENT_TYPE_BYTES: usize = 1; // TLSInnerPlaintext.type, RFC 8446 5.2

/// Longest record that [`Opener`] can be given: header and 2^14 + 2048 (RFC 5246 6.2.3).
pub(super) const RECORD_BYTES_MAX: usize = HEADER_BYTES + TLS_PLAINTEXT_BYTES_MAX + 2048;

/// Records that one AES-GCM key may protect: RFC 8446 5.5 allows 2^24.5.
pub(super) const GCM_RECORDS_MAX: u64 = 1 << 24;

/// TLS ContentType (RFC 8446 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    Alert,
    Handshake,
    ApplicationData,
}

impl ContentType {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        match code {
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::ApplicationData),
            _ => None,
        }
    }
}

/// What is wrong with a record: each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// Does not decrypt: altered, replayed, or not of this connection.
    BadMac,
    /// Longer than the version allows.
    Overflow,
    /// A content type that has no place after the handshake.
    UnexpectedType,
    /// A TLS 1.3 record of padding alone.
    NoContent,
}

impl RecordError {
    /// The alert to send (RFC 8446 6.2).
    #[must_use]
    pub fn alert(self) -> Alert {
        match self {
            Self::BadMac => Alert::BAD_RECORD_MAC,
            Self::Overflow => Alert::RECORD_OVERFLOW,
            Self::UnexpectedType | Self::NoContent => Alert::UNEXPECTED_MESSAGE,
        }
    }

    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::BadMac => "record does not decrypt (bad_record_mac)",
            Self::Overflow => "record longer than TLS allows (record_overflow)",
            Self::UnexpectedType => "record of a type that has no place after the handshake",
            Self::NoContent => "record without content type",
        }
    }
}

/// Version and cipher as far as they shape a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Tls13,
    /// With an explicit nonce of eight bytes.
    Tls12Gcm,
    Tls12Chacha,
}

impl Shape {
    /// Room that a sealed record needs before its plaintext.
    #[must_use]
    pub const fn head_bytes(self) -> usize {
        match self {
            Self::Tls12Gcm => HEADER_BYTES + EXPLICIT_NONCE_BYTES,
            Self::Tls13 | Self::Tls12Chacha => HEADER_BYTES,
        }
    }

    /// Room that a sealed record needs after its plaintext.
    #[must_use]
    pub const fn tail_bytes(self) -> usize {
        match self {
            Self::Tls13 => CONTENT_TYPE_BYTES + TAG_BYTES,
            Self::Tls12Gcm | Self::Tls12Chacha => TAG_BYTES,
        }
    }
}

/// One direction's key, IV and sequence number.
struct Keys {
    /// aws-lc overwrites it when it frees it.
    key: LessSafeKey,
    iv: Zeroizing<[u8; 12]>,
    sequence: u64,
    shape: Shape,
    records_max: u64,
}

/// Key material that no AEAD accepts: rustls gave a cipher that this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCipher;

impl Keys {
    fn new(
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        tls13: bool,
    ) -> Result<Self, UnknownCipher> {
        let (algorithm, key, iv): (&'static Algorithm, &[u8], &[u8]) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                (&AES_128_GCM, key.as_ref(), iv.as_ref())
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                (&AES_256_GCM, key.as_ref(), iv.as_ref())
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&CHACHA20_POLY1305, key.as_ref(), iv.as_ref())
            }
            _ => return Err(UnknownCipher),
        };
        let chacha = matches!(secrets, ConnectionTrafficSecrets::Chacha20Poly1305 { .. });
        let shape = match (tls13, chacha) {
            (true, _) => Shape::Tls13,
            (false, true) => Shape::Tls12Chacha,
            (false, false) => Shape::Tls12Gcm,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| UnknownCipher)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: Zeroizing::new(iv.try_into().map_err(|_| UnknownCipher)?),
            sequence,
            shape,
            records_max: if chacha { u64::MAX } else { GCM_RECORDS_MAX },
        })
    }

    /// IV xor sequence number (RFC 8446 5.3, RFC 7905 2). For TLS 1.2 GCM too: the last eight
    /// bytes then are the explicit nonce, and never repeat under one key.
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = *self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }

    /// Additional data of TLS 1.2: sequence, type, version, plaintext length (RFC 5246 6.2.3.3).
    /// `type_and_version` as the record's header has them, so that the tag covers both.
    fn aad12(&self, type_and_version: [u8; 3], plaintext_bytes: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&type_and_version);
        aad[11..].copy_from_slice(&length_field(plaintext_bytes));
        aad
    }
}

/// Both callers bound the length to a record's.
fn length_field(bytes: usize) -> [u8; 2] {
    debug_assert!(bytes <= RECORD_BYTES_MAX, "longer than a record");
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// Protects what we send.
pub struct Sealer {
    keys: Keys,
}

/// The key has protected as many records as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl Sealer {
    /// # Errors
    /// [`UnknownCipher`].
    pub fn new(
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        tls13: bool,
    ) -> Result<Self, UnknownCipher> {
        Ok(Self {
            keys: Keys::new(secrets, sequence, tls13)?,
        })
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.keys.shape
    }

    /// Of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.keys.sequence
    }

    /// True when a key update is due, or, before TLS 1.3, the connection's end.
    #[must_use]
    pub fn nearly_exhausted(&self) -> bool {
        self.keys.sequence >= self.keys.records_max - RECORDS_KEPT_BACK
    }

    /// Seals `plaintext` of `buffer` where it stands and returns the record's place, which
    /// begins [`Shape::head_bytes`] before and ends [`Shape::tail_bytes`] after it.
    ///
    /// # Errors
    /// [`Exhausted`]: nothing was sealed.
    ///
    /// # Panics
    /// When the buffer has not the room, or the plaintext is longer than a record's.
    pub fn seal(
        &mut self,
        content_type: ContentType,
        buffer: &mut [u8],
        plaintext: Range<usize>,
    ) -> Result<Range<usize>, Exhausted> {
        let keys = &mut self.keys;
        if keys.sequence >= keys.records_max {
            return Err(Exhausted);
        }
        let bytes = plaintext.len();
        assert!(
            bytes <= TLS_PLAINTEXT_BYTES_MAX,
            "more than one record's plaintext"
        );
        let record =
            plaintext.start - keys.shape.head_bytes()..plaintext.end + keys.shape.tail_bytes();
        seal_record(
            keys,
            content_type.code(),
            &mut buffer[record.clone()],
            bytes,
        )?;
        keys.sequence += 1;
        Ok(record)
    }
}

/// Kept back under the limit, for the key update and the alerts that still have to go out.
const RECORDS_KEPT_BACK: u64 = 1024;

/// `record` is the whole record's place, the plaintext already in it.
fn seal_record(
    keys: &Keys,
    content_type: u8,
    record: &mut [u8],
    bytes: usize,
) -> Result<(), Exhausted> {
    let shape = keys.shape;
    let nonce = keys.nonce();
    let outer_type = if shape == Shape::Tls13 {
        23
    } else {
        content_type
    };
    let length = length_field(record.len() - HEADER_BYTES);
    let header = [outer_type, 3, 3, length[0], length[1]];
    record[..HEADER_BYTES].copy_from_slice(&header);
    if shape == Shape::Tls12Gcm {
        record[HEADER_BYTES..shape.head_bytes()].copy_from_slice(&nonce[4..]);
    }
    let body_end = record.len() - TAG_BYTES;
    if shape == Shape::Tls13 {
        record[body_end - 1] = content_type;
    }
    let (body, tag_place) =
        record[shape.head_bytes()..].split_at_mut(body_end - shape.head_bytes());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let sealed = match shape {
        Shape::Tls13 => keys
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), body),
        Shape::Tls12Gcm | Shape::Tls12Chacha => {
            let aad = Aad::from(keys.aad12([content_type, 3, 3], bytes));
            keys.key.seal_in_place_separate_tag(nonce, aad, body)
        }
    };
    // An AEAD fails to seal only past its own length limits, far beyond a record.
    tag_place.copy_from_slice(sealed.map_err(|_| Exhausted)?.as_ref());
    Ok(())
}

/// Checks and reveals what the peer sent.
pub struct Opener {
    keys: Keys,
}

impl Opener {
    /// # Errors
    /// [`UnknownCipher`].
    pub fn new(
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        tls13: bool,
    ) -> Result<Self, UnknownCipher> {
        Ok(Self {
            keys: Keys::new(secrets, sequence, tls13)?,
        })
    }

    #[must_use]
    pub fn shape(&self) -> Shape {
        self.keys.shape
    }

    /// Of the next record.
    pub(super) fn sequence(&self) -> u64 {
        self.keys.sequence
    }

    /// Opens one whole record in place and returns its type and where its plaintext stands.
    ///
    /// # Errors
    /// [`RecordError`]; the connection cannot go on.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), RecordError> {
        let opened = match self.keys.shape {
            Shape::Tls13 => self.open13(record)?,
            Shape::Tls12Gcm | Shape::Tls12Chacha => self.open12(record)?,
        };
        if opened.1.len() > TLS_PLAINTEXT_BYTES_MAX {
            return Err(RecordError::Overflow);
        }
        self.keys.sequence += 1;
        Ok(opened)
    }

    fn open13(&self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), RecordError> {
        let (header, body) = record
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(RecordError::BadMac)?;
        if header[0] != ContentType::ApplicationData.code() {
            return Err(RecordError::UnexpectedType);
        }
        // RFC 8446 5.2: at most 2^14 + 256.
        if body.len() > TLS_PLAINTEXT_BYTES_MAX + 256 {
            return Err(RecordError::Overflow);
        }
        let nonce = Nonce::assume_unique_for_key(self.keys.nonce());
        let inner = self
            .keys
            .key
            .open_in_place(nonce, Aad::from(*header), body)
            .map_err(|_| RecordError::BadMac)?;
        // RFC 8446 5.4: padding does not make a record longer.
        if inner.len() > TLS_PLAINTEXT_BYTES_MAX + CONTENT_TYPE_BYTES {
            return Err(RecordError::Overflow);
        }
        let last = inner
            .iter()
            .rposition(|byte| *byte != 0)
            .ok_or(RecordError::NoContent)?;
        let content_type =
            ContentType::from_code(inner[last]).ok_or(RecordError::UnexpectedType)?;
        Ok((content_type, HEADER_BYTES..HEADER_BYTES + last))
    }

    fn open12(&self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), RecordError> {
        let head = self.keys.shape.head_bytes();
        let bytes = record
            .len()
            .checked_sub(head + TAG_BYTES)
            .ok_or(RecordError::BadMac)?;
        let type_and_version = [record[0], record[1], record[2]];
        let content_type = ContentType::from_code(record[0]).ok_or(RecordError::UnexpectedType)?;
        let mut nonce = self.keys.nonce();
        if self.keys.shape == Shape::Tls12Gcm {
            nonce[4..].copy_from_slice(&record[HEADER_BYTES..head]);
        }
        let aad = Aad::from(self.keys.aad12(type_and_version, bytes));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let body = &mut record[head..];
        self.keys
            .key
            .open_in_place(nonce, aad, body)
            .map_err(|_| RecordError::BadMac)?;
        Ok((content_type, head..head + bytes))
    }
}

/// Length of the whole record that `bytes` begins with, header included.
/// `None`: the header is not complete.
///
/// # Errors
/// [`RecordError::Overflow`] when it claims to be longer than any version allows;
/// [`RecordError::UnexpectedType`] as soon as what is there cannot be a record of TLS: waiting for
/// as many bytes as it seems to announce would be waiting for nothing.
pub(super) fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    // Types 20 to 24, major version 3 (RFC 8446 5.1, RFC 6520 for heartbeat).
    let may_begin_so = bytes.first().is_none_or(|code| (20..=24).contains(code))
        && bytes.get(1).is_none_or(|major| *major == 3);
    if !may_begin_so {
        return Err(RecordError::UnexpectedType);
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    let whole = HEADER_BYTES + length;
    if whole > RECORD_BYTES_MAX {
        Err(RecordError::Overflow)
    } else {
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests;
