#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the tests build the bytes that the parser must survive"
)]

use std::fs;
use std::path::Path;

use super::*;

fn ip(source: &str, destination: &str) -> Ends {
    Ends::Ip {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn complete(bytes: &[u8]) -> (ProxyHeader, usize) {
    match parse(bytes) {
        Progress::Complete { header, bytes } => (*header, bytes),
        other => panic!("{other:?}"),
    }
}

fn ends_of(line: &str) -> Ends {
    let (header, bytes) = complete(line.as_bytes());
    assert_eq!(bytes, line.len(), "{line:?}");
    assert_eq!(header.tlvs, Tlvs::default());
    header.ends
}

/// A header of version 2 as it is on the wire.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0x01, 0xbb];

fn v4_with(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&IPV4, tlvs].concat())
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes
}

fn full() -> ProxyHeader {
    ProxyHeader {
        ends: ip("[2001:db8::1]:40000", "[2001:db8::2]:443"),
        tlvs: Tlvs {
            alpn: Some((*b"h2").into()),
            authority: Some("app.example.org".into()),
            unique_id: Some((*b"000300000000002a").into()),
            tls: Some(TlsSeen {
                client: CLIENT_TLS | CLIENT_CERTIFICATE_CONNECTION | CLIENT_CERTIFICATE_SESSION,
                verify: 0,
                version: Some("TLSv1.3".into()),
                common_name: Some("Zoë".into()),
                cipher: Some("TLS_AES_256_GCM_SHA384".into()),
                signature_algorithm: Some("SHA256".into()),
                key_algorithm: Some("EC256".into()),
            }),
            netns: Some("blue".into()),
        },
    }
}

/// One of each kind.
fn headers() -> Vec<ProxyHeader> {
    let with = |ends| ProxyHeader {
        ends,
        tlvs: Tlvs::default(),
    };
    let abstract_name = Ends::Unix {
        source: (*b"\0client").into(),
        destination: (*b"/run/ringway/x.sock").into(),
    };
    vec![
        with(ip("192.0.2.1:40000", "198.51.100.2:443")),
        with(ip("[2001:db8::1]:1", "[::]:65535")),
        with(abstract_name),
        with(Ends::Unknown),
        with(Ends::Local),
        full(),
        ProxyHeader {
            ends: Ends::Unknown,
            ..full()
        },
    ]
}

#[test]
fn lines_of_version_1_are_read() {
    assert_eq!(
        ends_of("PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n"),
        ip("192.0.2.1:40000", "198.51.100.2:443")
    );
    assert_eq!(
        ends_of("PROXY TCP6 2001:DB8::1 ::ffff:192.0.2.1 0 65535\r\n"),
        ip("[2001:db8::1]:0", "[::ffff:192.0.2.1]:65535")
    );
    for rest in ["", " ", " whatever stands here", " TCP4 1.2.3.4"] {
        assert_eq!(ends_of(&format!("PROXY UNKNOWN{rest}\r\n")), Ends::Unknown);
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 16));
    assert_eq!(ends_of(&longest), Ends::Unknown);
    assert_eq!(complete(b"PROXY UNKNOWN \xff\0\r\n").0.ends, Ends::Unknown);
}

#[test]
fn lines_of_version_1_that_break_its_rules_are_refused() {
    for (line, error) in [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\n",
            ProxyError::V1LineEnd,
        ),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\rx",
            ProxyError::V1LineEnd,
        ),
        (
            "PROXY UDP4 192.0.2.1 198.51.100.2 40000 443\r\n",
            ProxyError::V1Family,
        ),
        ("PROXY UNKNOWNS 1\r\n", ProxyError::V1Family),
        (
            "PROXY  TCP4 192.0.2.1 198.51.100.2 40000 443\r\n",
            ProxyError::V1Family,
        ),
        ("PROXY TCP4\r\n", ProxyError::V1Family),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n",
            ProxyError::V1Fields,
        ),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443 \r\n",
            ProxyError::V1Fields,
        ),
        (
            "PROXY TCP4 192.0.2.1  198.51.100.2 40000\r\n",
            ProxyError::V1Port,
        ),
        (
            "PROXY TCP4 192.0.2.01 198.51.100.2 40000 443\r\n",
            ProxyError::V1Address,
        ),
        ("PROXY TCP4 ::1 ::1 40000 443\r\n", ProxyError::V1Address),
        (
            "PROXY TCP6 192.0.2.1 198.51.100.2 40000 443\r\n",
            ProxyError::V1Address,
        ),
        (
            "PROXY TCP6 fe80::1%eth0 ::1 40000 443\r\n",
            ProxyError::V1Address,
        ),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 040000 443\r\n",
            ProxyError::V1Port,
        ),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
            ProxyError::V1Port,
        ),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            ProxyError::V1Port,
        ),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.2  443\r\n",
            ProxyError::V1Port,
        ),
    ] {
        assert_eq!(parse(line.as_bytes()), Progress::Invalid(error), "{line:?}");
    }
    assert_eq!(
        parse(b"PROXY TCP4 \xff\r\n"),
        Progress::Invalid(ProxyError::V1Fields)
    );
}

#[test]
fn a_line_is_waited_for_up_to_107_bytes_and_no_longer() {
    let mut line = b"PROXY ".to_vec();
    line.resize(V1_BYTES_MAX - 1, b'x');
    assert_eq!(parse(&line), Progress::NeedMore);
    line.push(b'x');
    assert_eq!(parse(&line), Progress::Invalid(ProxyError::V1TooLong));
    line.pop();
    line.extend(b"\r\n");
    assert_eq!(parse(&line), Progress::Invalid(ProxyError::V1TooLong));
}

#[test]
fn bytes_behind_a_header_are_not_of_it() {
    for header in headers() {
        for whole in [header.v1(), header.v2()] {
            let followed = [&whole[..], b"\x16\x03\x01"].concat();
            assert_eq!(complete(&followed).1, whole.len());
        }
    }
}

#[test]
fn what_is_no_header_is_known_by_its_first_bytes() {
    for bytes in [&b""[..], b"P", b"PROXY", b"\r\n\r\n", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(parse(bytes), Progress::Undecided, "{bytes:?}");
    }
    for bytes in [&b"PROXY TCP4 "[..], b"PROXY ", V2_SIGNATURE] {
        assert_eq!(parse(bytes), Progress::NeedMore, "{bytes:?}");
    }
    let others = [
        &b"\x16"[..],
        b"PROXYING",
        b"proxy ",
        b"GET /",
        b"\r\n\r\nx",
        b"\0",
    ];
    for bytes in others {
        assert_eq!(parse(bytes), Progress::NotProxy, "{bytes:?}");
    }
}

#[test]
fn a_header_of_version_2_is_read_as_the_specification_has_it() {
    let (header, bytes) = complete(&v4_with(&[]));
    assert_eq!(bytes, 28);
    assert_eq!(header.ends, ip("192.0.2.1:40000", "198.51.100.2:443"));

    let tls = [
        &[0x05, 0, 0, 0, 10][..],
        &tlv(0x21, b"TLSv1.2"),
        &tlv(0x22, b"Payments"),
        &tlv(0x7e, b"unknown"),
        &tlv(0x23, b"ECDHE-RSA-AES128-GCM-SHA256"),
    ]
    .concat();
    let tlvs = [
        tlv(0x04, &[0; 9]),
        tlv(0x01, b"http/1.1"),
        tlv(0x02, b"caf\xff.example"),
        tlv(0xea, b"vpce"),
        tlv(0x20, &tls),
    ]
    .concat();
    let tlvs = complete(&v4_with(&tlvs)).0.tlvs;
    assert_eq!(tlvs.alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(tlvs.authority.as_deref(), Some("caf\u{fffd}.example"));
    let seen = tlvs.tls.unwrap();
    assert!(seen.is_tls());
    assert_eq!(seen.verified(), Some(false));
    assert_eq!(seen.common_name.as_deref(), Some("Payments"));
    assert_eq!(seen.cipher.as_deref(), Some("ECDHE-RSA-AES128-GCM-SHA256"));
}

#[test]
fn local_and_what_is_no_stream_leave_the_addresses_unknown() {
    // LOCAL: whatever the block holds is discarded.
    let (header, bytes) = complete(&v2(0x20, 0xff, b"\xff\xff\xff"));
    assert_eq!((header.ends, bytes), (Ends::Local, 19));
    for (family, bytes) in [
        (0x00, 0),
        (0x02, 0),
        (0x10, 12),
        (0x12, 12),
        (0x22, 36),
        (0x32, 216),
    ] {
        let body = [vec![1; bytes], tlv(0x02, b"name")].concat();
        let (header, _) = complete(&v2(0x21, family, &body));
        assert_eq!(header.ends, Ends::Unknown, "{family:x}");
        assert_eq!(header.tlvs.authority.as_deref(), Some("name"), "{family:x}");
    }
}

#[test]
fn headers_of_version_2_that_break_its_rules_are_refused() {
    let short = |bytes: usize| v2(0x21, 0x11, &IPV4[..bytes]);
    for (bytes, error) in [
        (v2(0x11, 0x11, &IPV4), ProxyError::V2Version),
        (v2(0x22, 0x11, &IPV4), ProxyError::V2Command),
        (v2(0x21, 0x41, &IPV4), ProxyError::V2Family),
        (v2(0x21, 0x13, &IPV4), ProxyError::V2Family),
        (short(11), ProxyError::V2Addresses),
        (short(0), ProxyError::V2Addresses),
        (v4_with(&[1]), ProxyError::Tlv),
        (v4_with(&[1, 0]), ProxyError::Tlv),
        (v4_with(&[1, 0, 2, 7]), ProxyError::Tlv),
        (v4_with(&tlv(0x20, &[1, 0, 0, 0])), ProxyError::Tlv),
        (
            v4_with(&tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9])),
            ProxyError::Tlv,
        ),
        (v4_with(&tlv(0x03, &[0; 3])), ProxyError::Tlv),
        (v4_with(&tlv(0x03, &[0; 4])), ProxyError::Crc32c),
        (v4_with(&tlv(0x05, &[0; 129])), ProxyError::UniqueId),
        (
            v4_with(&[tlv(0x02, b"a"), tlv(0x02, b"b")].concat()),
            ProxyError::Duplicate,
        ),
    ] {
        assert_eq!(parse(&bytes), Progress::Invalid(error), "{bytes:?}");
        assert!(!error.words().is_empty());
    }
}

#[test]
fn a_header_of_version_2_that_would_be_too_long_is_refused_before_it_comes() {
    let fixed = |length: usize| {
        let mut bytes = v2(0x21, 0x11, &[]);
        bytes[14..].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        bytes
    };
    assert_eq!(parse(&fixed(V2_BODY_BYTES_MAX)), Progress::NeedMore);
    let over = parse(&fixed(V2_BODY_BYTES_MAX + 1));
    assert_eq!(over, Progress::Invalid(ProxyError::V2TooLong));
    let body = [&IPV4[..], &tlv(0x04, &vec![0; V2_BODY_BYTES_MAX - 12 - 3])].concat();
    assert_eq!(complete(&v2(0x21, 0x11, &body)).1, 16 + V2_BODY_BYTES_MAX);
}

#[test]
fn what_is_written_in_version_2_reads_back_with_its_checksum() {
    for header in headers() {
        let bytes = header.v2();
        let expected = match header.ends {
            Ends::Local => ProxyHeader {
                ends: Ends::Local,
                ..ProxyHeader::default()
            },
            _ => header,
        };
        assert_eq!(complete(&bytes), (expected.clone(), bytes.len()));
        if expected.ends == Ends::Local {
            continue;
        }
        for at in 28..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            let read = parse(&broken);
            assert!(
                !matches!(&read, Progress::Complete { header, .. } if **header == expected),
                "a flipped bit at {at} goes unseen"
            );
        }
    }
}

#[test]
fn what_is_written_in_version_1_reads_back_as_far_as_it_can_say_it() {
    let line = |ends| {
        let tlvs = full().tlvs;
        String::from_utf8(ProxyHeader { ends, tlvs }.v1()).unwrap()
    };
    assert_eq!(
        line(ip("192.0.2.1:40000", "198.51.100.2:443")),
        "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n"
    );
    assert_eq!(
        line(ip("[2001:db8::1]:1", "192.0.2.1:2")),
        "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n"
    );
    for unknown in [Ends::Unknown, Ends::Local, headers()[2].ends.clone()] {
        assert_eq!(line(unknown), "PROXY UNKNOWN\r\n");
    }
    let long = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
    assert!(line(ip(long, long)).len() <= V1_BYTES_MAX);
}

#[test]
fn ends_of_two_families_are_written_as_ipv6_in_version_2() {
    let mixed = ProxyHeader {
        ends: ip("192.0.2.1:1", "[2001:db8::1]:2"),
        tlvs: Tlvs::default(),
    };
    let read = complete(&mixed.v2()).0.ends;
    assert_eq!(read, ip("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2"));
}

#[test]
fn a_value_too_long_to_write_is_left_out_and_the_rest_stays() {
    let mut header = full();
    let long: Box<str> = "x".repeat(257).into();
    header.tlvs.authority = Some(long.clone());
    header.tlvs.unique_id = Some(vec![0; UNIQUE_ID_BYTES_MAX + 1].into());
    header.tlvs.tls.as_mut().unwrap().common_name = Some(long);
    let read = complete(&header.v2()).0.tlvs;
    assert_eq!((&read.authority, &read.unique_id), (&None, &None));
    let seen = read.tls.unwrap();
    assert_eq!(seen.common_name, None);
    assert_eq!(seen.cipher, full().tlvs.tls.unwrap().cipher);
    assert_eq!(read.netns, full().tlvs.netns);
}

/// In pieces a header gets the same answer as at once, and until then "more".
fn in_pieces(bytes: &[u8]) {
    let at_once = parse(bytes);
    for end in 0..bytes.len() {
        let so_far = parse(&bytes[..end]);
        if !matches!(so_far, Progress::Undecided | Progress::NeedMore) {
            assert_eq!(so_far, at_once, "after {end} of {bytes:?}");
            return;
        }
    }
}

/// The files beside the fuzz targets, each with its name.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let files = ["proxy_v1", "proxy_v2"].map(|target| fs::read_dir(folder.join(target)).unwrap());
    let mut seeds: Vec<_> = files
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn every_seed_of_the_fuzz_targets_is_a_header_or_refused_as_its_name_says() {
    let seeds = seeds();
    assert!(seeds.len() > 20, "{} seeds", seeds.len());
    for (name, bytes) in seeds {
        let refused = name.contains("/bad-");
        match parse(&bytes) {
            Progress::Complete { .. } => assert!(!refused, "{name}"),
            other => assert!(refused, "{name}: {other:?}"),
        }
        in_pieces(&bytes);
    }
}

/// SplitMix64: the same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, self.byte()),
            4 => bytes.truncate(at),
            _ => {
                let from = self.below(bytes.len());
                let copied = bytes[from.min(at)..from.max(at)].to_vec();
                bytes.splice(at..at, copied);
            }
        }
    }
}

#[test]
fn mutated_headers_neither_panic_nor_read_otherwise_in_pieces() {
    let mut numbers = Numbers(0x0052_696e_6777_6179);
    let mut valid: Vec<Vec<u8>> = seeds().into_iter().map(|(_, bytes)| bytes).collect();
    valid.extend(
        headers()
            .iter()
            .flat_map(|header| [header.v1(), header.v2()]),
    );
    for round in 0..20_000 {
        let mut bytes = valid[round % valid.len()].clone();
        for _ in 0..=numbers.below(4) {
            if !bytes.is_empty() {
                numbers.mutate(&mut bytes);
            }
        }
        // Past its signature each byte of a long one costs a look at nothing.
        if bytes.len() <= 512 {
            in_pieces(&bytes);
        }
        if let Progress::Complete { header, bytes: end } = parse(&bytes) {
            assert!(end <= bytes.len());
            let again = complete(&header.v2()).0;
            assert_eq!(again.ends, complete(&again.v2()).0.ends);
        }
    }
}
