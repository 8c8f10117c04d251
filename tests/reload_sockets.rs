//! Options of sockets, for an address that is kept through reloads: asked of the kernel, by copies of
//! the proxy's own descriptors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use ringway_support::sys::backlog;
use ringway_support::toml::{listener, upstream};
use ringway_support::{Link, Peer, Proxy, ringway, until};
use socket2::Socket;

/// What a table may say of the sockets that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    nodelay: bool,
    /// Idle time, interval, probes.
    keepalive: Option<(Duration, Duration, u32)>,
    user_timeout: Option<Duration>,
}

impl Options {
    fn of(socket: &Socket) -> Self {
        let keepalive = socket.keepalive().unwrap().then(|| {
            (
                socket.tcp_keepalive_time().unwrap(),
                socket.tcp_keepalive_interval().unwrap(),
                socket.tcp_keepalive_retries().unwrap(),
            )
        });
        Self {
            nodelay: socket.tcp_nodelay().unwrap(),
            keepalive,
            user_timeout: socket.tcp_user_timeout().unwrap(),
        }
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// docs/config.md has these numbers.
const DEFAULT: Options = Options {
    nodelay: true,
    keepalive: Some((secs(60), secs(15), 4)),
    user_timeout: Some(secs(60)),
};

/// Each line of keys with what comes of it: every option goes on, off, and back.
const TURNS: [(&str, Options); 5] = [
    ("", DEFAULT),
    (
        "tcp_nodelay = false\ntcp_user_timeout = \"9s\"\n\
         keepalive = { idle = \"100s\", interval = \"7s\", probes = 3 }",
        Options {
            nodelay: false,
            keepalive: Some((secs(100), secs(7), 3)),
            user_timeout: Some(secs(9)),
        },
    ),
    (
        "tcp_nodelay = false\ntcp_user_timeout = \"off\"\nkeepalive = false",
        Options {
            nodelay: false,
            keepalive: None,
            user_timeout: None,
        },
    ),
    (
        "keepalive = { idle = \"2m\" }",
        Options {
            keepalive: Some((secs(120), secs(15), 4)),
            ..DEFAULT
        },
    ),
    ("", DEFAULT),
];

/// A process that its parent may look into, whoever that is.
const OPEN: &str = "[sandbox]\ncore_dumps = true\n";

/// `None`, with the reason: this machine does not let the test look.
fn socket(proxy: &Proxy, local: SocketAddr, remote: Option<SocketAddr>) -> Option<Vec<Socket>> {
    match proxy.sockets_at(local, remote) {
        Ok(sockets) => {
            assert!(!sockets.is_empty(), "no socket {local} {remote:?}");
            Some(sockets)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!(
                "SKIPPED: descriptors of another process: {error} (pidfd_getfd, ptrace_scope)"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn new_connections_have_the_options_of_the_new_configuration_and_old_ones_keep_theirs() {
    let server = Peer::plain();
    let toml = |keys: &str| {
        listener("front", "back", keys, "") + &upstream("back", &[server.address()], keys) + OPEN
    };
    let mut proxy = ringway!().start(&toml(""));
    let front = proxy.address("front").ip();
    let mut open: Vec<(Link, Link, Options)> = Vec::new();
    for (turn, (keys, expected)) in TURNS.into_iter().enumerate() {
        if turn > 0 {
            proxy.reload_with(&toml(keys));
        }
        // Some for each core.
        for _ in 0..4 {
            let client = Link::connect(&proxy.address("front").clone()).unwrap();
            open.push((client, server.accept(), expected));
        }
        for (client, upstream, expected) in &open {
            let Some(accepted) = socket(&proxy, front, Some(client.local())) else {
                return;
            };
            assert_eq!(Options::of(&accepted[0]), *expected, "{keys}");
            let dialled = upstream.socket().peer_addr().unwrap().as_socket().unwrap();
            let dialled = socket(&proxy, dialled, Some(server.address().ip())).unwrap();
            // It has all of them when the connection is a second old.
            until("the dialled socket has its options", || {
                (Options::of(&dialled[0]) == *expected).then_some(())
            });
        }
    }
}

#[test]
fn the_queue_of_an_address_that_is_kept_becomes_as_long_as_the_new_configuration_says() {
    let server = Peer::plain();
    let toml = |keys: &str| {
        listener("front", "back", keys, "") + &upstream("back", &[server.address()], "") + OPEN
    };
    let mut proxy = ringway!().start(&toml("backlog = 99"));
    let front = proxy.address("front").ip();
    for length in [99, 33, 111] {
        proxy.reload_with(&toml(&format!("backlog = {length}")));
        let Some(listening) = socket(&proxy, front, None) else {
            return;
        };
        assert!(listening.len() >= 2, "one for each core");
        for socket in listening {
            assert_eq!(backlog(socket.as_raw_fd()).unwrap(), length);
        }
    }
}
