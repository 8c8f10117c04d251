//! Five bytes are a header within TLS's bounds, or an error with words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::proto::record::{self, Protection};

fuzz_target!(
    |bytes: [u8; record::HEADER_BYTES]| match record::header(&bytes) {
        Ok(header) => {
            assert!(usize::from(header.length) <= Protection::Tls12.body_bytes_max());
            assert_eq!(header.version >> 8, 3);
        }
        Err(error) => assert!(!error.words().is_empty()),
    }
);
