//! One direction of an established leg is handed to kernel TLS, and what is ours there from then on:
//! its control records, its key updates and the count of its records.
//!
//! `docs/decisions/0010-kernel-tls.md` has the order of the steps, and why.

use std::io::{self, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustls::ConnectionTrafficSecrets;

use super::record::{ContentType, Exhausted, GCM_RECORDS_MAX, RecordError};
use super::stream::{HANDSHAKE_KEY_UPDATE, Opened, Opening, ReadError, Shared, TlsReader};
use super::writer::{Control, Sealing, TlsWriter};
use crate::net::Socket;
use crate::observe::Fallback;
use crate::sys::{
    KtlsAbility, KtlsCipher, KtlsHalf, KtlsKeys, KtlsReceived, KtlsSuite, ktls_attach,
    ktls_keep_keys, ktls_next_sequence, ktls_receive, ktls_send_record, ktls_set_keys,
    tcp_bytes_taken,
};

/// The traffic secrets that a direction's kernel TLS would begin with, kept until it does.
pub struct Secrets {
    pub(super) transmit: Option<ConnectionTrafficSecrets>,
    pub(super) receive: Option<ConnectionTrafficSecrets>,
}

/// The kernel refuses what the connection needs to go on.
#[derive(Debug)]
pub enum KernelError {
    /// The peer wants new keys, and this kernel cannot change them.
    NoRekey,
    /// The key has protected as many records as it may, and no new one can be had.
    Exhausted(Exhausted),
    Io(io::Error),
}

const _: () = assert!(KtlsCipher::NONCE_BYTES == 12, "TLS's nonces are that long");

fn suite_of(secrets: &ConnectionTrafficSecrets, tls13: bool) -> Option<KtlsSuite> {
    let cipher = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { .. } => KtlsCipher::Aes128Gcm,
        ConnectionTrafficSecrets::Aes256Gcm { .. } => KtlsCipher::Aes256Gcm,
        ConnectionTrafficSecrets::Chacha20Poly1305 { .. } => KtlsCipher::Chacha20Poly1305,
        _ => return None,
    };
    Some(KtlsSuite { tls13, cipher })
}

fn set_keys(
    socket: BorrowedFd<'_>,
    half: KtlsHalf,
    secrets: &ConnectionTrafficSecrets,
    (suite, sequence): (KtlsSuite, u64),
) -> io::Result<()> {
    let (key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key.as_ref(), iv.as_ref()),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut nonce = [0; KtlsCipher::NONCE_BYTES];
    nonce.copy_from_slice(iv);
    if !suite.tls13 && suite.cipher != KtlsCipher::Chacha20Poly1305 {
        first_explicit_nonce(&mut nonce);
    }
    let keys = KtlsKeys {
        suite,
        key,
        nonce,
        sequence,
    };
    ktls_set_keys(socket, half, &keys)
}

/// TLS 1.2 GCM: the kernel counts the explicit nonce up from where we tell it to begin, while our
/// own record layer used the IV xor the sequence number. With another highest bit, and room to
/// count, no nonce comes twice under the key.
fn first_explicit_nonce(nonce: &mut [u8; KtlsCipher::NONCE_BYTES]) {
    nonce[4] ^= 0x80;
    nonce[8..].fill(0);
}

fn attach_and_set(
    socket: &Socket,
    half: KtlsHalf,
    secrets: Option<ConnectionTrafficSecrets>,
    (tls13, sequence): (bool, u64),
    ability: &KtlsAbility,
) -> Result<KtlsSuite, Fallback> {
    // Zeroized when dropped, whatever comes of it.
    let secrets = secrets.ok_or(Fallback::Refused)?;
    let suite = suite_of(&secrets, tls13).filter(|suite| ability.has(half, *suite));
    let suite = suite.ok_or(Fallback::Cipher)?;
    ktls_attach(socket.fd()).map_err(|error| fallback(&error))?;
    set_keys(socket.fd(), half, &secrets, (suite, sequence)).map_err(|error| fallback(&error))?;
    Ok(suite)
}

fn fallback(error: &io::Error) -> Fallback {
    match error.raw_os_error() {
        Some(libc::ENOTCONN) => Fallback::HalfClosed,
        Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT) => Fallback::NotTcp,
        Some(libc::ENOMEM | libc::ENOBUFS) => Fallback::NoMemory,
        _ => Fallback::Refused,
    }
}

// What we send.

/// A sending direction that the kernel seals.
pub(super) struct KernelWriter {
    suite: KtlsSuite,
    overhead_bytes: u64,
    /// [`tcp_bytes_taken`] when it began.
    taken_before: u64,
    /// Content handed to the kernel since then, of all types.
    content_bytes: u64,
    /// Records sealed under earlier keys, since then.
    records_before: u64,
    first_sequence: u64,
    /// As far as it was looked after.
    sequence: u64,
    calls_since: u32,
    renewing: bool,
    /// By TCP, at the last look.
    taken: u64,
}

/// How far TCP has taken what the kernel sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub done: bool,
    /// It has taken more since the last look.
    pub progress: bool,
}

/// Hand-overs between two looks at the sequence number. One makes at most as many records as a
/// pipe has buffers (256), so that a limit is not overrun unseen.
const CALLS_UNSEEN_MAX: u32 = 4096;
const RECORDS_A_CALL_MAX: u64 = 256;
/// Left for the last calls before the look, the key update and the alerts.
const RECORDS_KEPT_BACK: u64 = 2 * CALLS_UNSEEN_MAX as u64 * RECORDS_A_CALL_MAX;

impl TlsWriter {
    /// Gives the sending direction to the kernel. Everything that was sealed must have been sent.
    ///
    /// # Errors
    /// Why it stays in user space; it goes on there as before.
    pub fn hand_over(
        &mut self,
        socket: &Socket,
        shared: &Shared,
        ability: &KtlsAbility,
    ) -> Result<(), Fallback> {
        let Sealing::User(sealer) = &self.sealing else {
            return Ok(());
        };
        let (sequence, shape) = (sealer.sequence(), sealer.shape());
        let taken_before = tcp_bytes_taken(socket.fd()).map_err(|_| Fallback::NotTcp)?;
        let kept = shared.with_secrets_kept(|kept| kept.transmit.take());
        let suite = attach_and_set(
            socket,
            KtlsHalf::Transmit,
            kept.flatten(),
            (shared.tls13, sequence),
            ability,
        )?;
        self.sealing = Sealing::Kernel(Box::new(KernelWriter {
            suite,
            overhead_bytes: (shape.head_bytes() + shape.tail_bytes()) as u64,
            taken_before,
            content_bytes: 0,
            records_before: 0,
            first_sequence: sequence,
            sequence,
            calls_since: 0,
            renewing: false,
            taken: 0,
        }));
        Ok(())
    }

    #[must_use]
    pub fn is_in_kernel(&self) -> bool {
        matches!(self.sealing, Sealing::Kernel(_))
    }

    /// The kernel has taken `bytes` of content.
    pub fn on_taken(&mut self, bytes: usize) {
        if let Sealing::Kernel(kernel) = &mut self.sealing {
            kernel.content_bytes += bytes as u64;
            kernel.calls_since += 1;
        }
    }

    /// The KeyUpdate that goes before the next application data of a direction in the kernel,
    /// mostly none: the peer asked for it, or the key has protected nearly as much as it may.
    /// When it is sent, [`on_control_sent`](Self::on_control_sent) follows. `rekey`: this kernel can
    /// change a direction's keys.
    ///
    /// # Errors
    /// [`KernelError`]: the connection cannot go on.
    pub fn key_update(
        &mut self,
        socket: &Socket,
        shared: &Shared,
        rekey: bool,
    ) -> Result<Option<Control>, KernelError> {
        let Sealing::Kernel(kernel) = &mut self.sealing else {
            return Ok(None);
        };
        let nearly_exhausted = kernel
            .nearly_exhausted(socket.fd())
            .map_err(KernelError::Io)?;
        match (shared.requested.get(), nearly_exhausted) {
            (false, false) => return Ok(None),
            _ if shared.tls13 && rekey => {}
            (_, true) => return Err(KernelError::Exhausted(Exhausted)),
            (true, false) => return Err(KernelError::NoRekey),
        }
        shared.requested.set(false);
        kernel.renewing = true;
        // KeyUpdate, 1 byte, update_not_requested.
        let message = vec![HANDSHAKE_KEY_UPDATE, 0, 0, 1, 0];
        Ok(Some(Control::ForKernel(ContentType::Handshake, message)))
    }

    /// A control record is sent: after a KeyUpdate the next keys are set.
    ///
    /// # Errors
    /// [`KernelError`]: the connection cannot go on.
    pub fn on_control_sent(&mut self, socket: &Socket, shared: &Shared) -> Result<(), KernelError> {
        let Sealing::Kernel(kernel) = &mut self.sealing else {
            return Ok(());
        };
        if !std::mem::take(&mut kernel.renewing) {
            return Ok(());
        }
        let next = ktls_next_sequence(socket.fd(), kernel.suite).map_err(KernelError::Io)?;
        let (sequence, secrets) = shared.next_transmit().map_err(KernelError::Exhausted)?;
        let keys = (kernel.suite, sequence);
        set_keys(socket.fd(), KtlsHalf::Transmit, &secrets, keys).map_err(KernelError::Io)?;
        kernel.records_before += next - kernel.first_sequence;
        (kernel.first_sequence, kernel.sequence) = (sequence, sequence);
        kernel.calls_since = 0;
        Ok(())
    }

    /// Whether TCP has every record that the kernel sealed: only then may a FIN follow.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn drain(&mut self, socket: &Socket) -> io::Result<Drain> {
        match &mut self.sealing {
            Sealing::User(_) => Ok(Drain {
                done: true,
                progress: false,
            }),
            Sealing::Kernel(kernel) => kernel.drain(socket.fd()),
        }
    }
}

impl KernelWriter {
    fn nearly_exhausted(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        if self.suite.cipher == KtlsCipher::Chacha20Poly1305 {
            return Ok(false);
        }
        if self.calls_since >= CALLS_UNSEEN_MAX {
            self.sequence = ktls_next_sequence(socket, self.suite)?;
            self.calls_since = 0;
        }
        Ok(self.sequence >= GCM_RECORDS_MAX - RECORDS_KEPT_BACK)
    }

    fn drain(&mut self, socket: BorrowedFd<'_>) -> io::Result<Drain> {
        let next = ktls_next_sequence(socket, self.suite)?;
        let records = self.records_before + (next - self.first_sequence);
        let sealed = self.content_bytes + records * self.overhead_bytes;
        let taken = tcp_bytes_taken(socket)? - self.taken_before;
        let before = std::mem::replace(&mut self.taken, taken);
        Ok(Drain {
            done: taken >= sealed,
            progress: taken > before,
        })
    }
}

// What the peer sends.

impl TlsReader {
    /// The content type of application data.
    pub const APPLICATION_DATA: u8 = 23;

    /// Gives the receiving direction to the kernel. Everything received must have been opened: the
    /// kernel begins with the next byte, which must be a record's first.
    ///
    /// # Errors
    /// Why it stays in user space; it goes on there as before.
    pub fn hand_over(
        &mut self,
        socket: &Socket,
        shared: &Shared,
        ability: &KtlsAbility,
    ) -> Result<(), Fallback> {
        let Opening::User(opener) = &self.opening else {
            return Ok(());
        };
        let kept = shared.with_secrets_kept(|kept| kept.receive.take());
        let suite = attach_and_set(
            socket,
            KtlsHalf::Receive,
            kept.flatten(),
            (shared.tls13, opener.sequence()),
            ability,
        )?;
        self.opening = Opening::Kernel(suite);
        Ok(())
    }

    #[must_use]
    pub fn is_in_kernel(&self) -> bool {
        matches!(self.opening, Opening::Kernel(_))
    }

    /// Between two messages and before the end: where a hand-over may take place, if also no
    /// received byte is left.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.message.is_empty() && self.ended.is_none()
    }

    /// One receive from a direction in the kernel.
    ///
    /// # Errors
    /// As [`ktls_receive`].
    pub fn receive(
        &self,
        socket: &Socket,
        slices: &mut [IoSliceMut<'_>],
    ) -> io::Result<KtlsReceived> {
        ktls_receive(socket.fd(), slices)
    }

    /// A record that the kernel opened and that holds no application data. `rekey`: this kernel
    /// can change a direction's keys.
    ///
    /// # Errors
    /// [`ReadError`]: the leg cannot go on.
    pub fn on_kernel_record(
        &mut self,
        socket: &Socket,
        (content_type, content): (u8, &[u8]),
        shared: &Shared,
        rekey: bool,
    ) -> Result<Opened, ReadError> {
        let unexpected = ReadError::Record(RecordError::UnexpectedType);
        let content_type = ContentType::from_code(content_type).ok_or(unexpected)?;
        if !self.message.is_empty() && content_type != ContentType::Handshake {
            return Err(ReadError::INTERRUPTED);
        }
        let closed = self.on_control(content_type, content, shared)?;
        let looks_like_new_keys = content_type == ContentType::Handshake
            && content.first() == Some(&HANDSHAKE_KEY_UPDATE);
        if std::mem::take(&mut self.renewal_due) {
            self.renew(socket, shared, rekey)?;
        } else if looks_like_new_keys && rekey && shared.tls13 {
            self.keep_keys(socket)?;
        }
        Ok(if closed { Opened::Closed } else { Opened::Data })
    }

    /// Gives the kernel the keys that the peer has changed to.
    fn renew(&self, socket: &Socket, shared: &Shared, rekey: bool) -> Result<(), ReadError> {
        if !rekey {
            return Err(ReadError::Kernel(
                "the peer changed its keys, which kernel TLS follows from Linux 6.14 on \
                 (relay_path = \"user\" does on any)",
            ));
        }
        let (sequence, secrets) = shared.next_receive()?;
        let suite = suite_of(&secrets, shared.tls13);
        let suite = suite.ok_or(ReadError::Kernel("the kernel has not got the cipher"))?;
        set_keys(socket.fd(), KtlsHalf::Receive, &secrets, (suite, sequence))
            .map_err(|_| ReadError::Kernel("the kernel refused the peer's next keys"))
    }

    /// A piece of another message began like a KeyUpdate, and the kernel waits for keys.
    fn keep_keys(&self, socket: &Socket) -> Result<(), ReadError> {
        let Opening::Kernel(suite) = self.opening else {
            return Ok(());
        };
        ktls_keep_keys(socket.fd(), suite)
            .map_err(|_| ReadError::Kernel("the kernel refused the keys that it had"))
    }

    /// Application data came.
    pub fn on_data(&mut self) {
        self.idle_records = 0;
    }

    /// What a failed receive from a direction in the kernel means. `None`: it is the connection's
    /// own failure, a reset for one.
    #[must_use]
    pub fn kernel_error(error: &io::Error) -> Option<ReadError> {
        match error.raw_os_error() {
            Some(libc::EBADMSG) => Some(ReadError::Record(RecordError::BadMac)),
            Some(libc::EMSGSIZE) => Some(ReadError::Record(RecordError::Overflow)),
            Some(libc::EINVAL) => Some(ReadError::Record(RecordError::UnexpectedType)),
            _ => None,
        }
    }
}

impl Control {
    /// Of the records, or of the content that the kernel seals.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Sealed(bytes) | Self::ForKernel(_, bytes) => bytes.len(),
        }
    }

    /// Sends it to a peer that is not waited for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room, and what else the kernel reports.
    pub fn try_send(&self, socket: &Socket) -> io::Result<()> {
        match self {
            Self::Sealed(records) => socket.try_send(records).map(drop),
            Self::ForKernel(content_type, content) => {
                ktls_send_record(socket.fd(), content_type.code(), content)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn writer(cipher: KtlsCipher, sequence: u64) -> KernelWriter {
        let suite = KtlsSuite {
            tls13: true,
            cipher,
        };
        KernelWriter {
            suite,
            overhead_bytes: 22,
            taken_before: 0,
            content_bytes: 0,
            records_before: 0,
            first_sequence: 0,
            sequence,
            calls_since: CALLS_UNSEEN_MAX - 1,
            renewing: false,
            taken: 0,
        }
    }

    #[test]
    fn a_key_is_due_before_the_calls_between_two_looks_can_exhaust_it() {
        // Not asked before the next look: a pipe takes no socket options.
        let (no_socket, _) = std::io::pipe().unwrap();
        let is_due = |cipher, sequence| {
            let due = writer(cipher, sequence).nearly_exhausted(no_socket.as_fd());
            due.unwrap()
        };
        let last = GCM_RECORDS_MAX - RECORDS_KEPT_BACK;
        for cipher in [KtlsCipher::Aes128Gcm, KtlsCipher::Aes256Gcm] {
            assert!(!is_due(cipher, last - 1), "{cipher:?}");
            assert!(is_due(cipher, last), "{cipher:?}");
        }
        assert!(!is_due(KtlsCipher::Chacha20Poly1305, u64::MAX));
        let unseen = u64::from(CALLS_UNSEEN_MAX) * RECORDS_A_CALL_MAX;
        assert!(last - 1 + unseen < GCM_RECORDS_MAX);

        let mut looking = writer(KtlsCipher::Aes128Gcm, 0);
        looking.calls_since = CALLS_UNSEEN_MAX;
        assert!(
            looking.nearly_exhausted(no_socket.as_fd()).is_err(),
            "it asks"
        );
    }

    #[test]
    fn the_kernels_explicit_nonces_are_none_of_ours() {
        let iv: [u8; 12] = [1, 2, 3, 4, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        let mut first = iv;
        first_explicit_nonce(&mut first);
        assert_eq!(first[..4], iv[..4], "the salt is the session's");
        let explicit = |nonce: [u8; 12]| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&nonce[4..]);
            u64::from_be_bytes(bytes)
        };
        let (ours, kernels) = (explicit(iv), explicit(first));
        let last = kernels + GCM_RECORDS_MAX;
        for sequence in [0, 1, 2, 255, 65_536, GCM_RECORDS_MAX - 1, GCM_RECORDS_MAX] {
            let used = ours ^ sequence;
            assert!(!(kernels..=last).contains(&used), "{used:x}");
        }
    }
}
