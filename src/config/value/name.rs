use std::net::IpAddr;

use crate::config::plan::NamePattern;

use super::Refusal;

/// A DNS name, or `*.` and a DNS name; in lower case, without a trailing dot.
pub(in crate::config) fn name_pattern(text: &str) -> Result<NamePattern, Refusal> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(Refusal::new(
            format!("`{text}` is an address, and no ClientHello or DNS entry carries one"),
            "write a DNS name such as \"app.example.org\" or \"*.example.org\"",
        ));
    }
    if let Some(parent) = text.strip_prefix('.') {
        return Err(Refusal::new(
            format!("`{text}` begins with a dot"),
            format!(
                "write \"*.{parent}\" for one label below it, and \"{parent}\" beside it for the name itself"
            ),
        ));
    }
    match text.strip_prefix("*.") {
        Some(parent) => host_name(parent).map(NamePattern::Wildcard),
        None => host_name(text).map(NamePattern::Exact),
    }
}

/// Checks a host name (RFC 1123 2.1, with underscores as DNS has them) and lowers its case.
pub(in crate::config) fn host_name(text: &str) -> Result<String, Refusal> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let refuse = |why: &str, cure: &str| Err(Refusal::new(format!("`{text}` {why}"), cure));
    if name.is_empty() {
        return refuse(
            "is not a name",
            "write a DNS name such as \"app.example.org\"",
        );
    }
    if name.contains('*') {
        return refuse(
            "has a `*` where none can stand",
            "only a whole left-most label may be a wildcard: \"*.example.org\"",
        );
    }
    if !name.is_ascii() {
        return refuse(
            "is not in ASCII",
            "write its A-labels, as DNS and TLS carry them (`idn` or Python's .encode(\"idna\") gives them): \"xn--...\"",
        );
    }
    if name.len() > 253 {
        return refuse("is longer than the 253 bytes of a DNS name", "shorten it");
    }
    if !name.split('.').all(is_label) {
        return refuse(
            "is not a DNS name",
            "a name is labels of letters, digits, `-` and `_`, of 1 to 63 bytes each, with dots between",
        );
    }
    Ok(name.to_ascii_lowercase())
}

/// What TLS can ask a server to prove: a DNS name or an IP address.
pub(in crate::config) fn tls_server_name(text: &str) -> Result<String, Refusal> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    host_name(text)
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_lower_case_without_a_trailing_dot() {
        assert_eq!(
            name_pattern("App.Example.ORG.").unwrap(),
            NamePattern::Exact("app.example.org".to_owned())
        );
        assert_eq!(
            name_pattern("*.Example.org").unwrap(),
            NamePattern::Wildcard("example.org".to_owned())
        );
        assert_eq!(tls_server_name("10.0.0.1").unwrap(), "10.0.0.1");
        assert_eq!(tls_server_name("::1").unwrap(), "::1");
    }

    #[test]
    fn refuses_what_no_peer_could_send() {
        let long = format!("{}.org", "a".repeat(64));
        for text in [
            "",
            ".",
            "*",
            "*.",
            ".example.org",
            "a..b",
            "w*.example.org",
            "*.*.org",
            "a b",
            "-a.org",
            "bücher.example",
            "10.0.0.1",
            "::1",
            "a/b",
            &long,
            &"a.".repeat(130),
        ] {
            assert!(name_pattern(text).is_err(), "{text}");
        }
    }
}
