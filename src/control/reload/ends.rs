//! What ends soon of the certificates, revocation lists and OCSP responses in use.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::load::Basis;
use crate::config::FileKind;
use crate::control::supervisor::Turn;
use crate::tls::Ends;
use crate::types::{UnixSeconds, unix_now};

/// How often the log says so.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

const DAY_SECS: u64 = 24 * 3600;

/// Time enough for whoever has certificates issued by hand.
const CERTIFICATE_WARNING_SECS: u64 = 30 * DAY_SECS;
/// Lists are issued anew each week or each day, by themselves.
const LIST_WARNING_SECS: u64 = DAY_SECS;
/// The part of a response's lifetime that is its last: it lives hours or days, and is fetched anew
/// when half of that is over, as soon as CAs have the next one. Then a quarter went by in vain.
const RESPONSE_WARNING_PART: u64 = 4;

impl Basis {
    /// One line for each certificate, list and response that has ended, or soon will.
    pub(in crate::control) fn warn_of_ends(&mut self) -> Turn {
        let now = unix_now();
        for ends in &self.ends {
            if let Some(words) = warning(ends, now) {
                tracing::warn!("{words}");
            }
        }
        self.look_at = Some(Instant::now() + rest(&self.ends, now));
        Turn::Continue(())
    }

    /// The log is to be told again.
    pub(in crate::control) async fn look_due(&self) {
        match self.look_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Until the next look. A response may begin to end and be over between two daily ones.
fn rest(ends: &[Ends], now: UnixSeconds) -> Duration {
    let responses = ends
        .iter()
        .filter(|it| it.kind == FileKind::OcspResponse)
        .flat_map(|it| [it.at.saturating_sub(lead(it)), it.at]);
    let next = responses
        .filter_map(|at| at.checked_sub(now))
        .filter(|it| *it > 0);
    let next = next.min().map_or(LOOK_EVERY, Duration::from_secs);
    next.min(LOOK_EVERY)
}

/// How long before the end it is warned of.
fn lead(ends: &Ends) -> u64 {
    match ends.kind {
        FileKind::RevocationLists => LIST_WARNING_SECS,
        FileKind::OcspResponse => ends.at.saturating_sub(ends.from) / RESPONSE_WARNING_PART,
        _ => CERTIFICATE_WARNING_SECS,
    }
}

fn warning(ends: &Ends, now: UnixSeconds) -> Option<String> {
    let (what, cure) = match ends.kind {
        FileKind::RevocationLists => ("the revocation list of", "fetch its successor"),
        FileKind::OcspResponse if now < ends.from => {
            ("the OCSP response for", "look at this host's clock")
        }
        FileKind::OcspResponse => ("the OCSP response for", "fetch its successor"),
        FileKind::Authorities => ("the CA", "put its successor beside it"),
        _ => ("the certificate of", "have it issued anew"),
    };
    let when = when(ends, now)?;
    let Ends {
        table, file, name, ..
    } = ends;
    let file = file.display();
    Some(format!("{table}: {what} {name} in {file} {when}: {cure}"))
}

/// `None`: not to be told of now.
fn when(ends: &Ends, now: UnixSeconds) -> Option<String> {
    let is_response = ends.kind == FileKind::OcspResponse;
    let left = ends.at.saturating_sub(now);
    if is_response && now < ends.from {
        let ahead = days(ends.from - now);
        return Some(format!("begins in {ahead} and is not stapled until then"));
    }
    if left > lead(ends) {
        return None;
    }
    Some(match now.checked_sub(ends.at) {
        Some(past) if is_response => format!("ended {} ago and is not stapled", days(past)),
        Some(past) => format!("ended {} ago", days(past)),
        None => format!("ends in {}", days(left)),
    })
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

    fn ends(kind: FileKind, from: UnixSeconds, at: UnixSeconds) -> Ends {
        Ends {
            table: "listener.front".to_owned(),
            file: "/edge.pem".into(),
            kind,
            name: "edge".to_owned(),
            from,
            at,
        }
    }

    fn said(kind: FileKind, at: UnixSeconds, now: UnixSeconds) -> Option<String> {
        warning(&ends(kind, 0, at), now)
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
    #[test]
    fn a_response_is_warned_of_in_the_last_quarter_of_its_life_and_while_it_is_not_stapled() {
        let begin = 1_000 * DAY_SECS;
        let response = ends(FileKind::OcspResponse, begin, begin + 4 * DAY_SECS);
        let said = |now| warning(&response, now);
        let words = "listener.front: the OCSP response for edge in /edge.pem";
        let with = |when: &str| Some(format!("{words} {when}: fetch its successor"));
        let early = "begins in less than a day and is not stapled until then";
        let clock = format!("{words} {early}: look at this host's clock");
        assert_eq!(said(begin - 1), Some(clock));
        assert_eq!(said(begin), None);
        assert_eq!(said(begin + 3 * DAY_SECS - 1), None);
        assert_eq!(said(begin + 3 * DAY_SECS), with("ends in 1 day"));
        let over = "ended less than a day ago and is not stapled";
        assert_eq!(said(begin + 4 * DAY_SECS), with(over));
    }

    #[test]
    fn the_log_is_told_daily_and_when_the_last_quarter_of_a_response_begins_and_ends() {
        let now = 1_000 * DAY_SECS;
        assert_eq!(rest(&[], now), LOOK_EVERY);
        let list = ends(FileKind::RevocationLists, now, now + 10);
        assert_eq!(rest(&[list], now), LOOK_EVERY);
        let hour = 3600;
        let response = ends(FileKind::OcspResponse, now, now + 8 * hour);
        let hours = |at: u64| rest(std::slice::from_ref(&response), now + at).as_secs() / hour;
        assert_eq!([0, 6 * hour, 8 * hour].map(hours), [6, 2, 24]);
        let week = ends(FileKind::OcspResponse, now, now + 7 * DAY_SECS);
        assert_eq!(rest(&[week, response], now).as_secs(), 6 * hour);
    }
}
