use rustls::unbuffered::{EncodeError, EncodeTlsData};

use super::handshake::HandshakeError;
use crate::net::{Buffer, Buffers, LARGE_BYTES};

/// What goes out with the next send.
#[derive(Default)]
pub(super) struct Outbound {
    buffer: Option<Buffer>,
    end: usize,
}

pub(super) struct Flight {
    buffer: Buffer,
    end: usize,
}

impl Flight {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.end).unwrap_or(&[])
    }
}

impl Outbound {
    /// What must fit into a small buffer.
    pub(super) fn put(&mut self, bytes: &[u8], buffers: &Buffers) {
        if bytes.is_empty() {
            return;
        }
        let (start, end) = (self.end, self.end + bytes.len());
        let buffer = self.buffer.get_or_insert_with(|| buffers.small());
        buffer[start..end].copy_from_slice(bytes);
        self.end = end;
    }

    pub(super) fn encode<Data>(
        &mut self,
        mut data: EncodeTlsData<'_, Data>,
        buffers: &Buffers,
    ) -> Result<(), HandshakeError> {
        loop {
            let end = self.end;
            let buffer = self.buffer.get_or_insert_with(|| buffers.small());
            match data.encode(buffer.get_mut(end..).unwrap_or(&mut [])) {
                Ok(written) => {
                    self.end += written;
                    return Ok(());
                }
                Err(EncodeError::InsufficientSize(_)) if buffer.len() < LARGE_BYTES => {
                    let mut large = buffers.large();
                    large[..end].copy_from_slice(&buffer[..end]);
                    self.buffer = Some(large);
                }
                Err(_) => return Err(HandshakeError::TooLong),
            }
        }
    }

    pub(super) fn take(&mut self) -> Option<Flight> {
        let end = std::mem::take(&mut self.end);
        self.buffer
            .take()
            .filter(|_| end > 0)
            .map(|buffer| Flight { buffer, end })
    }
}
