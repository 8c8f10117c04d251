//! A core's way to the access log. Connections that a limit or a rule refuses may come by the
//! thousand: each is counted, not each gets a line.

use std::time::{Duration, Instant};

use crate::observe::{Record, RecordSender};
use crate::types::{Cause, End, ListenerId, Phase};

/// Lines of one kind are counted anew after so long.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Journal {
    sender: RecordSender,
    /// Lines a window about each kind of refusal.
    refused_max: u32,
    /// One for each listener and reason: a handful.
    kinds: Vec<Kind>,
}

/// Refusals of one listener for one reason.
#[derive(Debug)]
struct Kind {
    listener: ListenerId,
    cause: Cause,
    detail: Option<Box<str>>,
    window_began: Instant,
    written: u32,
    /// The last one that got no line; its `left_out` counts those before it.
    waiting: Option<Box<Record>>,
}

impl Journal {
    pub(super) fn new(sender: RecordSender, refused_max: u32) -> Self {
        Self {
            sender,
            refused_max,
            kinds: Vec::new(),
        }
    }

    /// Writes a finished record, or keeps it with others of its kind.
    pub(super) fn write(&mut self, record: Box<Record>, now: Instant) {
        match record.end.as_ref().filter(|end| is_refusal(end)) {
            None => self.sender.send(record),
            Some(end) => {
                let place = self.kind(record.listener, end, now);
                self.refuse(place, record, now);
            }
        }
    }

    /// Writes what has waited for its window's end, or (`all`) for less.
    pub(super) fn flush(&mut self, now: Instant, all: bool) {
        let Self { sender, kinds, .. } = self;
        for kind in kinds {
            if all || kind.is_over(now) {
                kind.flush(sender);
            }
        }
    }

    /// Whether [`flush`](Self::flush) will have something to write.
    pub(super) fn is_waiting(&self) -> bool {
        self.kinds.iter().any(|kind| kind.waiting.is_some())
    }

    fn refuse(&mut self, place: usize, record: Box<Record>, now: Instant) {
        let Some(kind) = self.kinds.get_mut(place) else {
            return;
        };
        if kind.is_over(now) {
            kind.flush(&mut self.sender);
            (kind.window_began, kind.written) = (now, 0);
        }
        if kind.written < self.refused_max {
            kind.written += 1;
            self.sender.send(record);
        } else {
            kind.keep(record);
        }
    }

    fn kind(&mut self, listener: ListenerId, end: &End, now: Instant) -> usize {
        let same = |kind: &Kind| {
            kind.listener == listener && kind.cause == end.cause && kind.detail == end.detail
        };
        if let Some(place) = self.kinds.iter().position(same) {
            return place;
        }
        self.kinds.push(Kind {
            listener,
            cause: end.cause,
            detail: end.detail.clone(),
            window_began: now,
            written: 0,
            waiting: None,
        });
        self.kinds.len() - 1
    }
}

impl Kind {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.window_began) >= WINDOW
    }

    fn keep(&mut self, mut record: Box<Record>) {
        record.left_out = self.waiting.take().map_or(0, |last| last.left_out + 1);
        self.waiting = Some(record);
    }

    /// With a full queue the record waits on: a line that stands for thousands is not dropped.
    fn flush(&mut self, sender: &mut RecordSender) {
        self.waiting = self.waiting.take().and_then(|record| sender.offer(record));
    }
}

/// Refused by a rule or a limit of ours, before anything was spent on it. Its words come from the
/// code alone, so that there are few kinds.
fn is_refusal(end: &End) -> bool {
    let ours = matches!(end.cause, Cause::Denied | Cause::Limit) && end.side.is_none();
    let early = matches!(end.phase, Phase::Accept | Phase::DownstreamHandshake);
    ours && early
}
