//! What the end of one connection must leave alone: the others, and the proxy's files.

use crate::link::{Ending, Link};
use crate::peer::{Peer, Service};
use crate::process::{OpenFiles, SPARE_PIPE_ENDS_MAX};
use crate::proxy::{Proxy, Ringway};
use crate::toml;

/// A connection that the ends of others must not touch, and what the proxy had open with it.
pub struct Witness {
    client: Link,
    /// `None`: an echo.
    server: Option<Link>,
    files: OpenFiles,
}

impl Witness {
    /// To be called when the proxy has no other connection.
    pub(crate) fn new(proxy: &Proxy, client: Link, server: Option<Link>) -> Self {
        let mut witness = Self {
            client,
            server,
            files: OpenFiles::default(),
        };
        witness.go_on();
        witness.files = proxy.open_files();
        witness
    }

    /// That the proxy has no other connection and no other file any more, and this one goes on.
    ///
    /// # Panics
    /// When something is left in time, or the connection does not work.
    pub fn is_alone(&mut self, proxy: &Proxy) {
        proxy.wait_no_more_files(self.files, SPARE_PIPE_ENDS_MAX);
        self.go_on();
    }

    fn go_on(&mut self) {
        let Self { client, server, .. } = self;
        match server {
            None => client.ping(b"still here"),
            Some(server) => {
                client.send(b"still here").expect("the witness sends");
                assert_eq!(server.receive(10), b"still here");
                server.send(b"so am I").expect("the witness's server sends");
                assert_eq!(client.receive(7), b"so am I");
            }
        }
    }
}

/// A plain listener and an echo beside what a test is about, for servers that fail or count.
pub struct Bystander {
    witness: Witness,
    _echo: Service,
}

impl Bystander {
    /// Starts the proxy on `toml`, with this listener in it.
    ///
    /// # Panics
    /// When the proxy does not become ready.
    #[must_use]
    pub fn beside(ringway: Ringway, toml: &str) -> (Proxy, Self) {
        let echo = Peer::plain().echo();
        let aside = toml::listener(WITNESS, WITNESS, "", "")
            + &toml::upstream(WITNESS, &[echo.address()], "");
        let proxy = ringway.start(&(aside + toml));
        let witness = Witness::new(&proxy, connect(&proxy), None);
        let bystander = Self {
            witness,
            _echo: echo,
        };
        (proxy, bystander)
    }

    /// After a connection of the test has ended: nothing of it is left, and others go on.
    ///
    /// # Panics
    /// When something is left in time, or a connection does not work.
    pub fn settled(&mut self, proxy: &Proxy) {
        self.witness.is_alone(proxy);
        let mut another = connect(proxy);
        another.ping(b"still there?");
        another.finish().expect("close");
        assert_eq!(another.expect_end(), Ending::Clean);
    }
}

/// The name of the listener that witnesses come to, and of their servers.
pub(crate) const WITNESS: &str = "witness";

fn connect(proxy: &Proxy) -> Link {
    Link::connect(proxy.address(WITNESS)).expect("the witness connects")
}
