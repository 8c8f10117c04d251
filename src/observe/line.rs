//! How a record's values are put on paper: bytes that are safe on a terminal, and that cannot be
//! taken for anything but a value.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::ser::Formatter;

use crate::config::Piece;
use crate::types::{LogField, log_fields};

/// How texts are written. Numbers look the same in all.
#[derive(Debug)]
pub(super) enum Encoding {
    Json,
    Logfmt,
    Template(Escapes),
    /// As they are, for a protocol that says how long each is.
    Raw,
}

/// The wanted values of one record, each as it will stand in the line.
#[derive(Debug)]
pub(super) struct Values {
    encoding: Encoding,
    wanted: [bool; LogField::COUNT],
    bytes: Vec<u8>,
    /// Where each field's value stands in `bytes`; an empty range: it has none.
    spans: [(usize, usize); LogField::COUNT],
    /// Fields come in the order of `log_fields::ALL`: the next one is at this place or behind.
    next: usize,
}

impl Values {
    pub(super) fn new(encoding: Encoding, fields: impl IntoIterator<Item = LogField>) -> Self {
        let mut wanted = [false; LogField::COUNT];
        for field in fields {
            wanted[field.place()] = true;
        }
        Self {
            encoding,
            wanted,
            bytes: Vec::new(),
            spans: [(0, 0); LogField::COUNT],
            next: 0,
        }
    }

    /// Makes room for the next record.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.fill((0, 0));
        self.next = 0;
    }

    /// Empty: the record has no value for it.
    pub(super) fn of(&self, field: LogField) -> &[u8] {
        let (begin, end) = self.spans[field.place()];
        &self.bytes[begin..end]
    }

    /// Names from peers, words for humans: anything.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.put(name, |encoding, place, out| match encoding {
            Encoding::Json => quote(out, value),
            Encoding::Logfmt if is_bare(value) => out.extend_from_slice(value.as_bytes()),
            Encoding::Logfmt => quote(out, value),
            Encoding::Template(escapes) => escapes.write(place, value, out),
            Encoding::Raw => out.extend_from_slice(value.as_bytes()),
        });
    }

    /// What no peer can choose: our own words, checked names, addresses.
    pub(super) fn word(&mut self, name: &'static str, value: &str) {
        self.put(name, |encoding, _, out| match encoding {
            Encoding::Json => quote(out, value),
            _ => out.extend_from_slice(value.as_bytes()),
        });
    }

    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.put(name, |_, _, out| print(out, format_args!("{value}")));
    }

    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.put(name, |_, _, out| print(out, format_args!("{value}")));
    }

    pub(super) fn millis(&mut self, name: &'static str, value: Duration) {
        let micros = value.as_micros();
        let (whole, rest) = (micros / 1000, micros % 1000);
        self.put(name, |_, _, out| {
            print(out, format_args!("{whole}.{rest:03}"));
        });
    }

    /// Only JSON has lists: elsewhere it is one text, its parts divided by "; ".
    pub(super) fn list(&mut self, name: &'static str, values: &[String]) {
        match self.encoding {
            Encoding::Json => self.put(name, |_, _, out| quote(out, values)),
            _ => self.text(name, &values.join("; ")),
        }
    }

    fn put(&mut self, name: &'static str, write: impl FnOnce(&Encoding, usize, &mut Vec<u8>)) {
        let rest = log_fields::ALL.iter().skip(self.next);
        let Some(ahead) = rest.into_iter().position(|known| *known == name) else {
            debug_assert!(false, "{name} comes out of order");
            return;
        };
        let place = self.next + ahead;
        self.next = place + 1;
        if self.wanted[place] {
            let begin = self.bytes.len();
            write(&self.encoding, place, &mut self.bytes);
            self.spans[place] = (begin, self.bytes.len());
        }
    }
}

/// What a value in a template must not hold.
#[derive(Debug)]
pub(super) struct Escapes {
    /// The marks that follow fields: a value that held one would seem to end there.
    marks: Vec<u8>,
    /// Fields that stand between quotation marks in all their places.
    quoted: [bool; LogField::COUNT],
}

impl Escapes {
    pub(super) fn of(template: &[Piece]) -> Self {
        let mut quoted = [true; LogField::COUNT];
        for piece in template {
            if let Piece::Field {
                field,
                quoted: false,
            } = piece
            {
                quoted[field.place()] = false;
            }
        }
        let behind = template.windows(2).filter_map(|pair| match pair {
            [Piece::Field { .. }, Piece::Text(text)] => text.bytes().next(),
            _ => None,
        });
        Self {
            marks: behind.filter(u8::is_ascii_punctuation).collect(),
            quoted,
        }
    }

    /// "-" means that there is no value, so a value of that text is escaped, too.
    fn write(&self, place: usize, value: &str, out: &mut Vec<u8>) {
        match value {
            "" => out.push(b'-'),
            "-" => out.extend_from_slice(b"\\x2D"),
            _ => {
                let quoted = self.quoted[place];
                for byte in value.bytes() {
                    if self.is_plain(byte, quoted) {
                        out.push(byte);
                    } else {
                        print(out, format_args!("\\x{byte:02X}"));
                    }
                }
            }
        }
    }

    fn is_plain(&self, byte: u8, quoted: bool) -> bool {
        match byte {
            b'"' | b'\\' => false,
            b' ' => quoted,
            _ => byte.is_ascii_graphic() && (quoted || !self.marks.contains(&byte)),
        }
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
