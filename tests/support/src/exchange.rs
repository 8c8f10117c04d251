//! A checked stream each way at the same time, with either end closing first.

use std::fmt;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;

use crate::link::{Ending, Link};
use crate::pattern::{Dice, Pattern};
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
                Finish::WhenComplete => Finish::WhenComplete,
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
    /// When all is sent and all has come: neither end waits for the other.
    WhenComplete,
}

/// How one end of an exchange behaves by the dice: sizes of writes and reads, pauses, new keys.
#[derive(Debug)]
pub struct Whims {
    dice: Dice,
    key_updates_left: u32,
    /// Nothing is written before.
    write_at: Instant,
    /// Nothing is read before.
    read_at: Instant,
}

/// Fewer than the 32 in a row that Ringway allows, with those that answer the other end's.
const KEY_UPDATES_MAX: u32 = 12;
/// One write in so many comes after a pause, after new keys, is small.
const PAUSE_ONE_IN: u64 = 24;
const KEYS_ONE_IN: u64 = 24;
const SMALL_ONE_IN: u64 = 3;
const PAUSE_MS_MAX: u64 = 20;

impl Whims {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            dice: Dice::new(seed),
            key_updates_left: KEY_UPDATES_MAX,
            write_at: now,
            read_at: now,
        }
    }

    fn pause(&mut self) -> Option<Instant> {
        let length = Duration::from_millis(self.dice.roll(PAUSE_MS_MAX));
        (self.dice.roll(PAUSE_ONE_IN) == 0).then(|| Instant::now() + length)
    }

    /// Most bytes of the next write or read.
    fn bytes(&mut self, most: u64) -> u64 {
        let small = self.dice.roll(SMALL_ONE_IN) == 0;
        1 + self.dice.roll(if small { most.min(200) } else { most })
    }

    fn wants_new_keys(&mut self) -> bool {
        let wants = self.key_updates_left > 0 && self.dice.roll(KEYS_ONE_IN) == 0;
        self.key_updates_left -= u32::from(wants);
        wants
    }
}

struct ExchangeState {
    plan: Exchange,
    whims: Option<Whims>,
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
    fn new(plan: &Exchange, whims: Option<Whims>) -> Self {
        Self {
            plan: *plan,
            whims,
            outgoing: Pattern::new(plan.send_seed),
            incoming: Pattern::new(plan.receive_seed),
            closing: false,
            finished: false,
            ended: false,
        }
    }

    /// One end's whims are the other's wait, for as long as what is on its way takes them.
    fn patience(&self) -> Duration {
        match self.whims {
            Some(_) => 6 * DEADLINE,
            None => DEADLINE,
        }
    }

    fn left(&self) -> u64 {
        self.plan.send - self.outgoing.position()
    }

    /// Bytes of the next write.
    fn next_bytes(&mut self) -> u64 {
        let left = self.left();
        let whims = self.whims.as_mut();
        whims.map_or(left, |whims| left.min(whims.bytes(WRITE_BYTES_MAX)))
    }

    fn may_write(&self) -> bool {
        let whims = self.whims.as_ref();
        whims.is_none_or(|whims| Instant::now() >= whims.write_at)
    }

    fn may_read(&self) -> bool {
        let whims = self.whims.as_ref();
        whims.is_none_or(|whims| Instant::now() >= whims.read_at)
    }

    fn on_written(&mut self) {
        if let Some(whims) = &mut self.whims {
            whims.write_at = whims.pause().unwrap_or(whims.write_at);
        }
    }

    fn on_read(&mut self) {
        if let Some(whims) = &mut self.whims {
            whims.read_at = whims.pause().unwrap_or(whims.read_at);
        }
    }

    fn may_finish(&self) -> bool {
        let complete = self.incoming.position() == self.plan.receive;
        self.left() == 0
            && match self.plan.finish {
                Finish::First => true,
                Finish::AfterPeer => self.ended,
                Finish::WhenComplete => complete,
            }
    }
}

/// Between two looks at whether a pause is over.
const WHIM_LOOK: Duration = Duration::from_millis(2);
/// Four records and a piece of a fifth.
const WRITE_BYTES_MAX: u64 = 70_000;

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
        self.run_exchange(ExchangeState::new(exchange, None))
    }

    /// The same, with writes, reads, pauses and new keys as the whims have it.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub fn exchange_at_whim(&mut self, exchange: &Exchange, whims: Whims) -> Result<(), String> {
        self.run_exchange(ExchangeState::new(exchange, Some(whims)))
    }

    fn run_exchange(&mut self, mut state: ExchangeState) -> Result<(), String> {
        self.socket
            .set_nonblocking(true)
            .map_err(|e| e.to_string())?;
        let mut buffer = vec![0; 256 * 1024];
        let mut moved_at = Instant::now();
        while !(state.finished && state.ended) {
            let moved =
                self.exchange_out(&mut state)? | self.exchange_in(&mut state, &mut buffer)?;
            if moved {
                moved_at = Instant::now();
            } else if moved_at.elapsed() > state.patience() {
                return Err(format!("stalled for {:?}: {state}", state.patience()));
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
        if state.finished || !state.may_write() {
            return Ok(false);
        }
        let mut moved = false;
        let blocked = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        if let Some(tls) = &mut self.tls {
            if !tls.wants_write() && !state.closing {
                let tls13 = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
                if tls13 && state.whims.as_mut().is_some_and(Whims::wants_new_keys) {
                    tls.refresh_traffic_keys().map_err(|e| e.to_string())?;
                }
                let bytes = state.next_bytes();
                let piece = state.outgoing.peek(bytes);
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
            state.on_written();
        } else if state.left() > 0 {
            let bytes = state.next_bytes();
            match (&self.socket).write(state.outgoing.peek(bytes)) {
                Ok(sent) => {
                    state.outgoing.advance(sent);
                    state.on_written();
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
        if state.ended || !state.may_read() {
            return Ok(false);
        }
        let bytes = state.whims.as_mut().map_or(buffer.len(), |whims| {
            usize::try_from(whims.bytes(buffer.len() as u64 - 1)).unwrap_or(1)
        });
        let buffer = &mut buffer[..bytes];
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
                state.on_read();
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(format!("receiving: {error}: {state}")),
        }
    }

    fn exchange_wait(&self, state: &ExchangeState) -> Result<(), String> {
        let queued = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        let wanted = Ready {
            read: !state.ended && state.may_read(),
            write: !state.finished && (queued || state.left() > 0) && state.may_write(),
        };
        let pausing = !(state.may_read() && state.may_write());
        let limit = if pausing {
            WHIM_LOOK
        } else {
            Duration::from_secs(1)
        };
        sys::poll(self.socket.as_raw_fd(), wanted, limit)
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
