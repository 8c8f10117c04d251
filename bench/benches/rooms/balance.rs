//! The choice of a server: 100 groups of 1,000 servers each, asked one after the other, so that no
//! group is found in the nearest cache. A connection is one pick and the end of one.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use divan::{Bencher, black_box};
use ringway::config::{Balance, HealthPlan};
use ringway::upstream::balance::{Chance, identity};
use ringway::upstream::{Event, Health, Member, Places, Roster};

const GROUPS: usize = 100;
const SERVERS: usize = 1000;

const STRATEGIES: [&str; 4] = [
    "round-robin",
    "least-connections",
    "random-two-choices",
    "hash-source",
];

fn strategy(name: &str) -> Balance {
    match name {
        "round-robin" => Balance::RoundRobin,
        "least-connections" => Balance::LeastConnections,
        "random-two-choices" => Balance::RandomTwoChoices,
        _ => Balance::HashSource,
    }
}

const HEALTH: HealthPlan = HealthPlan {
    fails_max: 1,
    fail_timeout: Duration::from_secs(86_400),
    slow_start: Duration::ZERO,
};

/// The last of each `full_each` servers has no place.
struct Room {
    full_each: usize,
}

impl Places for Room {
    fn take(&self, member: usize) -> bool {
        self.is_free(member)
    }

    fn is_free(&self, member: usize) -> bool {
        member % self.full_each != self.full_each - 1
    }
}

const ROOM: Room = Room {
    full_each: usize::MAX,
};

fn group(balance: Balance, group: usize) -> Roster {
    let weight = |server| if server % 10 == 0 { 3 } else { 1 };
    let member = |server| Member {
        weight: weight(server),
        backup: false,
        down: false,
        plan: HEALTH,
        identity: identity(format!("10.{group}.{server}:443").as_bytes()),
        health: Health::default(),
        active: 0,
    };
    Roster::new(balance, (0..SERVERS).map(member).collect(), group)
}

/// The groups, with the servers out for which `out` is true.
fn groups(name: &str, out: impl Fn(usize) -> bool) -> Vec<RefCell<Roster>> {
    let now = Instant::now();
    let make = |number| {
        let mut roster = group(strategy(name), number);
        for server in (0..SERVERS).filter(|server| out(*server)) {
            let _ = roster.on(server, Event::Failure, now);
        }
        RefCell::new(roster)
    };
    (0..GROUPS).map(make).collect()
}

fn connections(bencher: Bencher<'_, '_>, groups: &[RefCell<Roster>], room: &Room) {
    let (turn, chance) = (Cell::new(0), RefCell::new(Chance::new(1)));
    let now = Instant::now();
    bencher.bench_local(|| {
        turn.set((turn.get() + 1) % GROUPS);
        let mut roster = groups[turn.get()].borrow_mut();
        let draw = chance.borrow_mut().draw();
        let server = roster.pick(black_box(now), draw, &[], room).unwrap();
        roster.release(server);
        server
    });
}

#[divan::bench(args = STRATEGIES, sample_size = 1000)]
fn all_up(bencher: Bencher<'_, '_>, name: &str) {
    connections(bencher, &groups(name, |_| false), &ROOM);
}

#[divan::bench(args = STRATEGIES, sample_size = 1000)]
fn every_second_out(bencher: Bencher<'_, '_>, name: &str) {
    connections(bencher, &groups(name, |server| server % 2 == 0), &ROOM);
}

#[divan::bench(args = STRATEGIES, sample_size = 1000)]
fn ten_of_thousand_up(bencher: Bencher<'_, '_>, name: &str) {
    let out = |server: usize| !server.is_multiple_of(100);
    connections(bencher, &groups(name, out), &ROOM);
}

#[divan::bench(args = STRATEGIES, sample_size = 1000)]
fn every_second_full(bencher: Bencher<'_, '_>, name: &str) {
    let room = Room { full_each: 2 };
    connections(bencher, &groups(name, |_| false), &room);
}

/// The second try of a connection.
#[divan::bench(args = STRATEGIES, sample_size = 1000)]
fn one_tried(bencher: Bencher<'_, '_>, name: &str) {
    let groups = groups(name, |_| false);
    let (turn, chance) = (Cell::new(0), RefCell::new(Chance::new(1)));
    let now = Instant::now();
    bencher.bench_local(|| {
        turn.set((turn.get() + 1) % GROUPS);
        let mut roster = groups[turn.get()].borrow_mut();
        let draw = chance.borrow_mut().draw();
        let first = roster.pick(now, draw, &[], &ROOM).unwrap();
        let second = roster.pick(now, draw, &[first], &ROOM).unwrap();
        roster.release(first);
        roster.release(second);
        second
    });
}
