//! Kernel TLS on a socket: keys in, control records in and out (Documentation/networking/tls.rst).
#![expect(
    unsafe_code,
    reason = "setsockopt, sendmsg and recvmsg with TLS's options have no safe wrapper"
)]

use std::fmt;
use std::io::{self, IoSliceMut};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use zeroize::Zeroizing;

use super::pair::loopback_pair;

// linux/tls.h
const SOL_TLS: libc::c_int = 282;
const TLS_TX: libc::c_int = 1;
const TLS_RX: libc::c_int = 2;
const TLS_SET_RECORD_TYPE: libc::c_int = 1;
const TLS_GET_RECORD_TYPE: libc::c_int = 2;
const TLS_1_2_VERSION: u16 = 0x0303;
const TLS_1_3_VERSION: u16 = 0x0304;
const TLS_CIPHER_AES_GCM_128: u16 = 51;
const TLS_CIPHER_AES_GCM_256: u16 = 52;
const TLS_CIPHER_CHACHA20_POLY1305: u16 = 54;

/// One direction of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KtlsHalf {
    Transmit,
    Receive,
}

impl KtlsHalf {
    fn option(self) -> libc::c_int {
        match self {
            Self::Transmit => TLS_TX,
            Self::Receive => TLS_RX,
        }
    }
}

/// An AEAD that the kernel may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KtlsCipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl KtlsCipher {
    /// Bytes of every nonce.
    pub const NONCE_BYTES: usize = 12;
    const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    fn code(self) -> u16 {
        match self {
            Self::Aes128Gcm => TLS_CIPHER_AES_GCM_128,
            Self::Aes256Gcm => TLS_CIPHER_AES_GCM_256,
            Self::Chacha20Poly1305 => TLS_CIPHER_CHACHA20_POLY1305,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Chacha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    /// Bytes of the key.
    #[must_use]
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// Bytes at the nonce's front that the kernel calls salt, and has behind the key.
    fn salt_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 4,
            Self::Chacha20Poly1305 => 0,
        }
    }

    /// Length of the kernel's struct: version, cipher, IV, key, salt, sequence number.
    fn struct_bytes(self) -> usize {
        4 + KtlsCipher::NONCE_BYTES + self.key_bytes() + SEQUENCE_BYTES
    }
}

const SEQUENCE_BYTES: usize = 8;
const STRUCT_BYTES_MAX: usize = 4 + KtlsCipher::NONCE_BYTES + 32 + SEQUENCE_BYTES;

/// Version and cipher of a connection, as far as the kernel cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KtlsSuite {
    pub tls13: bool,
    pub cipher: KtlsCipher,
}

impl KtlsSuite {
    const COUNT: usize = 2 * KtlsCipher::ALL.len();

    fn all() -> impl Iterator<Item = Self> {
        [false, true]
            .into_iter()
            .flat_map(|tls13| KtlsCipher::ALL.map(|cipher| Self { tls13, cipher }))
    }

    fn index(self) -> usize {
        usize::from(self.tls13) * KtlsCipher::ALL.len() + self.cipher as usize
    }

    fn version(self) -> u16 {
        if self.tls13 {
            TLS_1_3_VERSION
        } else {
            TLS_1_2_VERSION
        }
    }
}

/// What one direction goes on with in the kernel.
pub struct KtlsKeys<'a> {
    pub suite: KtlsSuite,
    /// [`KtlsCipher::key_bytes`] long.
    pub key: &'a [u8],
    /// The nonce of sequence number 0; for TLS 1.2 GCM, salt and the first explicit nonce.
    pub nonce: [u8; KtlsCipher::NONCE_BYTES],
    /// Of the next record.
    pub sequence: u64,
}

impl KtlsKeys<'_> {
    /// The kernel's `struct tls12_crypto_info_*`.
    fn encode(&self) -> Zeroizing<[u8; STRUCT_BYTES_MAX]> {
        let cipher = self.suite.cipher;
        let (salt, iv) = self.nonce.split_at(cipher.salt_bytes());
        let parts: [&[u8]; 6] = [
            &self.suite.version().to_ne_bytes(),
            &cipher.code().to_ne_bytes(),
            iv,
            self.key,
            salt,
            &self.sequence.to_be_bytes(),
        ];
        let mut encoded = Zeroizing::new([0; STRUCT_BYTES_MAX]);
        let mut at = 0;
        for part in parts {
            encoded[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        encoded
    }
}

/// Makes the socket one whose directions can be given to kernel TLS. Until keys are set, nothing
/// changes. A socket that is one already stays so.
///
/// # Errors
/// ENOENT: no tls module. ENOTCONN: the connection is not, or no longer, open in both directions.
pub fn ktls_attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    match set_option(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls") {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        attached => attached,
    }
}

/// Gives one direction's keys to the kernel: from the next byte on it opens or seals the records.
/// Once more with TLS 1.3's next keys, after a KeyUpdate.
///
/// # Errors
/// EBUSY: keys were set before, and this kernel cannot change them. EINVAL, ENOENT, EOPNOTSUPP:
/// it has not got the version or the cipher.
///
/// # Panics
/// When the key is not as long as the cipher wants.
pub fn ktls_set_keys(
    socket: BorrowedFd<'_>,
    half: KtlsHalf,
    keys: &KtlsKeys<'_>,
) -> io::Result<()> {
    let cipher = keys.suite.cipher;
    assert_eq!(keys.key.len(), cipher.key_bytes(), "the cipher's key");
    let encoded = keys.encode();
    let bytes = encoded.get(..cipher.struct_bytes()).unwrap_or(&[]);
    set_option(socket, SOL_TLS, half.option(), bytes)
}

/// Gives a receiving direction the keys that it has, once more.
///
/// From Linux 6.14 on a handshake record that begins with KeyUpdate's type stops the direction until
/// keys are set, also where that byte is within another message.
///
/// # Errors
/// As [`ktls_set_keys`].
pub fn ktls_keep_keys(socket: BorrowedFd<'_>, suite: KtlsSuite) -> io::Result<()> {
    let mut encoded = Zeroizing::new([0; STRUCT_BYTES_MAX]);
    let keys = &mut encoded[..suite.cipher.struct_bytes()];
    read_option(socket, SOL_TLS, TLS_RX, keys)?;
    set_option(socket, SOL_TLS, TLS_RX, keys)
}

/// Sequence number of the next record that the kernel will seal under the keys that it has.
///
/// # Errors
/// What getsockopt reports; none is known where the kernel has the suite's keys.
pub fn ktls_next_sequence(socket: BorrowedFd<'_>, suite: KtlsSuite) -> io::Result<u64> {
    let mut encoded = Zeroizing::new([0; STRUCT_BYTES_MAX]);
    let length = suite.cipher.struct_bytes();
    read_option(socket, SOL_TLS, TLS_TX, &mut encoded[..length])?;
    let mut sequence = [0; SEQUENCE_BYTES];
    sequence.copy_from_slice(&encoded[length - SEQUENCE_BYTES..length]);
    Ok(u64::from_be_bytes(sequence))
}

/// What one receive from a socket with kernel TLS gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KtlsReceived {
    /// TLS ContentType of the bytes: they never mix. `None` with zero bytes: the TCP stream ended.
    pub content_type: Option<u8>,
    pub bytes: usize,
}

/// A control message of one byte, aligned as the kernel wants it.
#[repr(C)]
struct RecordType {
    header: libc::cmsghdr,
    content_type: u8,
    _padding: [u8; 7],
}

/// cmsg_len: the header and the one byte, without what pads it.
const RECORD_TYPE_LENGTH: usize = offset_of!(RecordType, content_type) + 1;

/// One recvmsg(2) that tells the type of what it received.
///
/// # Errors
/// `WouldBlock`; EBADMSG: a record does not open; EMSGSIZE: it is too long; EINVAL: it is no record
/// of this version; EKEYEXPIRED: the peer's next keys have to be set first.
pub fn ktls_receive(
    socket: BorrowedFd<'_>,
    slices: &mut [IoSliceMut<'_>],
) -> io::Result<KtlsReceived> {
    // SAFETY: all zeroes are a valid cmsghdr and a valid byte.
    let mut control: RecordType = unsafe { std::mem::zeroed() };
    // SAFETY: all zeroes are a valid msghdr, with null pointers of length zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_mut_ptr().cast();
    message.msg_iovlen = slices.len() as _;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<RecordType>() as _;
    // SAFETY: IoSliceMut has iovec's layout, and all that the message points to outlives the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let bytes = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let header = &control.header;
    let told = message.msg_controllen as usize >= RECORD_TYPE_LENGTH
        && header.cmsg_level == SOL_TLS
        && header.cmsg_type == TLS_GET_RECORD_TYPE;
    Ok(KtlsReceived {
        content_type: told.then_some(control.content_type),
        bytes,
    })
}

/// Sends one record of another type than application data, whole or not at all.
///
/// # Errors
/// `WouldBlock` when there is no room; else what the kernel reports.
pub fn ktls_send_record(
    socket: BorrowedFd<'_>,
    content_type: u8,
    content: &[u8],
) -> io::Result<()> {
    // SAFETY: all zeroes are a valid cmsghdr and a valid byte.
    let mut control: RecordType = unsafe { std::mem::zeroed() };
    control.header.cmsg_level = SOL_TLS;
    control.header.cmsg_type = TLS_SET_RECORD_TYPE;
    control.header.cmsg_len = RECORD_TYPE_LENGTH as _;
    control.content_type = content_type;
    let mut slice = libc::iovec {
        iov_base: content.as_ptr().cast_mut().cast(),
        iov_len: content.len(),
    };
    // SAFETY: all zeroes are a valid msghdr, with null pointers of length zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<RecordType>() as _;
    // SAFETY: sendmsg only reads what the message points to, and all of it outlives the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Ok(sent) if sent == content.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Bytes that TCP was given to send since the connection began, counted from wherever it counts.
///
/// Kernel TLS may still hold sealed records that TCP had no room for: a FIN would overtake them.
/// Only by comparing this with what the records must be can one tell that none is left.
///
/// # Errors
/// What getsockopt and ioctl report; none is known for a TCP socket.
pub fn tcp_bytes_taken(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // Acknowledged first: an acknowledgement in between makes the sum too small, never too large.
    let mut info = [0; TCPI_BYTES_ACKED + size_of::<u64>()];
    read_option(socket, libc::SOL_TCP, libc::TCP_INFO, &mut info)?;
    let mut acked = [0; size_of::<u64>()];
    acked.copy_from_slice(&info[TCPI_BYTES_ACKED..]);
    let mut queued: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes one int to where the pointer points.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(acked) + u64::from(queued.unsigned_abs()))
}

/// Where `struct tcp_info` of linux/tcp.h has `tcpi_bytes_acked` (Linux 4.1): eight bytes, 24
/// 32-bit fields and two 64-bit ones stand before it.
const TCPI_BYTES_ACKED: usize = 8 + 24 * 4 + 2 * 8;

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    // An option is a few bytes long.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an option is a few bytes long"
    )]
    let length = value.len() as libc::socklen_t;
    // SAFETY: pointer and length describe `value`, which the kernel copies.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn read_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<()> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an option is a few bytes long"
    )]
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is `value`'s length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What this kernel's TLS can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KtlsAbility {
    transmit: [bool; KtlsSuite::COUNT],
    receive: [bool; KtlsSuite::COUNT],
    /// New keys can be set after a KeyUpdate (Linux 6.14).
    pub rekey: bool,
}

impl KtlsAbility {
    #[must_use]
    pub fn has(&self, half: KtlsHalf, suite: KtlsSuite) -> bool {
        match half {
            KtlsHalf::Transmit => self.transmit[suite.index()],
            KtlsHalf::Receive => self.receive[suite.index()],
        }
    }

    fn names(&self, half: KtlsHalf, tls13: bool) -> String {
        let names: Vec<_> = KtlsCipher::ALL
            .into_iter()
            .filter(|cipher| {
                self.has(
                    half,
                    KtlsSuite {
                        tls13,
                        cipher: *cipher,
                    },
                )
            })
            .map(KtlsCipher::name)
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }
}

/// One line: ciphers by version and direction, and whether keys can be renewed.
impl fmt::Display for KtlsAbility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (tls13, version) in [(true, "TLSv1.3"), (false, "TLSv1.2")] {
            let [sent, received] =
                [KtlsHalf::Transmit, KtlsHalf::Receive].map(|half| self.names(half, tls13));
            if sent == received {
                write!(f, "{version} {sent}; ")?;
            } else {
                write!(f, "{version} sent {sent}, received {received}; ")?;
            }
        }
        f.write_str(if self.rekey {
            "key updates followed"
        } else {
            "key updates end the connection (Linux 6.14 can follow them)"
        })
    }
}

/// What [`probe_ktls`] found, in one line.
#[must_use]
pub fn ktls_words(probed: Result<KtlsAbility, &'static str>) -> String {
    match probed {
        Ok(ability) => ability.to_string(),
        Err(why) => format!("no ({why})"),
    }
}

/// Asks for every suite on loopback connections of its own.
///
/// # Errors
/// Why there is no kernel TLS, with the cure.
pub fn probe_ktls() -> Result<KtlsAbility, &'static str> {
    let no_pair = "no loopback connection could be made to ask for it";
    let mut ability = KtlsAbility {
        transmit: [false; KtlsSuite::COUNT],
        receive: [false; KtlsSuite::COUNT],
        rekey: false,
    };
    for suite in KtlsSuite::all() {
        let (socket, _peer) = loopback_pair().map_err(|_| no_pair)?;
        ktls_attach(socket.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => {
                "the kernel has no tls module: `modprobe tls`, or build with CONFIG_TLS"
            }
            _ => "the kernel refuses TCP_ULP",
        })?;
        let keys = KtlsKeys {
            suite,
            key: &[0; 32][..suite.cipher.key_bytes()],
            nonce: [0; KtlsCipher::NONCE_BYTES],
            sequence: 0,
        };
        let set = |half| ktls_set_keys(socket.as_fd(), half, &keys).is_ok();
        ability.transmit[suite.index()] = set(KtlsHalf::Transmit);
        ability.receive[suite.index()] = set(KtlsHalf::Receive);
        if suite.tls13 && ability.transmit[suite.index()] {
            ability.rekey = set(KtlsHalf::Transmit) && set(KtlsHalf::Receive);
        }
    }
    if ability.transmit.contains(&true) || ability.receive.contains(&true) {
        Ok(ability)
    } else {
        Err("the kernel's TLS has none of the ciphers that Ringway has")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_linux_tls_h_has_them() {
        let suite = |tls13, cipher| KtlsSuite { tls13, cipher };
        let nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let keys = KtlsKeys {
            suite: suite(true, KtlsCipher::Aes128Gcm),
            key: &[0xAA; 16],
            nonce,
            sequence: 7,
        };
        let encoded = keys.encode();
        assert_eq!(encoded[..2], 0x0304_u16.to_ne_bytes());
        assert_eq!(encoded[2..4], 51_u16.to_ne_bytes());
        assert_eq!(encoded[4..12], nonce[4..], "the IV");
        assert_eq!(encoded[12..28], [0xAA; 16], "the key");
        assert_eq!(encoded[28..32], nonce[..4], "the salt");
        assert_eq!(encoded[32..40], 7_u64.to_be_bytes());
        assert_eq!(KtlsCipher::Aes128Gcm.struct_bytes(), 40);

        let keys = KtlsKeys {
            suite: suite(false, KtlsCipher::Chacha20Poly1305),
            key: &[0xBB; 32],
            nonce,
            sequence: 1,
        };
        let encoded = keys.encode();
        assert_eq!(encoded[..2], 0x0303_u16.to_ne_bytes());
        assert_eq!(encoded[4..16], nonce, "the whole nonce is the IV");
        assert_eq!(encoded[16..48], [0xBB; 32]);
        assert_eq!(encoded[48..56], 1_u64.to_be_bytes());
        assert_eq!(KtlsCipher::Chacha20Poly1305.struct_bytes(), 56);
    }

    #[test]
    fn every_suite_has_a_place_of_its_own() {
        let mut places: Vec<_> = KtlsSuite::all().map(KtlsSuite::index).collect();
        places.sort_unstable();
        assert_eq!(places, (0..KtlsSuite::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn what_tcp_was_given_is_counted_whether_it_is_acknowledged_or_not() {
        use std::io::{Read, Write};
        let (mut socket, mut peer) = loopback_pair().unwrap();
        let before = tcp_bytes_taken(socket.as_fd()).unwrap();
        socket.write_all(&[7; 1000]).unwrap();
        assert_eq!(tcp_bytes_taken(socket.as_fd()).unwrap() - before, 1000);
        peer.read_exact(&mut [0; 1000]).unwrap();
        socket.write_all(&[7; 234]).unwrap();
        assert_eq!(tcp_bytes_taken(socket.as_fd()).unwrap() - before, 1234);
    }

    #[test]
    fn an_ability_is_told_in_one_line() {
        let mut ability = KtlsAbility {
            transmit: [true; KtlsSuite::COUNT],
            receive: [true; KtlsSuite::COUNT],
            rekey: true,
        };
        let all = "AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305";
        assert_eq!(
            ability.to_string(),
            format!("TLSv1.3 {all}; TLSv1.2 {all}; key updates followed")
        );
        let chacha12 = KtlsSuite {
            tls13: false,
            cipher: KtlsCipher::Chacha20Poly1305,
        };
        ability.receive[chacha12.index()] = false;
        ability.rekey = false;
        let told = ability.to_string();
        assert!(
            told.contains("TLSv1.2 sent AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305, received AES-128-GCM, AES-256-GCM;"),
            "{told}"
        );
        assert!(told.ends_with("(Linux 6.14 can follow them)"), "{told}");
    }
}
