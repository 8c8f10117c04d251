//! One core's view of the members of a group: who may have the next connection. Pure: the clock,
//! chance and the places that cores share come from outside.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use super::balance::{Balancer, Seed};
use super::health::{Event, Health, STEPS, ServerState};
use crate::config::{Balance, HealthPlan};

/// A member as it is at the start, or as it was before the members changed.
#[derive(Debug, Clone)]
pub struct Member {
    /// 1 to 65,535.
    pub weight: u32,
    /// Has connections only when no other member may be tried.
    pub backup: bool,
    /// Has none at all.
    pub down: bool,
    pub plan: HealthPlan,
    pub identity: u64,
    pub health: Health,
    /// Connections on this core.
    pub active: u32,
}

/// The places of members whose connections are limited, all cores together.
pub trait Places {
    /// Takes one, if there is one.
    fn take(&self, member: usize) -> bool;
    /// Whether there is one just now.
    fn is_free(&self, member: usize) -> bool;
}

/// Why no member has the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// There are no members: no name has an address.
    NoAddress,
    AllDown,
    /// The checks hold down all that are in use.
    AllBarred,
    /// Those that may be tried have as many connections as they may.
    AllFull,
    AllTried,
}

/// Members that one pick looks at again which were full before: other cores give places back
/// without a word.
const LOOKS: usize = 16;

#[derive(Debug)]
pub struct Roster {
    members: Vec<Seat>,
    /// Connections of each on this core: apart, so that a pick among members that are all well
    /// looks at no seat.
    active: Vec<u32>,
    main: Balancer,
    /// `None`: there are no backups.
    backup: Option<Balancer>,
    /// When a member's health changes by itself, the soonest first. An entry that is not the
    /// member's own any more is passed over.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Members that were full when they were looked at last.
    full: VecDeque<usize>,
    /// Members that are out or on trial.
    out: usize,
    /// Where the search among those begins.
    cursor: usize,
}

#[derive(Debug)]
struct Seat {
    member: Member,
    /// Is in `full`.
    full: bool,
    /// Its entry in `due`.
    due: Option<Instant>,
}

impl Seat {
    fn weight(&self) -> u32 {
        if self.full || self.member.down {
            return 0;
        }
        self.member.weight * self.member.health.steps()
    }

    fn is_barred(&self) -> bool {
        self.member.down || self.member.health == Health::Barred
    }
}

impl Roster {
    /// `offset`: cores differ in it, so that their first turns do.
    #[must_use]
    pub fn new(balance: Balance, members: Vec<Member>, offset: usize) -> Self {
        let balancer = |backup: bool| {
            let seeds: Vec<Seed> = members.iter().map(|it| seed(it, backup)).collect();
            Balancer::new(balance, &seeds, offset)
        };
        let main = balancer(false);
        let backup = members.iter().any(|it| it.backup).then(|| balancer(true));
        let count = members.len();
        let mut roster = Self {
            active: members.iter().map(|it| it.active).collect(),
            out: members.iter().filter(|it| !it.health.is_up()).count(),
            members: members.into_iter().map(seat).collect(),
            main,
            backup,
            due: BinaryHeap::new(),
            full: VecDeque::new(),
            cursor: offset.checked_rem(count).unwrap_or(0),
        };
        (0..count).for_each(|member| roster.refresh(member));
        roster
    }

    /// A member as it is now.
    #[must_use]
    pub fn member(&self, member: usize) -> Member {
        Member {
            active: self.active[member],
            ..self.members[member].member.clone()
        }
    }

    /// The member that has the next connection, with its place taken. `draw` is for the strategy:
    /// the connection's key, or anything at random. None among `tried`.
    ///
    /// Backups come after all others. When nobody is left who is up, those that are out are tried
    /// all the same: a connection that may fail is better than one that is refused. Not so those
    /// that the checks hold down: they have been asked, and said no.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pick(
        &mut self,
        now: Instant,
        draw: u64,
        tried: &[usize],
        places: &impl Places,
    ) -> Result<usize, Lack> {
        self.follow(now);
        self.look_again(LOOKS, places);
        let mut picked = self.pick_open(draw, tried, places);
        if picked.is_none() && self.look_again(usize::MAX, places) {
            picked = self.pick_open(draw, tried, places);
        }
        let untried_full = |roster: &Self| roster.full.iter().any(|it| !tried.contains(it));
        if picked.is_none() && !untried_full(self) {
            picked = self.pick_out(tried, places);
        }
        let Some(member) = picked else {
            return Err(self.lack(untried_full(self)));
        };
        self.engage(member, now);
        Ok(member)
    }

    /// Gives the next connection to this very member, with its place taken. False: it has none, or
    /// may have no connection just now.
    pub fn take(&mut self, member: usize, now: Instant, places: &impl Places) -> bool {
        self.follow(now);
        let takes = self.members[member].weight() > 0 && places.take(member);
        if takes {
            self.engage(member, now);
        }
        takes
    }

    /// What became of a connection, unless it is only over. Returns what other cores should know.
    pub fn on(&mut self, member: usize, event: Event, now: Instant) -> Option<ServerState> {
        let seat = &self.members[member];
        let before = seat.member.health;
        let after = before.after(event, now, &seat.member.plan);
        if after == before {
            return None;
        }
        self.set_health(member, after)
    }

    /// A member is as it was before in another roster.
    pub fn recall(&mut self, member: usize, health: Health) {
        if member < self.members.len() {
            let _ = self.set_health(member, health);
        }
    }

    fn set_health(&mut self, member: usize, after: Health) -> Option<ServerState> {
        let health = &mut self.members[member].member.health;
        let before = std::mem::replace(health, after);
        self.refresh(member);
        match (before.is_up(), after.is_up()) {
            (true, false) => {
                self.out += 1;
                Some(ServerState::Down)
            }
            (false, true) => {
                self.out -= 1;
                Some(ServerState::Up)
            }
            _ => None,
        }
    }

    /// A member has no connections at all any more, or may have some again.
    pub fn set_down(&mut self, member: usize, down: bool) {
        self.members[member].member.down = down;
        self.refresh(member);
    }

    /// A connection has ended; its place was given back before.
    pub fn release(&mut self, member: usize) {
        let active = self.active[member].saturating_sub(1);
        self.active[member] = active;
        self.balancer(member).load(member, active);
        if !self.full.is_empty() && self.members[member].full {
            self.full.retain(|it| *it != member);
            self.set_full(member, false);
        }
    }

    fn engage(&mut self, member: usize, now: Instant) {
        self.active[member] += 1;
        let active = self.active[member];
        if self.out > 0 && !self.members[member].member.health.is_up() {
            let _ = self.on(member, Event::Picked, now);
        }
        self.balancer(member).load(member, active);
    }

    /// Lets time pass.
    fn follow(&mut self, now: Instant) {
        while let Some(Reverse((at, member))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            if self.members[member].due == Some(at) {
                self.members[member].due = None;
                let _ = self.on(member, Event::Due, now);
                self.note_due(member);
            }
        }
    }

    /// True: one has places again.
    fn look_again(&mut self, looks: usize, places: &impl Places) -> bool {
        let mut found = false;
        for _ in 0..looks.min(self.full.len()) {
            let Some(member) = self.full.pop_front() else {
                break;
            };
            if places.is_free(member) {
                self.set_full(member, false);
                found = true;
            } else {
                self.full.push_back(member);
            }
        }
        found
    }

    fn pick_open(&mut self, draw: u64, tried: &[usize], places: &impl Places) -> Option<usize> {
        self.pick_of(false, draw, tried, places)
            .or_else(|| self.pick_of(true, draw, tried, places))
    }

    /// Who turns out to be full is out of the way until a place is seen.
    fn pick_of(
        &mut self,
        backup: bool,
        draw: u64,
        tried: &[usize],
        places: &impl Places,
    ) -> Option<usize> {
        loop {
            let balancer = match backup {
                false => &mut self.main,
                true => self.backup.as_mut()?,
            };
            let member = balancer.pick(draw, tried)?;
            if places.take(member) {
                return Some(member);
            }
            self.full.push_back(member);
            self.set_full(member, true);
        }
    }

    /// Those that are out have their turns in a row, the backups' last.
    fn pick_out(&mut self, tried: &[usize], places: &impl Places) -> Option<usize> {
        if self.out == 0 {
            return None;
        }
        let count = self.members.len();
        for backup in [false, true] {
            for step in 0..count {
                let index = (self.cursor + step) % count;
                let Member {
                    health,
                    down,
                    backup: is_backup,
                    ..
                } = &self.members[index].member;
                let is_out = !health.is_up() && *health != Health::Barred;
                let fits = *is_backup == backup && is_out && !down;
                if fits && !tried.contains(&index) && places.take(index) {
                    self.cursor = (index + 1) % count;
                    return Some(index);
                }
            }
        }
        None
    }

    fn lack(&self, full: bool) -> Lack {
        if self.members.is_empty() {
            Lack::NoAddress
        } else if self.members.iter().all(|seat| seat.member.down) {
            Lack::AllDown
        } else if self.members.iter().all(|seat| seat.is_barred()) {
            Lack::AllBarred
        } else if full {
            Lack::AllFull
        } else {
            Lack::AllTried
        }
    }

    fn set_full(&mut self, member: usize, full: bool) {
        self.members[member].full = full;
        self.refresh(member);
    }

    fn refresh(&mut self, member: usize) {
        let weight = self.members[member].weight();
        self.balancer(member).reweigh(member, weight);
        self.note_due(member);
    }

    fn note_due(&mut self, member: usize) {
        let Seat {
            member: Member { health, plan, .. },
            due,
            ..
        } = &mut self.members[member];
        let at = health.due(plan);
        if let Some(at) = at.filter(|at| *due != Some(*at)) {
            self.due.push(Reverse((at, member)));
        }
        *due = at;
    }

    fn balancer(&mut self, member: usize) -> &mut Balancer {
        match &mut self.backup {
            Some(backup) if self.members[member].member.backup => backup,
            _ => &mut self.main,
        }
    }
}

/// As the balancer of the backups, or of the others, sees a member.
fn seed(member: &Member, backup: bool) -> Seed {
    let own = member.backup == backup;
    Seed {
        // The ring is made of full shares.
        weight: if own { member.weight * STEPS } else { 0 },
        active: member.active,
        identity: member.identity,
    }
}

fn seat(member: Member) -> Seat {
    Seat {
        member,
        full: false,
        due: None,
    }
}

#[cfg(test)]
mod tests;
