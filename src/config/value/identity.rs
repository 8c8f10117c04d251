use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::config::plan::IdentityPattern;

use super::{Refusal, name_pattern};

/// "spiffe://...", "uri:...", "dns:...", "cn:..." or "spki:sha256/BASE64".
pub(in crate::config) fn identity_pattern(text: &str) -> Result<IdentityPattern, Refusal> {
    if text.starts_with("spiffe://") {
        return uri(text);
    }
    match text.split_once(':') {
        Some(("uri", rest)) => uri(rest),
        Some(("dns", rest)) => name_pattern(rest).map(IdentityPattern::Dns),
        Some(("cn", rest)) => common_name(rest),
        Some(("spki", rest)) => pin(rest),
        _ => Err(Refusal::new(
            format!("`{text}` does not say which name of the certificate it means"),
            "write \"spiffe://domain/path\", \"uri:...\", \"dns:name\", \"cn:name\" or \"spki:sha256/BASE64\"",
        )),
    }
}

fn uri(text: &str) -> Result<IdentityPattern, Refusal> {
    let fixed = text.strip_suffix('*').unwrap_or(text);
    let refuse = |why: &str, cure: &str| Err(Refusal::new(format!("`{text}` {why}"), cure));
    if !fixed.contains(':') || !text.is_ascii() || text.contains(char::is_whitespace) {
        return refuse(
            "is not a URI",
            "write it as the certificate has it, such as \"spiffe://example.org/payments\"",
        );
    }
    if fixed.contains('*') {
        return refuse(
            "has a `*` that is not at its end",
            "one `*` may stand at the end, for any rest",
        );
    }
    let open_authority = fixed
        .split_once("://")
        .is_some_and(|(_, rest)| fixed.len() < text.len() && !rest.contains('/'));
    if open_authority {
        return refuse(
            "would match other domains that begin alike",
            "end the domain with a slash before the `*`: \"spiffe://example.org/*\"",
        );
    }
    Ok(IdentityPattern::Uri(text.to_owned()))
}

fn common_name(text: &str) -> Result<IdentityPattern, Refusal> {
    if text.is_empty() || text.contains('*') {
        return Err(Refusal::new(
            format!("`cn:{text}` is not a whole common name"),
            "write the whole name; for patterns use \"dns:*.example.org\"",
        ));
    }
    Ok(IdentityPattern::CommonName(text.to_owned()))
}

fn pin(text: &str) -> Result<IdentityPattern, Refusal> {
    let digest = text.strip_prefix("sha256/").and_then(base64_of_32_bytes);
    digest.map(IdentityPattern::SpkiSha256).ok_or_else(|| {
        Refusal::new(
            format!("`spki:{text}` is not a pin"),
            "write \"spki:sha256/\" and 44 characters of Base64; `openssl x509 -in client.crt -pubkey -noout | \
             openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64` gives them",
        )
    })
}

/// Strict RFC 4648 4: one form for each digest, no stray bits.
fn base64_of_32_bytes(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::NamePattern;

    #[test]
    fn each_kind_of_name_has_its_prefix() {
        assert_eq!(
            identity_pattern("spiffe://example.org/payments"),
            Ok(IdentityPattern::Uri(
                "spiffe://example.org/payments".to_owned()
            ))
        );
        assert_eq!(
            identity_pattern("uri:urn:x:*"),
            Ok(IdentityPattern::Uri("urn:x:*".to_owned()))
        );
        assert_eq!(
            identity_pattern("dns:*.Example.org"),
            Ok(IdentityPattern::Dns(NamePattern::Wildcard(
                "example.org".to_owned()
            )))
        );
        assert_eq!(
            identity_pattern("cn:Payments 1"),
            Ok(IdentityPattern::CommonName("Payments 1".to_owned()))
        );
        // SHA-256 of nothing.
        let pin = identity_pattern("spki:sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        let Ok(IdentityPattern::SpkiSha256(digest)) = pin else {
            panic!("{pin:?}")
        };
        assert_eq!((digest[0], digest[31]), (0xe3, 0x55));
    }

    #[test]
    fn patterns_that_say_too_little_or_match_too_much_are_refused() {
        for text in [
            "payments",
            "",
            "dns:",
            "cn:",
            "cn:*",
            "uri:x",
            "spiffe://*",
            "spiffe://exam*",
            "spiffe://*/payments",
            "spki:sha256/abc",
            "spki:sha1/47DEQpj8HBSa",
            "spki:sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
        ] {
            assert!(identity_pattern(text).is_err(), "{text}");
        }
    }
}
