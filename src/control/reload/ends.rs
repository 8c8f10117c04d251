//! What ends soon of the certificates and revocation lists in use.

use std::time::Duration;

use super::load::Basis;
use crate::config::FileKind;
use crate::control::supervisor::Turn;
use crate::tls::Ends;
use crate::types::{UnixSeconds, unix_now};

/// How often the log says so.
pub(in crate::control) const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

const DAY_SECS: u64 = 24 * 3600;

/// Time enough for whoever has certificates issued by hand.
const CERTIFICATE_WARNING_DAYS: u64 = 30;
/// Lists are issued anew each week or each day, by themselves.
const LIST_WARNING_DAYS: u64 = 1;

impl Basis {
    /// One line for each certificate and list that has ended, or soon will.
    pub(in crate::control) fn warn_of_ends(&self) -> Turn {
        let now = unix_now();
        for ends in &self.ends {
            if let Some(words) = warning(ends, now) {
                tracing::warn!("{words}");
            }
        }
        Turn::Continue(())
    }
}

fn warning(ends: &Ends, now: UnixSeconds) -> Option<String> {
    let (what, limit, cure) = match ends.kind {
        FileKind::RevocationLists => (
            "the revocation list of",
            LIST_WARNING_DAYS,
            "fetch its successor",
        ),
        FileKind::Authorities => (
            "the CA",
            CERTIFICATE_WARNING_DAYS,
            "put its successor beside it",
        ),
        _ => (
            "the certificate of",
            CERTIFICATE_WARNING_DAYS,
            "have it issued anew",
        ),
    };
    let left = ends.at.saturating_sub(now);
    if left > limit * DAY_SECS {
        return None;
    }
    let when = match now.checked_sub(ends.at) {
        Some(past) => format!("ended {} ago", days(past)),
        None => format!("ends in {}", days(left)),
    };
    let Ends {
        table, file, name, ..
    } = ends;
    let file = file.display();
    Some(format!("{table}: {what} {name} in {file} {when}: {cure}"))
}

fn days(secs: u64) -> String {
    match secs / DAY_SECS {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: FileKind, at: UnixSeconds, now: UnixSeconds) -> Option<String> {
        let ends = Ends {
            table: "listener.front".to_owned(),
            file: "/edge.pem".into(),
            kind,
            name: "edge".to_owned(),
            at,
        };
        warning(&ends, now)
    }

    #[test]
    fn a_certificate_is_warned_of_from_30_days_and_still_when_it_has_ended() {
        let now = 1_000 * DAY_SECS;
        let said = |at| said(FileKind::Certificate, at, now);
        assert_eq!(said(now + 30 * DAY_SECS + 1), None);
        let words = "listener.front: the certificate of edge in /edge.pem";
        let with = |when: &str| Some(format!("{words} {when}: have it issued anew"));
        assert_eq!(said(now + 30 * DAY_SECS), with("ends in 30 days"));
        assert_eq!(said(now + 1), with("ends in less than a day"));
        assert_eq!(said(now), with("ended less than a day ago"));
        assert_eq!(said(now - 3 * DAY_SECS), with("ended 3 days ago"));
    }

    #[test]
    fn a_list_is_warned_of_when_no_successor_has_come_in_time() {
        let now = 1_000 * DAY_SECS;
        let said = |at| said(FileKind::RevocationLists, at, now);
        assert_eq!(said(now + 2 * DAY_SECS), None);
        let words = said(now + DAY_SECS).unwrap();
        assert!(words.contains("the revocation list of edge"), "{words}");
        assert!(said(now - 1).unwrap().contains("ended"));
    }
}
