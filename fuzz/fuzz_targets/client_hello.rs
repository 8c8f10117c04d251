//! A first flight gets the same answer whether it comes at once or in two reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::proto::{ClientHelloReader, Progress};

fuzz_target!(|input: (u16, &[u8])| {
    let (at, flight) = input;
    let at = usize::from(at).min(flight.len());
    let at_once = ClientHelloReader::new().parse(flight);
    let mut reader = ClientHelloReader::new();
    let first = reader.parse(&flight[..at]);
    if first == Progress::NeedMore {
        assert_eq!(reader.parse(flight), at_once);
    }
    if let Progress::Complete(hello) = at_once {
        let name = hello.server_name.unwrap_or_default();
        assert!(name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(hello.alpn.iter().all(|name| !name.is_empty()));
    }
});
