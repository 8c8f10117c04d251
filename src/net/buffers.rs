use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// One whole sealed record: header, explicit nonce, 2^14 bytes and tag make 16,413 at most. A
/// padded TLS 1.3 record fits too (16,645); what TLS 1.2 would allow an old cipher does not.
pub const SMALL_BYTES: usize = 18 * 1024;
/// Four sealed records, and a ClientHello of 64 KiB with its record headers.
pub const LARGE_BYTES: usize = 68 * 1024;

/// Spare buffers that a core keeps. More than this were in use at once only under back-pressure.
const SPARE_SMALL_MAX: usize = 64;
const SPARE_LARGE_MAX: usize = 32;

/// A core's buffers. A connection holds one only while bytes are in it.
#[derive(Clone, Default, Debug)]
pub struct Buffers {
    spare: Rc<Spare>,
}

#[derive(Default, Debug)]
struct Spare {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
}

impl Buffers {
    /// A buffer of [`SMALL_BYTES`]; what it holds is undefined.
    #[must_use]
    pub fn small(&self) -> Buffer {
        self.take(&self.spare.small, SMALL_BYTES)
    }

    /// A buffer of [`LARGE_BYTES`]; what it holds is undefined.
    #[must_use]
    pub fn large(&self) -> Buffer {
        self.take(&self.spare.large, LARGE_BYTES)
    }

    fn take(&self, spare: &RefCell<Vec<Box<[u8]>>>, bytes: usize) -> Buffer {
        let kept = spare.borrow_mut().pop();
        let bytes = kept.unwrap_or_else(|| vec![0; bytes].into_boxed_slice());
        Buffer {
            bytes,
            home: Rc::clone(&self.spare),
        }
    }
}

/// Bytes that go back to their core's pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    home: Rc<Spare>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (pool, max) = match self.bytes.len() {
            SMALL_BYTES => (&self.home.small, SPARE_SMALL_MAX),
            _ => (&self.home.large, SPARE_LARGE_MAX),
        };
        let mut pool = pool.borrow_mut();
        if pool.len() < max {
            pool.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_handed_out_again() {
        let buffers = Buffers::default();
        let mut first = buffers.small();
        first[0] = 77;
        let place = first.as_ptr();
        drop(first);
        assert_eq!(buffers.small().as_ptr(), place);
        assert_eq!(buffers.large().len(), LARGE_BYTES);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bound() {
        let buffers = Buffers::default();
        let many: Vec<_> = (0..SPARE_LARGE_MAX + 5).map(|_| buffers.large()).collect();
        drop(many);
        assert_eq!(buffers.spare.large.borrow().len(), SPARE_LARGE_MAX);
    }
}
