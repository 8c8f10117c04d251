//! What the access log tells of a record. docs/access-log.md explains each field.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use super::line::Values;
use super::names;
use super::record::{Address, Fallback, LegTls, Proxied, Record, Times, UpstreamSeen};
use crate::config::Plan;
use crate::types::{Cause, End, GroupId, Side};

/// Every value of the record, in the order of the fields.
pub(super) fn write_fields(record: &Record, line: &mut Values) {
    let plan = record.plan.plan();
    write_accept(plan, record, line);
    if let Some(leg) = &record.downstream_tls {
        write_leg(leg, &DOWNSTREAM_LEG, line);
    }
    write_upstream(plan, record, line);
    write_text(line, names::UPSTREAM_SNI, record.upstream_sni.as_deref());
    if let Some(leg) = &record.upstream_tls {
        write_leg(leg, &UPSTREAM_LEG, line);
    }
    line.number(names::BYTES_UP, record.bytes_up);
    line.number(names::BYTES_DOWN, record.bytes_down);
    line.word(names::PATH_UP, record.path_up.name());
    line.word(names::PATH_DOWN, record.path_down.name());
    write_text(
        line,
        names::FALLBACK_UP,
        record.fallback_up.map(Fallback::name),
    );
    write_text(
        line,
        names::FALLBACK_DOWN,
        record.fallback_down.map(Fallback::name),
    );
    write_times(&record.times, line);
    write_end(record.end.as_ref(), line);
    if record.left_out > 0 {
        line.number(names::LEFT_OUT, record.left_out);
    }
    if record.sampled > 1 {
        line.number(names::SAMPLED, record.sampled.into());
    }
}

fn write_accept(plan: &Plan, record: &Record, line: &mut Values) {
    line.word(names::TIME, &rfc3339(record.accepted_at));
    line.word(names::ID, &record.id_text());
    line.number(names::CORE, u64::from(record.core.0));
    if let Some(listener) = plan.listeners.get(usize::from(record.listener.0)) {
        line.word(names::LISTENER, &listener.name);
    }
    write_address(line, names::CLIENT, &record.client);
    write_address(line, names::LOCAL, &record.local);
    if let Some(proxied) = &record.proxied {
        write_proxied(proxied, line);
    }
    write_text(line, names::SNI, record.sni.as_deref());
}

fn write_proxied(proxied: &Proxied, line: &mut Values) {
    if let Some(by) = &proxied.by {
        write_address(line, names::PROXIED_BY, by);
    }
    let texts = [
        (names::PROXIED_AUTHORITY, &proxied.authority),
        (names::PROXIED_ID, &proxied.unique_id),
        (names::PROXIED_PROTOCOL, &proxied.protocol),
        (names::PROXIED_CIPHER, &proxied.cipher),
        (names::PROXIED_CN, &proxied.common_name),
    ];
    for (name, value) in texts {
        write_text(line, name, value.as_deref());
    }
    if let Some(verified) = proxied.verified {
        line.flag(names::PROXIED_VERIFIED, verified);
    }
}

fn write_upstream(plan: &Plan, record: &Record, line: &mut Values) {
    if let Some(group) = record.group {
        write_group(plan, group, record.upstream.as_ref(), line);
    }
    line.number(names::TRIES, u64::from(record.tries));
    if !record.passed_over.is_empty() {
        let reasons: Vec<String> = record.passed_over.iter().map(in_words).collect();
        line.list(names::PASSED_OVER, &reasons);
    }
}

fn write_group(plan: &Plan, group: GroupId, seen: Option<&UpstreamSeen>, line: &mut Values) {
    let group = plan.upstreams.get(usize::from(group.0));
    write_text(
        line,
        names::UPSTREAM,
        group.map(|group| group.name.as_str()),
    );
    let Some(seen) = seen else { return };
    let server = group.and_then(|group| group.servers.get(usize::from(seen.server.0)));
    if let Some(server) = server {
        line.text(names::SERVER, &server.address.value.to_string());
    }
    write_address(line, names::SERVER_ADDRESS, &seen.address);
}

/// The same facts of either leg under that leg's names.
struct LegNames {
    protocol: &'static str,
    cipher: &'static str,
    group: &'static str,
    alpn: &'static str,
    resumed: &'static str,
    identity: &'static str,
    verified: &'static str,
}

const DOWNSTREAM_LEG: LegNames = LegNames {
    protocol: names::DOWNSTREAM_PROTOCOL,
    cipher: names::DOWNSTREAM_CIPHER,
    group: names::DOWNSTREAM_GROUP,
    alpn: names::DOWNSTREAM_ALPN,
    resumed: names::DOWNSTREAM_RESUMED,
    identity: names::CLIENT_IDENTITY,
    verified: names::CLIENT_VERIFIED,
};

const UPSTREAM_LEG: LegNames = LegNames {
    protocol: names::UPSTREAM_PROTOCOL,
    cipher: names::UPSTREAM_CIPHER,
    group: names::UPSTREAM_GROUP,
    alpn: names::UPSTREAM_ALPN,
    resumed: names::UPSTREAM_RESUMED,
    identity: names::SERVER_IDENTITY,
    verified: names::SERVER_VERIFIED,
};

fn write_leg(leg: &LegTls, names: &LegNames, line: &mut Values) {
    write_text(line, names.protocol, leg.protocol);
    write_text(line, names.cipher, leg.cipher);
    write_text(line, names.group, leg.group);
    write_text(line, names.alpn, leg.alpn.as_deref());
    if let Some(resumed) = leg.resumed {
        line.flag(names.resumed, resumed);
    }
    write_text(line, names.identity, leg.peer_identity.as_deref());
    if let Some(verified) = leg.peer_verified {
        line.flag(names.verified, verified);
    }
}

fn write_times(times: &Times, line: &mut Values) {
    let phases = [
        (names::PROXY_HEADER_MS, times.proxy_header),
        (names::CLIENT_HELLO_MS, times.client_hello),
        (names::DOWNSTREAM_HANDSHAKE_MS, times.downstream_handshake),
        (names::QUEUE_MS, times.queue),
        (names::WARM_MS, times.warm),
        (names::CONNECT_MS, times.connect),
        (names::UPSTREAM_HANDSHAKE_MS, times.upstream_handshake),
        (names::FIRST_BYTE_MS, times.first_byte),
    ];
    for (name, took) in phases {
        if let Some(took) = took {
            line.millis(name, took.into());
        }
    }
    line.millis(names::TOTAL_MS, times.total);
}

fn write_end(end: Option<&End>, line: &mut Values) {
    let Some(end) = end else {
        // Nobody finished it: that is a defect, and is to be seen as one.
        line.word(names::END, Cause::Internal.name());
        return;
    };
    line.word(names::END, end.cause.name());
    line.word(names::PHASE, end.phase.name());
    let ended_by = end.side.map_or(names::ENDED_BY_RINGWAY, Side::name);
    line.word(names::ENDED_BY, ended_by);
    if let Some(alert) = end.alert {
        line.text(names::ALERT, &alert.to_string());
    }
    write_text(line, names::DETAIL, end.detail.as_deref());
}

/// One attempt's end: "connect: unreachable: Connection refused".
fn in_words(end: &End) -> String {
    let mut words = format!("{}: {}", end.phase.name(), end.cause.name());
    if let Some(detail) = &end.detail {
        // A String takes every write.
        let _ = write!(words, ": {detail}");
    }
    if let Some(alert) = end.alert.filter(|_| end.cause != Cause::Alert) {
        let _ = write!(words, " (alert {alert} sent)");
    }
    words
}

/// A peer on a unix socket chooses its path.
fn write_address(line: &mut Values, name: &'static str, address: &Address) {
    match address {
        Address::Ip(address) => line.word(name, &address.to_string()),
        Address::Unix(_) => line.text(name, &address.to_string()),
    }
}

fn write_text(line: &mut Values, name: &'static str, value: Option<&str>) {
    if let Some(value) = value {
        line.text(name, value);
    }
}

/// UTC with milliseconds. A clock before 1970 or after 9999 counts as 1970.
fn rfc3339(time: SystemTime) -> String {
    let at = time
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| since.try_into().ok())
        .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::{AccessLog, LogFormat, LogPlan};
    use crate::observe::RelayPath;
    use crate::observe::printer::Printer;
    use crate::observe::sample::{bare_record, full_record, plan};
    use crate::types::Phase;

    fn line(format: LogFormat, record: &Record) -> String {
        let log = LogPlan {
            format,
            ..plan(AccessLog::Off, 1).log.clone()
        };
        let mut out = Vec::new();
        Printer::new(&log).print(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn parsed(record: &Record) -> serde_json::Value {
        serde_json::from_str(&line(LogFormat::Json, record)).unwrap()
    }

    /// The names of a JSON line in the order they stand in it.
    fn names_of(line: &str) -> Vec<&'static str> {
        let mut found: Vec<_> = names::ALL
            .into_iter()
            .filter_map(|name| Some((line.find(&format!("\"{name}\":"))?, name)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn a_full_record_has_every_field_in_the_documented_order() {
        assert_eq!(names_of(&line(LogFormat::Json, &full_record())), names::ALL);
        let logfmt = format!(" {}", line(LogFormat::Logfmt, &full_record()));
        let places = names::ALL.map(|name| logfmt.find(&format!(" {name}=")).unwrap());
        assert!(places.is_sorted(), "{logfmt}");
    }

    #[test]
    fn json_is_one_line_with_types_that_tools_can_use() {
        let text = line(LogFormat::Json, &full_record());
        assert!(!text.contains('\n') && text.ends_with('}'));
        let json = parsed(&full_record());
        for (name, value) in [
            ("time", json!("2020-02-29T12:34:56.789Z")),
            ("id", json!("000300000000002a")),
            ("core", json!(3)),
            ("listener", json!("database")),
            ("client", json!("[2001:db8::1]:40000")),
            ("downstream_resumed", json!(false)),
            ("client_identity", json!("client.example.org")),
            ("upstream", json!("backend")),
            ("server", json!("db.example.org:5432")),
            ("server_address", json!("192.0.2.9:5432")),
            (
                "passed_over",
                json!([
                    "connect: unreachable: Connection refused",
                    "upstream_handshake: certificate_refused: revoked (alert certificate_revoked sent)"
                ]),
            ),
            ("bytes_down", json!(20_000_000_000_u64)),
            ("end", json!("reset")),
            ("ended_by", json!("upstream")),
            ("alert", json!("bad_record_mac")),
            ("upstream_sni", json!("backend.internal")),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        assert!(text.contains("\"connect_ms\":0.007,"), "{text}");
        assert!(text.contains("\"total_ms\":61000.000,"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(
            names_of(&line(LogFormat::Json, &bare_record())),
            [
                "time",
                "id",
                "core",
                "listener",
                "client",
                "local",
                "tries",
                "bytes_up",
                "bytes_down",
                "path_up",
                "path_down",
                "total_ms",
                "end",
                "phase",
                "ended_by"
            ]
        );
        assert_eq!(
            line(LogFormat::Logfmt, &bare_record()),
            "time=2020-02-29T12:34:56.789Z id=0000000000000007 core=0 listener=database \
             client=unix: local=unix:/run/ringway/db.sock tries=0 bytes_up=0 bytes_down=0 \
             path_up=none path_down=none total_ms=0.000 end=limit phase=accept \
             ended_by=ringway"
        );
    }

    #[test]
    fn logfmt_quotes_what_a_reader_would_split() {
        let text = line(LogFormat::Logfmt, &full_record());
        assert!(
            text.ends_with(" detail=\"Connection reset by peer\" left_out=7 sampled=100"),
            "{text}"
        );
        assert!(
            text.contains(
                " passed_over=\"connect: unreachable: Connection refused; upstream_handshake: "
            ),
            "{text}"
        );
    }

    #[test]
    fn a_stranger_can_neither_forge_a_line_nor_steer_a_terminal() {
        let evil = "a\"b\\c\n{\"end\"=\u{1b}[2J\u{7f}\u{9b}31m\u{2028}\u{202e}é\u{0}";
        let mut record = full_record();
        record.sni = Some(evil.into());
        record.end = Some(End::new(Cause::Alert, Phase::Relay, None).with_detail(evil));
        for format in [LogFormat::Json, LogFormat::Logfmt] {
            let text = line(format, &record);
            let quiet = |c: char| !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c);
            assert!(text.chars().all(quiet), "{text:?}");
        }
        assert_eq!(parsed(&record)["sni"], evil);
    }

    #[test]
    fn a_record_that_nobody_finished_is_seen_as_a_defect() {
        let record = Record {
            end: None,
            ..bare_record()
        };
        assert_eq!(parsed(&record)["end"], "internal_error");
    }

    #[test]
    fn an_id_that_the_plan_does_not_know_costs_its_name_only() {
        let mut record = full_record();
        record.listener = crate::types::ListenerId(9);
        record.group = Some(GroupId(9));
        let json = parsed(&record);
        assert_eq!(json.get("listener"), None);
        assert_eq!(json.get("upstream"), None);
        assert_eq!(json["server_address"], "192.0.2.9:5432");
    }

    #[test]
    fn times_are_utc_to_the_millisecond_and_a_broken_clock_is_1970() {
        let at = |ms| rfc3339(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_827_696_001), "2000-02-29T12:34:56.001Z");
        assert_eq!(at(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
        assert_eq!(at(u64::MAX / 1000), at(0));
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), at(0));
    }

    /// First cells of the table below `heading` in docs/access-log.md, without their backticks.
    fn documented(heading: &str) -> Vec<String> {
        let text = include_str!("../../docs/access-log.md");
        let section = text
            .split("\n## ")
            .find(|part| part.starts_with(heading))
            .unwrap();
        section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    #[test]
    fn the_documentation_has_every_field_and_every_word_in_order() {
        assert_eq!(documented("Fields"), names::ALL);
        assert_eq!(documented("Causes"), Cause::ALL.map(Cause::name));
        assert_eq!(documented("Phases"), Phase::ALL.map(Phase::name));
        assert_eq!(
            documented("Relay paths"),
            RelayPath::ALL.map(RelayPath::name)
        );
        assert_eq!(documented("Fallbacks"), Fallback::ALL.map(Fallback::name));
        let sides = [Side::Downstream.name(), Side::Upstream.name()];
        assert_eq!(
            documented("Who ended it"),
            [sides[0], sides[1], names::ENDED_BY_RINGWAY]
        );
    }
}
