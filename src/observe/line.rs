//! How one line is put on paper: JSON or logfmt, in bytes that are safe on a terminal.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Takes a line's fields in order. A line starts with `open` and ends with `close`.
pub(super) trait Line {
    fn open(&mut self);
    fn text(&mut self, name: &'static str, value: &str);
    fn number(&mut self, name: &'static str, value: u64);
    fn flag(&mut self, name: &'static str, value: bool);
    fn millis(&mut self, name: &'static str, value: Duration);
    fn list(&mut self, name: &'static str, values: &[String]);
    fn close(&mut self);
}

pub(super) struct Json<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

impl Json<'_> {
    fn name(&mut self, name: &'static str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

impl Line for Json<'_> {
    fn open(&mut self) {
        self.out.push(b'{');
    }

    fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        quote(self.out, value);
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        print(self.out, format_args!("{value}"));
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        print(self.out, format_args!("{value}"));
    }

    fn millis(&mut self, name: &'static str, value: Duration) {
        self.name(name);
        print_millis(self.out, value);
    }

    fn list(&mut self, name: &'static str, values: &[String]) {
        self.name(name);
        quote(self.out, values);
    }

    fn close(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }
}

pub(super) struct Logfmt<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

impl Logfmt<'_> {
    fn name(&mut self, name: &'static str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'=');
    }

    fn end_field(&mut self) {
        self.out.push(b' ');
    }
}

impl Line for Logfmt<'_> {
    fn open(&mut self) {}

    fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        if is_bare(value) {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            quote(self.out, value);
        }
        self.end_field();
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        print(self.out, format_args!("{value} "));
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        print(self.out, format_args!("{value} "));
    }

    fn millis(&mut self, name: &'static str, value: Duration) {
        self.name(name);
        print_millis(self.out, value);
        self.end_field();
    }

    /// logfmt has no lists: one text, its parts divided by "; ".
    fn list(&mut self, name: &'static str, values: &[String]) {
        self.text(name, &values.join("; "));
    }

    fn close(&mut self) {
        if self.out.last() == Some(&b' ') {
            self.out.pop();
        }
        self.out.push(b'\n');
    }
}

/// Whether logfmt's readers take the value without quotes.
fn is_bare(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

fn print(out: &mut Vec<u8>, value: std::fmt::Arguments<'_>) {
    // A Vec takes every write.
    let _ = out.write_fmt(value);
}

fn print_millis(out: &mut Vec<u8>, value: Duration) {
    let micros = value.as_micros();
    print(out, format_args!("{}.{:03}", micros / 1000, micros % 1000));
}

fn quote<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Texts always serialize, and a Vec takes every write.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(out, Quiet));
}

/// serde_json's compact form, with every character escaped that could steer a terminal or turn
/// the text's direction: names in certificates and hellos come from strangers.
struct Quiet;

impl Formatter for Quiet {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some((at, loud)) = rest.char_indices().find(|&(_, char)| is_loud(char)) {
            let (quiet, tail) = rest.split_at(at);
            writer.write_all(quiet.as_bytes())?;
            write!(writer, "\\u{:04x}", u32::from(loud))?;
            rest = tail.get(loud.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// DEL and the C1 controls, line separators, and the bidirectional controls of Unicode (UAX 9).
/// All lie below U+10000: one `\u` escape each. serde_json itself escapes what is below U+0020.
fn is_loud(char: char) -> bool {
    matches!(
        char,
        '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}
