//! What one core thinks of a server, by what its connections met. Pure.

use std::time::{Duration, Instant};

use crate::config::HealthPlan;

/// Steps in which a server that has recovered comes to its full share.
pub(super) const STEPS: u32 = 64;

/// Whether a server may be tried, and for how much of its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Up(Failures),
    /// Up again: its share grows from `step` of [`STEPS`] to all of it.
    Warming {
        since: Instant,
        step: u32,
        failures: Failures,
    },
    /// It has failed too often: not tried before `until`.
    Out {
        since: Instant,
        until: Instant,
    },
    /// Its time is over: the next connection may try it.
    Due {
        since: Instant,
    },
    /// One connection tries it; no other does meanwhile.
    Trial {
        since: Instant,
    },
    /// The checks have taken it down: nobody tries it, whatever connections met, until they bring
    /// it up.
    Barred,
}

/// Failures of a server that is up, those of the last `fail_timeout`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    count: u32,
    first: Option<Instant>,
}

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection was given to it.
    Picked,
    /// A connection that was given to it at `begun` was made, its TLS handshake included.
    Success {
        begun: Instant,
    },
    Failure,
    /// A connection ended before either.
    Abandoned,
    /// The time that [`Health::due`] named.
    Due,
    /// Another core, or the control thread, says so.
    Told(ServerState),
}

/// What cores tell each other of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// Not to be tried for its `fail_timeout`, then by one connection at a time.
    Down,
    /// Not to be tried before a check says that it is up.
    Barred,
    Up,
}

impl Default for Health {
    fn default() -> Self {
        Self::Up(Failures::default())
    }
}

impl Failures {
    /// `None`: one more is too many.
    fn one_more(self, now: Instant, plan: &HealthPlan) -> Option<Self> {
        let recent = |first: &Instant| now.duration_since(*first) <= plan.fail_timeout;
        let failures = match self.first.filter(recent) {
            Some(first) => Self {
                count: self.count + 1,
                first: Some(first),
            },
            None => Self {
                count: 1,
                first: Some(now),
            },
        };
        (plan.fails_max == 0 || failures.count < plan.fails_max).then_some(failures)
    }
}

impl Health {
    /// For the same server in the next plan. A trial's connection answers to the old one, and what
    /// checks have said (`None`) whoever makes them says again.
    pub(super) fn inherited(self) -> Option<Self> {
        match self {
            Self::Barred => None,
            Self::Trial { since } => Some(Self::Due { since }),
            other => Some(other),
        }
    }

    /// The next state. What an event does not concern stays as it is.
    #[must_use]
    pub fn after(self, event: Event, now: Instant, plan: &HealthPlan) -> Self {
        match event {
            Event::Told(ServerState::Barred) => Self::Barred,
            Event::Picked => self.on_picked(),
            Event::Success { begun } => self.on_success(begun, now, plan),
            Event::Failure => self.on_failure(now, plan),
            Event::Abandoned => self.on_abandoned(),
            Event::Due => self.on_due(now, plan),
            Event::Told(ServerState::Down) if self.is_up() => out(now, plan),
            Event::Told(ServerState::Up) if !self.is_up() => recovered(now, plan),
            Event::Told(_) => self,
        }
    }

    fn on_picked(self) -> Self {
        match self {
            Self::Due { since } => Self::Trial { since },
            other => other,
        }
    }

    /// What was begun before the failures says nothing about after.
    fn on_success(self, begun: Instant, now: Instant, plan: &HealthPlan) -> Self {
        match self {
            Self::Out { since, .. } | Self::Due { since } | Self::Trial { since }
                if begun >= since =>
            {
                recovered(now, plan)
            }
            other => other,
        }
    }

    fn on_failure(self, now: Instant, plan: &HealthPlan) -> Self {
        match self {
            Self::Up(failures) => match failures.one_more(now, plan) {
                Some(failures) => Self::Up(failures),
                None => out(now, plan),
            },
            Self::Warming {
                since,
                step,
                failures,
            } => match failures.one_more(now, plan) {
                Some(failures) => Self::Warming {
                    since,
                    step,
                    failures,
                },
                None => out(now, plan),
            },
            Self::Due { .. } | Self::Trial { .. } => out(now, plan),
            // Connections that were under way, or that had nowhere else to go: they do not
            // lengthen its time.
            Self::Out { .. } | Self::Barred => self,
        }
    }

    fn on_abandoned(self) -> Self {
        match self {
            Self::Trial { since } => Self::Due { since },
            other => other,
        }
    }

    fn on_due(self, now: Instant, plan: &HealthPlan) -> Self {
        match self {
            Self::Out { since, until } if now >= until => Self::Due { since },
            Self::Warming {
                since, failures, ..
            } => match step(now.duration_since(since), plan.slow_start) {
                STEPS => Self::Up(failures),
                step => Self::Warming {
                    since,
                    step,
                    failures,
                },
            },
            other => other,
        }
    }

    /// Not out, nor on trial.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Warming { .. })
    }

    /// How much of its share it may have, 0 to [`STEPS`].
    #[must_use]
    pub fn steps(&self) -> u32 {
        match self {
            // For one connection: then it is a trial.
            Self::Up(_) | Self::Due { .. } => STEPS,
            Self::Warming { step, .. } => *step,
            Self::Out { .. } | Self::Trial { .. } | Self::Barred => 0,
        }
    }

    /// When [`Event::Due`] shall come.
    #[must_use]
    pub fn due(&self, plan: &HealthPlan) -> Option<Instant> {
        match self {
            Self::Out { until, .. } => Some(*until),
            Self::Warming { since, step, .. } => {
                Some(*since + plan.slow_start * (step + 1) / STEPS)
            }
            Self::Up(_) | Self::Due { .. } | Self::Trial { .. } | Self::Barred => None,
        }
    }
}

fn out(now: Instant, plan: &HealthPlan) -> Health {
    Health::Out {
        since: now,
        until: now + plan.fail_timeout,
    }
}

fn recovered(now: Instant, plan: &HealthPlan) -> Health {
    if plan.slow_start.is_zero() {
        return Health::default();
    }
    Health::Warming {
        since: now,
        step: 1,
        failures: Failures::default(),
    }
}

/// From 1 at the start to [`STEPS`] at the end.
fn step(passed: Duration, whole: Duration) -> u32 {
    let steps = passed.as_nanos() * u128::from(STEPS) / whole.as_nanos().max(1);
    u32::try_from(steps).unwrap_or(STEPS).clamp(1, STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const PLAN: HealthPlan = HealthPlan {
        fails_max: 2,
        fail_timeout: Duration::from_secs(10),
        slow_start: Duration::from_secs(64),
    };

    const ABRUPT: HealthPlan = HealthPlan {
        slow_start: Duration::ZERO,
        ..PLAN
    };

    fn failed(count: u32, first: Instant) -> Failures {
        Failures {
            count,
            first: Some(first),
        }
    }

    /// Every kind of event, at `then`; what is begun at `start` is old.
    fn events(start: Instant, then: Instant) -> [Event; 9] {
        let old = Event::Success {
            begun: start.checked_sub(SECOND).unwrap(),
        };
        [
            Event::Picked,
            old,
            Event::Success { begun: then },
            Event::Failure,
            Event::Abandoned,
            Event::Due,
            Event::Told(ServerState::Down),
            Event::Told(ServerState::Up),
            Event::Told(ServerState::Barred),
        ]
    }

    /// All states, once with each event: `then` is 20 s after `start`, when all the times are over
    /// but that of the slow start.
    #[test]
    fn every_state_has_its_answer_to_every_event() {
        let start = Instant::now();
        let then = start + 20 * SECOND;
        let up = Health::default();
        let up_once = Health::Up(failed(1, then));
        let warming = |since, step, failures| Health::Warming {
            since,
            step,
            failures,
        };
        let none = Failures::default();
        let half = warming(start, 5, none);
        let fresh = warming(then, 1, none);
        let out = Health::Out {
            since: start,
            until: start + 10 * SECOND,
        };
        let out_anew = Health::Out {
            since: then,
            until: then + 10 * SECOND,
        };
        let due = Health::Due { since: start };
        let trial = Health::Trial { since: start };
        let bar = Health::Barred;
        let table = [
            (up, [up, up, up, up_once, up, up, out_anew, up, bar]),
            (
                half,
                [
                    half,
                    half,
                    half,
                    warming(start, 5, failed(1, then)),
                    half,
                    warming(start, 20, none),
                    out_anew,
                    half,
                    bar,
                ],
            ),
            (out, [out, out, fresh, out, out, due, out, fresh, bar]),
            (
                due,
                [trial, due, fresh, out_anew, due, due, due, fresh, bar],
            ),
            (
                trial,
                [trial, trial, fresh, out_anew, due, trial, trial, fresh, bar],
            ),
            (bar, [bar, bar, bar, bar, bar, bar, bar, fresh, bar]),
        ];
        for (state, answers) in table {
            for (event, answer) in events(start, then).into_iter().zip(answers) {
                assert_eq!(
                    state.after(event, then, &PLAN),
                    answer,
                    "{state:?} after {event:?}"
                );
            }
        }
    }

    #[test]
    fn failures_within_the_time_take_it_out_and_older_ones_are_forgotten() {
        let start = Instant::now();
        let once = Health::default().after(Event::Failure, start, &PLAN);
        assert!(once.is_up());
        let late = start + 11 * SECOND;
        let forgotten = once.after(Event::Failure, late, &PLAN);
        assert_eq!(forgotten, Health::Up(failed(1, late)));
        let twice = once.after(Event::Failure, start + 10 * SECOND, &PLAN);
        assert!(!twice.is_up() && twice.steps() == 0);
        let warming = Health::Warming {
            since: start,
            step: 3,
            failures: failed(1, start),
        };
        assert!(!warming.after(Event::Failure, start, &PLAN).is_up());
    }

    #[test]
    fn successes_in_between_do_not_hide_a_server_that_fails_often() {
        let now = Instant::now();
        let once = Health::default().after(Event::Failure, now, &PLAN);
        let between = once.after(Event::Success { begun: now }, now, &PLAN);
        assert!(!between.after(Event::Failure, now, &PLAN).is_up());
    }

    #[test]
    fn without_a_limit_of_failures_none_takes_it_out() {
        let plan = HealthPlan {
            fails_max: 0,
            ..PLAN
        };
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..1000 {
            health = health.after(Event::Failure, now, &plan);
        }
        assert!(health.is_up());
    }

    #[test]
    fn it_is_out_until_its_time_and_not_before() {
        let start = Instant::now();
        let out = Health::default().after(Event::Told(ServerState::Down), start, &PLAN);
        assert_eq!(out.due(&PLAN), Some(start + 10 * SECOND));
        assert_eq!(out.after(Event::Due, start + 9 * SECOND, &PLAN), out);
        let due = out.after(Event::Due, start + 10 * SECOND, &PLAN);
        assert_eq!(due, Health::Due { since: start });
        assert_eq!((due.steps(), due.is_up()), (STEPS, false));
        assert_eq!(due.after(Event::Picked, start, &PLAN).steps(), 0);
    }

    #[test]
    fn a_share_grows_step_by_step_to_all_of_it() {
        let start = Instant::now();
        let mut health = recovered(start, &PLAN);
        let mut steps = vec![health.steps()];
        while let Some(due) = health.due(&PLAN) {
            health = health.after(Event::Due, due, &PLAN);
            steps.push(health.steps());
        }
        assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>());
        assert_eq!(health, Health::default());
        assert_eq!(recovered(start, &ABRUPT), Health::default());
    }

    #[test]
    fn a_core_that_looks_late_skips_steps() {
        let start = Instant::now();
        let half = recovered(start, &PLAN).after(Event::Due, start + 32 * SECOND, &PLAN);
        assert_eq!(half.steps(), 32);
        let whole = half.after(Event::Due, start + 500 * SECOND, &PLAN);
        assert_eq!(whole, Health::default());
    }
}
