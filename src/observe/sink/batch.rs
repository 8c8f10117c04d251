use std::collections::VecDeque;

/// A batch is written once it is this long: about 400 lines, well past the point where the
/// system call's own cost shows.
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// Lines on their way out: whole, except for a first one that was cut by a failed write.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    written: usize,
    /// Where the first line that is not written to its end begins.
    first: usize,
    /// Where each such line ends.
    ends: VecDeque<usize>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one line.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push_back(self.bytes.len());
    }

    /// Lines not yet written to their end.
    pub(super) fn lines(&self) -> u64 {
        self.ends.len() as u64
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// What is left of the first line.
    pub(super) fn first_line(&self) -> &[u8] {
        let end = self.ends.front().copied().unwrap_or(self.written);
        self.bytes.get(self.written..end).unwrap_or_default()
    }

    /// Takes note that the next `count` bytes are written; the number of lines that ended there.
    pub(super) fn advance(&mut self, count: usize) -> u64 {
        self.written += count;
        let mut ended = 0;
        while let Some(end) = self.ends.pop_front_if(|end| *end <= self.written) {
            self.first = end;
            ended += 1;
        }
        if self.ends.is_empty() {
            *self = Self {
                bytes: std::mem::take(&mut self.bytes),
                ..Self::default()
            };
            self.bytes.clear();
        }
        ended
    }

    /// Drops the rest of a line whose beginning went elsewhere; the number of lines lost.
    pub(super) fn skip_cut_line(&mut self) -> u64 {
        if self.written > self.first {
            self.advance(self.first_line().len())
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.push(|out| out.extend_from_slice(line.as_bytes()));
        }
        batch
    }

    #[test]
    fn lines_count_when_their_last_byte_is_written() {
        let mut batch = batch(&["one\n", "two\n", "three\n"]);
        assert_eq!((batch.advance(3), batch.lines()), (0, 3));
        assert_eq!((batch.advance(1), batch.lines()), (1, 2));
        assert_eq!(batch.first_line(), b"two\n");
        assert_eq!(batch.advance(10), 2);
        assert!(batch.is_empty() && batch.rest().is_empty());
    }

    #[test]
    fn only_a_line_that_was_begun_is_skipped() {
        let mut batch = batch(&["one\n", "two\n"]);
        assert_eq!(batch.skip_cut_line(), 0);
        batch.advance(5);
        assert_eq!((batch.skip_cut_line(), batch.lines()), (1, 0));
        batch.push(|out| out.extend_from_slice(b"four\n"));
        assert_eq!(
            (batch.skip_cut_line(), batch.first_line()),
            (0, &b"four\n"[..])
        );
    }
}
