use crate::config::keys::nearest;
use crate::config::plan::Group;

use super::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Protocol {
    Tls12,
    Tls13,
}

/// Groups and every name they go by, the one of the documentation first.
const GROUPS: [(Group, &[&str]); 4] = [
    (Group::X25519MlKem768, &["X25519MLKEM768"]),
    (Group::X25519, &["X25519"]),
    (Group::P256, &["P-256", "prime256v1", "secp256r1"]),
    (Group::P384, &["P-384", "secp384r1"]),
];

/// ALPN names are 1 to 255 bytes (RFC 7301 3.1).
const ALPN_BYTES_MAX: usize = 255;

pub(in crate::config) fn protocol(text: &str) -> Result<Protocol, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "tlsv1.2" => Ok(Protocol::Tls12),
        "tlsv1.3" => Ok(Protocol::Tls13),
        "sslv2" | "sslv3" | "tlsv1" | "tlsv1.0" | "tlsv1.1" => Err(Refusal::new(
            format!("`{text}` is broken (RFC 7568, RFC 8996), and Ringway does not have it"),
            "use [\"TLSv1.2\", \"TLSv1.3\"]; peers that know neither need another proxy in front of them",
        )),
        _ => Err(Refusal::new(
            format!("`{text}` is not a protocol"),
            "the protocols are \"TLSv1.2\" and \"TLSv1.3\"",
        )),
    }
}

pub(in crate::config) fn group(text: &str) -> Result<Group, Refusal> {
    let named = |name: &&str| name.eq_ignore_ascii_case(text);
    if let Some((group, _)) = GROUPS.iter().find(|(_, names)| names.iter().any(named)) {
        return Ok(*group);
    }
    let known = GROUPS.iter().flat_map(|(_, names)| names.iter().copied());
    let cure = match nearest(text, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "the groups are \"X25519MLKEM768\", \"X25519\", \"P-256\" and \"P-384\"".to_owned(),
    };
    Err(Refusal::new(
        format!("`{text}` is not a key exchange group that Ringway has"),
        cure,
    ))
}

pub(in crate::config) fn group_name(group: Group) -> &'static str {
    GROUPS
        .iter()
        .find(|(known, _)| *known == group)
        .map_or("", |(_, names)| names[0])
}

pub(in crate::config) fn alpn_protocol(text: &str) -> Result<Vec<u8>, Refusal> {
    if text.is_empty() || text.len() > ALPN_BYTES_MAX {
        return Err(Refusal::new(
            format!(
                "an ALPN name has 1 to {ALPN_BYTES_MAX} bytes, this one {}",
                text.len()
            ),
            "write a name such as \"h2\", \"http/1.1\" or \"postgresql\"",
        ));
    }
    let meant = match text.to_ascii_lowercase().as_str() {
        "http2" | "http/2" | "http/2.0" => Some("h2"),
        "http1.1" | "http1" | "http/1" => Some("http/1.1"),
        "h2" if text != "h2" => Some("h2"),
        "http/1.1" if text != "http/1.1" => Some("http/1.1"),
        _ => None,
    };
    match meant {
        Some(meant) => Err(Refusal::new(
            format!("no peer offers the ALPN name `{text}`"),
            format!("IANA's name is \"{meant}\""),
        )),
        None => Ok(text.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_protocols_are_refused_as_broken_not_as_unknown() {
        assert_eq!(protocol("TLSv1.3"), Ok(Protocol::Tls13));
        for text in ["SSLv3", "TLSv1", "TLSv1.1"] {
            assert!(
                protocol(text).unwrap_err().message.contains("broken"),
                "{text}"
            );
        }
        assert!(
            protocol("TLS")
                .unwrap_err()
                .message
                .contains("not a protocol")
        );
    }

    #[test]
    fn groups_go_by_the_names_of_iana_nist_and_openssl() {
        assert_eq!(group("prime256v1"), Ok(Group::P256));
        assert_eq!(group("secp256r1"), Ok(Group::P256));
        assert_eq!(group("x25519mlkem768"), Ok(Group::X25519MlKem768));
        assert!(group("P-265").unwrap_err().cure.contains("P-256"));
        assert!(group("ffdhe2048").is_err());
        for (known, names) in GROUPS {
            assert_eq!(group(names[0]), Ok(known));
            assert_eq!(group_name(known), names[0]);
        }
    }

    #[test]
    fn alpn_names_are_bounded_and_slips_of_known_ones_refused() {
        assert_eq!(alpn_protocol("h2"), Ok(b"h2".to_vec()));
        assert_eq!(alpn_protocol("postgresql"), Ok(b"postgresql".to_vec()));
        for text in ["", "http/2", "HTTP/1.1", &"x".repeat(256)] {
            assert!(alpn_protocol(text).is_err(), "{text}");
        }
    }
}
