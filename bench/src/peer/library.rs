//! Which TLS library a proxy has, where it does not say so itself, and what the library lacks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::work::{Group, Work};

/// OpenSSL's first release with X25519MLKEM768.
const HYBRID_SINCE: (u32, u32) = (3, 5);

/// "OpenSSL 3.0.19 27 Jan 2026" or the like, from the shared library that the program is linked to.
pub(super) fn linked(program: &Path) -> String {
    let listed = Command::new("ldd").arg(program).output();
    let listed = listed.map_or_else(|_| Vec::new(), |output| output.stdout);
    let listed = String::from_utf8_lossy(&listed);
    let file = |name: &str| {
        let line = listed.lines().find(|line| line.contains(name))?;
        line.split_whitespace().find(|word| word.starts_with('/'))
    };
    ["libcrypto", "libssl"]
        .into_iter()
        .filter_map(file)
        .filter_map(|file| fs::read(file).ok())
        .find_map(|bytes| version_text(&bytes))
        .unwrap_or_else(|| "TLS library unknown".to_owned())
}

/// The library's words about itself: "OpenSSL ", a digit, and what is printable after it.
fn version_text(bytes: &[u8]) -> Option<String> {
    let mark = b"OpenSSL ";
    let found = bytes
        .windows(mark.len() + 1)
        .position(|window| window.starts_with(mark) && window[mark.len()].is_ascii_digit())?;
    let text: Vec<_> = bytes[found..]
        .iter()
        .copied()
        .take_while(|byte| (b' '..=b'~').contains(byte))
        .collect();
    String::from_utf8(text).ok()
}

/// The library in a proxy's words about itself: the last that is named, since builds name the one
/// they were built with, then the one they run with.
pub(super) fn named(about: &str) -> Option<String> {
    let library = |mark: &str| {
        let at = about.rfind(mark)?;
        let mut words = about[at..].split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        let version = version.trim_matches(|sign: char| !sign.is_ascii_alphanumeric());
        version
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| format!("{name} {version}"))
    };
    library("AWS-LC ").or_else(|| library("OpenSSL "))
}

/// Why this work is none for a proxy that says `about` itself.
pub(super) fn lacks(about: &str, work: &Work) -> Option<String> {
    let (major, minor) = openssl_release(&named(about)?)?;
    let old = (major, minor) < HYBRID_SINCE;
    (work.group == Group::X25519MlKem768 && old)
        .then(|| format!("its OpenSSL {major}.{minor} has no X25519MLKEM768 (3.5 has)"))
}

fn openssl_release(library: &str) -> Option<(u32, u32)> {
    let mut numbers = library.strip_prefix("OpenSSL ")?.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Handshake, Mode, Role};

    #[test]
    fn the_library_that_runs_decides() {
        let about = "built with OpenSSL 3.0.9 30 May 2023\nRunning with OpenSSL 3.5.1 1 Jan 2026";
        assert_eq!(named(about).as_deref(), Some("OpenSSL 3.5.1"));
        let about = "Built with OpenSSL version : AWS-LC 1.60.0\nRunning on OpenSSL version : AWS-LC 1.60.0";
        assert_eq!(named(about).as_deref(), Some("AWS-LC 1.60.0"));
        let about =
            "built with OpenSSL 3.0.20 7 Apr 2026 (running with OpenSSL 3.0.19 27 Jan 2026)";
        assert_eq!(named(about).as_deref(), Some("OpenSSL 3.0.19"));
        assert_eq!(named("ringway 0.1.0"), None);
    }

    #[test]
    fn only_an_old_openssl_lacks_the_hybrid_group() {
        let plain = Work::new(Role::Terminate, Mode::Connect(Handshake::Full));
        let hybrid = Work {
            group: Group::X25519MlKem768,
            ..plain
        };
        assert!(lacks("OpenSSL 3.0.19", &hybrid).is_some());
        assert_eq!(lacks("OpenSSL 3.0.19", &plain), None);
        assert_eq!(lacks("OpenSSL 3.5.0", &hybrid), None);
        assert_eq!(lacks("rustls with aws-lc-rs", &hybrid), None);
    }

    #[test]
    fn a_version_is_found_among_bytes() {
        let bytes = b"\0OpenSSL is here\0OpenSSL 3.0.19 27 Jan 2026\0";
        assert_eq!(
            version_text(bytes).as_deref(),
            Some("OpenSSL 3.0.19 27 Jan 2026")
        );
    }
}
