use std::ops::Range;

use crate::config::keys::nearest;
use crate::config::plan::CipherSuite;

use super::Refusal;

/// Each suite, IANA's name, OpenSSL's name.
const SUITES: [(CipherSuite, &str, &str); 9] = [
    (
        CipherSuite::Tls13Aes128GcmSha256,
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::Tls13Aes256GcmSha384,
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::Tls13Chacha20Poly1305Sha256,
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    (
        CipherSuite::EcdheEcdsaAes128GcmSha256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::EcdheEcdsaAes256GcmSha384,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::EcdheEcdsaChacha20Poly1305,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    (
        CipherSuite::EcdheRsaAes128GcmSha256,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::EcdheRsaAes256GcmSha384,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::EcdheRsaChacha20Poly1305,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

/// Words of OpenSSL's cipher language that name sets of suites (ciphers(1)).
const KEYWORDS: &[&str] = &[
    "DEFAULT",
    "COMPLEMENTOFDEFAULT",
    "ALL",
    "COMPLEMENTOFALL",
    "HIGH",
    "MEDIUM",
    "LOW",
    "ECDHE",
    "EECDH",
    "KEECDH",
    "KECDHE",
    "EDH",
    "DHE",
    "KEDH",
    "KDHE",
    "KRSA",
    "RSA",
    "ARSA",
    "AECDSA",
    "ECDSA",
    "AES",
    "AES128",
    "AES256",
    "AESGCM",
    "CHACHA20",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "FIPS",
    "SUITEB128",
    "SUITEB192",
    "TLSV1.2",
    "TLSV1.3",
    "TLSV1",
    "SSLV3",
    "ANULL",
    "ENULL",
    "NULL",
    "PSK",
    "PROFILE=SYSTEM",
];

/// What a name tells of a suite that rustls does not have, and why it has not.
const FAMILIES: &[(&[&str], &str)] = &[
    (&["NULL"], "does not encrypt or does not authenticate"),
    (
        &["EXP", "anon", "ADH", "AECDH"],
        "does not authenticate the server, or is of export strength",
    ),
    (&["RC4"], "uses RC4, which RFC 7465 forbids"),
    (
        &["3DES", "DES-", "DES_", "IDEA", "SEED", "RC2"],
        "uses a cipher with 64-bit blocks or an outdated one",
    ),
    (
        &["PSK", "SRP"],
        "works with shared secrets and not with certificates",
    ),
    (
        &["CAMELLIA", "ARIA"],
        "uses a cipher without hardware support",
    ),
    (
        &["CCM"],
        "uses AES-CCM, which is slower than AES-GCM and rare",
    ),
];

pub(in crate::config) fn cipher_suite(text: &str) -> Result<CipherSuite, Refusal> {
    let named = |name: &str| name.eq_ignore_ascii_case(text);
    if let Some((suite, ..)) = SUITES
        .iter()
        .find(|(_, iana, ssl)| named(iana) || named(ssl))
    {
        return Ok(*suite);
    }
    Err(keyword(text)
        .or_else(|| weak(text))
        .unwrap_or_else(|| unknown(text)))
}

/// IANA's name.
pub(in crate::config) fn cipher_name(suite: CipherSuite) -> &'static str {
    SUITES
        .iter()
        .find(|(known, ..)| *known == suite)
        .map_or("", |(_, iana, _)| iana)
}

/// Whether a suite is one of TLS 1.3; every other is one of TLS 1.2.
pub(in crate::config) fn is_tls13(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::Tls13Aes128GcmSha256
            | CipherSuite::Tls13Aes256GcmSha384
            | CipherSuite::Tls13Chacha20Poly1305Sha256
    )
}

/// The names in OpenSSL's list, "A:B:C", with their places in it.
pub(in crate::config) fn split_ciphers(list: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let separator = |c: char| matches!(c, ':' | ',' | ' ');
    list.split(separator).filter_map(move |name| {
        let start = name.as_ptr() as usize - list.as_ptr() as usize;
        (!name.is_empty()).then_some((start..start + name.len(), name))
    })
}

fn keyword(text: &str) -> Option<Refusal> {
    let word = text.trim_start_matches(['!', '+', '-', '@']);
    let bare = word.split('+').next().unwrap_or(word);
    let is_rule = word.len() < text.len() || word.len() > bare.len();
    let is_word = KEYWORDS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(bare));
    (is_rule || is_word).then(|| {
        Refusal::new(
            format!("`{text}` is a rule of OpenSSL's cipher language, not a suite"),
            "name suites one by one, or leave `ciphers` out: every suite that Ringway has is strong, and the fastest of this CPU comes first",
        )
    })
}

fn weak(text: &str) -> Option<Refusal> {
    let upper = text.to_ascii_uppercase();
    let family = FAMILIES
        .iter()
        .find(|(marks, _)| {
            marks
                .iter()
                .any(|mark| upper.contains(&mark.to_ascii_uppercase()))
        })
        .map(|(_, why)| *why);
    let aead = upper.contains("GCM") || upper.contains("CHACHA20");
    let why = family.or_else(|| {
        if starts_with_any(&upper, &["DHE-", "EDH-", "DH-", "TLS_DHE_", "TLS_DH_"]) {
            Some("exchanges keys by finite-field Diffie-Hellman, which is slow and often weak")
        } else if starts_with_any(&upper, &["ECDH-", "TLS_ECDH_"]) {
            Some("exchanges keys by static ECDH, without forward secrecy")
        } else if starts_with_any(&upper, &["AES128-", "AES256-", "TLS_RSA_WITH_"]) {
            Some("exchanges keys by RSA, without forward secrecy")
        } else if upper.contains("_CBC_")
            || (upper.starts_with("ECDHE") && !aead && has_mac(&upper))
        {
            Some("uses CBC mode, which has a history of padding attacks")
        } else {
            None
        }
    })?;
    Some(Refusal::new(
        format!("`{text}` {why}; Ringway does not have it"),
        format!("use \"{}\" in its place", stand_in(&upper)),
    ))
}

fn starts_with_any(text: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| text.starts_with(prefix))
}

fn has_mac(upper: &str) -> bool {
    ["-SHA", "-SHA256", "-SHA384", "_SHA", "_SHA256", "_SHA384"]
        .iter()
        .any(|mac| upper.ends_with(mac))
}

/// The suite of ours with the same certificate type and key length.
fn stand_in(upper: &str) -> &'static str {
    let ecdsa = upper.contains("ECDSA");
    let long = upper.contains("AES256") || upper.contains("AES_256") || upper.contains("256_CBC");
    cipher_name(match (ecdsa, long) {
        (true, true) => CipherSuite::EcdheEcdsaAes256GcmSha384,
        (true, false) => CipherSuite::EcdheEcdsaAes128GcmSha256,
        (false, true) => CipherSuite::EcdheRsaAes256GcmSha384,
        (false, false) => CipherSuite::EcdheRsaAes128GcmSha256,
    })
}

fn unknown(text: &str) -> Refusal {
    let known = SUITES.iter().flat_map(|(_, iana, ssl)| [*iana, *ssl]);
    let cure = match nearest(text, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "the suites are {}; OpenSSL's names are taken too",
            SUITES.map(|(_, iana, _)| iana).join(", ")
        ),
    };
    Refusal::new(format!("`{text}` is not a cipher suite"), cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_every_suite_are_taken() {
        for (suite, iana, ssl) in SUITES {
            assert_eq!(cipher_suite(iana), Ok(suite));
            assert_eq!(cipher_suite(ssl), Ok(suite));
            assert_eq!(cipher_name(suite), iana);
        }
    }

    #[test]
    fn suites_that_openssl_has_and_rustls_has_not_are_refused_with_a_stand_in() {
        for (text, cure) in [
            (
                "ECDHE-RSA-AES128-SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ),
            (
                "ECDHE-ECDSA-AES256-SHA384",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            ),
            (
                "DHE-RSA-AES256-GCM-SHA384",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            ),
            ("AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            (
                "TLS_RSA_WITH_AES_128_CBC_SHA",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ),
            ("DES-CBC3-SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            ("RC4-MD5", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            ("TLS_AES_128_CCM_SHA256", "GCM"),
        ] {
            let refusal = cipher_suite(text).unwrap_err();
            assert!(refusal.message.contains("does not have it"), "{refusal:?}");
            assert!(refusal.cure.contains(cure), "{text}: {refusal:?}");
        }
    }

    #[test]
    fn rules_of_openssl_are_told_from_slips() {
        for text in [
            "HIGH",
            "!aNULL",
            "EECDH+AESGCM",
            "DEFAULT",
            "@SECLEVEL=2",
            "-MD5",
        ] {
            assert!(
                cipher_suite(text).unwrap_err().message.contains("rule"),
                "{text}"
            );
        }
        let slip = cipher_suite("TLS_AES_128_GCM_SHA265").unwrap_err();
        assert!(slip.cure.contains("\"TLS_AES_128_GCM_SHA256\""), "{slip:?}");
        assert!(
            cipher_suite("blue")
                .unwrap_err()
                .message
                .contains("not a cipher")
        );
    }

    #[test]
    fn a_colon_list_keeps_the_place_of_each_name() {
        let parts: Vec<_> = split_ciphers("AB:C::DE").collect();
        assert_eq!(parts, [(0..2, "AB"), (3..4, "C"), (6..8, "DE")]);
    }
}
