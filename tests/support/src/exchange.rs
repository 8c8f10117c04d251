//! A checked stream each way at the same time, with either end closing first.

use std::fmt;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use crate::link::{Ending, Link};
use crate::pattern::Pattern;
use crate::sys::{self, Ready};
use crate::wait::DEADLINE;

/// What one end of [`Link::exchange`] does.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Bytes to send, made from this seed.
    pub send: u64,
    pub send_seed: u64,
    /// Bytes to expect, made from this seed.
    pub receive: u64,
    pub receive_seed: u64,
    pub finish: Finish,
}

impl Exchange {
    /// The other end's part.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self {
            send: self.receive,
            send_seed: self.receive_seed,
            receive: self.send,
            receive_seed: self.send_seed,
            finish: match self.finish {
                Finish::First => Finish::AfterPeer,
                Finish::AfterPeer => Finish::First,
            },
        }
    }
}

/// Which end closes its direction first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// As soon as all is sent.
    First,
    /// When all is sent and the other end's end was seen.
    AfterPeer,
}

struct ExchangeState {
    plan: Exchange,
    outgoing: Pattern,
    incoming: Pattern,
    /// close_notify is on its way.
    closing: bool,
    /// Our direction was closed.
    finished: bool,
    /// The other direction's end was seen.
    ended: bool,
}

impl ExchangeState {
    fn new(plan: &Exchange) -> Self {
        Self {
            plan: *plan,
            outgoing: Pattern::new(plan.send_seed),
            incoming: Pattern::new(plan.receive_seed),
            closing: false,
            finished: false,
            ended: false,
        }
    }

    fn left(&self) -> u64 {
        self.plan.send - self.outgoing.position()
    }

    fn may_finish(&self) -> bool {
        self.left() == 0 && (self.plan.finish == Finish::First || self.ended)
    }
}

impl fmt::Display for ExchangeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} bytes sent, {} of {} received",
            self.outgoing.position(),
            self.plan.send,
            self.incoming.position(),
            self.plan.receive
        )
    }
}

impl Link {
    /// Carries a checked stream each way at the same time, to both ends.
    ///
    /// # Errors
    /// What differed, who ended early or how, or where it stalled, in words.
    pub fn exchange(&mut self, exchange: &Exchange) -> Result<(), String> {
        self.socket
            .set_nonblocking(true)
            .map_err(|e| e.to_string())?;
        let mut state = ExchangeState::new(exchange);
        let mut buffer = vec![0; 256 * 1024];
        let mut moved_at = Instant::now();
        while !(state.finished && state.ended) {
            let moved =
                self.exchange_out(&mut state)? | self.exchange_in(&mut state, &mut buffer)?;
            if moved {
                moved_at = Instant::now();
            } else if moved_at.elapsed() > DEADLINE {
                return Err(format!("stalled for {DEADLINE:?}: {state}"));
            } else {
                self.exchange_wait(&state)?;
            }
        }
        let ending = self.after_nonblocking_end();
        if ending == Ending::Clean {
            Ok(())
        } else {
            Err(format!("after all bytes the end was {ending:?}: {state}"))
        }
    }

    fn exchange_out(&mut self, state: &mut ExchangeState) -> Result<bool, String> {
        if state.finished {
            return Ok(false);
        }
        let mut moved = false;
        let blocked = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        if let Some(tls) = &mut self.tls {
            if !tls.wants_write() && !state.closing {
                let piece = state.outgoing.peek(state.left());
                let taken = tls.writer().write(piece).map_err(|e| e.to_string())?;
                state.outgoing.advance(taken);
            }
            if state.may_finish() && !state.closing {
                tls.send_close_notify();
                state.closing = true;
            }
            while tls.wants_write() {
                match tls.write_tls(&mut &self.socket) {
                    Ok(_) => moved = true,
                    Err(error) if blocked(&error) => return Ok(moved),
                    Err(error) => return Err(format!("sending: {error}: {state}")),
                }
            }
        } else if state.left() > 0 {
            match (&self.socket).write(state.outgoing.peek(state.left())) {
                Ok(sent) => {
                    state.outgoing.advance(sent);
                    moved = true;
                }
                Err(error) if blocked(&error) => return Ok(false),
                Err(error) => return Err(format!("sending: {error}: {state}")),
            }
        }
        if state.may_finish() {
            let closed = self.socket.shutdown(Shutdown::Write);
            closed.map_err(|e| format!("closing: {e}: {state}"))?;
            state.finished = true;
            moved = true;
        }
        Ok(moved)
    }

    fn exchange_in(
        &mut self,
        state: &mut ExchangeState,
        buffer: &mut [u8],
    ) -> Result<bool, String> {
        if state.ended {
            return Ok(false);
        }
        match self.receive_some(buffer) {
            Ok(0) => {
                state.ended = true;
                match state.incoming.position() == state.plan.receive {
                    true => Ok(true),
                    false => Err(format!("the other side ended early: {state}")),
                }
            }
            Ok(some) => {
                state.incoming.check(&buffer[..some])?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("receiving: {error}: {state}")),
        }
    }

    fn exchange_wait(&self, state: &ExchangeState) -> Result<(), String> {
        let queued = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        let wanted = Ready {
            read: !state.ended,
            write: !state.finished && (queued || state.left() > 0),
        };
        sys::poll(self.socket.as_raw_fd(), wanted, Duration::from_secs(1))
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    fn after_nonblocking_end(&self) -> Ending {
        match self.socket.set_nonblocking(false) {
            Ok(()) => self.after_end(),
            Err(error) => Ending::of(&error),
        }
    }
}
