//! Whose turn it is. Pure: no clock, no socket, no chance of its own.

mod heap;
mod least_connections;
mod random_two;
mod ring;
mod round_robin;

use crate::config::Balance;
use least_connections::LeastConnections;
use random_two::RandomTwo;
use ring::Ring;
use round_robin::RoundRobin;

/// How many members a balancer takes: their numbers are 16 bits on the ring.
pub const MEMBERS_MAX: usize = 65_535;

/// One core's choice among the members of a group.
#[derive(Debug)]
pub struct Balancer {
    strategy: Strategy,
}

#[derive(Debug)]
enum Strategy {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    RandomTwo(RandomTwo),
    Ring(Ring),
}

/// What a balancer knows of a member at the start.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    /// The most that it will have, at most 65,535 * 64. 0: it will never be picked.
    pub weight: u32,
    /// Connections that it has on this core.
    pub active: u32,
    /// Where its points are on the ring: see [`identity`].
    pub identity: u64,
}

impl Balancer {
    /// `offset`: cores differ in it, so that their first turns do.
    #[must_use]
    pub fn new(balance: Balance, seeds: &[Seed], offset: usize) -> Self {
        let members = || seeds.iter().map(|seed| (seed.weight, seed.active));
        let strategy = match balance {
            Balance::RoundRobin => {
                let weights: Vec<u32> = seeds.iter().map(|seed| seed.weight).collect();
                Strategy::RoundRobin(RoundRobin::new(&weights, offset))
            }
            Balance::LeastConnections => {
                Strategy::LeastConnections(LeastConnections::new(members(), offset))
            }
            Balance::RandomTwoChoices => Strategy::RandomTwo(RandomTwo::new(members())),
            Balance::HashSource | Balance::HashSni => Strategy::Ring(Ring::new(seeds)),
        };
        Self { strategy }
    }

    /// The next member that has a weight and is not among `tried`.
    ///
    /// `draw` is the connection's key where the strategy hashes, else anything at random.
    #[must_use]
    pub fn pick(&mut self, draw: u64, tried: &[usize]) -> Option<usize> {
        match &mut self.strategy {
            Strategy::RoundRobin(rotation) => rotation.pick(tried),
            Strategy::LeastConnections(loads) => loads.pick(tried),
            Strategy::RandomTwo(lots) => lots.pick(draw, tried),
            Strategy::Ring(ring) => ring.pick(draw, tried),
        }
    }

    /// A member's weight from now on; 0 takes it out.
    pub fn reweigh(&mut self, member: usize, weight: u32) {
        match &mut self.strategy {
            Strategy::RoundRobin(rotation) => rotation.reweigh(member, weight),
            Strategy::LeastConnections(loads) => loads.reweigh(member, weight),
            Strategy::RandomTwo(lots) => lots.reweigh(member, weight),
            Strategy::Ring(ring) => ring.reweigh(member, weight),
        }
    }

    /// Connections that a member has from now on.
    pub fn load(&mut self, member: usize, active: u32) {
        match &mut self.strategy {
            Strategy::LeastConnections(loads) => loads.load(member, active),
            Strategy::RandomTwo(lots) => lots.load(member, active),
            Strategy::RoundRobin(_) | Strategy::Ring(_) => {}
        }
    }
}

/// A number for a name, the same in every process and on every host: FNV-1a of 64 bits, whose
/// high bits [`mixed`] makes as good as its low ones.
#[must_use]
pub fn identity(name: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.iter().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit depends on all.
fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(GOLDEN);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// SplitMix64: chance from a seed, good enough to spread load and for nothing secret.
#[derive(Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mixed(self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Balance; 5] = [
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::RandomTwoChoices,
        Balance::HashSource,
        Balance::HashSni,
    ];

    fn seeds(weights: &[u32]) -> Vec<Seed> {
        let seed = |(member, weight): (u8, &u32)| Seed {
            weight: *weight,
            active: 0,
            identity: identity(&[member]),
        };
        (0..).zip(weights).map(seed).collect()
    }

    #[test]
    fn no_strategy_picks_who_was_tried_or_is_out_and_all_find_who_is_left() {
        for balance in ALL {
            let mut chance = Chance::new(5);
            let mut balancer = Balancer::new(balance, &seeds(&[64, 64, 64, 640]), 1);
            balancer.reweigh(2, 0);
            for _ in 0..1000 {
                let member = balancer.pick(chance.draw(), &[0]).unwrap();
                assert!([1, 3].contains(&member), "{balance:?} picked {member}");
                balancer.load(member, 1);
            }
            balancer.reweigh(3, 0);
            balancer.reweigh(2, 1);
            assert_eq!(
                balancer.pick(chance.draw(), &[0, 1]),
                Some(2),
                "{balance:?}"
            );
            assert_eq!(
                balancer.pick(chance.draw(), &[0, 1, 2]),
                None,
                "{balance:?}"
            );
        }
    }

    #[test]
    fn a_key_has_one_server_on_every_core() {
        let seeds = seeds(&[64; 7]);
        let mut cores: Vec<_> = (0..4)
            .map(|core| Balancer::new(Balance::HashSource, &seeds, core))
            .collect();
        for key in 0..500 {
            let picks: Vec<_> = cores.iter_mut().map(|core| core.pick(key, &[])).collect();
            assert!(picks.iter().all(|pick| *pick == picks[0]), "{picks:?}");
        }
    }

    #[test]
    fn identities_are_those_of_the_published_hash() {
        assert_eq!(identity(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(identity(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
