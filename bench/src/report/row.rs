//! The runs of one row, by proxy.

use super::record::Record;
use super::spread::Spread;
use crate::case::Case;
use crate::load::Latencies;
use crate::peer::Peer;

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    /// Why a proxy sits this row out.
    pub(crate) lacks: Vec<Option<String>>,
    pub(crate) records: Vec<Vec<Record>>,
}

impl Row {
    pub(crate) fn new(case: Case, peers: &[Peer]) -> Self {
        let lack = |(proxy, peer): (usize, &Peer)| {
            let unpaced = case.rates.is_some() && case.rate(proxy).is_none();
            peer.lacks(&case.work)
                .or_else(|| unpaced.then(|| "no closed-loop run of it counted".to_owned()))
        };
        Self {
            lacks: peers.iter().enumerate().map(lack).collect(),
            records: peers.iter().map(|_| Vec::new()).collect(),
            case,
        }
    }

    /// Proxies that take part.
    pub(crate) fn cells(&self) -> u32 {
        self.lacks
            .iter()
            .map(|lack| u32::from(lack.is_none()))
            .sum()
    }

    pub(crate) fn add(&mut self, proxy: usize, record: Record) {
        self.records[proxy].push(record);
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.records
            .iter()
            .flatten()
            .filter_map(|record| record.refused.as_deref())
    }

    pub(crate) fn figure(&self, proxy: usize) -> Option<Spread> {
        Spread::of(self.records[proxy].iter().filter_map(Record::figure))
    }

    /// Operations a second, also where that is as much the generator's figure: the proxy does at
    /// least as many.
    pub(crate) fn attained(&self, proxy: usize) -> Option<f64> {
        let counted = self.records[proxy]
            .iter()
            .filter(|record| record.refused.is_none());
        let rates = counted
            .filter_map(|record| record.measured.as_ref())
            .map(|measured| measured.operations as f64 / measured.seconds);
        Spread::of(rates).map(|spread| spread.median)
    }

    /// The best of the others, by its median.
    pub(crate) fn best_other(&self) -> Option<usize> {
        let others = (1..self.records.len()).filter_map(|proxy| Some((proxy, self.figure(proxy)?)));
        others
            .min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
            .map(|(proxy, _)| proxy)
    }

    /// What `other` takes for each unit that the first one takes: round by round, since the rounds
    /// are what ran close together.
    pub(crate) fn ratio(&self, other: usize) -> Option<Spread> {
        let rounds = self.records[0].iter().zip(&self.records[other]);
        Spread::of(rounds.filter_map(|(own, other)| Some(other.figure()? / own.figure()?)))
    }

    /// The latencies of all runs that count.
    pub(crate) fn latencies(&self, proxy: usize) -> Latencies {
        let mut merged = Latencies::new();
        let counted = self.records[proxy]
            .iter()
            .filter(|record| record.refused.is_none());
        counted
            .filter_map(|record| record.latencies.as_ref())
            .for_each(|part| merged.add(part));
        merged
    }
}
