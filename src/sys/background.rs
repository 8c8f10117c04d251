#![expect(unsafe_code, reason = "fork(2)")]

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};

use rustix::process::{Pid, WaitOptions, setsid, waitpid};
use rustix::stdio::dup2_stdin;

/// Which of two processes this one is.
#[derive(Debug)]
pub enum Split {
    /// The one that was started: the other has come to its work, or to its end, with this exit code.
    /// `None`: it was killed before it could say.
    Foreground(Option<u8>),
    Background(Herald),
}

/// Tells the process in the foreground what has become of this one.
#[derive(Debug, Default)]
pub struct Herald {
    /// `None`: nobody waits, or has been told.
    listener: Option<PipeWriter>,
}

impl Herald {
    /// The first word counts.
    pub fn tell(&mut self, exit_code: u8) {
        if let Some(mut listener) = self.listener.take() {
            // Whoever waited may have been stopped.
            let _ = listener.write_all(&[exit_code]);
        }
    }
}

/// Goes on in the background: in a session of its own, as a child of init (daemon(7)), so that a
/// service manager sees its end. The process in the foreground waits for its [`Herald`].
///
/// # Errors
/// This process has more than one thread already, or the system has no room for another process.
pub fn go_to_background() -> io::Result<Split> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("there is more than one thread already"));
    }
    let (reader, writer) = io::pipe()?;
    if let Some(child) = fork()? {
        drop(writer);
        return Ok(Split::Foreground(verdict(child, reader)));
    }
    drop(reader);
    setsid()?;
    // Nobody types there, and whoever reads from the same place is not to wait for this process.
    dup2_stdin(File::open("/dev/null")?)?;
    if fork()?.is_some() {
        // The process goes on as a child of init; no destructor may run twice.
        // SAFETY: _exit(2) takes a number and does not return.
        unsafe { libc::_exit(0) };
    }
    Ok(Split::Background(Herald {
        listener: Some(writer),
    }))
}

/// The child, in the parent; `None` in the child.
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: there is one thread, as was counted, so that the child finds no lock held by another.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child)),
    }
}

fn verdict(child: Pid, mut reader: PipeReader) -> Option<u8> {
    let ended = waitpid(Some(child), WaitOptions::empty());
    let mut code = [0];
    match reader.read_exact(&mut code) {
        Ok(()) => Some(code[0]),
        // It could not divide itself again, and has said so.
        Err(_) => {
            let status = ended.ok().flatten()?.1.exit_status()?;
            u8::try_from(status).ok().filter(|code| *code != 0)
        }
    }
}
