//! Which clients a listener serves: by address, by count, by rate. docs/decisions/0011-access.md.

mod buckets;
mod counts;
mod sets;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ipnet::IpNet;

use crate::config::{ListenerPlan, Rate, SourcePrefix};
use crate::tls::FullHandshakeGate;
use crate::types::{Cause, End, Phase};

use buckets::{Bucket, SourceBuckets, Taken};
use counts::{Counted, Counts};
use sets::Network;

/// A listener's rules for its clients, shared by all cores. Nothing in it waits for another core.
#[derive(Debug)]
pub struct Access {
    /// Rates count from here.
    made_at: Instant,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    prefix: SourcePrefix,
    per_source: Option<Counts>,
    per_prefix: Option<Counts>,
    new_connections: Rates,
    full_handshakes: Rates,
    /// One line has said that a source was served uncounted.
    told_uncounted: AtomicBool,
}

/// One kind of event, of the whole listener and of each source.
#[derive(Debug)]
struct Rates {
    listener: Option<Bucket>,
    source: Option<SourceBuckets>,
}

/// Why a client is refused. The words name the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    cause: Cause,
    words: &'static str,
}

impl Refused {
    #[must_use]
    pub fn end(self, phase: Phase) -> End {
        End::new(self.cause, phase, None).with_detail(self.words)
    }
}

const DENIED: Refused = Refused {
    cause: Cause::Denied,
    words: "deny",
};

const NOT_ALLOWED: Refused = Refused {
    cause: Cause::Denied,
    words: "allow",
};

const fn over(words: &'static str) -> Refused {
    Refused {
        cause: Cause::Limit,
        words,
    }
}

/// A client's places in the counts, given back on drop.
#[derive(Debug)]
pub struct Places<'a> {
    access: &'a Access,
    in_source: Option<usize>,
    in_prefix: Option<usize>,
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        give_back(self.access.per_source.as_ref(), self.in_source);
        give_back(self.access.per_prefix.as_ref(), self.in_prefix);
    }
}

fn give_back(counts: Option<&Counts>, place: Option<usize>) {
    if let (Some(counts), Some(place)) = (counts, place) {
        counts.leave(place);
    }
}

impl Access {
    /// `None`: the listener serves every client.
    #[must_use]
    pub fn new(plan: &ListenerPlan) -> Option<Arc<Self>> {
        let access = &plan.access;
        if access.is_open() {
            return None;
        }
        let counts = |max: Option<u32>| max.map(|max| Counts::new(max, plan.connections_max));
        Some(Arc::new(Self {
            made_at: Instant::now(),
            allow: access.allow.clone(),
            deny: access.deny.clone(),
            prefix: access.prefix,
            per_source: counts(access.connections_per_source_max),
            per_prefix: counts(access.connections_per_prefix_max),
            new_connections: Rates::new(access.new_connections, access.new_connections_per_source),
            full_handshakes: Rates::new(access.full_handshakes, access.full_handshakes_per_source),
            told_uncounted: AtomicBool::new(false),
        }))
    }

    /// Looks at a client before anything is read of it, or once a trusted header has said who it
    /// is. `None`: the client of a unix socket, of whom only the listener's own rate is asked.
    ///
    /// # Errors
    /// The first rule that the client breaks. Of the rules before it nothing is kept.
    pub fn admit(&self, address: Option<IpAddr>, now: Instant) -> Result<Places<'_>, Refused> {
        if let Some(address) = address.map(|address| address.to_canonical()) {
            self.screen(address)?;
        }
        let mut places = Places {
            access: self,
            in_source: None,
            in_prefix: None,
        };
        if let Some(address) = address {
            places.in_source = self.counted(
                self.per_source.as_ref(),
                Network::source(address),
                "max_connections_per_source is reached",
            )?;
            places.in_prefix = self.counted(
                self.per_prefix.as_ref(),
                Network::of(address, self.prefix),
                "max_connections_per_prefix is reached",
            )?;
        }
        let words = [
            "new_connections_per_source is exceeded",
            "new_connections is exceeded",
        ];
        self.charge(&self.new_connections, (address, now), words)?;
        Ok(places)
    }

    /// Asked by a handshake that resumes no session, before it does its dear work. `None`: there is
    /// no such rate.
    #[must_use]
    pub fn gate(self: &Arc<Self>, address: Option<IpAddr>) -> Option<FullHandshakeGate> {
        let Rates { listener, source } = &self.full_handshakes;
        if listener.is_none() && source.is_none() {
            return None;
        }
        let access = Arc::clone(self);
        let words = [
            "full_handshakes_per_source is exceeded",
            "full_handshakes is exceeded",
        ];
        Some(FullHandshakeGate::new(move || {
            let client = (address, Instant::now());
            let charged = access.charge(&access.full_handshakes, client, words);
            charged.map_err(|refused| refused.words)
        }))
    }

    fn screen(&self, address: IpAddr) -> Result<(), Refused> {
        let named = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if named(&self.deny) {
            Err(DENIED)
        } else if self.allow.is_empty() || named(&self.allow) {
            Ok(())
        } else {
            Err(NOT_ALLOWED)
        }
    }

    fn counted(
        &self,
        counts: Option<&Counts>,
        network: Network,
        words: &'static str,
    ) -> Result<Option<usize>, Refused> {
        match counts.map(|counts| counts.enter(network)) {
            None => Ok(None),
            Some(Counted::At(place)) => Ok(Some(place)),
            Some(Counted::Full) => Err(over(words)),
            Some(Counted::Uncounted) => {
                self.on_uncounted();
                Ok(None)
            }
        }
    }

    /// The source's own bucket comes first: what it refuses takes nothing from the listener's.
    fn charge(
        &self,
        rates: &Rates,
        (address, now): (Option<IpAddr>, Instant),
        [of_source, of_listener]: [&'static str; 2],
    ) -> Result<(), Refused> {
        let now = now.saturating_duration_since(self.made_at);
        if let (Some(buckets), Some(address)) = (&rates.source, address) {
            match buckets.take(Network::source(address), now) {
                Taken::Token => {}
                Taken::Empty => return Err(over(of_source)),
                Taken::Uncounted => self.on_uncounted(),
            }
        }
        match &rates.listener {
            Some(bucket) if !bucket.take(now) => Err(over(of_listener)),
            _ => Ok(()),
        }
    }

    fn on_uncounted(&self) {
        if !self.told_uncounted.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a source was served uncounted: the tables of sources are crowded; raise \
                 max_connections for larger ones, or shut networks out with `deny`"
            );
        }
    }
}

impl Rates {
    fn new(listener: Option<Rate>, source: Option<Rate>) -> Self {
        Self {
            listener: listener.map(Bucket::new),
            source: source.map(SourceBuckets::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::parse;

    fn access(keys: &str) -> Option<Arc<Access>> {
        let text = format!(
            "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n{keys}\n\
             [upstream.b]\nservers = [\"127.0.0.1:1\"]\n"
        );
        let plan = parse("x.toml", text).into_plan().unwrap();
        Access::new(&plan.listeners[0])
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_listener_without_rules_has_no_tables() {
        assert!(access("").is_none());
        assert!(access("max_session = \"1h\"").is_none());
    }

    #[test]
    fn deny_wins_over_allow_and_allow_over_the_rest() {
        let access = access("allow = [\"10.0.0.0/8\", \"::1\"]\ndeny = \"10.66.0.0/16\"").unwrap();
        let now = Instant::now();
        for (address, expected) in [
            ("10.1.2.3", None),
            ("::ffff:10.1.2.3", None),
            ("::1", None),
            ("10.66.2.3", Some(DENIED)),
            ("::ffff:10.66.2.3", Some(DENIED)),
            ("192.0.2.1", Some(NOT_ALLOWED)),
            ("::2", Some(NOT_ALLOWED)),
        ] {
            assert_eq!(access.admit(ip(address), now).err(), expected, "{address}");
        }
        assert!(access.admit(None, now).is_ok(), "a unix socket's client");
    }

    #[test]
    fn places_come_back_and_a_refusal_keeps_none() {
        let keys = "max_connections_per_source = 2\nmax_connections_per_prefix = 3";
        let access = access(keys).unwrap();
        let now = Instant::now();
        let admit = |address| access.admit(ip(address), now);
        let held: Vec<_> = ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
            .map(|address| admit(address).unwrap())
            .into();
        let source = over("max_connections_per_source is reached");
        let prefix = over("max_connections_per_prefix is reached");
        for _ in 0..5 {
            assert_eq!(admit("10.0.0.1").err(), Some(source));
            assert_eq!(admit("10.0.0.2").err(), Some(prefix));
            assert_eq!(admit("10.0.0.3").err(), Some(prefix));
        }
        assert!(admit("10.0.1.1").is_ok());
        drop(held);
        let again = ["10.0.0.3", "10.0.0.3", "10.0.0.2"].map(|address| admit(address).unwrap());
        assert_eq!(admit("10.0.0.3").err(), Some(source));
        drop(again);
    }

    #[test]
    fn a_source_over_its_rate_takes_nothing_from_the_listener() {
        let keys = "new_connections = { rate = 1, burst = 5 }\n\
                    new_connections_per_source = { rate = 1, burst = 2 }";
        let access = access(keys).unwrap();
        let now = access.made_at + Duration::from_secs(10);
        let served = |address: &str| {
            let admitted = (0..100).filter(|_| access.admit(ip(address), now).is_ok());
            admitted.count()
        };
        assert_eq!(served("10.0.0.1"), 2);
        assert_eq!(served("10.0.0.2"), 2);
        assert_eq!(served("10.0.0.3"), 1, "the listener's fifth");
        let refused = access.admit(ip("10.0.0.4"), now).err();
        assert_eq!(refused, Some(over("new_connections is exceeded")));
    }
}
