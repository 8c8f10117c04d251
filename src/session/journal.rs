//! A core's way to the access log. Connections that a limit or a rule refuses may come by the
//! thousand: each is counted, not each gets a line.

use std::time::{Duration, Instant};

use crate::config::LogPlan;
use crate::observe::{Record, RecordSender};
use crate::types::{Cause, End, ListenerId, Phase};

/// Lines of one kind are counted anew after so long.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Journal {
    sender: RecordSender,
    /// Lines a window about each kind of refusal.
    refused_max: u32,
    /// Of so many clean ends one has a line.
    sample: u32,
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
    pub(super) fn new(sender: RecordSender, plan: &LogPlan) -> Self {
        Self {
            sender,
            refused_max: plan.refused_max,
            sample: plan.sample,
            kinds: Vec::new(),
        }
    }

    /// Writes a finished record, keeps it with others of its kind, or leaves it out of the sample.
    pub(super) fn write(&mut self, mut record: Box<Record>, now: Instant) {
        match &record.end {
            Some(end) if is_refusal(end) => {
                let place = self.kind(record.listener, end, now);
                self.refuse(place, record, now);
            }
            Some(end) if end.cause == Cause::Finished => {
                record.sampled = self.sample;
                if is_chosen(record.id, self.sample) {
                    self.sender.send(record);
                }
            }
            _ => self.sender.send(record),
        }
    }

    /// Listeners are numbered anew from here on.
    pub(super) fn begin_anew(&mut self, plan: &LogPlan, now: Instant) {
        self.flush(now, true);
        self.kinds.retain(|kind| kind.waiting.is_some());
        (self.refused_max, self.sample) = (plan.refused_max, plan.sample);
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

/// One id of `sample`, spread evenly: clients that come in turns are all met. The same ids on each
/// run, so that whoever knows an id knows whether it has a line.
fn is_chosen(id: u64, sample: u32) -> bool {
    // The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the id decides.
    let mut mixed = id;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    mixed.is_multiple_of(u64::from(sample.max(1)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::AccessLog;
    use crate::observe::SinkHandle;
    use crate::observe::sample::{bare_record, plan};
    use crate::types::Side;

    fn record(end: End) -> Box<Record> {
        Box::new(Record {
            end: Some(end),
            ..bare_record()
        })
    }

    fn refusal(detail: &str) -> Box<Record> {
        record(End::new(Cause::Limit, Phase::Accept, None).with_detail(detail))
    }

    /// The lines that a journal has written, each with its reason and what it stands for.
    fn written(run: impl FnOnce(&mut Journal)) -> Vec<(String, u64)> {
        let line = |line: Value| {
            let detail = line["detail"].as_str().unwrap_or_default().to_owned();
            (detail, 1 + line["left_out"].as_u64().unwrap_or(0))
        };
        lines(1, run).into_iter().map(line).collect()
    }

    fn lines(sample: u32, run: impl FnOnce(&mut Journal)) -> Vec<Value> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let log = LogPlan {
            refused_max: 2,
            sample,
            ..plan(AccessLog::File(file.clone()), 10_000).log.clone()
        };
        let sink = SinkHandle::spawn(&log).unwrap();
        let mut journal = Journal::new(sink.sender(), &log);
        run(&mut journal);
        drop(journal);
        sink.close();
        let text = std::fs::read_to_string(file).unwrap();
        let line = |line| serde_json::from_str(line).unwrap();
        text.lines().map(line).collect()
    }

    #[test]
    fn of_many_refusals_a_second_the_first_have_lines_and_the_last_counts_the_rest() {
        let start = Instant::now();
        let lines = written(|journal| {
            for n in 0..10 {
                journal.write(refusal("a"), start + Duration::from_millis(n));
            }
            assert!(journal.is_waiting());
            journal.flush(start + Duration::from_millis(900), false);
            assert!(journal.is_waiting(), "its second is not over");
            journal.flush(start + Duration::from_millis(1000), false);
            assert!(!journal.is_waiting());
        });
        let expected = [1, 1, 8].map(|count| ("a".to_owned(), count));
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_new_second_begins_with_what_waited_in_the_last_one() {
        let start = Instant::now();
        let lines = written(|journal| {
            for n in 0..5 {
                journal.write(refusal("a"), start + Duration::from_millis(n));
            }
            for n in 0..4 {
                journal.write(refusal("a"), start + Duration::from_millis(1500 + n));
            }
            journal.flush(start + Duration::from_millis(1600), true);
        });
        let counts: Vec<_> = lines.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 3, 1, 1, 2]);
    }

    #[test]
    fn each_reason_has_lines_of_its_own_and_what_is_no_refusal_always_has_one() {
        let now = Instant::now();
        let client = || End::new(Cause::Protocol, Phase::ClientHello, Some(Side::Downstream));
        let lines = written(|journal| {
            for _ in 0..4 {
                journal.write(refusal("a"), now);
                journal.write(refusal("b"), now);
                journal.write(record(client()), now);
            }
            journal.flush(now, true);
        });
        let of = |detail: &str| {
            let lines = lines.iter().filter(|(known, _)| known == detail);
            lines.map(|(_, count)| *count).collect::<Vec<_>>()
        };
        assert_eq!(of("a"), [1, 1, 2]);
        assert_eq!(of("b"), [1, 1, 2]);
        assert_eq!(of(""), [1, 1, 1, 1]);
    }

    #[test]
    fn of_clean_ends_one_in_so_many_has_a_line_and_every_failure_has_one() {
        let lines = lines(10, |journal| {
            for n in 0..5000 {
                let cause = if n % 100 == 0 {
                    Cause::Reset
                } else {
                    Cause::Finished
                };
                let mut record = record(End::new(cause, Phase::Relay, None));
                record.id = (1 << 48) + n;
                journal.write(record, Instant::now());
            }
        });
        let (clean, failed): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line["end"] == "finished");
        assert_eq!(failed.len(), 50);
        assert!(failed.iter().all(|line| line.get("sampled").is_none()));
        let restored: u64 = clean
            .iter()
            .map(|line| line["sampled"].as_u64().unwrap())
            .sum();
        assert!((4_300..5_600).contains(&restored), "{restored} of 4950");
    }

    #[test]
    fn clients_that_come_in_turns_are_all_in_the_sample() {
        for turns in [2, 5, 10, 100] {
            for client in 0..turns {
                let ids = (client..20_000).step_by(turns);
                let chosen = ids.filter(|id| is_chosen(*id as u64, 10)).count();
                let expected = 2_000 / turns;
                assert!(
                    (expected / 4..expected * 3).contains(&chosen),
                    "{chosen} for client {client} of {turns}"
                );
            }
        }
    }

    #[test]
    fn without_a_sample_every_connection_has_a_line() {
        assert!((0..1000).all(|id| is_chosen(id, 1)));
    }

    #[test]
    fn a_limit_met_by_bytes_that_flow_is_no_refusal() {
        for (cause, phase, expected) in [
            (Cause::Denied, Phase::Accept, true),
            (Cause::Limit, Phase::DownstreamHandshake, true),
            (Cause::Limit, Phase::Relay, false),
            (Cause::Limit, Phase::UpstreamHandshake, false),
            (Cause::Timeout, Phase::ClientHello, false),
        ] {
            let end = End::new(cause, phase, None);
            assert_eq!(is_refusal(&end), expected, "{cause:?} {phase:?}");
        }
    }
}
