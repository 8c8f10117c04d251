//! Balance and health together, without sockets and with a clock of its own: several cores that
//! tell each other what they find, servers that die, stall, recover and are of different weight,
//! and seeds that make each run another one and the same one again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::balance::{Chance, identity};
use super::health::{Event, Health, ServerState};
use super::roster::{Lack, Member, Places, Roster};
use crate::config::{Balance, HealthPlan};

const CORES: usize = 4;
const TRIES_MAX: usize = 3;
const MS: Duration = Duration::from_millis(1);

/// A stalled server costs a try this long; the others answer at once.
const STALL: Duration = Duration::from_millis(500);
/// What a core finds the others learn so much later.
const LETTER: Duration = Duration::from_millis(2);
/// How long a connection stays that was made.
const STAY: Duration = Duration::from_millis(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Sound,
    /// Refuses at once.
    Dead,
    /// Says nothing until the time limit.
    Stalled,
}

/// What is to happen at a time, of which there may be many.
#[derive(Debug, Clone)]
enum Due {
    Arrival,
    /// A try has its answer.
    Answer(Try, bool),
    End {
        core: usize,
        member: usize,
    },
    Letter {
        core: usize,
        member: usize,
        state: ServerState,
    },
}

/// One try of a connection.
#[derive(Debug, Clone)]
struct Try {
    core: usize,
    member: usize,
    key: u64,
    begun: Instant,
    tried: Vec<usize>,
}

#[derive(Debug, Default, Clone)]
struct Tally {
    /// Connections that each server took.
    served: Vec<u64>,
    /// Tries at each server that failed.
    failed: Vec<u64>,
    /// Clients that got an error.
    errors: u64,
}

/// Places of all cores together.
struct Shared {
    taken: RefCell<Vec<u32>>,
    max: u32,
}

impl Places for Shared {
    fn take(&self, member: usize) -> bool {
        let free = self.is_free(member);
        self.taken.borrow_mut()[member] += u32::from(free);
        free
    }

    fn is_free(&self, member: usize) -> bool {
        self.taken.borrow()[member] < self.max
    }
}

struct Simulation {
    now: Instant,
    chance: Chance,
    cores: Vec<Roster>,
    servers: Vec<Server>,
    places: Shared,
    /// In order; of one time, as they came.
    due: BTreeMap<(Instant, u64), Due>,
    noted: u64,
    tally: Tally,
    /// The most that each server had at one time.
    peak: u32,
}

const HEALTH: HealthPlan = HealthPlan {
    fails_max: 2,
    fail_timeout: Duration::from_secs(10),
    slow_start: Duration::ZERO,
};

fn member(weight: u32, number: usize, plan: HealthPlan) -> Member {
    Member {
        weight,
        backup: false,
        down: false,
        plan,
        identity: identity(format!("10.0.0.{number}:1").as_bytes()),
        health: Health::default(),
        active: 0,
    }
}

impl Simulation {
    fn new(balance: Balance, weights: &[u32], plan: HealthPlan, seed: u64) -> Self {
        let members: Vec<Member> = (0..)
            .zip(weights)
            .map(|(number, weight)| member(*weight, number, plan))
            .collect();
        let core = |core| Roster::new(balance, members.clone(), core);
        let count = weights.len();
        Self {
            now: Instant::now(),
            chance: Chance::new(seed),
            cores: (0..CORES).map(core).collect(),
            servers: vec![Server::Sound; count],
            places: Shared {
                taken: RefCell::new(vec![0; count]),
                max: u32::MAX,
            },
            due: BTreeMap::new(),
            noted: 0,
            tally: Tally {
                served: vec![0; count],
                failed: vec![0; count],
                errors: 0,
            },
            peak: 0,
        }
    }

    /// Lets time pass, with a new connection every millisecond on a core of chance. Returns what
    /// happened meanwhile.
    fn run(&mut self, length: Duration) -> Tally {
        let count = self.servers.len();
        let before = std::mem::replace(
            &mut self.tally,
            Tally {
                served: vec![0; count],
                failed: vec![0; count],
                errors: 0,
            },
        );
        drop(before);
        let end = self.now + length;
        let mut arrival = self.now;
        while arrival < end {
            self.note(arrival, Due::Arrival);
            arrival += MS;
        }
        while let Some(next) = self.next_before(end) {
            self.on(next);
        }
        self.now = end;
        self.tally.clone()
    }

    fn note(&mut self, at: Instant, due: Due) {
        self.noted += 1;
        self.due.insert((at, self.noted), due);
    }

    fn next_before(&mut self, end: Instant) -> Option<Due> {
        let entry = self.due.first_entry()?;
        let at = entry.key().0;
        if at >= end {
            return None;
        }
        let due = entry.remove();
        self.now = at;
        Some(due)
    }

    fn on(&mut self, due: Due) {
        match due {
            Due::Arrival => {
                let core = usize::try_from(self.chance.draw() % CORES as u64).unwrap();
                let key = self.chance.draw();
                self.begin(core, key, Vec::new());
            }
            Due::Answer(one, took) => self.on_answer(one, took),
            Due::End { core, member } => self.leave(core, member),
            Due::Letter {
                core,
                member,
                state,
            } => {
                let _ = self.cores[core].on(member, Event::Told(state), self.now);
            }
        }
        let most = self.places.taken.borrow().iter().copied().max();
        self.peak = self.peak.max(most.unwrap_or(0));
    }

    fn begin(&mut self, core: usize, key: u64, tried: Vec<usize>) {
        let picked = self.cores[core].pick(self.now, key, &tried, &self.places);
        let member = match picked {
            Ok(member) => member,
            Err(lack) => {
                assert_ne!(lack, Lack::NoAddress);
                self.tally.errors += 1;
                return;
            }
        };
        let (answer, took) = match self.servers[member] {
            Server::Sound => (Duration::ZERO, true),
            Server::Dead => (Duration::ZERO, false),
            Server::Stalled => (STALL, false),
        };
        let one = Try {
            core,
            member,
            key,
            begun: self.now,
            tried,
        };
        self.note(self.now + answer, Due::Answer(one, took));
    }

    fn on_answer(&mut self, one: Try, took: bool) {
        let Try {
            core,
            member,
            key,
            begun,
            mut tried,
        } = one;
        let event = if took {
            Event::Success { begun }
        } else {
            Event::Failure
        };
        if let Some(state) = self.cores[core].on(member, event, self.now) {
            self.tell_others(core, member, state);
        }
        if took {
            self.tally.served[member] += 1;
            self.note(self.now + STAY, Due::End { core, member });
            return;
        }
        self.tally.failed[member] += 1;
        self.leave(core, member);
        tried.push(member);
        if tried.len() < TRIES_MAX {
            self.begin(core, key, tried);
        } else {
            self.tally.errors += 1;
        }
    }

    fn leave(&mut self, core: usize, member: usize) {
        self.places.taken.borrow_mut()[member] -= 1;
        self.cores[core].release(member);
    }

    fn tell_others(&mut self, core: usize, member: usize, state: ServerState) {
        for other in (0..CORES).filter(|other| *other != core) {
            let letter = Due::Letter {
                core: other,
                member,
                state,
            };
            self.note(self.now + LETTER, letter);
        }
    }
}

const STRATEGIES: [Balance; 4] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::RandomTwoChoices,
    Balance::HashSource,
];

const SEEDS: u64 = 5;

/// How far from its weight a server's share may be: keys fall on a ring of 128 points each.
fn tolerance(balance: Balance) -> f64 {
    match balance {
        Balance::RoundRobin => 0.02,
        Balance::LeastConnections => 0.10,
        Balance::RandomTwoChoices => 0.12,
        Balance::HashSource | Balance::HashSni => 0.35,
    }
}

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// That each server had what its weight says of all, the ones of weight 0 nothing.
fn expect_shares(tally: &Tally, weights: &[u32], balance: Balance) {
    let all = float(tally.served.iter().sum());
    let sum = f64::from(weights.iter().sum::<u32>());
    for (server, weight) in weights.iter().enumerate() {
        let expected = all * f64::from(*weight) / sum;
        let off = (float(tally.served[server]) - expected).abs();
        assert!(
            off <= expected * tolerance(balance) + 2.0 * float(CORES as u64),
            "{balance:?}: server {server} had {} where {expected} belong to it: {tally:?}",
            tally.served[server]
        );
    }
}

fn every_run(run: impl Fn(Balance, u64)) {
    for balance in STRATEGIES {
        (0..SEEDS).for_each(|seed| run(balance, seed));
    }
}

#[test]
fn sound_servers_have_shares_by_weight_and_nobody_is_starved() {
    let weights = [1, 2, 1, 4, 1];
    every_run(|balance, seed| {
        let mut all = Simulation::new(balance, &weights, HEALTH, seed);
        let tally = all.run(6000 * MS);
        assert_eq!(tally.errors, 0);
        expect_shares(&tally, &weights, balance);
    });
}

#[test]
fn a_dead_server_costs_few_tries_and_no_client_an_error() {
    every_run(|balance, seed| {
        let mut all = Simulation::new(balance, &[1, 1, 1, 1], HEALTH, seed);
        let _ = all.run(500 * MS);
        all.servers[2] = Server::Dead;
        let tally = all.run(9000 * MS);
        assert_eq!(tally.errors, 0, "a retry saves every client");
        // Until a core's letter has come each other core may find out by itself.
        let found_out = u64::from(HEALTH.fails_max) * CORES as u64;
        assert!((1..=found_out).contains(&tally.failed[2]), "{tally:?}");
        // Out until its time is over; then one trial of each core in each such time.
        let trials = all.run(30_500 * MS);
        assert_eq!(trials.errors, 0);
        assert!(trials.failed[2] <= 4 * CORES as u64, "{trials:?}");
        let others = all.run(5000 * MS);
        assert!(
            [0, 1, 3].iter().all(|it| others.served[*it] > 500),
            "{others:?}"
        );
    });
}

#[test]
fn a_server_that_is_back_has_its_whole_share_again_on_every_core() {
    every_run(|balance, seed| {
        let weights = [1, 2, 1];
        let mut all = Simulation::new(balance, &weights, HEALTH, seed);
        all.servers[1] = Server::Dead;
        let dead = all.run(5000 * MS);
        assert_eq!(dead.served[1], 0);
        expect_shares(&dead, &[1, 0, 1], balance);
        all.servers[1] = Server::Sound;
        let back = all.run(11_000 * MS);
        assert_eq!(back.failed[1], 0);
        let after = all.run(5000 * MS);
        assert_eq!(after.errors, 0);
        expect_shares(&after, &weights, balance);
    });
}

#[test]
fn a_stalled_server_holds_up_only_those_who_meet_it_before_the_first_has_waited() {
    every_run(|balance, seed| {
        let mut all = Simulation::new(balance, &[1, 1, 1], HEALTH, seed);
        all.servers[0] = Server::Stalled;
        let tally = all.run(3000 * MS);
        assert_eq!(tally.errors, 0);
        // Those of the first half second, and nobody after.
        assert!(tally.failed[0] <= 520, "{tally:?}");
        let later = all.run(6000 * MS);
        assert_eq!(later.failed[0], 0, "{later:?}");
    });
}

#[test]
fn where_all_die_all_are_tried_and_the_first_that_is_back_serves_everyone() {
    every_run(|balance, seed| {
        let mut all = Simulation::new(balance, &[1, 1, 1], HEALTH, seed);
        all.servers = vec![Server::Dead; 3];
        let dark = all.run(2000 * MS);
        assert_eq!(dark.served, [0, 0, 0]);
        assert!(
            dark.failed.iter().all(|it| *it > 1000),
            "all are tried: {dark:?}"
        );
        all.servers[1] = Server::Sound;
        let light = all.run(1000 * MS);
        assert_eq!(light.errors, 0, "{light:?}");
        assert_eq!(light.served, [0, 1000, 0]);
    });
}

#[test]
fn a_limit_holds_for_all_cores_together_and_who_is_refused_found_all_full() {
    every_run(|balance, seed| {
        let mut all = Simulation::new(balance, &[1, 1], HEALTH, seed);
        // Some 40 connections live at any time.
        all.places.max = 15;
        let tally = all.run(5000 * MS);
        assert_eq!(all.peak, 15);
        assert!(tally.errors > 500, "{tally:?}");
        let served: u64 = tally.served.iter().sum();
        assert!(
            served > 3500,
            "places that are given back are found: {tally:?}"
        );
    });
}

#[test]
fn a_slow_start_gives_a_server_half_of_its_share_on_the_way() {
    let plan = HealthPlan {
        slow_start: Duration::from_secs(10),
        ..HEALTH
    };
    every_run(|balance, seed| {
        let mut all = Simulation::new(balance, &[1, 1, 1, 1], plan, seed);
        all.servers[3] = Server::Dead;
        let _ = all.run(9000 * MS);
        all.servers[3] = Server::Sound;
        let on_the_way = all.run(11_500 * MS);
        let others: u64 = on_the_way.served[..3].iter().sum::<u64>() / 3;
        let own = on_the_way.served[3];
        assert!(
            own * 10 > others * 2 && own * 10 < others * 8,
            "{on_the_way:?}"
        );
        let after = all.run(5000 * MS);
        expect_shares(&after, &[1, 1, 1, 1], balance);
    });
}

/// Anything may happen to any server at any time, as long as one is sound: no client has an error
/// but those that met only failing ones, and in the end all is as in the beginning.
#[test]
fn whatever_happens_for_a_minute_it_settles() {
    every_run(|balance, seed| {
        let weights = [3, 1, 2, 1, 1];
        let mut all = Simulation::new(balance, &weights, HEALTH, seed);
        let mut fate = Chance::new(seed ^ 0xfa7e);
        for _ in 0..60 {
            let server = usize::try_from(fate.draw() % 5).unwrap();
            all.servers[server] = match fate.draw() % 4 {
                0 => Server::Dead,
                1 => Server::Stalled,
                _ => Server::Sound,
            };
            let tally = all.run(1000 * MS);
            assert!(tally.served.iter().sum::<u64>() + tally.errors > 0);
        }
        all.servers = vec![Server::Sound; 5];
        let _ = all.run(11_000 * MS);
        let after = all.run(8000 * MS);
        assert_eq!((after.errors, after.failed.iter().sum::<u64>()), (0, 0));
        expect_shares(&after, &weights, balance);
        let active: u32 = all.places.taken.borrow().iter().sum();
        let known: u32 = (0..5)
            .flat_map(|member| all.cores.iter().map(move |core| core.member(member).active))
            .sum();
        assert_eq!(active, known, "every place is accounted for");
    });
}
