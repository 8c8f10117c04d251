//! Private keys in PEM (RFC 7468), read without leaving a copy behind: the reader of
//! rustls-pki-types frees its buffer of base64 as it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

/// A key that is overwritten when it is dropped.
pub(super) type SecretKey = Zeroizing<PrivateKeyDer<'static>>;

/// What is wrong with a PEM file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemError {
    /// BEGIN without the END of the same label.
    Open,
    Base64,
}

impl PemError {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Open => "a `-----BEGIN ...-----` line without its `-----END ...-----`",
            Self::Base64 => "what stands between BEGIN and END is no base64",
        }
    }
}

/// The first key of the file: PKCS#8, PKCS#1 or SEC1. Other sections are passed over.
pub(super) fn first_key(pem: &[u8]) -> Result<Option<SecretKey>, PemError> {
    let mut lines = pem.split(|byte| matches!(byte, b'\n' | b'\r'));
    while let Some(line) = lines.next() {
        let Some(label) = label(line, b"-----BEGIN ") else {
            continue;
        };
        let body = body(&mut lines, label, pem.len())?;
        if is_key(label) {
            return decoded(label, &body).map(Some);
        }
    }
    Ok(None)
}

fn label<'l>(line: &'l [u8], begin: &[u8]) -> Option<&'l [u8]> {
    line.trim_ascii()
        .strip_prefix(begin)?
        .strip_suffix(b"-----")
}

/// The lines up to the END of this section, joined.
fn body<'l>(
    lines: &mut impl Iterator<Item = &'l [u8]>,
    begun: &[u8],
    bytes_max: usize,
) -> Result<Zeroizing<Vec<u8>>, PemError> {
    // So large that it never moves and leaves itself behind.
    let mut body = Zeroizing::new(Vec::with_capacity(bytes_max));
    for line in lines {
        match label(line, b"-----END ") {
            Some(ended) if ended == begun => return Ok(body),
            Some(_) => return Err(PemError::Open),
            None => body.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace())),
        }
    }
    Err(PemError::Open)
}

fn is_key(label: &[u8]) -> bool {
    matches!(
        label,
        b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY"
    )
}

fn decoded(label: &[u8], body: &[u8]) -> Result<SecretKey, PemError> {
    let mut der = Zeroizing::new(vec![0; base64::decoded_len_estimate(body.len())]);
    let bytes = STANDARD
        .decode_slice(body, &mut der)
        .map_err(|_| PemError::Base64)?;
    der.truncate(bytes);
    let der = std::mem::take(&mut *der);
    Ok(Zeroizing::new(match label {
        b"RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.into()),
        b"EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.into()),
        _ => PrivateKeyDer::Pkcs8(der.into()),
    }))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    fn pem(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn every_kind_of_key_is_read_as_rustls_reads_it() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let body: String = key.lines().filter(|line| !line.starts_with('-')).collect();
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            let text = pem(label, &body);
            let ours = first_key(text.as_bytes()).unwrap().unwrap();
            assert_eq!(
                *ours,
                PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap()
            );
        }
        let dos = format!("a comment\r\n{}", key.replace('\n', "\r\n"));
        assert!(first_key(dos.as_bytes()).unwrap().is_some());
    }

    #[test]
    fn other_sections_are_passed_over_and_the_first_key_is_taken() {
        let text = pem("EC PARAMETERS", "BggqhkjOPQMBBw==")
            + &pem("PRIVATE KEY", "AQID")
            + &pem("PRIVATE KEY", "BAUG");
        let key = first_key(text.as_bytes()).unwrap().unwrap();
        assert_eq!(key.secret_der(), [1, 2, 3]);
        assert_eq!(first_key(pem("CERTIFICATE", "AQID").as_bytes()), Ok(None));
        assert_eq!(first_key(b""), Ok(None));
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_is_refused() {
        let whole = pem("PRIVATE KEY", "AQID");
        for (text, error) in [
            (&whole[..whole.len() - 10], PemError::Open),
            (
                &whole.replace("END PRIVATE", "END RSA PRIVATE"),
                PemError::Open,
            ),
            (&pem("PRIVATE KEY", "AQI?"), PemError::Base64),
            (&pem("PRIVATE KEY", "AQI"), PemError::Base64),
        ] {
            assert_eq!(first_key(text.as_bytes()), Err(error), "{text}");
        }
    }
}
