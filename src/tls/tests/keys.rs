use super::super::material;
use super::openssl;
use super::pki::Leaf;
use super::*;
use crate::config::CertificatePlan;

fn pair(files: &Files, certificate: &str, key: &str) -> CertificatePlan {
    CertificatePlan {
        certificate: files.pem("x.crt", certificate),
        private_key: files.pem("x.key", key),
        ocsp_response: None,
    }
}

fn refusal(plan: &CertificatePlan) -> (String, String) {
    let error = material::certified_key(&crate::tls::Files::default(), plan).unwrap_err();
    assert_eq!(error.span, Some(3..7));
    (error.to_string(), error.cure.unwrap_or_default())
}

#[test]
fn keys_of_every_plain_form_are_read() {
    let files = Files::new();
    let sec1 = pair(&files, openssl::SEC1_CERTIFICATE, openssl::SEC1_KEY);
    assert!(material::certified_key(&crate::tls::Files::default(), &sec1).is_ok());
    let rsa = Authority::root("CA").issue(Leaf {
        rsa: true,
        ..Leaf::named(HOST)
    });
    assert!(
        material::certified_key(
            &crate::tls::Files::default(),
            &pair(&files, &rsa.chain_pem, &rsa.key_pem)
        )
        .is_ok()
    );
    let pkcs1 = pkcs1_pem(&rsa);
    assert!(pkcs1.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    assert!(
        material::certified_key(
            &crate::tls::Files::default(),
            &pair(&files, &rsa.chain_pem, &pkcs1)
        )
        .is_ok()
    );
}

/// PKCS#8 wraps the PKCS#1 key in its last OCTET STRING: version, algorithm, key (RFC 5208 5).
fn pkcs1_pem(rsa: &Issued) -> String {
    let pkcs8 = rsa.private_key();
    let der = pkcs8.secret_der();
    let start = (20..der.len())
        .find(|at| der[*at..].starts_with(&[0x04, 0x82]))
        .unwrap()
        + 4;
    use std::fmt::Write;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut pem = "-----BEGIN RSA PRIVATE KEY-----\n".to_owned();
    for line in der[start..].chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3).fold(0_u32, |bits, at| {
                bits << 8 | u32::from(*group.get(at).unwrap_or(&0))
            });
            for digit in 0..4 {
                let index = (bits >> (18 - 6 * digit)) as usize & 63;
                let letter = if digit <= group.len() {
                    char::from(ALPHABET[index])
                } else {
                    '='
                };
                pem.push(letter);
            }
        }
        writeln!(pem).unwrap();
    }
    pem + "-----END RSA PRIVATE KEY-----\n"
}

#[test]
fn encrypted_keys_are_refused_with_the_command_that_decrypts() {
    let files = Files::new();
    for key in [openssl::ENCRYPTED_PKCS8_KEY, openssl::ENCRYPTED_SEC1_KEY] {
        let (what, cure) = refusal(&pair(&files, openssl::SEC1_CERTIFICATE, key));
        assert!(
            what.contains("x.key: the private key is encrypted"),
            "{what}"
        );
        assert!(cure.contains("openssl pkey -in"), "{cure}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let files = Files::new();
    let other = Authority::root("CA").issue(Leaf::named(HOST));
    let (what, _) = refusal(&pair(&files, openssl::SEC1_CERTIFICATE, &other.key_pem));
    assert!(what.contains("x.key: the key does not belong to"), "{what}");
}

#[test]
fn files_that_hold_something_else_say_what_they_hold() {
    let files = Files::new();
    let issued = Authority::root("CA").issue(Leaf::named(HOST));
    let good = pair(&files, &issued.chain_pem, &issued.key_pem);
    let with_certificate = |certificate| CertificatePlan {
        certificate,
        ..good.clone()
    };
    for (file, expected) in [
        (
            path("/nonexistent/x.crt".into()),
            "cannot be read: No such file",
        ),
        (path("/".into()), "it is not a file"),
        (files.bytes("empty.crt", b""), "the file is empty"),
        (
            files.bytes("der.crt", &issued.der),
            "the file is DER, not PEM",
        ),
        (
            files.pem("key.crt", &issued.key_pem),
            "no certificate in this file",
        ),
        (
            files.pem("cut.crt", &issued.chain_pem[..issued.chain_pem.len() / 2]),
            "not well-formed PEM",
        ),
    ] {
        let (what, _) = refusal(&with_certificate(file));
        assert!(what.contains(expected), "{what}");
    }
    let (what, _) = refusal(&CertificatePlan {
        private_key: files.pem("crt.key", &issued.chain_pem),
        ..good.clone()
    });
    assert!(what.contains("no private key in this file"), "{what}");
}

#[test]
fn ticket_keys_have_48_or_80_bytes_and_distinct_names() {
    let files = Files::new();
    let ring = |contents: &[&[u8]]| {
        let files_of_keys = contents.iter().enumerate();
        KeyRing::new(&Resumption {
            ticket_key_files: files_of_keys
                .map(|(at, bytes)| files.bytes(&format!("{at}.key"), bytes))
                .collect(),
            ..resumption()
        })
    };
    assert!(ring(&[&[1; 48], &[2; 80]]).is_ok());
    let error = ring(&[&[1; 48], &[2; 79]]).unwrap_err().to_string();
    assert!(error.contains("48 or 80 bytes, this file 79"), "{error}");
    let error = ring(&[&[1; 48], &[1; 80]]).unwrap_err().to_string();
    assert!(
        error.contains("another ticket key has the same name"),
        "{error}"
    );
}
