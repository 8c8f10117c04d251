use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use monoio::net::UnixStream;
use monoio::time::timeout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use socket2::{Domain, SockRef, TcpKeepalive};

use super::waits::on_wait;
use crate::config::SocketOptions;
use crate::sys;

/// How long a farewell waits for the peer to read our last words: a few round trips.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
const FAREWELL_BYTES_MAX: usize = 256 * 1024;

/// A non-blocking stream socket, TCP or unix.
///
/// The monoio handle is a `UnixStream` for both: only its readiness and its close are used, which
/// ask nothing of the address family, and it is the smallest handle that monoio has.
/// The descriptor closes when the last readiness operation on it has ended.
#[derive(Debug)]
pub struct Socket {
    stream: UnixStream,
}

impl Socket {
    /// Takes a descriptor that is already non-blocking.
    ///
    /// # Errors
    /// On the epoll driver, what epoll_ctl reports.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(fd))?;
        Ok(Self { stream })
    }

    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        sys::borrow_stream(&self.stream)
    }

    /// Waits until a read would not block: bytes, end of stream or an error.
    ///
    /// # Errors
    /// What the poll operation reports; none is known for an open socket.
    pub async fn readable(&self) -> io::Result<()> {
        on_wait();
        self.stream.readable(false).await
    }

    /// Waits until a write would not block: room or an error.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub async fn writable(&self) -> io::Result<()> {
        on_wait();
        self.stream.writable(false).await
    }

    /// One recv(2). `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; else what the kernel reports.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (received, _) = rustix::net::recv(self.fd(), buffer, RecvFlags::empty())?;
        Ok(received)
    }

    /// One readv(2) over all slices.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_vectored(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::readv(self.fd(), slices)?)
    }

    /// One send(2), which may take fewer bytes than given.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; else what the kernel reports.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.fd(), bytes, SendFlags::NOSIGNAL)?)
    }

    /// One send(2) of the last bytes before [`shutdown_write`](Self::shutdown_write) or the close:
    /// the kernel holds them for the FIN, which then needs no packet of its own (MSG_MORE, tcp(7)).
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_send_last(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
        Ok(rustix::net::send(self.fd(), bytes, flags)?)
    }

    /// One writev(2) over all slices.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send). SIGPIPE is ignored by the whole process.
    pub fn try_send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.fd(), slices)?)
    }

    /// Sends all bytes, waiting for room as often as needed.
    ///
    /// # Errors
    /// What the kernel reports.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_send(bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends our direction: the peer reads an end of stream after what was sent before.
    ///
    /// # Errors
    /// ENOTCONN when the peer has reset the connection.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.fd(), Shutdown::Write)?)
    }

    /// Ends our direction and reads away what still comes, so that unread bytes do not turn the
    /// coming close into a reset that overtakes what was sent last. Bounded in time and bytes.
    pub async fn farewell(&self) {
        if self.shutdown_write().is_ok() {
            // Whether the peer closes in time or not, we do next.
            let _ = timeout(FAREWELL_MAX, self.discard()).await;
        }
    }

    async fn discard(&self) {
        let mut discarded = 0;
        while discarded < FAREWELL_BYTES_MAX {
            match self.try_discard() {
                Ok(0) => break,
                Ok(bytes) => discarded += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.readable().await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    }

    /// Reads bytes nobody wants. Its scrap stays off the futures that wait here.
    fn try_discard(&self) -> io::Result<usize> {
        self.try_recv(&mut [0; 4096])
    }

    /// True when the peer has reset the connection before it had ended its stream, also while
    /// bytes from it are still unread. Takes the pending error with it.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        let fd = self.fd();
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
        let found = poll(&mut polled, Some(&Timespec::default()));
        let failed =
            found.is_ok_and(|found| found > 0) && polled[0].revents().contains(PollFlags::ERR);
        // EPIPE: its FIN came first, and all that it sent can still be read.
        failed
            && self
                .take_error()
                .is_err_and(|error| error.raw_os_error() != Some(libc::EPIPE))
    }

    /// Makes the coming close a reset, so that the peer cannot mistake it for a clean end.
    /// On a unix socket it does nothing: a close there has no other form.
    pub fn abort_on_close(&self) {
        // A socket that cannot take the option is beyond caring how it closes.
        let _ = rustix::net::sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
    }

    /// For a socket that was dialled, and that turns out to live longer than a moment.
    ///
    /// # Errors
    /// What setsockopt reports. On a unix socket nothing is set.
    pub fn last(&self, options: &SocketOptions) -> io::Result<()> {
        let fd = self.fd();
        let socket = SockRef::from(&fd);
        if socket.domain()? == Domain::UNIX {
            return Ok(());
        }
        apply_lasting_options(&socket, options)
    }

    /// Takes and clears the socket's pending error (SO_ERROR).
    ///
    /// # Errors
    /// The pending error.
    pub fn take_error(&self) -> io::Result<()> {
        SockRef::from(&self.fd()).take_error()?.map_or(Ok(()), Err)
    }
}

/// A story that panics drops its sockets while it unwinds. A plain close would tell both peers that
/// they have had all there was.
impl Drop for Socket {
    fn drop(&mut self) {
        // A listening socket would hand the option down to every connection that comes after.
        if std::thread::panicking() && !socket_acceptconn(self.fd()).unwrap_or(true) {
            self.abort_on_close();
        }
    }
}

/// Sets what the configuration asks for. Accepted sockets inherit all of it from their listener
/// (Linux copies the whole socket), so it costs no system call per connection there.
///
/// # Errors
/// What setsockopt reports.
pub fn apply_options(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    apply_first_options(socket, options)?;
    apply_lasting_options(socket, options)
}

/// Sets what matters from a connection's first byte on.
///
/// # Errors
/// What setsockopt reports.
pub fn apply_first_options(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if options.tcp_nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(())
}

/// Sets what notices a peer that is gone without a word: five system calls, which a connection
/// that ends within a second can do without.
///
/// # Errors
/// What setsockopt reports.
fn apply_lasting_options(socket: &SockRef<'_>, options: &SocketOptions) -> io::Result<()> {
    if let Some(keepalive) = options.keepalive {
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(keepalive.idle)
                .with_interval(keepalive.interval)
                .with_retries(keepalive.probes),
        )?;
    }
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;
    use crate::config::{BindAddress, Keepalive, Plan, parse};
    use crate::net::{Listening, PeerAddress, bind, dial, local_address};

    const LOCALHOST: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

    fn run<T>(story: impl Future<Output = T>) -> T {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
        runtime.unwrap().block_on(story)
    }

    /// What a file with these keys for `front` and `back` says of their sockets.
    fn configured(listener: &str, upstream: &str) -> (SocketOptions, SocketOptions) {
        let text = format!(
            "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n\
             {listener}\n[upstream.back]\nservers = [\"127.0.0.1:1\"]\n{upstream}\n"
        );
        let plan: Plan = parse("x.toml", text).into_plan().unwrap();
        (plan.listeners[0].socket, plan.upstreams[0].socket)
    }

    /// What the kernel says of a socket.
    fn in_effect(socket: &Socket) -> SocketOptions {
        let fd = socket.fd();
        let socket = SockRef::from(&fd);
        let keepalive = socket.keepalive().unwrap().then(|| Keepalive {
            idle: socket.tcp_keepalive_time().unwrap(),
            interval: socket.tcp_keepalive_interval().unwrap(),
            probes: socket.tcp_keepalive_retries().unwrap(),
        });
        SocketOptions {
            tcp_nodelay: socket.tcp_nodelay().unwrap(),
            keepalive,
            user_timeout: socket.tcp_user_timeout().unwrap(),
        }
    }

    /// The options of an accepted socket and of the one that was dialled to it.
    fn accepted_and_dialled(listener: &str, upstream: &str) -> (SocketOptions, SocketOptions) {
        let (front, back) = configured(listener, upstream);
        run(async move {
            let fd = bind(&BindAddress::Tcp(LOCALHOST), &front, 16).unwrap();
            let address = PeerAddress::Ip(local_address(&fd).unwrap().unwrap());
            let listening = Listening::new(fd, address.clone()).unwrap();
            let dialled = dial(&address, &back).await.unwrap();
            dialled.last(&back).unwrap();
            listening.readable().await.unwrap();
            let accepted = listening.try_accept().unwrap();
            (in_effect(&accepted.socket), in_effect(&dialled))
        })
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// docs/config.md has these numbers.
    const DEFAULT: SocketOptions = SocketOptions {
        tcp_nodelay: true,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            probes: 4,
        }),
        user_timeout: Some(Duration::from_secs(60)),
    };

    #[test]
    fn both_sides_have_the_documented_options_where_the_file_says_nothing() {
        assert_eq!(accepted_and_dialled("", ""), (DEFAULT, DEFAULT));
    }

    #[test]
    fn each_side_has_the_options_of_its_own_table() {
        let keys = "tcp_nodelay = false\ntcp_user_timeout = \"9s\"\n\
                    keepalive = { idle = \"100s\", interval = \"7s\", probes = 3 }";
        let expected = SocketOptions {
            tcp_nodelay: false,
            keepalive: Some(Keepalive {
                idle: seconds(100),
                interval: seconds(7),
                probes: 3,
            }),
            user_timeout: Some(seconds(9)),
        };
        assert_eq!(accepted_and_dialled(keys, ""), (expected, DEFAULT));
        assert_eq!(accepted_and_dialled("", keys), (DEFAULT, expected));
    }

    #[test]
    fn a_keepalive_table_changes_what_it_names_and_no_more() {
        let (accepted, dialled) = accepted_and_dialled(
            "keepalive = { idle = \"2m\" }",
            "keepalive = { probes = 9 }",
        );
        let default = DEFAULT.keepalive.unwrap();
        let idle = seconds(120);
        assert_eq!(accepted.keepalive, Some(Keepalive { idle, ..default }));
        assert_eq!(
            dialled.keepalive,
            Some(Keepalive {
                probes: 9,
                ..default
            })
        );
    }

    /// The listening socket outlives its core in the control thread's hand, as here.
    #[test]
    fn a_panic_resets_the_connections_it_meets_and_leaves_the_listening_socket_as_it_was() {
        let (front, back) = configured("", "");
        run(async move {
            let fd = bind(&BindAddress::Tcp(LOCALHOST), &front, 16).unwrap();
            let address = PeerAddress::Ip(local_address(&fd).unwrap().unwrap());
            let kept = Listening::new(fd.try_clone().unwrap(), address.clone()).unwrap();
            let listening = Listening::new(fd, address.clone()).unwrap();
            let client = dial(&address, &back).await.unwrap();
            listening.readable().await.unwrap();
            let accepted = listening.try_accept().unwrap();
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _held = (accepted, listening);
                panic!("a defect, on purpose");
            }));
            assert!(panicked.is_err());
            client.readable().await.unwrap();
            let reset = client.try_recv(&mut [0; 1]).unwrap_err();
            assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);

            let client = dial(&address, &back).await.unwrap();
            kept.readable().await.unwrap();
            drop(kept.try_accept().unwrap());
            client.readable().await.unwrap();
            assert_eq!(client.try_recv(&mut [0; 1]).unwrap(), 0, "a clean end");
        });
    }

    #[test]
    fn what_is_turned_off_is_left_to_the_kernel() {
        let off = "tcp_nodelay = false\nkeepalive = false\ntcp_user_timeout = \"off\"";
        let kernel = SocketOptions {
            tcp_nodelay: false,
            keepalive: None,
            user_timeout: None,
        };
        assert_eq!(accepted_and_dialled(off, off), (kernel, kernel));
    }
}
