//! Which engine carries a direction: what is wanted of each leg, and how it came out.

use std::io::{self, IoSliceMut};
use std::time::Duration;

use monoio::time::sleep;

use super::flow::{Failure, Fault, Filled, Flow};
use crate::config::{Carriage, PathChoice};
use crate::net::Socket;
use crate::observe::{Fallback, RelayPath};
use crate::sys::{KtlsAbility, KtlsReceived};
use crate::tls::{Control, KernelError, Opened, TlsReader};
use crate::types::Cause;

/// When bytes between two plain ends, or ends that the kernel makes plain, go through a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splice {
    Never,
    /// While receives fill a large buffer.
    Bulky,
    Always,
}

/// What is wanted of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) splice: Splice,
    /// When the source's TLS goes to the kernel.
    receive_due: Due,
    /// When the sink's TLS goes to the kernel.
    transmit_due: Due,
}

/// After so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due(u32);

const NEVER: Due = Due(u32::MAX);

impl Due {
    fn has_come(self, bytes: u64) -> bool {
        self != NEVER && bytes >= u64::from(self.0)
    }
}

/// One end of a direction: what its configuration wants, and whether it has TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) carriage: Carriage,
    pub(super) tls: bool,
}

impl End {
    fn due(self, kernel: Option<KtlsAbility>) -> Due {
        match self.carriage.path {
            _ if !self.tls || kernel.is_none() => NEVER,
            PathChoice::User => NEVER,
            PathChoice::Splice => Due(0),
            PathChoice::Auto => Due(self.carriage.ktls_after),
        }
    }
}

impl Path {
    pub(super) fn new(source: End, sink: End, kernel: Option<KtlsAbility>) -> Self {
        let choices = [source.carriage.path, sink.carriage.path];
        let splice = if choices.contains(&PathChoice::User) {
            Splice::Never
        } else if choices.contains(&PathChoice::Splice) {
            Splice::Always
        } else {
            Splice::Bulky
        };
        Self {
            splice,
            receive_due: source.due(kernel),
            transmit_due: sink.due(kernel),
        }
    }
}

/// What one receive gave.
pub(super) enum Received {
    Bytes(usize),
    Nothing,
    EndOfStream,
    /// A control record, which is dealt with.
    Control,
}

/// A batch of records that go through a pipe together.
const KERNEL_BATCH_BYTES: usize = 256 * 1024;

/// How long kernel TLS may take to give TCP what it has room for, before it is looked at again.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

impl Flow<'_> {
    /// Notes the engines of both legs.
    pub(super) fn mark_path(&self) {
        let source = self.source.tls.as_ref();
        let sink = self.sink.tls.as_ref();
        let in_kernel = [
            source.map(|(reader, _)| reader.is_in_kernel()),
            sink.map(|(writer, _)| writer.is_in_kernel()),
        ];
        let path = match in_kernel {
            [None, None] => RelayPath::Copy,
            [None | Some(true), None | Some(true)] => RelayPath::Kernel,
            [None | Some(false), None | Some(false)] => RelayPath::User,
            _ => RelayPath::Mixed,
        };
        self.seen.on_path(self.direction, path);
    }

    /// Hands the sink's TLS to the kernel once the direction has carried enough. All that was
    /// sealed is sent.
    pub(super) fn hand_over_sink(&mut self) {
        let Some((writer, shared)) = &mut self.sink.tls else {
            return;
        };
        let Some(kernel) = self.tools.kernel_tls.filter(|_| {
            let bytes = self.seen.bytes(self.direction);
            self.path.transmit_due.has_come(bytes) && !writer.owes(shared)
        }) else {
            return;
        };
        self.path.transmit_due = NEVER;
        match writer.hand_over(self.sink.socket, shared, &kernel) {
            Ok(()) => self.mark_path(),
            Err(fallback) => self.seen.on_fallback(self.direction, fallback),
        }
    }

    /// True while the source's TLS is to go to the kernel at the next record's end.
    pub(super) fn source_is_due(&self) -> bool {
        let bytes = self.seen.bytes(self.direction);
        self.path.receive_due.has_come(bytes)
    }

    /// Hands the source's TLS to the kernel, if it is due and nothing that was received is left.
    /// True: done.
    pub(super) fn hand_over_source(&mut self) -> bool {
        if !self.source_is_due() || !self.source.inbound.is_empty() {
            return false;
        }
        let Some((reader, shared)) = &mut self.source.tls else {
            return false;
        };
        let Some(kernel) = self
            .tools
            .kernel_tls
            .filter(|_| reader.is_between_messages())
        else {
            return false;
        };
        self.path.receive_due = NEVER;
        match reader.hand_over(self.source.socket, shared, &kernel) {
            Ok(()) => {
                self.mark_path();
                self.source.inbound.release_if_empty();
                self.receiving.read_until_dry();
                true
            }
            Err(fallback) => {
                self.seen.on_fallback(self.direction, fallback);
                false
            }
        }
    }

    /// A KeyUpdate that kernel TLS has to send before more data. `None`: nothing is due.
    pub(super) fn key_update(&mut self) -> Result<Option<Control>, Failure> {
        let rekey = self.can_rekey();
        let Some((writer, shared)) = &mut self.sink.tls else {
            return Ok(None);
        };
        let update = writer.key_update(self.sink.socket, shared, rekey);
        update.map_err(|error| self.kernel_failed(error))
    }

    fn can_rekey(&self) -> bool {
        self.tools.kernel_tls.is_some_and(|kernel| kernel.rekey)
    }

    fn kernel_failed(&self, error: KernelError) -> Failure {
        match error {
            KernelError::Io(error) => self.sink_failed(&error),
            KernelError::Exhausted(exhausted) => self.exhausted(exhausted),
            KernelError::NoRekey => {
                let detail = "the peer wants new keys, which kernel TLS can set from Linux 6.14 on \
                              (relay_path = \"user\" does on any)";
                self.failure(Fault::Sink, Cause::System, detail.into())
            }
        }
    }

    /// Sends a control record by way of kernel TLS. True: it is gone.
    pub(super) fn flush_control(&mut self, control: &Control) -> Result<bool, Failure> {
        match control.try_send(self.sink.socket) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => {
                self.sink.on_send_failed(&error);
                return Err(self.sink_failed(&error));
            }
        }
        self.seen.on_sent(self.direction, 0);
        let Some((writer, shared)) = &mut self.sink.tls else {
            return Ok(true);
        };
        writer.on_taken(control.bytes());
        let sent = writer.on_control_sent(self.sink.socket, shared);
        sent.map(|()| true)
            .map_err(|error| self.kernel_failed(error))
    }

    /// The kernel has sealed what it took, but TCP may not have room for all of it: a FIN now
    /// would overtake it.
    pub(super) fn sink_is_drained(&mut self) -> Result<bool, Failure> {
        let Some((writer, _)) = &mut self.sink.tls else {
            return Ok(true);
        };
        match writer.drain(self.sink.socket) {
            Ok(drain) => {
                if drain.progress {
                    self.seen.on_sent(self.direction, 0);
                }
                Ok(drain.done)
            }
            Err(error) => Err(self.sink_failed(&error)),
        }
    }

    /// Receives from a socket that gives plain bytes: it is plain, or the kernel opens its records.
    pub(super) fn receive(&mut self, slices: &mut [IoSliceMut<'_>]) -> Result<Received, Failure> {
        let in_kernel = |(reader, _): &(&mut TlsReader, _)| reader.is_in_kernel();
        if self.source.tls.as_ref().is_some_and(in_kernel) {
            return self.receive_from_kernel(slices);
        }
        let received = match slices {
            [only] => self.source.socket.try_recv(only),
            several => self.source.socket.try_recv_vectored(several),
        };
        match received {
            Ok(0) => self.end_of_plain().map(|_| Received::EndOfStream),
            Ok(bytes) => Ok(Received::Bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) => Err(self.source_failed(&error)),
        }
    }

    fn receive_from_kernel(&mut self, slices: &mut [IoSliceMut<'_>]) -> Result<Received, Failure> {
        let rekey = self.can_rekey();
        let Some((reader, shared)) = &mut self.source.tls else {
            return Ok(Received::Nothing);
        };
        let KtlsReceived {
            content_type,
            bytes,
        } = match reader.receive(self.source.socket, slices) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Received::Nothing);
            }
            Err(error) => return Err(self.kernel_read_failed(&error)),
        };
        match content_type {
            None if bytes == 0 => Err(self.end_without_close_notify()),
            None | Some(TlsReader::APPLICATION_DATA) if bytes > 0 => {
                reader.on_data();
                Ok(Received::Bytes(bytes))
            }
            content_type => {
                let content_type = content_type.unwrap_or(TlsReader::APPLICATION_DATA);
                let content = slices.first().and_then(|first| first.get(..bytes));
                let record = (content_type, content.unwrap_or(&[]));
                let done = reader.on_kernel_record(self.source.socket, record, shared, rekey);
                match done.map_err(|error| self.unreadable(error))? {
                    Opened::Closed => Ok(Received::EndOfStream),
                    Opened::Data | Opened::NeedMore => Ok(Received::Control),
                }
            }
        }
    }

    fn end_without_close_notify(&self) -> Failure {
        if self.source.was_reset.get() {
            self.source_failed(&io::ErrorKind::ConnectionReset.into())
        } else {
            self.truncated()
        }
    }

    fn kernel_read_failed(&self, error: &io::Error) -> Failure {
        let Some(broken) = TlsReader::kernel_error(error) else {
            return self.source_failed(error);
        };
        // It is the socket's pending error, too, and would meet the alert that we send.
        let _ = self.source.socket.take_error();
        self.unreadable(broken)
    }

    /// A splice takes one record: as many as make a batch go into the pipe before it is emptied.
    pub(super) fn fill_pipe_from_kernel(&mut self) -> Result<Filled, Failure> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(Filled::Nothing);
        };
        let batch_max = KERNEL_BATCH_BYTES.min(self.seen.batch_bytes_max(self.direction));
        let stopped = match self.receiving.take_error() {
            Some(error) => Err(error),
            None => loop {
                match pipe.fill_from(self.source.socket.fd(), pipe.bytes_wanted()) {
                    Ok(bytes) if bytes > 0 && pipe.held() < batch_max => {}
                    stopped => break stopped,
                }
            },
        };
        if pipe.held() > 0 {
            if let Err(error) = &stopped
                && error.kind() != io::ErrorKind::WouldBlock
            {
                self.receiving.keep_error(error);
            }
            if let Some((reader, _)) = &mut self.source.tls {
                reader.on_data();
            }
            self.receiving.on_spliced_records(pipe.held());
            return Ok(Filled::Outgoing);
        }
        match stopped {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.pipe = None;
                self.receiving.on_dry();
                Ok(Filled::Nothing)
            }
            // A control record, an empty one, or the end: a receive tells.
            Ok(_) => self.fill_copied(),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                match self.fill_copied()? {
                    // No record to tell about: what came is none.
                    Filled::Nothing => Err(self.kernel_read_failed(&error)),
                    filled => Ok(filled),
                }
            }
            Err(error) => Err(self.kernel_read_failed(&error)),
        }
    }
}

/// Waits until kernel TLS may have given TCP more.
pub(super) async fn may_have_drained(socket: &Socket) -> io::Result<()> {
    sleep(DRAIN_LOOK).await;
    socket.writable().await
}

/// What a direction falls short of before it has begun.
pub(super) fn missing(ends: [End; 2], kernel: Option<KtlsAbility>) -> Option<Fallback> {
    let wanted = |end: &End| end.tls && end.carriage.path == PathChoice::Splice;
    (kernel.is_none() && ends.iter().any(wanted)).then_some(Fallback::NoKernelTls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathChoice::{Auto, Splice as Always, User};

    fn end(path: PathChoice, tls: bool) -> End {
        let carriage = Carriage {
            path,
            ktls_after: 1000,
        };
        End { carriage, tls }
    }

    #[test]
    fn either_ends_refusal_keeps_a_direction_off_the_pipe_and_either_ends_wish_puts_it_there() {
        for (source, sink, splice) in [
            (Auto, Auto, Splice::Bulky),
            (Auto, Always, Splice::Always),
            (Always, Auto, Splice::Always),
            (User, Always, Splice::Never),
            (Always, User, Splice::Never),
            (User, Auto, Splice::Never),
        ] {
            let path = Path::new(end(source, false), end(sink, false), None);
            assert_eq!(path.splice, splice, "{source:?} {sink:?}");
            assert_eq!((path.receive_due, path.transmit_due), (NEVER, NEVER));
        }
    }

    #[test]
    fn only_tls_that_the_kernel_has_is_ever_due() {
        let kernel = Some(KtlsAbility::default());
        let path = Path::new(end(Auto, true), end(Always, true), kernel);
        assert_eq!((path.receive_due, path.transmit_due), (Due(1000), Due(0)));
        let path = Path::new(end(User, true), end(Auto, false), kernel);
        assert_eq!((path.receive_due, path.transmit_due), (NEVER, NEVER));
        let path = Path::new(end(Always, true), end(Always, true), None);
        assert_eq!((path.receive_due, path.transmit_due), (NEVER, NEVER));
    }

    #[test]
    fn a_kernel_without_tls_is_a_fallback_only_where_its_tls_is_asked_for() {
        let no_kernel_tls = Some(Fallback::NoKernelTls);
        for (ends, kernel, expected) in [
            ([end(Always, true), end(Auto, false)], None, no_kernel_tls),
            ([end(Auto, false), end(Always, true)], None, no_kernel_tls),
            ([end(Always, false), end(Auto, true)], None, None),
            ([end(Auto, true), end(Auto, true)], None, None),
            (
                [end(Always, true), end(Always, true)],
                Some(KtlsAbility::default()),
                None,
            ),
        ] {
            assert_eq!(missing(ends, kernel), expected, "{ends:?}");
        }
    }
}
