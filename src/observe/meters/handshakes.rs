use super::Count;
use crate::observe::LegTls;
use crate::types::Cause;

/// TLS handshakes of one leg.
#[derive(Debug)]
pub struct Handshakes {
    finished: [[[Count; KINDS.len()]; GROUPS.len()]; VERSIONS.len()],
    failed: [Count; Cause::ALL.len()],
}

const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// Key exchanges, by IANA's names; none where a session was resumed without one.
const GROUPS: [&str; 6] = [
    "X25519MLKEM768",
    "X25519",
    "secp256r1",
    "secp384r1",
    "none",
    "other",
];
const NO_GROUP: usize = 4;
const OTHER_GROUP: usize = 5;

const KINDS: [&str; 2] = ["full", "resumed"];

/// How a handshake can fail. These are always shown.
pub const HANDSHAKE_CAUSES: [Cause; 12] = [
    Cause::Closed,
    Cause::Reset,
    Cause::Truncated,
    Cause::Timeout,
    Cause::Protocol,
    Cause::Alert,
    Cause::Certificate,
    Cause::Identity,
    Cause::Limit,
    Cause::Shutdown,
    Cause::System,
    Cause::Internal,
];

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            finished: [const { [const { [const { Count::new() }; _] }; _] }; _],
            failed: [const { Count::new() }; _],
        }
    }
}

impl Handshakes {
    pub fn finish(&self, leg: &LegTls) {
        let version = usize::from(leg.protocol != Some(VERSIONS[0]));
        let kind = usize::from(leg.resumed == Some(true));
        self.finished[version][group(leg.group)][kind].add(1);
    }

    pub fn fail(&self, cause: Cause) {
        self.failed[cause as usize].add(1);
    }

    #[must_use]
    pub fn failed(&self, cause: Cause) -> &Count {
        &self.failed[cause as usize]
    }

    /// Each kind of handshake: version, group, full or resumed.
    pub(in crate::observe) fn kinds() -> impl Iterator<Item = ([&'static str; 3], [usize; 3])> {
        let groups = |version| (0..GROUPS.len()).map(move |group| (version, group));
        let places = (0..VERSIONS.len()).flat_map(groups);
        let places = places.flat_map(|(v, g)| (0..KINDS.len()).map(move |kind| [v, g, kind]));
        places.map(|[v, g, k]| ([VERSIONS[v], GROUPS[g], KINDS[k]], [v, g, k]))
    }

    pub(in crate::observe) fn finished(&self, [version, group, kind]: [usize; 3]) -> &Count {
        &self.finished[version][group][kind]
    }
}

fn group(name: Option<&str>) -> usize {
    let Some(name) = name else { return NO_GROUP };
    let mut named = GROUPS[..NO_GROUP].iter();
    named
        .position(|known| known.eq_ignore_ascii_case(name))
        .unwrap_or(OTHER_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(protocol: &'static str, group: Option<&'static str>, resumed: bool) -> LegTls {
        LegTls {
            protocol: Some(protocol),
            group,
            resumed: Some(resumed),
            ..LegTls::default()
        }
    }

    #[test]
    fn each_kind_of_handshake_has_a_count_of_its_own() {
        let kinds: Vec<_> = Handshakes::kinds().collect();
        for (labels, place) in &kinds {
            let handshakes = Handshakes::default();
            let group = match labels[1] {
                "none" => None,
                "other" => Some("secp521r1"),
                name => Some(name),
            };
            handshakes.finish(&leg(labels[0], group, labels[2] == "resumed"));
            assert_eq!(handshakes.finished(*place).value(), 1, "{labels:?}");
            let all = kinds.iter().map(|(_, place)| handshakes.finished(*place));
            assert_eq!(all.map(Count::value).sum::<u64>(), 1, "{labels:?}");
        }
    }

    #[test]
    fn the_names_of_the_groups_that_can_be_configured_are_those_that_tls_gives() {
        use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
        let groups = [X25519MLKEM768, X25519, SECP256R1, SECP384R1];
        for (place, known) in groups.into_iter().enumerate() {
            assert_eq!(group(known.name().as_str()), place, "{known:?}");
        }
    }

    #[test]
    fn each_cause_has_its_own_place() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
    }
}
