use std::ops::Range;

use aws_lc_rs::digest;

/// A configuration's text and what to call it in messages.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file's path as the user wrote it.
    pub name: String,
    pub text: String,
}

/// A position as editors count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// Characters, from 1.
    pub column: usize,
}

impl Source {
    /// SHA-256 of the text, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.text.as_bytes());
        let bytes = digest.as_ref().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let line = self.line_range(offset);
        let before = &self.text[..line.start];
        let inside = &self.text[line.start..self.boundary(offset).clamp(line.start, line.end)];
        Position {
            line: before.bytes().filter(|&b| b == b'\n').count() + 1,
            column: inside.chars().count() + 1,
        }
    }

    /// Bytes of the line that holds `offset`, without its end.
    #[must_use]
    pub fn line_range(&self, offset: usize) -> Range<usize> {
        let offset = self.boundary(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[offset..]
            .find('\n')
            .map_or(self.text.len(), |at| offset + at);
        let line = self.text[start..end].trim_end_matches('\r');
        start..start + line.len()
    }

    /// The nearest place at or before `offset` that does not cut a character.
    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            name: "x.toml".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn positions_count_characters_not_bytes() {
        let source = source("a = 1\nnäme = 2\r\nb");
        let at = |offset| {
            let position = source.position(offset);
            (position.line, position.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(5), (1, 6));
        assert_eq!(at(6), (2, 1));
        assert_eq!(at(9), (2, 3), "ä is one column");
        assert_eq!(at(source.text.len() - 1), (3, 1));
        assert_eq!(at(9999), (3, 2));
    }

    #[test]
    fn a_line_has_neither_its_newline_nor_a_carriage_return() {
        let source = source("a\r\nbc\n");
        assert_eq!(source.line_range(0), 0..1);
        assert_eq!(source.line_range(4), 3..5);
        assert_eq!(source.line_range(6), 6..6);
    }
}
