//! Services: SRV records (RFC 2782), and the addresses of the hosts that they name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Answer;
use super::lookup::{self, LOOKUP_TIMEOUT, LookupError, Source};
use crate::upstream::Found;

/// Hosts of one service; those of the highest priority numbers are left aside.
const TARGETS_MAX: usize = 64;

/// The last good addresses of each host.
pub(super) type KnownHosts = BTreeMap<String, Vec<IpAddr>>;

/// A host of a service, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    priority: u16,
    /// Absolute.
    host: String,
    port: u16,
    weight: u16,
}

/// What the hosts of a service were found to be.
struct Hosts {
    known: KnownHosts,
    ttl: Duration,
    /// One that has no address, and why.
    missing: Option<(String, LookupError)>,
}

impl Source {
    /// A host whose question fails keeps the addresses of `known`, and is soon asked for again.
    pub(super) async fn find_service(
        &self,
        service: &str,
        known: &KnownHosts,
    ) -> Result<Answer, LookupError> {
        let (targets, ttl) = timeout(LOOKUP_TIMEOUT, self.ask_for_service(service))
            .await
            .unwrap_or(Err(LookupError::Timeout))?;
        let hosts = self.find_hosts(&targets, known).await;
        let found = found(&targets, &hosts.known);
        match hosts.missing {
            Some((host, error)) if found.is_empty() => {
                Err(LookupError::Host(host, Box::new(error)))
            }
            missing => Ok(Answer {
                found,
                hosts: hosts.known,
                missing,
                ttl: ttl.min(hosts.ttl),
            }),
        }
    }

    async fn ask_for_service(&self, service: &str) -> Result<(Vec<Target>, Duration), LookupError> {
        let mut name = Name::from_str_relaxed(service)
            .map_err(|error| LookupError::BadName(error.to_string()))?;
        // No search domain: whose service it is stands in its name.
        name.set_fqdn(true);
        let asked = self.resolver()?.lookup(name, RecordType::SRV).await;
        let lookup = asked.map_err(|error| match LookupError::from(error) {
            LookupError::NoAddress => LookupError::NoService,
            other => other,
        })?;
        let records = lookup.answers().iter();
        let records: Vec<&SRV> = records
            .filter_map(|record| match &record.data {
                RData::SRV(record) => Some(record),
                _ => None,
            })
            .collect();
        if records.is_empty() {
            return Err(LookupError::NoService);
        }
        let until = lookup.valid_until();
        Ok((
            targets(&records),
            until.saturating_duration_since(Instant::now()),
        ))
    }

    /// All at once: one that nobody answers for would make the others wait.
    async fn find_hosts(&self, targets: &[Target], known: &KnownHosts) -> Hosts {
        let mut names: Vec<&String> = targets.iter().map(|target| &target.host).collect();
        names.sort_unstable();
        names.dedup();
        let mut lookups = JoinSet::new();
        for host in names {
            let (source, host) = (self.clone(), host.clone());
            let known = known.get(&host).cloned().unwrap_or_default();
            lookups.spawn(async move {
                let answer = source.lookup(&host, &known).await;
                (host, known, answer)
            });
        }
        let mut hosts = Hosts {
            known: KnownHosts::new(),
            ttl: Duration::MAX,
            missing: None,
        };
        while let Some(lookup) = lookups.join_next().await {
            if let Ok((host, known, answer)) = lookup {
                hosts.on_answer(host, known, answer);
            }
        }
        hosts
    }
}

impl Hosts {
    fn on_answer(
        &mut self,
        host: String,
        known: Vec<IpAddr>,
        answer: Result<lookup::Answer, LookupError>,
    ) {
        match answer {
            Ok(answer) => {
                self.ttl = self.ttl.min(answer.ttl);
                self.known.insert(host, answer.addresses);
            }
            Err(error) => {
                // As soon as the plan's floor allows.
                self.ttl = Duration::ZERO;
                if known.is_empty() {
                    self.missing.get_or_insert((host, error));
                } else {
                    self.known.insert(host, known);
                }
            }
        }
    }
}

/// The lowest priority number first. None where the only target is ".": the service is not there.
fn targets(records: &[&SRV]) -> Vec<Target> {
    let reachable = |record: &&&SRV| !record.target.is_root() && record.port > 0;
    let mut targets: Vec<Target> = records
        .iter()
        .filter(reachable)
        .map(|record| Target {
            priority: record.priority,
            host: record.target.to_lowercase().to_ascii(),
            port: record.port,
            weight: record.weight,
        })
        .collect();
    targets.sort_unstable();
    targets.truncate(TARGETS_MAX);
    targets
}

/// Every address of the targets. An address that several have is the first one's.
fn found(targets: &[Target], known: &KnownHosts) -> Vec<Found> {
    let first = targets.first().map_or(0, |target| target.priority);
    let numbers: BTreeMap<&String, u16> = known.keys().zip(0..).collect();
    let addresses = targets.iter().flat_map(|target| {
        let number = numbers.get(&target.host).copied().unwrap_or_default();
        let addresses = known.get(&target.host).into_iter().flatten();
        addresses.map(move |address| Found {
            address: SocketAddr::new(*address, target.port),
            backup: target.priority > first,
            host: number,
            // RFC 2782 gives a weight of 0 a very small chance.
            weight: target.weight.max(1),
        })
    });
    let mut found: Vec<Found> = addresses.collect();
    found.sort();
    found.dedup_by_key(|found| found.address);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, port: u16, target: &str) -> SRV {
        SRV::new(priority, 0, port, Name::from_ascii(target).unwrap())
    }

    fn ports(records: &[SRV]) -> Vec<u16> {
        let targets = targets(&records.iter().collect::<Vec<_>>());
        targets.iter().map(|target| target.port).collect()
    }

    #[test]
    fn a_service_takes_a_bounded_number_of_hosts_the_first_priorities_first() {
        let records: Vec<SRV> = (1..=200)
            .map(|port| record(300 - port, port, "one.example."))
            .collect();
        let expected: Vec<u16> = (200 - 63..=200).rev().collect();
        assert_eq!(expected.len(), TARGETS_MAX);
        assert_eq!(ports(&records), expected);
    }

    #[test]
    fn targets_that_cannot_be_reached_are_left_aside() {
        let records = [
            record(0, 1, "."),
            record(0, 0, "one.example."),
            record(0, 3, "Two.Example."),
        ];
        assert_eq!(ports(&records), [3]);
        assert!(ports(&records[..1]).is_empty());
    }

    #[test]
    fn an_address_of_two_hosts_stands_once_and_is_no_backup_if_one_of_them_is_none() {
        let records = [record(1, 1, "one.example."), record(2, 1, "two.example.")];
        let address = IpAddr::from([10, 0, 0, 1]);
        let hosts = ["one.example.", "two.example."];
        let known = hosts.map(|host| (host.to_owned(), vec![address]));
        let targets = targets(&records.iter().collect::<Vec<_>>());
        let found = found(&targets, &KnownHosts::from(known));
        assert_eq!(found, [Found::at(SocketAddr::new(address, 1))]);
    }
}
