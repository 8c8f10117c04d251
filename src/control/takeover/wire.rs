//! Packets of a SOCK_SEQPACKET socket: a message, and descriptors with it (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::message::Message;

/// The longest message names some thousand ids, and stays well within the kernel's default buffer
/// of 208 KiB.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Of one packet; the kernel takes 253 (SCM_MAX_FD).
pub(super) const DESCRIPTORS_MAX: usize = 128;

/// One end of the conversation. Of the `UnixStream` only its readiness and its close are used, which
/// ask nothing of the socket's type.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UnixStream,
}

/// The process at the other end, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
}

impl Wire {
    /// Never waits: where nobody has accepted for long, connect(2) says EAGAIN.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        let socket = UnixStream::from_std(OwnedFd::from(socket).into())?;
        Ok(Self::over(socket))
    }

    pub(super) fn over(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Of a process that has accepted: whoever made the socket listen.
    pub(super) fn peer(&self) -> io::Result<Peer> {
        let credentials = self.socket.peer_cred()?;
        Ok(Peer {
            // One of another PID namespace has no number here.
            pid: credentials.pid().unwrap_or_default().unsigned_abs(),
            uid: credentials.uid(),
        })
    }

    pub(super) async fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Not grown, so that no copy of a key is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(PACKET_BYTES_MAX));
        serde_json::to_writer(&mut *bytes, message)?;
        self.socket
            .async_io(Interest::WRITABLE, || send(&self.socket, &bytes, fds))
            .await
    }

    /// What has come, without waiting.
    pub(super) fn try_receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        receive(&self.socket)
    }

    /// `None`: the other process is gone.
    pub(super) async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let receive = || receive(&self.socket);
        match self.socket.async_io(Interest::READABLE, receive).await {
            Ok(received) => Ok(received),
            // It left without reading what was sent last. The kernel says so once, before its word.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive(),
            Err(error) => Err(error),
        }
    }
}

fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

fn receive(socket: impl AsFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = Zeroizing::new(vec![0; PACKET_BYTES_MAX]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket.as_fd(), &mut slices, &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        let words = "a packet was cut: raise the limit of open files (LimitNOFILE=, ulimit -n)";
        return Err(io::Error::other(words));
    }
    match bytes.get(..received.bytes) {
        None | Some([]) => Ok(None),
        Some(text) => Ok(Some((serde_json::from_slice(text)?, fds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Wire, OwnedFd) {
        let kind = Type::SEQPACKET.nonblocking();
        let (ours, theirs) = Socket::pair(Domain::UNIX, kind, None).unwrap();
        (wire(ours.into()), theirs.into())
    }

    fn wire(end: OwnedFd) -> Wire {
        Wire::over(UnixStream::from_std(end.into()).unwrap())
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn descriptors_arrive_with_the_message_they_were_sent_with() {
        block_on(async {
            let (ours, theirs) = pair();
            let theirs = wire(theirs);
            let file = tempfile::tempfile().unwrap();
            let many = vec![file.as_fd(); DESCRIPTORS_MAX];
            ours.send(&Message::Door, &many).await.unwrap();
            ours.send(&Message::Complete, &[]).await.unwrap();
            let (message, fds) = theirs.receive().await.unwrap().unwrap();
            assert!(matches!(message, Message::Door));
            assert_eq!(fds.len(), DESCRIPTORS_MAX);
            let (message, fds) = theirs.receive().await.unwrap().unwrap();
            assert!(matches!(message, Message::Complete) && fds.is_empty());
            drop(ours);
            assert!(theirs.receive().await.unwrap().is_none());
        });
    }

    #[test]
    fn the_last_word_of_one_who_left_without_listening_is_heard() {
        block_on(async {
            let (ours, theirs) = pair();
            ours.send(&Message::Complete, &[]).await.unwrap();
            let theirs = wire(theirs);
            theirs.send(&Message::Yielded, &[]).await.unwrap();
            drop(theirs);
            let (message, _) = ours.receive().await.unwrap().unwrap();
            assert!(matches!(message, Message::Yielded));
            assert!(ours.receive().await.unwrap().is_none());
        });
    }

    #[test]
    fn what_is_no_message_is_an_error_and_no_more() {
        block_on(async {
            for noise in [
                &b"{"[..],
                b"\0\xff",
                b"\"nonsense\"",
                b"{\"taken\":{\"ids\":[-1]}}",
            ] {
                let (ours, theirs) = pair();
                send(&theirs, noise, &[]).unwrap();
                assert!(ours.receive().await.is_err(), "{noise:?}");
            }
            let (ours, theirs) = pair();
            send(&theirs, &vec![b' '; PACKET_BYTES_MAX + 1], &[]).unwrap();
            assert!(ours.receive().await.is_err(), "longer than any message");
        });
    }
}
