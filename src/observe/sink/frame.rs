//! What is around a line on its way to where it goes.

use std::io::Write as _;
use std::process;
use std::time::SystemTime;

use time::OffsetDateTime;

use crate::config::{AccessLog, LogPlan, SyslogPlan};
use crate::observe::format::write_fields;
use crate::observe::line::{Encoding, Values};
use crate::observe::{Printer, Record};
use crate::types::{Cause, LogField};

/// Severities of RFC 5424 6.2.1.
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;

/// Puts records into the form that their destination takes.
pub(super) struct Framer {
    printer: Printer,
    frame: Frame,
}

enum Frame {
    /// One behind the other in a stream.
    Line,
    Syslog(SyslogPlan),
    Journal(Box<Journal>),
}

/// The journal's own protocol: the line is the message, and each field a field of the entry.
struct Journal {
    syslog: SyslogPlan,
    fields: Vec<(LogField, Vec<u8>)>,
    values: Values,
    line: Vec<u8>,
}

impl Framer {
    pub(super) fn new(plan: &LogPlan) -> Self {
        let frame = match plan.access {
            AccessLog::Off | AccessLog::Stderr | AccessLog::File(_) => Frame::Line,
            AccessLog::Syslog(_) => Frame::Syslog(plan.syslog.clone()),
            AccessLog::Journald(_) => Frame::Journal(Box::new(Journal::new(plan))),
        };
        Self {
            printer: Printer::new(plan),
            frame,
        }
    }

    /// Appends the record as one line of a stream, or as one datagram.
    pub(super) fn write(&mut self, record: &Record, out: &mut Vec<u8>) {
        match &mut self.frame {
            Frame::Line => {
                self.printer.print(record, out);
                out.push(b'\n');
            }
            Frame::Syslog(plan) => {
                write_syslog_header(plan, severity(record), out);
                self.printer.print(record, out);
            }
            Frame::Journal(journal) => journal.write(&mut self.printer, record, out),
        }
    }
}

impl Journal {
    fn new(plan: &LogPlan) -> Self {
        let named = |field: &LogField| {
            let name = format!("RINGWAY_{}", field.name().to_ascii_uppercase());
            (*field, name.into_bytes())
        };
        Self {
            syslog: plan.syslog.clone(),
            fields: plan.fields.iter().map(named).collect(),
            values: Values::new(Encoding::Raw, plan.fields.iter().copied()),
            line: Vec::new(),
        }
    }

    fn write(&mut self, printer: &mut Printer, record: &Record, out: &mut Vec<u8>) {
        self.line.clear();
        printer.print(record, &mut self.line);
        write_entry_field(b"MESSAGE", &self.line, out);
        let SyslogPlan { facility, tag } = &self.syslog;
        let own = [
            (&b"PRIORITY"[..], severity(record).to_string()),
            (b"SYSLOG_FACILITY", facility.0.to_string()),
            (b"SYSLOG_IDENTIFIER", tag.clone()),
        ];
        for (name, value) in own {
            write_entry_field(name, value.as_bytes(), out);
        }
        self.values.clear();
        write_fields(record, &mut self.values);
        for (field, name) in &self.fields {
            let value = self.values.of(*field);
            if !value.is_empty() {
                write_entry_field(name, value, out);
            }
        }
    }
}

/// systemd's "Native Journal Protocol": `NAME=value`, or where the value has more than one line
/// its length in 64 bits, the lowest byte first, in front of it.
fn write_entry_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// As syslog(3) writes it to the local socket: RFC 3164 without a host name. rsyslog and journald
/// take the time of arrival instead of this one; UTC, as musl has it.
fn write_syslog_header(plan: &SyslogPlan, severity: u8, out: &mut Vec<u8>) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let now = OffsetDateTime::from(SystemTime::now());
    let month = MONTHS[usize::from(u8::from(now.month()) - 1)];
    // A Vec takes every write.
    let _ = write!(
        out,
        "<{}>{month} {:2} {:02}:{:02}:{:02} {}[{}]: ",
        u16::from(plan.facility.0) * 8 + u16::from(severity),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        plan.tag,
        process::id(),
    );
}

fn severity(record: &Record) -> u8 {
    match &record.end {
        Some(end) if end.cause == Cause::Finished => INFORMATIONAL,
        _ => NOTICE,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Facility, LogFormat};
    use crate::observe::sample::{bare_record, full_record, plan};
    use crate::types::{End, Phase};

    fn framed(access: AccessLog, record: &Record) -> Vec<u8> {
        let fields = ["sni", "detail", "end"].map(|name| LogField::named(name).unwrap());
        let log = LogPlan {
            format: LogFormat::Logfmt,
            fields: fields.to_vec(),
            syslog: SyslogPlan {
                facility: Facility(16),
                tag: "edge".into(),
            },
            ..plan(access, 1).log.clone()
        };
        let mut out = Vec::new();
        Framer::new(&log).write(record, &mut out);
        out
    }

    fn finished() -> Record {
        Record {
            end: Some(End::new(Cause::Finished, Phase::Relay, None)),
            ..bare_record()
        }
    }

    #[test]
    fn a_syslog_line_has_priority_time_tag_and_process_in_front() {
        let text = |record: &Record| {
            let framed = framed(AccessLog::Syslog(PathBuf::new()), record);
            String::from_utf8(framed).unwrap()
        };
        let (failed, clean) = (text(&bare_record()), text(&finished()));
        assert!(failed.starts_with("<133>"), "local0.notice: {failed}");
        assert!(clean.starts_with("<134>"), "local0.info: {clean}");
        let shape: String = clean[5..21]
            .chars()
            .map(|c| match c {
                'A'..='Z' | 'a'..='z' => 'a',
                '0'..='9' => '0',
                c => c,
            })
            .collect();
        assert!(
            ["aaa 00 00:00:00 ", "aaa  0 00:00:00 "].contains(&shape.as_str()),
            "{clean}"
        );
        let rest = format!("edge[{}]: end=finished", process::id());
        assert!(clean.ends_with(&rest), "{clean}");
    }

    #[test]
    fn a_journal_entry_has_the_line_and_each_field() {
        let framed = framed(AccessLog::Journald(PathBuf::new()), &finished());
        assert_eq!(
            String::from_utf8(framed).unwrap(),
            "MESSAGE=end=finished\nPRIORITY=6\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=edge\n\
             RINGWAY_END=finished\n"
        );
    }

    #[test]
    fn a_strangers_line_break_begins_no_field_of_a_journal_entry() {
        let record = Record {
            sni: Some("a\nPRIORITY=0".into()),
            ..full_record()
        };
        let framed = framed(AccessLog::Journald(PathBuf::new()), &record);
        let expected = b"\nRINGWAY_SNI\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nRINGWAY_DETAIL=";
        assert!(
            framed.windows(expected.len()).any(|part| part == expected),
            "{}",
            String::from_utf8_lossy(&framed)
        );
    }
}
