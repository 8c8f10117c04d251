#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the tests build the bytes that the parser must survive"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConfig, RootCertStore};

use super::*;

const GREASE: u16 = 0x7a7a;
const ECH: u16 = 0xfe0d;

fn u16_bytes(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap().to_be_bytes()
}

fn vector_u16(content: &[u8]) -> Vec<u8> {
    [&u16_bytes(content.len()), content].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector_u16(data)].concat()
}

fn name_entry(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind][..], &vector_u16(name)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &vector_u16(&name_entry(0, name)))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [&[u8::try_from(name.len()).unwrap()], *name].concat())
        .collect();
    extension(ALPN, &vector_u16(&list))
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// A handshake message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[32],
        &[8; 32],
        &[0, 4, 0x7a, 0x7a, 0x13, 0x01],
        &[1, 0],
        &vector_u16(&extensions.concat()),
    ]
    .concat();
    with_header(1, &body)
}

fn with_header(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], &vector_u16(fragment)[..]].concat()
}

fn typical_message() -> Vec<u8> {
    message(&[
        extension(GREASE, &[]),
        sni(b"db.Example.org"),
        extension(ECH, &[0; 40]),
        alpn(&[b"h2", b"http/1.1"]),
        extension(SUPPORTED_VERSIONS, &[6, 0x7a, 0x7a, 3, 4, 3, 3]),
    ])
}

fn typical_hello() -> ClientHello {
    ClientHello {
        server_name: Some("db.Example.org".into()),
        alpn: AlpnOffer {
            names: b"\x02h2\x08http/1.1"[..].into(),
        },
        legacy_version: 0x0303,
        supported_versions: vec![GREASE, 0x0304, 0x0303],
    }
}

fn parse(input: &[u8]) -> Progress {
    ClientHelloReader::new().parse(input)
}

fn parse_extensions(extensions: &[Vec<u8>]) -> Progress {
    parse(&record(&message(extensions)))
}

/// One reader, fed one byte more each time.
fn parse_byte_by_byte(input: &[u8]) -> Progress {
    let mut reader = ClientHelloReader::new();
    (0..input.len())
        .map(|end| reader.parse(&input[..end]))
        .find(|progress| *progress != Progress::NeedMore)
        .unwrap_or_else(|| reader.parse(input))
}

/// The first flight of rustls, with X25519MLKEM768 among its key shares.
fn rustls_flight(alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("db.example.org").unwrap();
    let mut client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
    let mut flight = vec![0; 16 * 1024];
    let length = match client.process_tls_records(&mut []).state.unwrap() {
        ConnectionState::EncodeTlsData(mut data) => data.encode(&mut flight).unwrap(),
        other => panic!("{other:?}"),
    };
    flight.truncate(length);
    flight
}

#[test]
fn a_real_post_quantum_hello_is_read() {
    let flight = rustls_flight(&[b"h2", b"acme-tls/1"]);
    assert!(
        flight.len() > 1216,
        "the key share of X25519MLKEM768 alone has 1216 bytes"
    );
    let Progress::Complete(hello) = parse(&flight) else {
        panic!("{:?}", parse(&flight));
    };
    assert_eq!(hello.server_name.as_deref(), Some("db.example.org"));
    assert!(hello.alpn.iter().eq([&b"h2"[..], b"acme-tls/1"]));
    assert_eq!(hello.version_max(), 0x0304);
    assert_eq!(parse_byte_by_byte(&flight), Progress::Complete(hello));
}

#[test]
fn every_prefix_of_a_hello_asks_for_more() {
    for flight in [record(&typical_message()), rustls_flight(&[])] {
        for end in 0..flight.len() {
            assert_eq!(parse(&flight[..end]), Progress::NeedMore, "at {end}");
        }
        assert!(matches!(parse(&flight), Progress::Complete(_)));
    }
}

#[test]
fn every_split_into_records_and_reads_gives_the_same_hello() {
    let message = typical_message();
    for at in 1..message.len() {
        let (head, tail) = message.split_at(at);
        let flight = [record(head), record(tail)].concat();
        let expected = Progress::Complete(typical_hello());
        assert_eq!(parse(&flight), expected, "split at {at}");
        assert_eq!(parse_byte_by_byte(&flight), expected, "split at {at}");
    }
    let flight: Vec<u8> = message.chunks(1).flat_map(record).collect();
    assert_eq!(parse(&flight), Progress::Complete(typical_hello()));
    assert_eq!(
        parse_byte_by_byte(&flight),
        Progress::Complete(typical_hello())
    );
}

#[test]
fn records_after_the_hello_are_not_looked_at() {
    let flight = [
        record(&typical_message()),
        b"early data or garbage".to_vec(),
    ]
    .concat();
    assert_eq!(parse(&flight), Progress::Complete(typical_hello()));
}

#[test]
fn a_hello_without_extensions_is_complete() {
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let Progress::Complete(hello) = parse(&record(&with_header(1, &body))) else {
        panic!("not complete");
    };
    assert_eq!(
        (hello.server_name.as_deref(), hello.alpn.is_empty()),
        (None, true)
    );
    assert_eq!(hello.version_max(), 0x0301);
}

#[test]
fn the_longest_flight_is_read_and_one_byte_more_is_refused_at_once() {
    let padded = |bytes| message(&[sni(b"a.example"), extension(GREASE, &vec![0; bytes])]);
    let flight = |bytes| -> Vec<u8> { padded(bytes).chunks(16 * 1024).flat_map(record).collect() };
    let room = FIRST_FLIGHT_BYTES_MAX - flight(0).len() - 3 * HEADER_BYTES;
    let longest = flight(room);
    assert_eq!(longest.len(), FIRST_FLIGHT_BYTES_MAX);
    assert!(matches!(parse(&longest), Progress::Complete(_)));
    assert_eq!(parse(&longest[..longest.len() - 1]), Progress::NeedMore);

    let too_long = Progress::Invalid(HelloError::TooLong);
    assert_eq!(parse(&flight(room + 1)), too_long);
    let endless = record(&[1, 0, 255, 255]);
    assert_eq!(parse(&endless), too_long);
    let dripping: Vec<u8> = padded(60_000).chunks(1).flat_map(record).collect();
    assert_eq!(parse(&dripping), too_long);
    assert_eq!(
        parse(&dripping[..FIRST_FLIGHT_BYTES_MAX - 1]),
        Progress::NeedMore
    );
}

#[test]
fn other_protocols_are_told_apart_by_their_first_bytes() {
    for (input, what) in [
        (&b"GET / HTTP/1.1\r\n"[..], NotTls::Http),
        (b"OPTIONS * HTTP/1.1\r\n", NotTls::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotTls::Http),
        (b"\x80\x2e\x01\x00\x02", NotTls::Sslv2),
        (b"PROXY TCP4 192.0.2.1", NotTls::ProxyProtocol),
        (b"\r\n\r\n\0\r\nQUIT\n\x21", NotTls::ProxyProtocol),
        (b"SSH-2.0-OpenSSH", NotTls::Unknown),
        (b"\x80\x2e\x07", NotTls::Unknown),
        (b"\x16\x02\x01", NotTls::Unknown),
        (b"\0", NotTls::Unknown),
        (b"GETX", NotTls::Unknown),
    ] {
        assert_eq!(parse(input), Progress::NotTls(what), "{input:?}");
        assert_eq!(
            parse_byte_by_byte(input),
            Progress::NotTls(what),
            "{input:?}"
        );
    }
    for undecided in [&b""[..], b"G", b"PR", b"\x16", b"\x80", b"\x80\x2e"] {
        assert_eq!(parse(undecided), Progress::NeedMore, "{undecided:?}");
    }
}

#[test]
fn records_that_cannot_begin_a_handshake_are_refused() {
    for (flight, error) in [
        (vec![21, 3, 1, 0, 2, 2, 40], HelloError::NotHandshake),
        (vec![22, 3, 1, 0, 0], HelloError::EmptyRecord),
        (
            vec![22, 3, 1, 64, 1],
            HelloError::Record(RecordError::TooLong(16_385)),
        ),
        (record(&[2, 0, 0, 1, 0]), HelloError::NotClientHello),
        (vec![22, 3, 1, 0, 50, 2], HelloError::NotClientHello),
        (
            record(&[&typical_message()[..], &[1]].concat()),
            HelloError::Trailing,
        ),
        (
            [record(&typical_message()[..9]), vec![23, 3, 3, 0, 1, 0]].concat(),
            HelloError::NotHandshake,
        ),
    ] {
        assert_eq!(parse(&flight), Progress::Invalid(error));
        assert_eq!(parse_byte_by_byte(&flight), Progress::Invalid(error));
        assert!(!error.words().is_empty() && error.alert().name().is_some());
    }
}

#[test]
fn a_server_name_must_be_a_dns_name() {
    let name_of = |name: &[u8]| match parse_extensions(&[sni(name)]) {
        Progress::Complete(hello) => Ok(hello.server_name.map(String::from)),
        Progress::Invalid(error) => Err(error),
        other => panic!("{other:?}"),
    };
    let longest_label = "a".repeat(63);
    let longest = [longest_label.as_str(); 4].join(".");
    for good in [
        "a",
        "xn--mnchen-3ya.example",
        "_dns.example",
        "9.example",
        &longest,
    ] {
        assert_eq!(name_of(good.as_bytes()), Ok(Some(good.into())));
    }
    assert_eq!(name_of(b"example.org."), Ok(Some("example.org".into())));
    for address in ["192.0.2.1", "::1", "2001:db8::7"] {
        assert_eq!(name_of(address.as_bytes()), Ok(None), "{address}");
    }
    let too_long_label = "a".repeat(64);
    let too_long = format!("{longest}.a");
    for bad in [
        "",
        ".",
        "..",
        ".a",
        "a..b",
        "a b",
        "a\0",
        "a/b",
        "*.example",
        "é.example",
        "[::1]",
        "a:443",
        &too_long_label,
        &too_long,
    ] {
        assert_eq!(
            name_of(bad.as_bytes()),
            Err(HelloError::ServerName),
            "{bad:?}"
        );
    }
    assert_eq!(name_of(b"\xff\xfe"), Err(HelloError::ServerName));
}

#[test]
fn names_of_unknown_types_are_skipped_and_a_second_host_name_is_refused() {
    let list = |entries: &[Vec<u8>]| {
        parse_extensions(&[extension(SERVER_NAME, &vector_u16(&entries.concat()))])
    };
    let (other, host) = (name_entry(9, b"\0anything"), name_entry(0, b"a.example"));
    let Progress::Complete(hello) = list(&[other.clone(), host.clone()]) else {
        panic!("not complete");
    };
    assert_eq!(hello.server_name.as_deref(), Some("a.example"));
    let Progress::Complete(hello) = list(&[other]) else {
        panic!("not complete");
    };
    assert_eq!(hello.server_name, None);
    let twice = Progress::Invalid(HelloError::Duplicate("two server names of one type"));
    assert_eq!(list(&[host.clone(), host]), twice);
}

#[test]
fn an_extension_sent_twice_is_refused() {
    let versions = extension(SUPPORTED_VERSIONS, &[2, 3, 4]);
    for extension in [
        sni(b"a.example"),
        sni(b"192.0.2.1"),
        alpn(&[b"h2"]),
        versions,
    ] {
        assert_eq!(
            parse_extensions(&[extension.clone(), extension]),
            Progress::Invalid(HelloError::Duplicate("an extension sent twice"))
        );
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let extensions = [
        extension(SERVER_NAME, &[]),
        extension(SERVER_NAME, &[0, 0]),
        extension(SERVER_NAME, &[0, 9, 0, 0, 1, b'a']),
        extension(SERVER_NAME, &[0, 4, 0, 0, 1, b'a', 0]),
        extension(ALPN, &[0, 0]),
        extension(ALPN, &[0, 1, 0]),
        extension(ALPN, &[0, 3, 9, b'h', b'2']),
        extension(ALPN, &[0, 2, 1, b'x', 0]),
        extension(SUPPORTED_VERSIONS, &[0]),
        extension(SUPPORTED_VERSIONS, &[3, 3, 4, 3]),
        extension(SUPPORTED_VERSIONS, &[2, 3, 4, 0]),
        vec![0, 0, 0],
        vec![0, 99, 0, 9, 0],
    ];
    for extension in extensions {
        let progress = parse_extensions(std::slice::from_ref(&extension));
        assert!(
            matches!(progress, Progress::Invalid(HelloError::Malformed(_))),
            "{extension:?}: {progress:?}"
        );
    }
}

#[test]
fn a_message_cut_anywhere_under_a_right_header_is_refused() {
    let message = typical_message();
    let body = &message[MESSAGE_HEADER_BYTES..];
    // Right after the compression methods a hello may end: it has no extensions then.
    let without_extensions = 2 + 32 + 33 + 6 + 2;
    for end in (0..body.len()).filter(|end| *end != without_extensions) {
        let progress = parse(&record(&with_header(1, &body[..end])));
        assert!(
            matches!(progress, Progress::Invalid(HelloError::Malformed(_))),
            "at {end}: {progress:?}"
        );
    }
}

/// Marsaglia's xorshift64: the same bytes in every run.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

#[test]
fn two_hundred_thousand_mutations_neither_panic_nor_yield_a_bad_name() {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let original = record(&typical_message());
    let mut complete = 0;
    for _ in 0..200_000 {
        let mut flight = original.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(flight.len());
            match random.below(4) {
                0 => flight.truncate(at.max(1)),
                1 => flight.insert(at, random.byte()),
                2 => flight[at] ^= 1 << random.below(8),
                _ => flight[at] = random.byte(),
            }
        }
        let progress = parse(&flight);
        let middle = random.below(flight.len());
        let mut reader = ClientHelloReader::new();
        let first = reader.parse(&flight[..middle]);
        if first == Progress::NeedMore {
            assert_eq!(reader.parse(&flight), progress, "{flight:?}");
        }
        if let Progress::Complete(hello) = progress {
            complete += 1;
            let name = hello.server_name.unwrap_or_default();
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
            assert!(hello.alpn.iter().all(|name| !name.is_empty()));
        }
    }
    assert!(
        complete > 1_000,
        "mutations that leave a hello whole are part of the test"
    );
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Xorshift(42);
    for _ in 0..20_000 {
        let mut flight: Vec<u8> = (0..random.below(200)).map(|_| random.byte()).collect();
        if random.below(2) == 0 {
            flight.splice(..0, [22, 3, 1, 0, random.byte(), 1, 0, 0]);
        }
        parse(&flight);
    }
}

/// What the fuzz target has found on its way: inputs that take other paths than all others.
#[test]
fn every_input_of_the_fuzz_corpus_gets_the_same_answer_in_pieces_as_at_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/client_hello");
    let files = fs::read_dir(folder).unwrap();
    let flights: Vec<_> = files
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(flights.len() > 100, "{} inputs", flights.len());
    for flight in flights {
        let at_once = parse(&flight);
        let mut reader = ClientHelloReader::new();
        let mut ends = 1..=flight.len();
        let in_pieces = ends.find_map(|end| {
            let progress = reader.parse(&flight[..end]);
            (progress != Progress::NeedMore).then_some(progress)
        });
        assert_eq!(
            in_pieces.unwrap_or(Progress::NeedMore),
            at_once,
            "{flight:?}"
        );
    }
}
