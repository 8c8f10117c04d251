//! Debian's HAProxy as a peer, with a configuration of its own.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::link::{Address, Link};
use crate::openssl::MISSING;
use crate::peer::ClosedPort;
use crate::pki::Credential;
use crate::sys;
use crate::wait::until;

/// A running HAProxy. Killed when dropped.
pub struct Haproxy {
    child: Child,
    address: Address,
    directory: TempDir,
    _port: ClosedPort,
}

impl Haproxy {
    /// `sections` are those of its configuration, with `LISTEN` for the address that it shall bind
    /// and `HOME` for the folder that holds a file for each of `credentials`, by its name.
    ///
    /// # Panics
    /// When it does not listen in time.
    #[must_use]
    pub fn start(sections: &str, credentials: &[(&str, &Credential)]) -> Self {
        let port = ClosedPort::new();
        let address = port.address();
        let directory = TempDir::new().expect("a temporary directory");
        let home = directory.path().display().to_string();
        for (name, credential) in credentials {
            let read = |path| fs::read_to_string(path).expect("a PEM file");
            let pem = read(&credential.certificate) + &read(&credential.private_key);
            fs::write(directory.path().join(name), pem).expect("a writable temporary directory");
        }
        let text = format!("{PREAMBLE}{sections}\n")
            .replace("LISTEN", &address.to_string())
            .replace("HOME", &home);
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).expect("a writable temporary directory");
        let log = File::create(directory.path().join("haproxy.log")).expect("a log file");

        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle"));
        command.stderr(log);
        sys::die_with_parent(&mut command);
        let child = command.spawn().expect(MISSING);
        let haproxy = Self {
            child,
            address,
            directory,
            _port: port,
        };
        until("haproxy listens", || Link::connect(&haproxy.address).ok());
        haproxy
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn story(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!("{}{}", read("haproxy.cfg"), read("haproxy.log"))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- haproxy at {}\n{}---", self.address, self.story());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PREAMBLE: &str = "global\n    nbthread 1\n    log stdout format raw local0\n\
    defaults\n    log global\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n";
