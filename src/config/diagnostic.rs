use std::fmt::Write as _;
use std::ops::Range;

use super::plan::Place;
use super::source::Source;

/// Widest source line shown whole; a longer one is cut around the place that is blamed.
const LINE_COLUMNS_MAX: usize = 120;
/// Columns kept before the blamed place in a line that is cut.
const LEAD_COLUMNS: usize = 40;
const TAB_COLUMNS: usize = 4;
/// Enough for the widest line shown, at 4 bytes a character.
const NEAR_BYTES: usize = 4 * LINE_COLUMNS_MAX;
/// Nobody reads on after this many.
const SHOWN_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is taken, and something in it is unsafe or has no effect.
    Warning,
}

/// One thing to say about a configuration: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Bytes of the source. `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    pub message: String,
    pub cure: Option<String>,
}

impl Diagnostic {
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }

    /// Blames a value of the plan; one that came from a default has no place in the file.
    #[must_use]
    pub fn at_place(mut self, place: &Place) -> Self {
        self.span = (!place.span.is_empty()).then(|| place.span.clone());
        self
    }

    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    fn new(severity: Severity, message: String) -> Self {
        Self {
            severity,
            span: None,
            message,
            cure: None,
        }
    }
}

/// Whether a rendering carries terminal escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Plain,
    Colour,
}

/// Everything said about one source.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    all: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.all.last() != Some(&diagnostic) {
            self.all.push(diagnostic);
        }
    }

    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        for diagnostic in diagnostics {
            self.push(diagnostic);
        }
    }

    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// In the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.all.iter()
    }

    /// All of them, by their place in the source; what blames the whole file comes first.
    #[must_use]
    pub fn render(&self, source: &Source, paint: Paint) -> String {
        let mut sorted: Vec<&Diagnostic> = self.all.iter().collect();
        sorted.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
        let beyond = sorted.len().saturating_sub(SHOWN_MAX);
        let mut blocks: Vec<String> = sorted
            .into_iter()
            .take(SHOWN_MAX)
            .map(|diagnostic| render_one(diagnostic, source, paint))
            .collect();
        if beyond > 0 {
            blocks.push(format!("{}: and {beyond} more\n", printable(&source.name)));
        }
        blocks.join("\n")
    }

    fn count(&self, severity: Severity) -> usize {
        self.all.iter().filter(|d| d.severity == severity).count()
    }
}

fn render_one(diagnostic: &Diagnostic, source: &Source, paint: Paint) -> String {
    let (word, colour) = match diagnostic.severity {
        Severity::Error => ("error", "\x1b[1;31m"),
        Severity::Warning => ("warning", "\x1b[1;33m"),
    };
    let (on, off) = match paint {
        Paint::Plain => ("", ""),
        Paint::Colour => (colour, "\x1b[0m"),
    };
    let mut out = printable(&source.name);
    if let Some(span) = &diagnostic.span {
        let position = source.position(span.start);
        let _ = write!(out, ":{}:{}", position.line, position.column);
    }
    let _ = writeln!(out, ": {on}{word}{off}: {}", printable(&diagnostic.message));
    if let Some(span) = &diagnostic.span {
        let (line, caret) = excerpt(source, span);
        let _ = writeln!(out, "  {line}\n  {on}{caret}{off}");
    }
    if let Some(cure) = &diagnostic.cure {
        let _ = writeln!(out, "  cure: {}", printable(cure));
    }
    out
}

/// The blamed line as a terminal can show it, and the carets under the span.
fn excerpt(source: &Source, span: &Range<usize>) -> (String, String) {
    let line = near(source, span.start);
    let end = span.end.clamp(span.start, line.end.max(span.start));
    let mut cells: Vec<Cell> = Vec::new();
    for (offset, character) in source.text[line.clone()].char_indices() {
        let blamed = (span.start..end).contains(&(line.start + offset));
        cells.push(Cell::new(character, blamed));
    }
    if !cells.iter().any(|cell| cell.blamed) {
        // Past the line's end, or an empty span: one caret where it stands.
        let at = source.text[line.start..span.start.clamp(line.start, line.end)]
            .chars()
            .count();
        match cells.get_mut(at) {
            Some(cell) => cell.blamed = true,
            None => cells.push(Cell::new(' ', true)),
        }
    }
    draw(window(&cells))
}

/// The line, or of an endless one what is near the blamed place.
fn near(source: &Source, at: usize) -> Range<usize> {
    let line = source.line_range(at);
    let text = &source.text;
    let start = text.floor_char_boundary(at.saturating_sub(NEAR_BYTES));
    let end = text.floor_char_boundary(at.saturating_add(NEAR_BYTES));
    line.start.max(start).min(line.end)..line.end.min(end)
}

struct Cell {
    shown: String,
    columns: usize,
    blamed: bool,
}

impl Cell {
    fn new(character: char, blamed: bool) -> Self {
        let (shown, columns) = match character {
            '\t' => (" ".repeat(TAB_COLUMNS), TAB_COLUMNS),
            c if c.is_control() => ("\u{fffd}".to_owned(), 1),
            c => (c.to_string(), columns_of(c)),
        };
        Self {
            shown,
            columns,
            blamed,
        }
    }
}

fn window(cells: &[Cell]) -> &[Cell] {
    let columns: usize = cells.iter().map(|cell| cell.columns).sum();
    if columns <= LINE_COLUMNS_MAX {
        return cells;
    }
    let first = cells.iter().position(|cell| cell.blamed).unwrap_or(0);
    let start = first.saturating_sub(LEAD_COLUMNS);
    let end = (start + LINE_COLUMNS_MAX).min(cells.len());
    &cells[start..end]
}

fn draw(cells: &[Cell]) -> (String, String) {
    let mut line = String::new();
    let mut caret = String::new();
    for cell in cells {
        line.push_str(&cell.shown);
        let mark = if cell.blamed { "^" } else { " " };
        caret.push_str(&mark.repeat(cell.columns));
    }
    let line_width = line.trim_end().len();
    line.truncate(line_width);
    let caret_width = caret.trim_end().len();
    caret.truncate(caret_width);
    (line, caret)
}

/// Columns of a character on a terminal: 0 for combining marks, 2 for East Asian wide ones. The
/// ranges are the large blocks of Unicode's EastAsianWidth.txt, enough to keep a caret in place.
fn columns_of(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// A file's bytes must not steer the terminal that reads about them.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, diagnostic: Diagnostic) -> String {
        let source = Source {
            name: "edge.toml".to_owned(),
            text: text.to_owned(),
        };
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(diagnostic);
        diagnostics.render(&source, Paint::Plain)
    }

    #[test]
    fn shows_place_line_caret_and_cure() {
        let text = "[[listener]]\nidle_timout = 5\n";
        assert_eq!(
            rendered(text, Diagnostic::error("unknown key").at(13..24).cure("x")),
            "edge.toml:2:1: error: unknown key\n  idle_timout = 5\n  ^^^^^^^^^^^\n  cure: x\n"
        );
    }

    #[test]
    fn the_caret_stands_right_after_tabs_and_wide_characters() {
        let text = "\t\"漢é\" = 5";
        let at = text.find('5').unwrap();
        assert_eq!(
            rendered(text, Diagnostic::warning("w").at(at..at + 1)),
            "edge.toml:1:9: warning: w\n      \"漢é\" = 5\n              ^\n"
        );
    }

    #[test]
    fn a_span_over_lines_is_marked_on_its_first_line_only() {
        let text = "a = [\n1]";
        assert_eq!(
            rendered(text, Diagnostic::error("e").at(4..8)),
            "edge.toml:1:5: error: e\n  a = [\n      ^\n"
        );
    }

    #[test]
    fn an_empty_span_at_the_end_has_one_caret() {
        assert_eq!(
            rendered("a = ", Diagnostic::error("e").at(4..4)),
            "edge.toml:1:5: error: e\n  a =\n      ^\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let out = rendered("a = \x1b[2J", Diagnostic::error("\x1b]0;x\x07").at(4..5));
        assert!(!out.contains('\x1b') && !out.contains('\x07'), "{out:?}");
    }

    #[test]
    fn a_very_long_line_is_cut_around_its_span() {
        let text = format!("a = \"{}\" # {}", "x".repeat(300), "y".repeat(5000));
        let out = rendered(&text, Diagnostic::error("e").at(305..306));
        assert!(out.lines().all(|line| line.len() < 130), "{out}");
        assert!(out.contains('^'));
    }

    #[test]
    fn they_are_sorted_by_place_and_said_once() {
        let source = Source {
            name: "f".to_owned(),
            text: "a\nb\n".to_owned(),
        };
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(Diagnostic::error("second").at(2..3));
        diagnostics.push(Diagnostic::error("first").at(0..1));
        diagnostics.push(Diagnostic::error("first").at(0..1));
        diagnostics.push(Diagnostic::warning("whole"));
        let out = diagnostics.render(&source, Paint::Plain);
        let heads: Vec<&str> = out.lines().filter(|l| l.starts_with('f')).collect();
        assert_eq!(
            heads,
            [
                "f: warning: whole",
                "f:1:1: error: first",
                "f:2:1: error: second"
            ]
        );
        assert_eq!((diagnostics.errors(), diagnostics.warnings()), (2, 1));
    }
}
