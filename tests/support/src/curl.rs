//! curl as a client.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use crate::link::Address;
use crate::openssl::MISSING;
use crate::pki::Credential;

/// One curl call.
pub struct Curl {
    arguments: Vec<OsString>,
}

/// What curl got.
#[derive(Debug)]
pub struct Got {
    pub body: String,
    pub errors: String,
    pub success: bool,
}

impl Got {
    /// # Panics
    /// When curl failed or got something else.
    pub fn expect(&self, body: &str) {
        assert!(
            self.success && self.body == body,
            "expected curl to get {body:?}, it got {:?} and wrote: {}",
            self.body,
            self.errors
        );
    }

    /// # Panics
    /// When curl got an answer.
    pub fn expect_failure(&self) {
        assert!(
            !self.success,
            "expected curl to fail, it got {:?}",
            self.body
        );
    }
}

impl Curl {
    /// `scheme://name:port/`, with the name resolved to the address.
    #[must_use]
    pub fn get(scheme: &str, name: &str, address: &Address) -> Self {
        let (ip, port) = (address.ip().ip(), address.port());
        let curl = Self {
            arguments: Vec::new(),
        };
        curl.args(&["--silent", "--show-error", "--max-time", "15"])
            .args(&["--noproxy", "*"])
            .arg("--resolve")
            .arg(format!("{name}:{port}:{ip}"))
            .arg(format!("{scheme}://{name}:{port}/"))
    }

    /// Of a whole URL.
    #[must_use]
    pub fn at(url: &str) -> Self {
        let curl = Self {
            arguments: Vec::new(),
        };
        curl.args(&["--silent", "--show-error", "--max-time", "15"])
            .args(&["--noproxy", "*", url])
    }

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn verify(self, ca: &Path) -> Self {
        self.arg("--cacert").arg(ca)
    }

    #[must_use]
    pub fn identity(self, credential: &Credential) -> Self {
        self.arg("--cert")
            .arg(&credential.certificate)
            .arg("--key")
            .arg(&credential.private_key)
    }

    /// # Panics
    /// When curl is not installed.
    #[must_use]
    pub fn run(&self) -> Got {
        let output = Command::new("curl").args(&self.arguments).output();
        let output = output.expect(MISSING);
        Got {
            body: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
            success: output.status.success(),
        }
    }
}
