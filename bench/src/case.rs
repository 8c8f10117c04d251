//! One row as it is measured: the work, under a name, with what differs from run to run.

use crate::work::{Mode, Work};

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) work: Work,
    /// The proxy's cores, a worker on each.
    pub(crate) cores: Vec<usize>,
    /// Arrivals a second by proxy, where they come at times of their own. A proxy that has none
    /// sits the row out.
    pub(crate) rates: Option<Vec<Option<f64>>>,
}

impl Case {
    pub(crate) fn closed(work: Work, cores: &[usize]) -> Self {
        Self {
            name: work.name(),
            work,
            cores: cores.to_vec(),
            rates: None,
        }
    }

    pub(crate) fn rate(&self, proxy: usize) -> Option<f64> {
        *self.rates.as_ref()?.get(proxy)?
    }

    /// Connections at a time, of which each takes two descriptors in the generator and two in the
    /// proxy.
    pub(crate) fn connections(&self, in_flight: u16, idle_connections: u32) -> u32 {
        match self.work.mode {
            Mode::Idle => idle_connections,
            Mode::Open(_) => u32::from(crate::load::ARRIVALS_IN_FLIGHT_MAX),
            _ => u32::from(self.work.connections.unwrap_or(in_flight)),
        }
    }
}
