use std::sync::Arc;

use super::{Count, Handshakes};
use crate::config::Setback;
use crate::types::ServerId;

/// What one core counts of one upstream group.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct GroupMeters {
    /// Also those of connections that were made before a client needed them.
    pub handshakes: Handshakes,
    pub warm: WarmMeters,
}

/// Connections that are ready before a client needs them.
#[derive(Debug)]
pub struct WarmMeters {
    pub ready: Count,
    pub handed_out: Count,
    pub failed: Count,
    discarded: [Count; Discard::ALL.len()],
}

/// Why a ready connection was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// The server has ended it, or has spoken.
    Ended,
    /// The server's address has left its group.
    Left,
    /// The operator holds the server.
    Held,
    /// Nobody needed it for `warm_idle`.
    Idle,
    /// The server's certificate is over.
    Certificate,
    /// A reload has put another group in its place, or none.
    Retired,
    /// The core drains.
    Drain,
}

/// What one core counts of one server.
#[derive(Debug)]
#[repr(align(128))]
pub struct ServerMeters {
    /// Connections that hold a place there, ready ones among them.
    pub live: Count,
    pub tries: Count,
    pub taken: Count,
    pub failed: Setbacks,
}

/// By kind; the last is for what is not the server's doing.
#[derive(Debug)]
pub struct Setbacks([Count; Setbacks::NAMES.len()]);

/// The meters of a group and its servers that one core has.
#[derive(Debug, Clone, Default)]
pub struct GroupShare {
    pub group: Arc<GroupMeters>,
    /// In the order of the plan.
    pub servers: Vec<Arc<ServerMeters>>,
}

impl GroupShare {
    #[must_use]
    pub fn server(&self, id: ServerId) -> &ServerMeters {
        &self.servers[usize::from(id.0)]
    }
}

impl WarmMeters {
    pub fn hand_out(&self) {
        self.ready.take(1);
        self.handed_out.add(1);
    }

    pub fn discard(&self, why: Discard) {
        self.ready.take(1);
        self.discarded(why).add(1);
    }

    #[must_use]
    pub fn discarded(&self, why: Discard) -> &Count {
        &self.discarded[why as usize]
    }
}

impl Discard {
    pub const ALL: [Self; 7] = [
        Self::Ended,
        Self::Left,
        Self::Held,
        Self::Idle,
        Self::Certificate,
        Self::Retired,
        Self::Drain,
    ];

    /// The word in the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Left => "left",
            Self::Held => "held",
            Self::Idle => "idle",
            Self::Certificate => "certificate",
            Self::Retired => "retired",
            Self::Drain => "drain",
        }
    }
}

impl Setbacks {
    /// The words of `next_upstream`, and one for the rest.
    pub const NAMES: [&str; 5] = [
        "refused",
        "connect-timeout",
        "handshake",
        "verification",
        "other",
    ];

    #[must_use]
    pub fn of(&self, setback: Option<Setback>) -> &Count {
        self.at(setback.map_or(Self::NAMES.len() - 1, |it| it as usize))
    }

    /// By place in [`NAMES`](Self::NAMES).
    pub(in crate::observe) fn at(&self, place: usize) -> &Count {
        &self.0[place]
    }
}

impl Default for WarmMeters {
    fn default() -> Self {
        Self {
            ready: Count::new(),
            handed_out: Count::new(),
            failed: Count::new(),
            discarded: [const { Count::new() }; _],
        }
    }
}

impl Default for ServerMeters {
    fn default() -> Self {
        Self {
            live: Count::new(),
            tries: Count::new(),
            taken: Count::new(),
            failed: Setbacks([const { Count::new() }; _]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setback_and_each_reason_has_a_place_of_its_own() {
        for (place, why) in Discard::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
        let places = [
            (Setback::Refused, "refused"),
            (Setback::ConnectTimeout, "connect-timeout"),
            (Setback::Handshake, "handshake"),
            (Setback::Verification, "verification"),
        ];
        for (setback, name) in places {
            assert_eq!(Setbacks::NAMES[setback as usize], name);
        }
    }
}
