//! A line of PROXY v1 gets the same answer whole and cut anywhere, keeps its bound, and what it
//! says can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::proto::proxy::{Progress, V1_BYTES_MAX, parse};

fuzz_target!(|input: &[u8]| {
    // Bytes that are no signature are over at once: most inputs begin with one.
    let line = match input.strip_prefix(b"PROXY ") {
        Some(_) => input.to_vec(),
        None => [b"PROXY ", input].concat(),
    };
    let at_once = parse(&line);
    for end in 0..line.len() {
        let so_far = parse(&line[..end]);
        if !matches!(so_far, Progress::Undecided | Progress::NeedMore) {
            assert_eq!(so_far, at_once);
            break;
        }
        assert!(end < V1_BYTES_MAX);
    }
    if let Progress::Complete { header, bytes } = at_once {
        assert!(bytes <= V1_BYTES_MAX && bytes <= line.len());
        let written = header.v1();
        assert!(written.len() <= V1_BYTES_MAX);
        let again = Progress::Complete {
            header,
            bytes: written.len(),
        };
        assert_eq!(parse(&written), again);
    }
});
