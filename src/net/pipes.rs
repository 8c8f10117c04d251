use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::observe::meters::CoreMeters;

/// Asked of the kernel for each pipe. 1 MiB halves the cost of 64 KiB per byte, and is the most
/// that an unprivileged user may have (/proc/sys/fs/pipe-max-size).
const PIPE_BYTES: usize = 1024 * 1024;

/// A core's empty pipes. A flow holds one only while it splices.
#[derive(Clone, Debug)]
pub struct Pipes {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    spare: RefCell<Vec<Ends>>,
    spare_max: Cell<usize>,
    refused: Cell<bool>,
    meters: Arc<CoreMeters>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    #[must_use]
    pub fn new(spare_max: usize, meters: Arc<CoreMeters>) -> Self {
        let spare = RefCell::default();
        Self {
            shared: Rc::new(Shared {
                spare,
                spare_max: Cell::new(spare_max),
                refused: Cell::new(false),
                meters,
            }),
        }
    }

    /// Spare pipes beyond it are closed.
    pub fn set_spare_max(&self, spare_max: usize) {
        self.shared.spare_max.set(spare_max);
        self.shared.spare.borrow_mut().truncate(spare_max);
    }

    /// An empty pipe, both ends non-blocking.
    ///
    /// # Errors
    /// EMFILE or ENFILE when descriptors have run out: the caller goes on by copying.
    pub fn take(&self) -> io::Result<Pipe> {
        let kept = self.shared.spare.borrow_mut().pop();
        let ends = match kept {
            Some(ends) => ends,
            None => self
                .open()
                .inspect_err(|_| self.shared.meters.pipes_refused.add(1))?,
        };
        Ok(Pipe {
            ends: Some(ends),
            held: 0,
            home: Rc::clone(&self.shared),
        })
    }

    fn open(&self) -> io::Result<Ends> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Past pipe-user-pages-soft an unprivileged user's pipes are small: slower, still correct.
        if fcntl_setpipe_size(&write, PIPE_BYTES).is_err() {
            self.on_small();
        }
        Ok(Ends { read, write })
    }

    fn on_small(&self) {
        self.shared.meters.pipes_small.add(1);
        if !self.shared.refused.replace(true) {
            tracing::warn!(
                "the kernel gives small pipes only, bulk plain traffic costs more: raise \
                 fs.pipe-user-pages-soft, or lower `pipes` in [runtime]"
            );
        }
    }
}

/// A pipe with `held` bytes in it.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
    home: Rc<Shared>,
}

impl Pipe {
    /// Bytes that came in and have not left.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// One splice(2) from a socket. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is empty or the pipe is full: flush first if bytes are held.
    pub fn fill_from(&mut self, socket: BorrowedFd<'_>, bytes_max: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let moved = splice(socket, None, ends.write.as_fd(), None, bytes_max, FLAGS)?;
        self.held += moved;
        Ok(moved)
    }

    /// One splice(2) to a socket.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has no room.
    pub fn drain_to(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let moved = splice(ends.read.as_fd(), None, socket, None, self.held, FLAGS)?;
        self.held -= moved;
        Ok(moved)
    }

    /// What one call to [`fill_from`](Self::fill_from) should ask for at most.
    #[must_use]
    pub fn bytes_wanted(&self) -> usize {
        PIPE_BYTES
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Drop for Pipe {
    fn drop(&mut self) {
        // A pipe with bytes in it would give them to another connection.
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0) {
            let mut spare = self.home.spare.borrow_mut();
            if spare.len() < self.home.spare_max.get() {
                spare.push(ends);
            }
        }
    }
}
