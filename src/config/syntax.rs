//! TOML's own errors, and what of the file can still be trusted beside them.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, Error};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::keys;
use super::source::Source;

/// The text to go on with, and keys that stand on lines that are not TOML.
pub(super) struct Sound<'s> {
    pub(super) text: Cow<'s, str>,
    pub(super) broken_keys: Vec<String>,
}

/// Reports what is not TOML. Broken `key = value` lines are blanked, at the same offsets, so that
/// the rest can be checked in the same run. `None`: the damage is wider (a header, an array over
/// several lines), and to go on would only tell follow-on errors.
pub(super) fn check<'s>(source: &'s Source, diagnostics: &mut Diagnostics) -> Option<Sound<'s>> {
    let (_, errors) = DeTable::parse_recoverable(&source.text);
    if errors.is_empty() {
        return Some(Sound {
            text: Cow::Borrowed(&source.text),
            broken_keys: Vec::new(),
        });
    }
    let broken = first_of_each_line(source, errors);
    if let Some(sound) = without_lines(source, broken.iter().map(|(line, _)| line)) {
        diagnostics.extend(broken.iter().map(|(_, error)| explain(source, error)));
        return Some(sound);
    }
    // An unclosed bracket makes every line after it an error: only lines that are wrong by
    // themselves are the user's.
    let own: Vec<_> = broken
        .iter()
        .filter(|(line, _)| DeTable::parse(&source.text[line.clone()]).is_err())
        .collect();
    let told = if own.is_empty() {
        broken.iter().take(1).collect()
    } else {
        own
    };
    diagnostics.extend(told.into_iter().map(|(_, error)| explain(source, error)));
    None
}

fn first_of_each_line(source: &Source, mut errors: Vec<Error>) -> Vec<(Range<usize>, Error)> {
    errors.sort_by_key(start);
    let mut lines: Vec<(Range<usize>, Error)> = Vec::new();
    for error in errors {
        let line = source.line_range(start(&error));
        if lines.last().is_none_or(|(last, _)| *last != line) {
            lines.push((line, error));
        }
    }
    lines
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn without_lines<'s, 'r>(
    source: &'s Source,
    lines: impl Iterator<Item = &'r Range<usize>>,
) -> Option<Sound<'s>> {
    let mut text = source.text.clone();
    let mut broken_keys = Vec::new();
    for line in lines {
        let (key, _) = assignment(&source.text[line.clone()])?;
        broken_keys.push(key.to_owned());
        text.replace_range(line.clone(), &" ".repeat(line.len()));
    }
    DeTable::parse(&text).is_ok().then_some(Sound {
        text: Cow::Owned(text),
        broken_keys,
    })
}

/// Key and raw value of a `key = value` line.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (!key.is_empty() && key.chars().all(bare)).then_some((key, value.trim()))
}

fn explain(source: &Source, error: &Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let line = &source.text[source.line_range(span.start)];
    let blamed = source.text.get(span.clone()).unwrap_or("");
    if error.message().starts_with("string values must be quoted") {
        return unquoted(line, span);
    }
    if error.message() == "duplicate key" {
        return Diagnostic::error(format!("`{blamed}` stands here a second time"))
            .at(span)
            .cure("keep one of the two; several listeners are each `[[listener]]`");
    }
    if error.message().contains("array elements") {
        return Diagnostic::error("the array before this is not closed, or a comma is missing")
            .at(span)
            .cure("put `,` between elements and `]` after the last");
    }
    Diagnostic::error(format!("this is not TOML: {}", error.message()))
        .at(span)
        .cure(
            "a line is `key = \"text\"`, `key = 5`, `key = true`, `key = [\"a\", \"b\"]`, `[table]` or \
             `[[array.of.tables]]`",
        )
}

fn unquoted(line: &str, span: Range<usize>) -> Diagnostic {
    match assignment(line) {
        Some((key, "")) => {
            let example = keys::TABLES
                .iter()
                .find_map(|table| keys::example(table.name, key))
                .unwrap_or("\"...\"");
            Diagnostic::error(format!("`{key}` has no value"))
                .at(span)
                .cure(format!("write it like `{key} = {example}`"))
        }
        Some((key, value)) if !value.contains(['"', '\'', '[', '{']) => {
            let value = value.split('#').next().unwrap_or(value).trim_end();
            Diagnostic::error("a text needs quotes")
                .at(span)
                .cure(format!("write `{key} = \"{value}\"`"))
        }
        _ => Diagnostic::error("a text needs quotes")
            .at(span)
            .cure("put `\"` before and after it"),
    }
}
