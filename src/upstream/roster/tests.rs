use std::cell::RefCell;
use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const PLAN: HealthPlan = HealthPlan {
    fails_max: 1,
    fail_timeout: Duration::from_secs(10),
    slow_start: Duration::ZERO,
};

fn member(weight: u32) -> Member {
    Member {
        weight,
        backup: false,
        down: false,
        plan: PLAN,
        identity: 0,
        health: Health::default(),
        active: 0,
    }
}

fn backup() -> Member {
    Member {
        backup: true,
        ..member(1)
    }
}

fn roster(members: Vec<Member>) -> Roster {
    let members = members.into_iter().zip(0..);
    let members = members.map(|(member, identity)| Member { identity, ..member });
    Roster::new(Balance::RoundRobin, members.collect(), 0)
}

/// Places left of each member.
struct Left(RefCell<Vec<u32>>);

impl Left {
    fn of(places: &[u32]) -> Self {
        Self(RefCell::new(places.to_vec()))
    }

    fn give(&self, member: usize) {
        self.0.borrow_mut()[member] += 1;
    }
}

impl Places for Left {
    fn take(&self, member: usize) -> bool {
        let left = &mut self.0.borrow_mut()[member];
        let taken = *left > 0;
        *left -= u32::from(taken);
        taken
    }

    fn is_free(&self, member: usize) -> bool {
        self.0.borrow()[member] > 0
    }
}

/// Places without end.
struct Any;

impl Places for Any {
    fn take(&self, _: usize) -> bool {
        true
    }

    fn is_free(&self, _: usize) -> bool {
        true
    }
}

fn picks(roster: &mut Roster, now: Instant, count: usize) -> Vec<usize> {
    let pick = |_| roster.pick(now, 0, &[], &Any).unwrap();
    (0..count).map(pick).collect()
}

#[test]
fn a_backup_is_picked_only_when_no_other_may_be_tried() {
    let now = Instant::now();
    let mut roster = roster(vec![member(1), member(1), backup()]);
    assert_eq!(picks(&mut roster, now, 4), [0, 1, 0, 1]);
    assert_eq!(roster.pick(now, 0, &[0, 1], &Any), Ok(2));
    assert_eq!(roster.on(0, Event::Failure, now), Some(ServerState::Down));
    assert_eq!(picks(&mut roster, now, 2), [1, 1]);
    assert_eq!(roster.on(1, Event::Failure, now), Some(ServerState::Down));
    assert_eq!(picks(&mut roster, now, 2), [2, 2]);
    let back = roster.on(0, Event::Told(ServerState::Up), now);
    assert_eq!(back, Some(ServerState::Up));
    assert_eq!(picks(&mut roster, now, 2), [0, 0]);
}

#[test]
fn full_mains_bring_the_backups_in_until_a_place_is_free() {
    let now = Instant::now();
    let mut roster = roster(vec![member(1), backup()]);
    let left = Left::of(&[1, 1]);
    assert_eq!(roster.pick(now, 0, &[], &left), Ok(0));
    assert_eq!(roster.pick(now, 0, &[], &left), Ok(1));
    assert_eq!(roster.pick(now, 0, &[], &left), Err(Lack::AllFull));
    // Another core's connection has ended.
    left.give(0);
    assert_eq!(roster.pick(now, 0, &[], &left), Ok(0));
    // One of this core's.
    left.give(1);
    roster.release(1);
    assert_eq!(roster.pick(now, 0, &[], &left), Ok(1));
}

#[test]
fn who_was_full_among_many_is_found_again_by_and_by() {
    const MEMBERS: usize = 100;
    let now = Instant::now();
    let mut roster = roster(vec![member(1); MEMBERS]);
    let mut places = [0; MEMBERS];
    places[7] = u32::MAX;
    let left = Left::of(&places);
    assert!((0..50).all(|_| roster.pick(now, 0, &[], &left) == Ok(7)));
    (0..MEMBERS)
        .filter(|it| *it != 7)
        .for_each(|member| left.give(member));
    let looks = MEMBERS / LOOKS + 1;
    let found: Vec<_> = (0..looks + MEMBERS)
        .map(|_| roster.pick(now, 0, &[], &left).unwrap())
        .collect();
    assert!((0..MEMBERS).all(|member| found.contains(&member)));
}

#[test]
fn a_member_that_is_down_by_its_operator_has_nothing_even_where_all_fail() {
    let now = Instant::now();
    let down = Member {
        down: true,
        ..member(1)
    };
    let mut one = roster(vec![down.clone(), member(1)]);
    assert_eq!(picks(&mut one, now, 3), [1, 1, 1]);
    let _ = one.on(1, Event::Failure, now);
    assert_eq!(picks(&mut one, now, 3), [1, 1, 1]);
    assert_eq!(one.pick(now, 0, &[1], &Any), Err(Lack::AllTried));
    let mut none = roster(vec![down.clone(), down]);
    assert_eq!(none.pick(now, 0, &[], &Any), Err(Lack::AllDown));
    assert_eq!(roster(vec![]).pick(now, 0, &[], &Any), Err(Lack::NoAddress));
}

#[test]
fn where_all_are_out_all_are_tried_in_turns_the_backups_last() {
    let now = Instant::now();
    let mut roster = roster(vec![member(9), member(1), backup()]);
    for member in 0..3 {
        assert_eq!(
            roster.on(member, Event::Failure, now),
            Some(ServerState::Down)
        );
    }
    assert_eq!(picks(&mut roster, now, 4), [0, 1, 0, 1]);
    assert_eq!(roster.pick(now, 0, &[1, 0], &Any), Ok(2));
    assert_eq!(roster.pick(now, 0, &[1, 0, 2], &Any), Err(Lack::AllTried));
}

#[test]
fn a_full_member_is_waited_for_rather_than_one_that_is_out_be_tried() {
    let now = Instant::now();
    let mut roster = roster(vec![member(1), member(1)]);
    let _ = roster.on(1, Event::Failure, now);
    let left = Left::of(&[0, 5]);
    assert_eq!(roster.pick(now, 0, &[], &left), Err(Lack::AllFull));
    assert_eq!(roster.pick(now, 0, &[0], &left), Ok(1));
}

#[test]
fn one_connection_at_a_time_tries_who_was_out_and_its_success_brings_it_back() {
    let start = Instant::now();
    let mut roster = roster(vec![member(1), member(1)]);
    let _ = roster.on(1, Event::Failure, start);
    assert_eq!(picks(&mut roster, start + 9 * SECOND, 3), [0, 0, 0]);
    let then = start + 10 * SECOND;
    assert_eq!(share(&picks(&mut roster, then, 6), 1), 1, "one trial");
    let _ = roster.on(1, Event::Abandoned, then);
    assert_eq!(share(&picks(&mut roster, then, 6), 1), 1, "and another");
    assert_eq!(roster.on(1, Event::Failure, then), None, "still down");
    assert_eq!(share(&picks(&mut roster, then + 9 * SECOND, 6), 1), 0);
    let then = then + 10 * SECOND;
    assert_eq!(share(&picks(&mut roster, then, 6), 1), 1);
    let back = roster.on(1, Event::Success { begun: then }, then);
    assert_eq!(back, Some(ServerState::Up));
    assert_eq!(share(&picks(&mut roster, then, 6), 1), 3);
}

fn share(picks: &[usize], member: usize) -> usize {
    picks.iter().filter(|it| **it == member).count()
}

#[test]
fn a_share_grows_over_the_slow_start() {
    let start = Instant::now();
    let slow = Member {
        plan: HealthPlan {
            slow_start: 64 * SECOND,
            ..PLAN
        },
        ..member(1)
    };
    let mut roster = roster(vec![member(1), slow]);
    let _ = roster.on(1, Event::Failure, start);
    let _ = roster.on(1, Event::Told(ServerState::Up), start);
    // Of 640 turns: as many as belong to a weight of 1, 16, 32 and 64 beside one of 64.
    for (seconds, expected) in [(0, 10), (16, 128), (32, 213), (64, 320)] {
        let now = start + SECOND * seconds;
        let had = share(&picks(&mut roster, now, 640), 1);
        assert!(had.abs_diff(expected) <= 2, "{had} turns after {seconds} s");
    }
    assert!(roster.due.is_empty());
}

#[test]
fn connections_are_counted_and_the_members_of_a_new_answer_keep_theirs() {
    let now = Instant::now();
    let mut before = Roster::new(Balance::LeastConnections, vec![member(1); 2], 0);
    assert_eq!(picks(&mut before, now, 4).len(), 4);
    before.release(1);
    let _ = before.on(0, Event::Failure, now);
    let kept = vec![before.member(0).clone(), before.member(1).clone()];
    assert_eq!((kept[0].active, kept[1].active), (2, 1));
    let mut after = Roster::new(Balance::LeastConnections, kept, 0);
    assert_eq!(picks(&mut after, now, 2), [1, 1], "the other is out");
    let then = now + 10 * SECOND;
    assert_eq!(after.pick(then, 0, &[], &Any), Ok(0), "for its trial");
}

#[test]
fn who_is_down_by_its_checks_has_nothing_even_where_all_fail_and_comes_back_by_them_alone() {
    let now = Instant::now();
    let mut roster = roster(vec![member(1), member(1), backup()]);
    let bar = Event::Told(ServerState::Barred);
    assert_eq!(roster.on(0, bar, now), Some(ServerState::Down));
    assert_eq!(picks(&mut roster, now, 2), [1, 1]);
    assert_eq!(roster.on(1, Event::Failure, now), Some(ServerState::Down));
    assert_eq!(roster.on(1, bar, now), None);
    assert_eq!(picks(&mut roster, now, 2), [2, 2]);
    let _ = roster.on(2, bar, now);
    let late = now + 3600 * SECOND;
    assert_eq!(roster.pick(late, 0, &[], &Any), Err(Lack::AllBarred));
    let success = Event::Success { begun: late };
    assert_eq!(roster.on(0, success, late), None);
    let up = Event::Told(ServerState::Up);
    assert_eq!(roster.on(1, up, late), Some(ServerState::Up));
    assert_eq!(picks(&mut roster, late, 2), [1, 1]);
}
