use super::{Count, Handshakes, Histogram};
use crate::observe::{Record, RelayPath, Times};
use crate::types::{Cause, Direction, Elapsed, Phase, Side};

/// What one core counts of one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerMeters {
    pub accepted: Count,
    pub handshakes: Handshakes,
    pub carried: Carried,
    pub ended: Ended,
    live: Live,
    phases: [Histogram; TIMED.len()],
    life: Histogram,
}

/// Phases whose times are shown, as the access log names them.
pub const TIMED: [&str; 7] = [
    "proxy_header",
    "client_hello",
    "downstream_handshake",
    "queue",
    "connect",
    "upstream_handshake",
    "first_byte",
];
const FIRST_BYTE: usize = 6;

/// Connections that live, by phase.
#[derive(Debug)]
struct Live([Count; Phase::ALL.len()]);

/// Application bytes by direction and path.
#[derive(Debug)]
pub struct Carried([[Count; RelayPath::ALL.len()]; 2]);

/// Connections that have ended, by cause, phase and by whom.
#[derive(Debug)]
pub struct Ended([[[Count; 3]; Phase::ALL.len()]; Cause::ALL.len()]);

impl ListenerMeters {
    pub fn begin(&self) {
        self.accepted.add(1);
        self.live(Phase::Accept).add(1);
    }

    pub fn turn(&self, from: Phase, to: Phase) {
        self.live(from).take(1);
        self.live(to).add(1);
    }

    /// All is known that comes before the first byte, or the connection has ended before it.
    pub fn settle(&self, record: &Record) {
        let before_relay = timed(&record.times).into_iter().take(FIRST_BYTE);
        for (histogram, took) in self.phases.iter().zip(before_relay) {
            note(histogram, took);
        }
        let Some(leg) = &record.downstream_tls else {
            return;
        };
        match &record.end {
            Some(end) if end.phase == Phase::DownstreamHandshake => {
                self.handshakes.fail(end.cause);
            }
            _ => self.handshakes.finish(leg),
        }
    }

    /// It ends in this phase.
    pub fn end(&self, record: &Record, phase: Phase) {
        self.live(phase).take(1);
        if phase != Phase::Relay {
            self.settle(record);
        }
        note(&self.phases[FIRST_BYTE], record.times.first_byte);
        self.life.note(record.times.total);
        if let Some(end) = &record.end {
            self.ended.of(end.cause, end.phase, end.side).add(1);
        }
    }

    #[must_use]
    pub fn live(&self, phase: Phase) -> &Count {
        &self.live.0[phase as usize]
    }

    /// By place in [`TIMED`].
    pub(in crate::observe) fn phase(&self, timed: usize) -> &Histogram {
        &self.phases[timed]
    }

    pub(in crate::observe) fn life(&self) -> &Histogram {
        &self.life
    }

    /// Its core has died, and all connections with it.
    pub(super) fn forget_live(&self) {
        self.live.0.iter().for_each(|live| live.set(0));
    }
}

fn timed(times: &Times) -> [Option<Elapsed>; TIMED.len()] {
    [
        times.proxy_header,
        times.client_hello,
        times.downstream_handshake,
        times.queue,
        times.connect,
        times.upstream_handshake,
        times.first_byte,
    ]
}

fn note(histogram: &Histogram, took: Option<Elapsed>) {
    if let Some(took) = took {
        histogram.note(took.into());
    }
}

impl Carried {
    #[must_use]
    pub fn of(&self, direction: Direction, path: RelayPath) -> &Count {
        &self.0[direction as usize][path as usize]
    }
}

impl Ended {
    /// Each cause, phase and side there is.
    pub(in crate::observe) fn kinds() -> impl Iterator<Item = (Cause, Phase, Option<Side>)> {
        let phases = |cause| Phase::ALL.map(|phase| (cause, phase));
        let places = Cause::ALL.into_iter().flat_map(phases);
        let sides = [None, Some(Side::Downstream), Some(Side::Upstream)];
        places.flat_map(move |(cause, phase)| sides.map(|side| (cause, phase, side)))
    }

    #[must_use]
    pub fn of(&self, cause: Cause, phase: Phase, side: Option<Side>) -> &Count {
        let side = side.map_or(0, |side| 1 + side as usize);
        &self.0[cause as usize][phase as usize][side]
    }
}

impl Default for Live {
    fn default() -> Self {
        Self([const { Count::new() }; _])
    }
}

impl Default for Carried {
    fn default() -> Self {
        Self([const { [const { Count::new() }; _] }; _])
    }
}

impl Default for Ended {
    fn default() -> Self {
        Self([const { [const { [const { Count::new() }; _] }; _] }; _])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::sample::{bare_record, full_record};
    use crate::types::End;

    #[test]
    fn each_direction_path_and_phase_has_a_place_of_its_own() {
        for (place, path) in RelayPath::ALL.into_iter().enumerate() {
            assert_eq!(path as usize, place);
        }
        for (place, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, place);
        }
        assert_eq!((Direction::Up as usize, Direction::Down as usize), (0, 1));
        assert_eq!((Side::Downstream as usize, Side::Upstream as usize), (0, 1));
    }

    #[test]
    fn a_connection_is_counted_once_whether_it_came_to_its_relay_or_not() {
        let meters = ListenerMeters::default();
        let relayed = full_record();
        meters.begin();
        meters.turn(Phase::Accept, Phase::Relay);
        assert_eq!(meters.live(Phase::Relay).value(), 1);
        meters.settle(&relayed);
        meters.end(&relayed, Phase::Relay);
        meters.begin();
        meters.end(&bare_record(), Phase::Accept);
        for phase in Phase::ALL {
            assert_eq!(meters.live(phase).value(), 0, "{phase:?}");
        }
        assert_eq!(meters.accepted.value(), 2);
        assert_eq!(meters.life().count(), 2);
        for (timed, name) in TIMED.into_iter().enumerate() {
            assert_eq!(meters.phase(timed).count(), 1, "{name}");
        }
        let end = relayed.end.unwrap();
        assert_eq!(meters.ended.of(end.cause, end.phase, end.side).value(), 1);
        let refused = meters.ended.of(Cause::Limit, Phase::Accept, None);
        assert_eq!(refused.value(), 1);
    }

    #[test]
    fn a_handshake_that_fails_is_no_finished_one() {
        let meters = ListenerMeters::default();
        let mut record = full_record();
        record.times.first_byte = None;
        record.times.total = Duration::from_millis(1);
        let side = Some(Side::Downstream);
        record.end = Some(End::new(Cause::Alert, Phase::DownstreamHandshake, side));
        meters.begin();
        meters.turn(Phase::Accept, Phase::DownstreamHandshake);
        meters.end(&record, Phase::DownstreamHandshake);
        let finished = Handshakes::kinds().map(|(_, place)| meters.handshakes.finished(place));
        assert_eq!(finished.map(Count::value).sum::<u64>(), 0);
        assert_eq!(meters.handshakes.failed(Cause::Alert).value(), 1);
    }
}
