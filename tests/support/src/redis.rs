//! Debian's redis-server as a peer.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::link::{Address, Link};
use crate::openssl::MISSING;
use crate::sys;
use crate::wait::until;

/// A running redis-server on loopback, without a disk. Killed when dropped.
pub struct Redis {
    child: Child,
    address: Address,
    _directory: TempDir,
}

impl Redis {
    /// At this address, which a [`ClosedPort`](crate::peer::ClosedPort) may hold.
    ///
    /// # Panics
    /// When it does not answer in time.
    #[must_use]
    pub fn at(address: &Address) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--port").arg(address.port().to_string());
        command.arg("--dir").arg(directory.path());
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        let child = command.spawn().expect(MISSING);
        let redis = Self {
            child,
            address: address.clone(),
            _directory: directory,
        };
        until("redis-server answers", || {
            let mut link = Link::connect(&redis.address).ok()?;
            link.send(b"PING\r\n").ok()?;
            let mut answer = [0; 16];
            let received = link.receive_some(&mut answer).ok()?;
            answer[..received].starts_with(b"+PONG").then_some(())
        });
        redis
    }

    /// SIGSTOP: the kernel goes on to take connections for it, and nobody answers.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: i32) {
        sys::kill(self.child.id(), signal).expect("redis-server runs");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
