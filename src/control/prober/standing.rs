//! What the checks of one address add up to, and when the next one is due. Pure.

use std::time::{Duration, Instant};

use crate::config::CheckPlan;
use crate::control::resolver::spread;
use crate::upstream::ServerState;

/// How one check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// Why, in words.
    Failed(String),
    /// It could not be made for want of files, or of memory: no server is to blame.
    Unmade(String),
}

/// A server is up until its checks say otherwise: a proxy that starts shall serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its last `failed` checks failed.
    Up { failed: u32 },
    /// Its last `passed` checks passed.
    Down { passed: u32 },
}

/// A standing that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) state: ServerState,
    /// In words, for the log.
    pub(super) reason: String,
}

impl Default for Standing {
    fn default() -> Self {
        Self::Up { failed: 0 }
    }
}

impl Standing {
    pub(super) fn after(self, outcome: &Outcome, plan: &CheckPlan) -> (Self, Option<News>) {
        match (self, outcome) {
            (_, Outcome::Unmade(_)) => (self, None),
            (Self::Up { .. }, Outcome::Passed) => (Self::default(), None),
            (Self::Down { .. }, Outcome::Failed(_)) => (Self::Down { passed: 0 }, None),
            (Self::Up { failed }, Outcome::Failed(_)) if failed + 1 < plan.fall => {
                let failed = failed + 1;
                (Self::Up { failed }, None)
            }
            (Self::Down { passed }, Outcome::Passed) if passed + 1 < plan.rise => {
                let passed = passed + 1;
                (Self::Down { passed }, None)
            }
            (Self::Up { .. }, Outcome::Failed(words)) => {
                (Self::Down { passed: 0 }, Some(fallen(plan, words)))
            }
            (Self::Down { .. }, Outcome::Passed) => (Self::default(), Some(risen(plan))),
        }
    }
}

fn fallen(plan: &CheckPlan, words: &str) -> News {
    let kind = plan.kind.name();
    News {
        state: ServerState::Barred,
        reason: match plan.fall {
            1 => format!("a {kind} check failed: {words}"),
            fall => format!("{fall} {kind} checks in a row failed, the last: {words}"),
        },
    }
}

fn risen(plan: &CheckPlan) -> News {
    let kind = plan.kind.name();
    News {
        state: ServerState::Up,
        reason: match plan.rise {
            1 => format!("a {kind} check passed"),
            rise => format!("{rise} {kind} checks in a row passed"),
        },
    }
}

/// When the first check begins: anywhere within the interval, so that a thousand servers are not
/// asked at once. `chance` is a fraction, 0 to 1.
pub(super) fn first_due(now: Instant, interval: Duration, chance: f64) -> Instant {
    now + interval.mul_f64(chance.clamp(0.0, 1.0))
}

/// When the next check begins: an interval after the last one began, and up to a tenth later, so
/// that proxies which were started together do not ask together for ever. Checks that took longer
/// than the interval are not caught up with.
pub(super) fn next_due(begun: Instant, now: Instant, interval: Duration, chance: f64) -> Instant {
    (begun + spread(interval, chance)).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckKind;

    const SECOND: Duration = Duration::from_secs(1);

    fn plan(rise: u32, fall: u32) -> CheckPlan {
        CheckPlan {
            kind: CheckKind::Tls,
            port: None,
            send: Vec::new(),
            expect: Vec::new(),
            interval: 2 * SECOND,
            timeout: SECOND,
            rise,
            fall,
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed("for a test".into())
    }

    #[test]
    fn every_standing_has_its_answer_to_every_outcome() {
        let plan = plan(2, 3);
        let outcomes = [
            Outcome::Passed,
            failed(),
            Outcome::Unmade("no files".into()),
        ];
        let up = |failed| (Standing::Up { failed }, None);
        let down = |passed| (Standing::Down { passed }, None);
        let fallen = (Standing::Down { passed: 0 }, Some(ServerState::Barred));
        let risen = (Standing::default(), Some(ServerState::Up));
        let table = [
            (Standing::Up { failed: 0 }, [up(0), up(1), up(0)]),
            (Standing::Up { failed: 1 }, [up(0), up(2), up(1)]),
            (Standing::Up { failed: 2 }, [up(0), fallen, up(2)]),
            (Standing::Down { passed: 0 }, [down(1), down(0), down(0)]),
            (Standing::Down { passed: 1 }, [risen, down(0), down(1)]),
        ];
        for (standing, answers) in table {
            for (outcome, answer) in outcomes.iter().zip(answers) {
                let (after, news) = standing.after(outcome, &plan);
                let state = news.map(|news| news.state);
                assert_eq!((after, state), answer, "{standing:?} after {outcome:?}");
            }
        }
    }

    #[test]
    fn the_words_say_which_check_how_often_and_what_failed() {
        let words = |standing: Standing, outcome, plan| {
            let (_, news) = standing.after(&outcome, &plan);
            news.unwrap().reason
        };
        let (up, down) = (Standing::Up { failed: 2 }, Standing::Down { passed: 1 });
        assert_eq!(
            words(up, failed(), plan(2, 3)),
            "3 tls checks in a row failed, the last: for a test"
        );
        assert_eq!(
            words(up, failed(), plan(2, 1)),
            "a tls check failed: for a test"
        );
        assert_eq!(
            words(down, Outcome::Passed, plan(2, 3)),
            "2 tls checks in a row passed"
        );
        assert_eq!(
            words(down, Outcome::Passed, plan(1, 3)),
            "a tls check passed"
        );
    }

    #[test]
    fn first_checks_are_spread_over_the_interval() {
        let now = Instant::now();
        let first = |chance| first_due(now, 2 * SECOND, chance) - now;
        assert_eq!(first(0.0), Duration::ZERO);
        assert_eq!(first(0.5), SECOND);
        assert_eq!(first(1.0), 2 * SECOND);
        assert_eq!(first(7.0), 2 * SECOND);
    }

    #[test]
    fn checks_keep_their_interval_whatever_they_took_and_never_overlap() {
        let begun = Instant::now();
        let next = |took, chance| next_due(begun, begun + took, 2 * SECOND, chance) - begun;
        assert_eq!(next(Duration::ZERO, 0.0), 2 * SECOND);
        assert_eq!(next(SECOND, 0.0), 2 * SECOND);
        assert_eq!(next(SECOND, 1.0), Duration::from_millis(2200));
        assert_eq!(next(5 * SECOND, 1.0), 5 * SECOND);
    }
}
