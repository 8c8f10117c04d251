use std::cell::Cell;
use std::time::{Duration, Instant};

use super::throttle::Throttles;
use crate::config::Pace;
use crate::net::CoarseInstant;
use crate::observe::meters::Carried;
use crate::observe::{Fallback, RelayPath};
use crate::types::Direction;

/// What a relay did so far, for the record and the idle time limit.
pub struct Seen<'a> {
    /// Counts while bytes flow: a connection may live for days.
    carried: &'a Carried,
    pub bytes_up: Cell<u64>,
    pub bytes_down: Cell<u64>,
    pub path_up: Cell<RelayPath>,
    pub path_down: Cell<RelayPath>,
    pub fallback_up: Cell<Option<Fallback>>,
    pub fallback_down: Cell<Option<Fallback>>,
    /// When the first byte had been sent to the client.
    pub first_byte: Cell<Option<Instant>>,
    pub last_active: Cell<CoarseInstant>,
    /// Directions whose sink takes no more.
    stuck_up: Cell<bool>,
    stuck_down: Cell<bool>,
    /// One direction has come to its clean end.
    ended: Cell<bool>,
    /// In a box: few connections have any.
    throttles: Option<Box<Throttles>>,
}

impl<'a> Seen<'a> {
    #[must_use]
    pub fn new(pace: Pace, carried: &'a Carried) -> Self {
        let now = CoarseInstant::now();
        Self {
            carried,
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            path_up: Cell::default(),
            path_down: Cell::default(),
            fallback_up: Cell::new(None),
            fallback_down: Cell::new(None),
            first_byte: Cell::new(None),
            last_active: Cell::new(now),
            stuck_up: Cell::new(false),
            stuck_down: Cell::new(false),
            ended: Cell::new(false),
            throttles: Throttles::new(pace, now),
        }
    }

    /// Whether a direction has to rest for what it has carried.
    pub(super) fn must_rest(&self, direction: Direction) -> bool {
        self.throttles.is_some() && !self.rest(direction, CoarseInstant::now()).is_zero()
    }

    pub(super) fn rest(&self, direction: Direction, now: CoarseInstant) -> Duration {
        let throttles = self.throttles.as_deref();
        throttles.map_or(Duration::ZERO, |throttles| {
            throttles.rest(direction, self.bytes(direction), now)
        })
    }

    /// How much may go through a pipe at once.
    pub(super) fn batch_bytes_max(&self, direction: Direction) -> usize {
        let throttles = self.throttles.as_deref();
        throttles.map_or(usize::MAX, |throttles| throttles.batch_bytes_max(direction))
    }

    /// Something went out: `bytes` of it are the application's, none if a batch is on its way.
    pub(super) fn on_sent(&self, direction: Direction, bytes: usize) {
        let count = self.count(direction);
        count.set(count.get() + bytes as u64);
        let path = self.path(direction).get();
        self.carried.of(direction, path).add(bytes as u64);
        if bytes > 0 && direction == Direction::Down && self.first_byte.get().is_none() {
            self.first_byte.set(Some(Instant::now()));
        }
        self.last_active.set(CoarseInstant::now());
    }

    /// Application bytes sent so far.
    pub(super) fn bytes(&self, direction: Direction) -> u64 {
        self.count(direction).get()
    }

    fn count(&self, direction: Direction) -> &Cell<u64> {
        match direction {
            Direction::Up => &self.bytes_up,
            Direction::Down => &self.bytes_down,
        }
    }

    pub(super) fn on_path(&self, direction: Direction, path: RelayPath) {
        let place = self.path(direction);
        // A flow that has spliced may copy its last few bytes: it is a splice all the same.
        place.set(place.get().max(path));
    }

    fn path(&self, direction: Direction) -> &Cell<RelayPath> {
        match direction {
            Direction::Up => &self.path_up,
            Direction::Down => &self.path_down,
        }
    }

    /// The direction does not come to the path that was wanted; the first reason counts.
    pub(super) fn on_fallback(&self, direction: Direction, fallback: Fallback) {
        let place = match direction {
            Direction::Up => &self.fallback_up,
            Direction::Down => &self.fallback_down,
        };
        place.set(place.get().or(Some(fallback)));
    }

    /// A direction has come to its clean end. True: the other one had before.
    pub(super) fn on_ended(&self) -> bool {
        self.ended.replace(true)
    }

    pub(super) fn on_stuck(&self, direction: Direction, stuck: bool) {
        self.stuck_cell(direction).set(stuck);
    }

    pub(super) fn is_stuck(&self, direction: Direction) -> bool {
        self.stuck_cell(direction).get()
    }

    fn stuck_cell(&self, direction: Direction) -> &Cell<bool> {
        match direction {
            Direction::Up => &self.stuck_up,
            Direction::Down => &self.stuck_down,
        }
    }
}
