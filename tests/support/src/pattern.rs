//! Bytes that anyone can make from a seed and check without keeping them.

use std::sync::Arc;

/// Bytes after which the pattern comes again. A prime, so that bytes lost or doubled in whole
/// records, pages or buffers never fall on it.
const PERIOD: usize = 1_048_573;

/// An endless stream of bytes, the same for the same seed.
#[derive(Debug, Clone)]
pub struct Pattern {
    period: Arc<[u8]>,
    position: u64,
}

impl Pattern {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            period: xorshift(seed, PERIOD).into(),
            position: 0,
        }
    }

    /// Bytes made or checked so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Next bytes, as many as lie together and at most `length`; [`Self::advance`] goes on.
    #[must_use]
    pub fn peek(&self, length: u64) -> &[u8] {
        let start = self.offset();
        let length = usize::try_from(length).unwrap_or(PERIOD);
        &self.period[start..PERIOD.min(start.saturating_add(length))]
    }

    /// Counts `length` bytes as made.
    pub fn advance(&mut self, length: usize) {
        self.position += length as u64;
    }

    /// The next `length` bytes.
    #[must_use]
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let piece = self.peek((length - bytes.len()) as u64);
            bytes.extend_from_slice(piece);
            let piece = piece.len();
            self.advance(piece);
        }
        bytes
    }

    /// Compares `seen` with the next bytes.
    ///
    /// # Errors
    /// The position and both values of the first byte that differs.
    pub fn check(&mut self, mut seen: &[u8]) -> Result<(), String> {
        while !seen.is_empty() {
            let expected = self.peek(seen.len() as u64);
            let (now, rest) = seen.split_at(expected.len());
            if now != expected {
                return Err(self.difference(now, expected));
            }
            self.advance(now.len());
            seen = rest;
        }
        Ok(())
    }

    fn difference(&self, seen: &[u8], expected: &[u8]) -> String {
        let at = seen
            .iter()
            .zip(expected)
            .take_while(|(s, e)| s == e)
            .count();
        format!(
            "byte {} of the stream is {:#04x}, sent was {:#04x}",
            self.position + at as u64,
            seen[at],
            expected[at]
        )
    }

    fn offset(&self) -> usize {
        usize::try_from(self.position % PERIOD as u64).unwrap_or_default()
    }
}

/// xorshift64*: fast, and no two seeds give the same stream.
fn xorshift(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Numbers for choices of a test that must differ from run to run: print the seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        // splitmix64: every state gives a good number, also small seeds.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (number ^ (number >> 31)) % sides.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_pattern_checks_itself_in_other_pieces() {
        let sent = Pattern::new(7).take(1000);
        let mut check = Pattern::new(7);
        for piece in sent.chunks(13) {
            check.check(piece).unwrap();
        }
        assert_eq!(check.position(), 1000);
    }

    #[test]
    fn a_flipped_bit_and_a_lost_byte_are_found() {
        let mut sent = Pattern::new(7).take(100);
        sent[41] ^= 4;
        assert!(
            Pattern::new(7)
                .check(&sent)
                .unwrap_err()
                .contains("byte 41")
        );
        let lost = Pattern::new(7).take(100).split_off(1);
        assert!(Pattern::new(7).check(&lost).is_err());
    }
}
