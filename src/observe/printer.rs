//! A record as one line of the access log, as the configuration wants it.

use super::format::write_fields;
use super::line::{Encoding, Escapes, Values};
use super::record::Record;
use crate::config::{LogFormat, LogPlan, Piece};
use crate::types::LogField;

/// Turns records into lines.
#[derive(Debug)]
pub struct Printer {
    layout: Layout,
    values: Values,
}

#[derive(Debug)]
enum Layout {
    Json(Vec<LogField>),
    Logfmt(Vec<LogField>),
    Template(Vec<Piece>),
}

impl Printer {
    #[must_use]
    pub fn new(plan: &LogPlan) -> Self {
        let fields = plan.fields.clone();
        match &plan.format {
            LogFormat::Json => Self {
                values: Values::new(Encoding::Json, fields.iter().copied()),
                layout: Layout::Json(fields),
            },
            LogFormat::Logfmt => Self {
                values: Values::new(Encoding::Logfmt, fields.iter().copied()),
                layout: Layout::Logfmt(fields),
            },
            LogFormat::Template(pieces) => Self {
                values: Values::new(Encoding::Template(Escapes::of(pieces)), named(pieces)),
                layout: Layout::Template(pieces.clone()),
            },
        }
    }

    /// Appends the record as one line, without a newline, to `out`.
    pub fn print(&mut self, record: &Record, out: &mut Vec<u8>) {
        let Self { layout, values } = self;
        values.clear();
        write_fields(record, values);
        match layout {
            Layout::Json(fields) => print_json(fields, values, out),
            Layout::Logfmt(fields) => print_logfmt(fields, values, out),
            Layout::Template(pieces) => print_template(pieces, values, out),
        }
    }
}

fn named(pieces: &[Piece]) -> impl Iterator<Item = LogField> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Text(_) => None,
        Piece::Field { field, .. } => Some(*field),
    })
}

/// The chosen fields that have a value.
fn present<'v>(
    fields: &[LogField],
    values: &'v Values,
) -> impl Iterator<Item = (&'static str, &'v [u8])> {
    let all = fields.iter().map(|field| (field.name(), values.of(*field)));
    all.filter(|(_, value)| !value.is_empty())
}

fn print_json(fields: &[LogField], values: &Values, out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (name, value)) in present(fields, values).enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    }
    out.push(b'}');
}

fn print_logfmt(fields: &[LogField], values: &Values, out: &mut Vec<u8>) {
    for (at, (name, value)) in present(fields, values).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

fn print_template(pieces: &[Piece], values: &Values, out: &mut Vec<u8>) {
    for piece in pieces {
        out.extend_from_slice(match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::Field { field, .. } => match values.of(*field) {
                [] => b"-",
                value => value,
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{self, AccessLog};
    use crate::observe::Address;
    use crate::observe::sample::{bare_record, full_record, plan};
    use crate::types::{Cause, End, Phase};

    fn printed(format: LogFormat, fields: &[&str], record: &Record) -> String {
        let fields = fields.iter().map(|name| LogField::named(name).unwrap());
        let log = LogPlan {
            format,
            fields: fields.collect(),
            ..plan(AccessLog::Off, 1).log.clone()
        };
        let mut printer = Printer::new(&log);
        let mut out = Vec::new();
        // What one record leaves behind must not show in the next.
        printer.print(&full_record(), &mut out);
        out.clear();
        printer.print(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn template(text: &str) -> LogFormat {
        let text = format!("[log]\nformat = {}\n", toml::Value::from(text));
        let loaded = config::parse("x.toml", text + MINIMAL);
        loaded.into_plan().unwrap().log.format
    }

    const MINIMAL: &str = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
                           [upstream.b]\nservers = [\"127.0.0.1:1\"]\n";

    fn templated(text: &str, record: &Record) -> String {
        printed(template(text), &[], record)
    }

    fn asking_for(sni: &str) -> Record {
        Record {
            sni: Some(sni.into()),
            end: Some(End::new(Cause::Alert, Phase::Relay, None).with_detail(sni)),
            ..full_record()
        }
    }

    #[test]
    fn chosen_fields_stand_in_the_order_of_the_choice() {
        let fields = ["end", "sni", "core", "time"];
        assert_eq!(
            printed(LogFormat::Json, &fields, &full_record()),
            r#"{"end":"reset","sni":"db.example.org","core":3,"time":"2020-02-29T12:34:56.789Z"}"#
        );
        assert_eq!(
            printed(LogFormat::Logfmt, &fields, &bare_record()),
            "end=limit core=0 time=2020-02-29T12:34:56.789Z"
        );
        assert_eq!(printed(LogFormat::Json, &["sni"], &bare_record()), "{}");
    }

    #[test]
    fn a_template_is_filled_in_and_what_is_not_known_is_a_dash() {
        assert_eq!(
            templated(
                "$client [$time] ${total_ms}ms \"$detail\" $$",
                &full_record()
            ),
            "[2001:db8::1]:40000 [2020-02-29T12:34:56.789Z] 61000.000ms \
             \"Connection reset by peer\" $"
        );
        assert_eq!(templated("$sni|$alert|$tries", &bare_record()), "-|-|0");
        assert_eq!(templated("$sni $sni", &asking_for("-")), "\\x2D \\x2D");
        assert_eq!(templated("$sni", &asking_for("")), "-");
    }

    #[test]
    fn a_stranger_can_forge_neither_a_line_nor_a_field_of_a_template() {
        let evil = "a\" b|c]\\x20d,\n$end\u{1b}[2J\u{202e}é";
        for (format, marks) in [
            ("$core $sni $detail $end", " \""),
            ("$core|$sni|$detail|$end", "| \""),
            ("$core [$sni] $detail $end", " ]\""),
            ("$core \"$sni\" \"$detail\" $end", "\""),
        ] {
            let text = templated(format, &asking_for(evil));
            let honest = templated(format, &asking_for("honest"));
            for mark in marks.chars() {
                let count = |text: &str| text.matches(mark).count();
                assert_eq!(count(&text), count(&honest), "{mark} in {text}");
            }
            let is_safe = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            assert!(text.bytes().all(is_safe), "{text:?}");
            assert!(text.ends_with("alert"), "{text}");
        }
        assert_eq!(
            templated("[$sni] \"$detail\"", &asking_for("a] b\"\\")),
            "[a\\x5D\\x20b\\x22\\x5C] \"a] b\\x22\\x5C\""
        );
    }

    #[test]
    fn a_path_that_a_client_chose_is_a_strangers_text() {
        let record = Record {
            client: Address::Unix(Arc::new("/tmp/a b".into())),
            ..full_record()
        };
        assert_eq!(templated("$client $core", &record), "unix:/tmp/a\\x20b 3");
    }
}
