//! A server as a process of its own, that can be killed and stopped.

use crate::link::Address;
use crate::peer::Service;
use crate::pki::Credential;
use crate::proxy::{Proxy, Ringway};

/// TLS before an echo: another Ringway.
pub struct Server {
    pub process: Proxy,
    pub address: Address,
}

impl Server {
    /// `bind`: an address that outgoing connections get no port of, so that it stays free for the
    /// next life.
    #[must_use]
    pub fn start(ringway: Ringway, bind: &str, credential: &Credential, echo: &Service) -> Self {
        let toml = format!(
            "[[listener]]\nname = \"server\"\nbind = \"{bind}\"\nupstream = \"echo\"\n\
             [listener.tls]\n{}[upstream.echo]\nservers = [\"{}\"]\n",
            credential.toml(),
            echo.address()
        );
        let process = ringway.workers(1).start(&toml);
        let address = process.address("server").clone();
        Self { process, address }
    }

    /// Another one in its place, once it has ended.
    #[must_use]
    pub fn again(&self, ringway: Ringway, credential: &Credential, echo: &Service) -> Self {
        Self::start(ringway, &self.address.to_string(), credential, echo)
    }

    pub fn kill(&mut self) {
        self.process.signal(libc::SIGKILL);
        let _ = self.process.wait_exit();
    }
}
