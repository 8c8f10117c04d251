/// CRC-32C (RFC 3720 B.4), bit by bit: a header has some hundred bytes, once a connection.
#[derive(Clone, Copy)]
pub(super) struct Crc32c(u32);

/// The Castagnoli polynomial, its bits in reverse.
const POLYNOMIAL: u32 = 0x82f6_3b78;

impl Crc32c {
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    #[must_use]
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                let carry = if crc & 1 == 1 { POLYNOMIAL } else { 0 };
                (crc >> 1) ^ carry
            })
        }))
    }

    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc32c(bytes: &[u8]) -> u32 {
        Crc32c::new().with(bytes).value()
    }

    #[test]
    fn the_values_of_the_rfc_come_out() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            Crc32c::new().with(b"1234").with(b"56789").value(),
            0xe306_9283
        );
    }
}
