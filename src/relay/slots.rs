//! Where plaintext stands in a buffer so that its record can be sealed around it.

use std::ops::Range;

use crate::net::{LARGE_BYTES, Parts, SMALL_BYTES};
use crate::tls::Shape;
use crate::types::TLS_PLAINTEXT_BYTES_MAX;

/// Records of full size that a large buffer takes, whatever their version.
pub(super) const SLOTS_MAX: usize = 4;
const _: () = assert!(
    SLOTS_MAX
        * (Shape::Tls12Gcm.head_bytes() + TLS_PLAINTEXT_BYTES_MAX + Shape::Tls13.tail_bytes())
        <= LARGE_BYTES,
    "a large buffer holds four sealed records"
);
const _: () = assert!(
    Shape::Tls12Gcm.head_bytes() + TLS_PLAINTEXT_BYTES_MAX + Shape::Tls13.tail_bytes()
        <= SMALL_BYTES,
    "a small buffer holds one sealed record"
);

/// From one record's beginning to the next one's: sealed, they stand without a gap.
pub(super) fn stride(shape: Shape) -> usize {
    shape.head_bytes() + TLS_PLAINTEXT_BYTES_MAX + shape.tail_bytes()
}

pub(super) fn slots(buffer_bytes: usize, shape: Shape) -> usize {
    (buffer_bytes / stride(shape)).min(SLOTS_MAX)
}

/// Where `bytes` of plaintext stand after they were received into slots.
pub(super) fn spaced_parts(bytes: usize, shape: Shape) -> Parts {
    let mut parts = Parts::default();
    for slot in 0..bytes.div_ceil(TLS_PLAINTEXT_BYTES_MAX) {
        let start = slot * stride(shape) + shape.head_bytes();
        let left = bytes - slot * TLS_PLAINTEXT_BYTES_MAX;
        parts.push(start..start + left.min(TLS_PLAINTEXT_BYTES_MAX));
    }
    parts
}

/// Copies the first of `ranges` with `shape`'s room around each, as many as `to` takes: a full
/// buffer of records with little around them is longer than one with more. A large buffer takes
/// one at least.
pub(super) fn copy_spaced(
    from: &[u8],
    ranges: &[Range<usize>],
    to: &mut [u8],
    shape: Shape,
) -> Parts {
    let mut spaced = Parts::default();
    let mut place = 0;
    for range in ranges {
        let start = place + shape.head_bytes();
        let end = start + range.len();
        if end + shape.tail_bytes() > to.len() {
            break;
        }
        to[start..end].copy_from_slice(&from[range.clone()]);
        spaced.push(start..end);
        place = end + shape.tail_bytes();
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 3] = [Shape::Tls13, Shape::Tls12Gcm, Shape::Tls12Chacha];

    /// Whether the records that the parts will become stand within the buffer and apart.
    fn stand_apart(parts: &Parts, shape: Shape, buffer_bytes: usize) -> bool {
        let mut free_from = 0;
        parts.ranges().iter().all(|range| {
            let apart = range.start >= free_from + shape.head_bytes();
            free_from = range.end + shape.tail_bytes();
            apart && free_from <= buffer_bytes
        })
    }

    #[test]
    fn a_small_buffer_has_one_slot_and_a_large_one_four() {
        for shape in SHAPES {
            assert_eq!(slots(SMALL_BYTES, shape), 1, "{shape:?}");
            assert_eq!(slots(LARGE_BYTES, shape), SLOTS_MAX, "{shape:?}");
        }
    }

    #[test]
    fn parts_are_where_the_slots_are_and_hold_every_byte_once() {
        let full = TLS_PLAINTEXT_BYTES_MAX;
        for shape in SHAPES {
            for bytes in [
                1,
                full - 1,
                full,
                full + 1,
                3 * full,
                4 * full - 1,
                4 * full,
            ] {
                let parts = spaced_parts(bytes, shape);
                assert_eq!(parts.bytes(), bytes);
                assert_eq!(parts.ranges().len(), bytes.div_ceil(full));
                for (slot, range) in parts.ranges().iter().enumerate() {
                    assert_eq!(range.start, slot * stride(shape) + shape.head_bytes());
                    assert!(range.len() == full || slot == parts.ranges().len() - 1);
                }
                assert!(stand_apart(&parts, shape, LARGE_BYTES), "{shape:?} {bytes}");
            }
            assert!(spaced_parts(0, shape).is_empty());
        }
    }

    #[test]
    fn records_that_fill_a_buffer_are_copied_in_as_many_turns_as_they_need() {
        for (from_shape, shape) in SHAPES.iter().flat_map(|a| SHAPES.map(|b| (*a, b))) {
            for count in 5..=8 {
                let from: Vec<u8> = (0..=250).cycle().take(LARGE_BYTES).collect();
                let (head, tail) = (from_shape.head_bytes(), from_shape.tail_bytes());
                let stride = LARGE_BYTES / count;
                let range = |at: usize| at * stride + head..(at + 1) * stride - tail;
                let ranges: Vec<_> = (0..count).map(range).collect();
                let (mut rest, mut copied) = (&ranges[..], Vec::new());
                while !rest.is_empty() {
                    let mut to = vec![0; LARGE_BYTES];
                    let spaced = copy_spaced(&from, rest, &mut to, shape);
                    assert!(!spaced.is_empty());
                    assert!(stand_apart(&spaced, shape, LARGE_BYTES));
                    let parts = spaced
                        .ranges()
                        .iter()
                        .map(|range| to[range.clone()].to_vec());
                    copied.extend(parts);
                    rest = &rest[spaced.ranges().len()..];
                }
                let sent: Vec<_> = ranges
                    .iter()
                    .map(|range| from[range.clone()].to_vec())
                    .collect();
                assert!(copied == sent, "{from_shape:?} to {shape:?}");
            }
        }
    }
}
