//! OCSP responses as `openssl ocsp` makes them, and some with other times.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::openssl::MISSING;
use crate::pki::{Authority, Credential};

/// What a responder says of a certificate.
#[derive(Debug, Clone, Copy)]
pub enum Status {
    Good,
    Revoked,
    Unknown,
}

/// A response for a leaf of an authority: `good` for seven days from now, signed by the authority.
pub struct Responder<'a> {
    ca: &'a Authority,
    signer: Option<&'a Credential>,
    status: Status,
    arguments: Vec<&'a str>,
}

impl<'a> Responder<'a> {
    #[must_use]
    pub fn of(ca: &'a Authority) -> Self {
        Self {
            ca,
            signer: None,
            status: Status::Good,
            arguments: vec!["-ndays", "7"],
        }
    }

    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Somebody else signs, and shows this certificate.
    #[must_use]
    pub fn signer(mut self, signer: &'a Credential) -> Self {
        self.signer = Some(signer);
        self
    }

    /// It is signed with this hash, as in "sha1".
    #[must_use]
    pub fn signing_hash(mut self, hash: &'a str) -> Self {
        self.arguments.extend(["-rmd", hash]);
        self
    }

    #[must_use]
    pub fn without_next_update(mut self) -> Self {
        self.arguments.retain(|it| !["-ndays", "7"].contains(it));
        self
    }

    /// The response in DER.
    ///
    /// # Panics
    /// When OpenSSL does not make it.
    #[must_use]
    pub fn answer(&self, leaf: &Credential) -> Vec<u8> {
        self.answer_by_hashes(leaf, &["-sha1"])
    }

    /// The same, with one answer for each hash that names the issuer.
    ///
    /// # Panics
    /// When OpenSSL does not make it.
    #[must_use]
    pub fn answer_by_hashes(&self, leaf: &Credential, hashes: &[&str]) -> Vec<u8> {
        let folder = TempDir::new().expect("a folder");
        let [index, request, response] =
            ["index.txt", "request", "response"].map(|name| folder.path().join(name));
        fs::write(&index, self.index(leaf)).expect("a file");
        let (issuer, issuer_key) = self.ca.signing_files();
        let (signer, key) = match self.signer {
            Some(signer) => (&signer.certificate, &signer.private_key),
            None => (&issuer, &issuer_key),
        };
        let asked: Vec<&OsStr> = hashes
            .iter()
            .flat_map(|hash| {
                [
                    hash.as_ref(),
                    "-cert".as_ref(),
                    leaf.certificate.as_os_str(),
                ]
            })
            .collect();
        openssl(&[("-issuer", &issuer), ("-reqout", &request)], &asked);
        let arguments: Vec<&OsStr> = self.arguments.iter().map(OsStr::new).collect();
        openssl(
            &[
                ("-index", &index),
                ("-CA", &issuer),
                ("-rsigner", signer),
                ("-rkey", key),
                ("-reqin", &request),
                ("-respout", &response),
            ],
            &arguments,
        );
        fs::read(&response).expect("the response")
    }

    /// The database of `openssl ca`: status, end, time of revocation, serial number, file, name.
    fn index(&self, leaf: &Credential) -> String {
        let mut serial = format!("{:X}", leaf.serial());
        if serial.len() % 2 == 1 {
            serial.insert(0, '0');
        }
        match self.status {
            Status::Good => format!("V\t490101000000Z\t\t{serial}\tunknown\t/CN=leaf\n"),
            Status::Revoked => {
                format!("R\t490101000000Z\t260102030405Z\t{serial}\tunknown\t/CN=leaf\n")
            }
            Status::Unknown => String::new(),
        }
    }
}

fn openssl(files: &[(&str, &Path)], arguments: &[&OsStr]) {
    let mut command = Command::new("openssl");
    command.args(["ocsp", "-no_nonce"]);
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    let output = command.args(arguments).output().expect(MISSING);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
}

/// The response for other times. Its signature is then no longer one, which nobody can tell where
/// the issuer is not at hand.
///
/// # Panics
/// When it has no nextUpdate.
#[must_use]
pub fn with_times(response: &[u8], this_update: SystemTime, next_update: SystemTime) -> Vec<u8> {
    // GeneralizedTime of 15 characters: producedAt, thisUpdate, nextUpdate.
    let times: Vec<usize> = (0..response.len())
        .filter(|at| response[*at..].starts_with(b"\x18\x0f20"))
        .collect();
    let [_, this, next] = times[..] else {
        panic!("a response of one answer with a nextUpdate")
    };
    let mut response = response.to_vec();
    for (at, time) in [(this, this_update), (next, next_update)] {
        response[at + 2..at + 17].copy_from_slice(generalized(time).as_bytes());
    }
    response
}

/// "20260102030405Z"
fn generalized(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
    let output = Command::new("date")
        .args(["-u", "+%Y%m%d%H%M%SZ", "-d"])
        .arg(format!("@{}", since.as_secs()))
        .output()
        .expect("date of coreutils");
    String::from_utf8(output.stdout)
        .expect("digits")
        .trim()
        .to_owned()
}

/// So long ago.
#[must_use]
pub fn ago(time: Duration) -> SystemTime {
    SystemTime::now() - time
}

/// So far ahead.
#[must_use]
pub fn ahead(time: Duration) -> SystemTime {
    SystemTime::now() + time
}
