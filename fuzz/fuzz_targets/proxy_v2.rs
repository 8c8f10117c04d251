//! A header of PROXY v2 gets the same answer whole and cut anywhere, keeps its bound, and what it
//! says can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::proto::proxy::{Progress, V2_BODY_BYTES_MAX, V2_FIXED_BYTES, parse};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const BYTES_MAX: usize = V2_FIXED_BYTES + V2_BODY_BYTES_MAX;

fuzz_target!(|input: &[u8]| {
    let bytes = match input.strip_prefix(SIGNATURE) {
        Some(_) => input.to_vec(),
        None => [SIGNATURE, input].concat(),
    };
    let at_once = parse(&bytes);
    for end in 0..bytes.len() {
        let so_far = parse(&bytes[..end]);
        if !matches!(so_far, Progress::Undecided | Progress::NeedMore) {
            assert_eq!(so_far, at_once);
            break;
        }
        assert!(end < BYTES_MAX);
    }
    if let Progress::Complete { header, bytes: end } = at_once {
        assert!(end <= BYTES_MAX && end <= bytes.len());
        // Values too long to be written are left out: from then on nothing changes.
        let Progress::Complete { header: second, .. } = parse(&header.v2()) else {
            panic!("what was read cannot be written: {header:?}");
        };
        assert_eq!(second.ends, header.ends);
        let third = second.v2();
        let again = Progress::Complete {
            header: second,
            bytes: third.len(),
        };
        assert_eq!(parse(&third), again);
    }
});
