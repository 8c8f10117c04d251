//! How fast a direction may carry bytes: it sends what it has, and rests until that is paid for.

use std::cell::Cell;
use std::time::Duration;

use monoio::time::sleep;

use super::seen::Seen;
use crate::config::Pace;
use crate::net::CoarseInstant;
use crate::types::Direction;

/// Of one connection, whichever of both is limited.
#[derive(Debug)]
pub(super) struct Throttles {
    up: Option<Throttle>,
    down: Option<Throttle>,
}

#[derive(Debug)]
struct Throttle {
    bytes_per_second: u64,
    /// Of the bytes carried, how many are paid for or owed for.
    counted: Cell<u64>,
    /// When all that was counted is paid for.
    paid_at: Cell<CoarseInstant>,
}

/// A direction may be so far ahead of its rate: several ticks of the coarse clock.
const AHEAD_MAX: Duration = Duration::from_millis(100);

/// One rest, after which the connection counts as active. No idle time limit is shorter than two.
const REST_MAX: Duration = Duration::from_millis(50);

/// A batch through a pipe is an eighth of a second's worth, but no less than this: a pipe that
/// moves little is dearer than a copy.
const BATCH_BYTES_MIN: u64 = 64 * 1024;

impl Throttles {
    /// `None`: neither direction is limited.
    pub(super) fn new(pace: Pace, now: CoarseInstant) -> Option<Box<Self>> {
        let throttle = |max: Option<u32>| max.map(|max| Throttle::new(max, now));
        let (up, down) = (throttle(pace.upload_max), throttle(pace.download_max));
        let limited = up.is_some() || down.is_some();
        limited.then(|| Box::new(Self { up, down }))
    }

    fn of(&self, direction: Direction) -> Option<&Throttle> {
        match direction {
            Direction::Up => self.up.as_ref(),
            Direction::Down => self.down.as_ref(),
        }
    }

    /// How long a direction that has carried `bytes` has to rest.
    pub(super) fn rest(&self, direction: Direction, bytes: u64, now: CoarseInstant) -> Duration {
        let throttle = self.of(direction);
        throttle.map_or(Duration::ZERO, |throttle| throttle.rest(bytes, now))
    }

    /// How much may go through a pipe at once.
    pub(super) fn batch_bytes_max(&self, direction: Direction) -> usize {
        let bytes = |throttle: &Throttle| (throttle.bytes_per_second / 8).max(BATCH_BYTES_MIN);
        let bytes = self.of(direction).map(bytes);
        bytes.map_or(usize::MAX, |bytes| bytes.try_into().unwrap_or(usize::MAX))
    }
}

impl Throttle {
    fn new(bytes_per_second: u32, now: CoarseInstant) -> Self {
        Self {
            bytes_per_second: u64::from(bytes_per_second).max(1),
            counted: Cell::new(0),
            paid_at: Cell::new(now),
        }
    }

    fn rest(&self, bytes: u64, now: CoarseInstant) -> Duration {
        let new = bytes.saturating_sub(self.counted.replace(bytes));
        let price = new.saturating_mul(1_000_000_000) / self.bytes_per_second;
        let paid_at = self
            .paid_at
            .get()
            .max(now)
            .after(Duration::from_nanos(price));
        self.paid_at.set(paid_at);
        paid_at.saturating_since(now).saturating_sub(AHEAD_MAX)
    }
}

/// Rests once. Nobody reads the source meanwhile, so it is looked after as one that is stuck; and
/// who waits for its rate is not idle.
pub(super) async fn rest(seen: &Seen<'_>, direction: Direction) {
    let length = seen.rest(direction, CoarseInstant::now());
    seen.on_stuck(direction, true);
    sleep(length.min(REST_MAX)).await;
    seen.on_stuck(direction, false);
    seen.last_active.set(CoarseInstant::now());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttles(upload_max: Option<u32>, download_max: Option<u32>) -> Option<Box<Throttles>> {
        let pace = Pace {
            upload_max,
            download_max,
            session_max: None,
        };
        Throttles::new(pace, START)
    }

    const START: CoarseInstant = CoarseInstant::ZERO;

    fn at(ms: u64) -> CoarseInstant {
        START.after(Duration::from_millis(ms))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_connection_without_rates_has_no_throttle() {
        assert!(throttles(None, None).is_none());
        let up = throttles(Some(1000), None).unwrap();
        assert_eq!(up.rest(Direction::Down, 1 << 40, at(1)), Duration::ZERO);
        assert_eq!(up.batch_bytes_max(Direction::Down), usize::MAX);
    }

    #[test]
    fn what_was_sent_is_rested_for_less_a_tenth_of_a_second() {
        let both = throttles(Some(100_000), Some(1_000_000)).unwrap();
        assert_eq!(both.rest(Direction::Up, 10_000, at(0)), Duration::ZERO);
        assert_eq!(both.rest(Direction::Up, 60_000, at(0)), ms(500));
        assert_eq!(
            both.rest(Direction::Up, 60_000, at(200)),
            ms(300),
            "counted once"
        );
        assert_eq!(both.rest(Direction::Up, 60_000, at(500)), Duration::ZERO);
        assert_eq!(both.rest(Direction::Down, 1_000_000, at(500)), ms(900));
    }

    #[test]
    fn a_pause_saves_nothing_up() {
        let up = throttles(Some(100_000), None).unwrap();
        assert_eq!(up.rest(Direction::Up, 1000, at(0)), Duration::ZERO);
        assert_eq!(up.rest(Direction::Up, 101_000, at(60_000)), ms(900));
    }

    #[test]
    fn any_run_of_batches_takes_as_long_as_the_rate_says() {
        let up = throttles(Some(50_000), None).unwrap();
        let (mut now, mut sent) = (0, 0);
        for batch in [100, 18_000, 68_000, 1, 5000, 68_000]
            .into_iter()
            .cycle()
            .take(60)
        {
            sent += batch;
            now += u64::try_from(up.rest(Direction::Up, sent, at(now)).as_millis()).unwrap() + 1;
        }
        let least = sent * 1000 / 50_000 - 100;
        assert!(
            (least..least + 200).contains(&now),
            "{sent} bytes in {now} ms"
        );
    }

    #[test]
    fn batches_through_a_pipe_fit_the_rate() {
        let both = throttles(Some(16 * 1024), Some(1 << 30)).unwrap();
        assert_eq!(both.batch_bytes_max(Direction::Up), 64 * 1024);
        assert_eq!(both.batch_bytes_max(Direction::Down), 1 << 27);
    }
}
