use std::ops::Range;

use super::Refusal;
use crate::config::keys::nearest;
use crate::config::plan::Piece;
use crate::types::{LogField, log_fields};

/// One thing that is wrong in a template, and where.
pub(in crate::config) type Fault = (Range<usize>, Refusal);

/// A field of the access log by its name.
pub(in crate::config) fn log_field(name: &str) -> Result<LogField, Refusal> {
    LogField::named(name).ok_or_else(|| {
        let cure = match nearest(name, log_fields::ALL) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => {
                "docs/access-log.md has them all: \"time\", \"client\", \"listener\", \"end\", ..."
                    .to_owned()
            }
        };
        Refusal::new(format!("`{name}` is no field of the access log"), cure)
    })
}

/// `$name` or `${name}` for a field, `$$` for a dollar sign, and all else as it stands.
pub(in crate::config) fn template(text: &str) -> Result<Vec<Piece>, Vec<Fault>> {
    let mut reader = Reader {
        text,
        at: 0,
        pieces: Vec::new(),
        faults: Vec::new(),
    };
    reader.read();
    if !reader.faults.is_empty() {
        return Err(reader.faults);
    }
    mark_quoted(&mut reader.pieces);
    Ok(reader.pieces)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    pieces: Vec<Piece>,
    faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    fn read(&mut self) {
        while let Some(dollar) = self.rest().find('$') {
            self.take_text(dollar);
            self.take_dollar();
        }
        self.take_text(self.rest().len());
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn take_text(&mut self, bytes: usize) {
        let text = &self.rest()[..bytes];
        if let Some((at, char)) = text
            .char_indices()
            .find(|&(_, c)| c.is_control() && c != '\t')
        {
            let begin = self.at + at;
            let refusal = Refusal::new(
                "a line of the access log is one line, without control characters",
                "take it out; a tab (\\t) may stay",
            );
            self.faults.push((begin..begin + char.len_utf8(), refusal));
        }
        self.push_text(text);
        self.at += bytes;
    }

    fn take_dollar(&mut self) {
        let behind = &self.rest()[1..];
        let name_bytes = |text: &str| {
            let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            text.find(end).unwrap_or(text.len())
        };
        if behind.starts_with('$') {
            self.push_text("$");
            self.at += 2;
        } else if let Some(braced) = behind.strip_prefix('{') {
            match braced.find('}') {
                Some(end) => self.take_field(&braced[..end], end + 3),
                None => self.refuse(2, "this `${` is not closed", "write `${name}`"),
            }
        } else {
            match name_bytes(behind) {
                0 => self.refuse(
                    1,
                    "this `$` names no field",
                    "write `$name` or `${name}`, or `$$` for a dollar sign",
                ),
                bytes => self.take_field(&behind[..bytes], bytes + 1),
            }
        }
    }

    fn take_field(&mut self, name: &str, bytes: usize) {
        let place = self.at..self.at + bytes;
        if let Some(Piece::Field { .. }) = self.pieces.last() {
            let refusal = Refusal::new(
                "nobody could tell where the field before ends and this one begins",
                "write something between them, say a space",
            );
            self.faults.push((place.clone(), refusal));
        }
        match log_field(name) {
            Ok(field) => self.pieces.push(Piece::Field {
                field,
                quoted: false,
            }),
            Err(refusal) => self.faults.push((place, refusal)),
        }
        self.at += bytes;
    }

    fn push_text(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            _ if text.is_empty() => {}
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    fn refuse(&mut self, bytes: usize, message: &str, cure: &str) {
        let place = self.at..self.at + bytes;
        self.faults.push((place, Refusal::new(message, cure)));
        self.at += bytes;
    }
}

fn mark_quoted(pieces: &mut [Piece]) {
    for at in 1..pieces.len().saturating_sub(1) {
        let opened = matches!(&pieces[at - 1], Piece::Text(text) if text.ends_with('"'));
        let closed = matches!(&pieces[at + 1], Piece::Text(text) if text.starts_with('"'));
        if let Piece::Field { quoted, .. } = &mut pieces[at] {
            *quoted = opened && closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let pieces = template(text).unwrap();
        let show = |piece: Piece| match piece {
            Piece::Text(text) => text,
            Piece::Field { field, quoted } => {
                format!("<{}{}>", field.name(), if quoted { " quoted" } else { "" })
            }
        };
        pieces.into_iter().map(show).collect()
    }

    fn faults(text: &str) -> Vec<(&str, String)> {
        let faults = template(text).unwrap_err();
        faults
            .into_iter()
            .map(|(place, refusal)| (&text[place], refusal.message))
            .collect()
    }

    #[test]
    fn fields_texts_and_dollar_signs_are_told_apart() {
        assert_eq!(
            shown("$client [$time] ${total_ms}ms $$5 \"$detail\" $end"),
            [
                "<client>",
                " [",
                "<time>",
                "] ",
                "<total_ms>",
                "ms $5 \"",
                "<detail quoted>",
                "\" ",
                "<end>"
            ]
        );
        assert_eq!(shown("$end.$phase\t"), ["<end>", ".", "<phase>", "\t"]);
        assert_eq!(shown("é $sni é"), ["é ", "<sni>", " é"]);
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let found = faults("$clinet $ ${end $sni");
        let places: Vec<_> = found.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, ["$clinet", "$", "${"]);
        assert!(found[0].1.contains("no field"), "{found:?}");
        let (_, refusal) = &template("$clinet").unwrap_err()[0];
        assert_eq!(refusal.cure, "did you mean \"client\"?");
    }

    #[test]
    fn fields_side_by_side_and_control_characters_are_refused() {
        assert_eq!(faults("$sni$client")[0].0, "$client");
        assert_eq!(faults("$sni\n$client")[0].0, "\n");
        assert_eq!(faults("${}")[0].0, "${}");
    }
}
