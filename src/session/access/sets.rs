//! Where in a table of fixed size a source has its place.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::config::SourcePrefix;

/// Slots that one source may be in: one line of a CPU's cache.
const WAYS: usize = 8;

/// A network that clients are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network {
    bits: u128,
    is_ipv4: bool,
}

impl Network {
    /// The address itself, or the /64 of an IPv6 address: whoever has one address of a /64 has them
    /// all (RFC 4291 2.5.4), so that counting single ones would count nobody.
    pub(super) fn source(address: IpAddr) -> Self {
        const SINGLE: SourcePrefix = SourcePrefix { ipv4: 32, ipv6: 64 };
        Self::of(address, SINGLE)
    }

    pub(super) fn of(address: IpAddr, prefix: SourcePrefix) -> Self {
        let (bits, is_ipv4, host_bits) = match address.to_canonical() {
            IpAddr::V4(address) => (address.to_bits().into(), true, 32 - prefix.ipv4.min(32)),
            IpAddr::V6(address) => (address.to_bits(), false, 128 - prefix.ipv6.min(128)),
        };
        let bits: u128 = bits;
        let kept = u128::MAX.checked_shl(host_bits.into()).unwrap_or(0);
        Self {
            bits: bits & kept,
            is_ipv4,
        }
    }
}

/// Slots in sets of [`WAYS`]. A hash under a key of this process chooses the set, so that no client
/// can choose whom it shares one with.
#[derive(Debug)]
pub(super) struct Sets {
    key: RandomState,
    slots: Vec<AtomicU64>,
}

/// A source's hash: some bits choose its set, others tell it from the set's other sources.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash(pub(super) u64);

impl Sets {
    /// Room for at least `slots_min`.
    pub(super) fn new(slots_min: usize) -> Self {
        let slots = slots_min.next_power_of_two().max(WAYS);
        Self {
            key: RandomState::new(),
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn hash(&self, network: Network) -> Hash {
        Hash(self.key.hash_one(network))
    }

    /// By the hash's low half: tags are made of the upper one.
    pub(super) fn places(&self, hash: Hash) -> Range<usize> {
        let sets = self.slots.len() / WAYS;
        let low = usize::try_from(hash.0 & u64::from(u32::MAX)).unwrap_or(0);
        let first = (low % sets) * WAYS;
        first..first + WAYS
    }

    pub(super) fn slot(&self, place: usize) -> Option<&AtomicU64> {
        self.slots.get(place)
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> Vec<u64> {
        let load = |slot: &AtomicU64| slot.load(std::sync::atomic::Ordering::SeqCst);
        self.slots.iter().map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, ipv4: u8, ipv6: u8) -> Network {
        Network::of(address.parse().unwrap(), SourcePrefix { ipv4, ipv6 })
    }

    #[test]
    fn addresses_of_one_prefix_are_one_network_and_families_never_mix() {
        assert_eq!(network("10.1.2.3", 24, 56), network("10.1.2.255", 24, 56));
        assert_ne!(network("10.1.2.3", 24, 56), network("10.1.3.3", 24, 56));
        assert_eq!(
            network("2001:db8:0:ff::1", 24, 56),
            network("2001:db8::2", 24, 56)
        );
        assert_ne!(
            network("2001:db8:0:100::1", 24, 56),
            network("2001:db8::2", 24, 56)
        );
        assert_ne!(network("::", 32, 64), network("0.0.0.0", 32, 64));
        assert_eq!(
            network("::ffff:10.1.2.3", 24, 56),
            network("10.1.2.4", 24, 56)
        );
    }

    #[test]
    fn a_source_is_one_ipv4_address_or_the_64_of_an_ipv6_address() {
        let source = |address: &str| Network::source(address.parse().unwrap());
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(
            source("2001:db8::1"),
            source("2001:db8::ffff:ffff:ffff:ffff")
        );
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn sets_do_not_overlap_and_lie_within_the_table() {
        let sets = Sets::new(1000);
        assert_eq!(sets.words().len(), 1024);
        for hash in (0..200_u64).map(|n| Hash(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))) {
            let places = sets.places(hash);
            assert_eq!((places.start % WAYS, places.len()), (0, WAYS));
            assert!(places.end <= 1024);
        }
    }
}
