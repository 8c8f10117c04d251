use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::config::defaults::{Choice, Optional, Setting, Switch};
use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::explain::{Effective, Origin};
use crate::config::file::{Flag, OneOrMany, Text, Texts, Whole};
use crate::config::keys;
use crate::config::plan::{Located, Place};
use crate::config::read::Lost;
use crate::config::source::Source;
use crate::config::value::{Refusal, duration, show_duration, show_size, size};

/// Longer lists are searched for each connection, or are a slip.
const LIST_MAX: usize = 1024;

/// What all tables of one file write to while they are resolved.
pub(super) struct Desk<'s> {
    pub(super) source: &'s Source,
    /// Where each line begins.
    line_starts: Vec<usize>,
    /// Where relative paths start: the file's folder.
    pub(super) base: PathBuf,
    pub(super) lost: Lost,
    pub(super) diagnostics: Diagnostics,
    pub(super) effective: Vec<Effective>,
}

impl<'s> Desk<'s> {
    pub(super) fn new(source: &'s Source, lost: Lost, diagnostics: Diagnostics) -> Self {
        let base = Path::new(&source.name).parent().unwrap_or(Path::new(""));
        let after = source.text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            source,
            line_starts: std::iter::once(0).chain(after).collect(),
            base: base.to_owned(),
            lost,
            diagnostics,
            effective: Vec::new(),
        }
    }

    pub(super) fn scope(
        &mut self,
        prefix: impl Into<String>,
        table: Range<usize>,
    ) -> Scope<'_, 's> {
        Scope {
            desk: self,
            prefix: prefix.into(),
            table,
        }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }
}

/// One table of the file while its keys are turned into values.
///
/// Every method reports what is wrong, notes the effective value with its origin, and returns
/// something to go on with: the default where the file's value cannot be taken.
pub(super) struct Scope<'d, 's> {
    pub(super) desk: &'d mut Desk<'s>,
    prefix: String,
    table: Range<usize>,
}

impl<'s> Scope<'_, 's> {
    pub(super) fn inner(&mut self, key: &str, table: Range<usize>) -> Scope<'_, 's> {
        let prefix = format!("{}.{key}", self.prefix);
        self.desk.scope(prefix, table)
    }

    /// The table's place in the file.
    pub(super) fn table(&self) -> Range<usize> {
        self.table.clone()
    }

    pub(super) fn base(&self) -> PathBuf {
        self.desk.base.clone()
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.desk.diagnostics.push(diagnostic);
    }

    /// Whether the file has the key, though its value could not be taken.
    pub(super) fn lost(&self, key: &str) -> bool {
        self.desk.lost.has(&self.table, key)
    }

    pub(super) fn errors(&self) -> usize {
        self.desk.diagnostics.errors()
    }

    /// Says that the table lacks a key, unless the key is there and already blamed.
    pub(super) fn missing(&mut self, key: &str, diagnostic: Diagnostic) {
        if !self.lost(key) {
            let table = self.table();
            self.push(diagnostic.at(table));
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal, span: Range<usize>) {
        self.push(
            Diagnostic::error(refusal.message)
                .at(span)
                .cure(refusal.cure),
        );
    }

    pub(super) fn note(&mut self, key: &str, value: impl Into<String>, span: &Range<usize>) {
        let line = self.desk.line(span.start);
        self.note_origin(key, value.into(), Origin::File { line });
    }

    pub(super) fn note_default(&mut self, key: &str, value: impl Into<String>, why: &'static str) {
        self.note_origin(key, value.into(), Origin::Default { why });
    }

    pub(super) fn note_none(&mut self, optional: &Optional) {
        self.note_default(optional.key, "none", optional.why);
    }

    pub(super) fn duration(&mut self, field: &Text, setting: &Setting<Duration>) -> Duration {
        let Some(text) = field else {
            let shown = quoted(&show_duration(setting.default));
            self.note_default(setting.key, shown, setting.why);
            return setting.default;
        };
        self.given_duration(text, setting)
    }

    pub(super) fn given_duration(
        &mut self,
        text: &Spanned<String>,
        setting: &Setting<Duration>,
    ) -> Duration {
        let checked = duration(text.get_ref())
            .and_then(|value| in_bounds(value, setting, |bound| quoted(&show_duration(bound))));
        match checked {
            Ok(value) => {
                self.note(setting.key, quoted(&show_duration(value)), &text.span());
                value
            }
            Err(refusal) => {
                self.refuse(refusal, text.span());
                setting.default
            }
        }
    }

    /// In bytes.
    pub(super) fn size(&mut self, field: &Text, setting: &Setting<u32>) -> u32 {
        let Some(text) = field else {
            let shown = quoted(&show_size(setting.default.into()));
            self.note_default(setting.key, shown, setting.why);
            return setting.default;
        };
        let show = |bound: u32| quoted(&show_size(bound.into()));
        let checked = size(text.get_ref()).and_then(|bytes| {
            let value = u32::try_from(bytes);
            let value = value.map_err(|_| out_of_bounds(&text.get_ref(), setting, show))?;
            in_bounds(value, setting, show)
        });
        match checked {
            Ok(value) => {
                self.note(setting.key, show(value), &text.span());
                value
            }
            Err(refusal) => {
                self.refuse(refusal, text.span());
                setting.default
            }
        }
    }

    pub(super) fn count<T>(&mut self, field: &Whole, setting: &Setting<T>) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        let Some(number) = field else {
            self.note_default(setting.key, setting.default.to_string(), setting.why);
            return setting.default;
        };
        self.given_count(*number.get_ref(), number.span(), setting)
    }

    pub(super) fn given_count<T>(
        &mut self,
        number: i64,
        span: Range<usize>,
        setting: &Setting<T>,
    ) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        let checked = T::try_from(number)
            .map_err(|_| out_of_bounds(&number, setting, |bound| bound.to_string()))
            .and_then(|value| in_bounds(value, setting, |bound| bound.to_string()));
        match checked {
            Ok(value) => {
                self.note(setting.key, value.to_string(), &span);
                value
            }
            Err(refusal) => {
                self.refuse(refusal, span);
                setting.default
            }
        }
    }

    pub(super) fn switch(&mut self, field: &Flag, switch: &Switch) -> bool {
        match field {
            Some(flag) => {
                self.note(switch.key, flag.get_ref().to_string(), &flag.span());
                *flag.get_ref()
            }
            None => {
                self.note_default(switch.key, switch.default.to_string(), switch.why);
                switch.default
            }
        }
    }

    pub(super) fn word<T: Clone>(&mut self, field: &Text, choice: &Choice<T>) -> T {
        let (default_word, ref default) = choice.words[0];
        let Some(text) = field else {
            self.note_default(choice.key, quoted(default_word), choice.why);
            return default.clone();
        };
        if let Some((word, value)) = choice.words.iter().find(|(word, _)| word == text.get_ref()) {
            self.note(choice.key, quoted(word), &text.span());
            return value.clone();
        }
        let words: Vec<String> = choice.words.iter().map(|(word, _)| quoted(word)).collect();
        let near = keys::nearest(text.get_ref(), choice.words.iter().map(|(word, _)| *word));
        let cure = match near {
            Some(near) => format!("did you mean {}?", quoted(near)),
            None if words.len() == 1 => format!("so far there is only {}", words[0]),
            None => format!("choose one of {}", words.join(", ")),
        };
        let message = format!("`{}` cannot be {}", choice.key, quoted(text.get_ref()));
        self.refuse(Refusal { message, cure }, text.span());
        default.clone()
    }

    /// A file's path; a relative one starts at the configuration's folder.
    pub(super) fn path(&mut self, key: &str, text: &Spanned<String>) -> Option<Located<PathBuf>> {
        match path(text.get_ref(), &self.desk.base) {
            Ok(value) => {
                self.note(key, quoted(&value.to_string_lossy()), &text.span());
                Some(located(value, text.span()))
            }
            Err(refusal) => {
                self.refuse(refusal, text.span());
                None
            }
        }
    }

    pub(super) fn optional_path(
        &mut self,
        field: &Text,
        optional: &Optional,
    ) -> Option<Located<PathBuf>> {
        match field {
            Some(text) => self.path(optional.key, text),
            None => {
                self.note_none(optional);
                None
            }
        }
    }

    /// Each element that can be taken, with its place. An empty list and an element that stands
    /// twice are refused.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        field: &Spanned<OneOrMany>,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Vec<Located<T>> {
        let items = items(field);
        if items.is_empty() && !self.lost(key) {
            let refusal = Refusal {
                message: format!("`{key}` is empty"),
                cure: format!("name at least one, or take the line with `{key}` out"),
            };
            self.refuse(refusal, field.span());
        }
        if let Some((_, span)) = items.get(LIST_MAX) {
            let refusal = Refusal {
                message: format!("`{key}` has more than {LIST_MAX} elements"),
                cure: "split it, or use patterns where the key takes them".to_owned(),
            };
            self.refuse(refusal, span.clone());
        }
        let mut all: Vec<Located<T>> = Vec::new();
        for (text, span) in items.into_iter().take(LIST_MAX) {
            match parse(text) {
                Ok(value) if all.iter().any(|known| known.value == value) => {
                    let refusal = Refusal {
                        message: format!("`{text}` stands twice in `{key}`"),
                        cure: "keep one of the two".to_owned(),
                    };
                    self.refuse(refusal, span);
                }
                Ok(value) => all.push(located(value, span)),
                Err(refusal) => self.refuse(refusal, span),
            }
        }
        all
    }

    /// The same, for a key that may be absent or empty.
    pub(super) fn optional_list<T: PartialEq>(
        &mut self,
        field: &Texts,
        optional: &Optional,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Vec<Located<T>> {
        let Some(field) = field else {
            self.note_none(optional);
            return Vec::new();
        };
        self.note(optional.key, shown(field), &field.span());
        self.list(optional.key, field, parse)
    }

    /// A part of a text, where the file shows it plainly; else the whole text.
    pub(super) fn place_in(&self, text: &Spanned<String>, part: Range<usize>) -> Range<usize> {
        // One quote stands before a TOML string's first byte; escapes or three quotes do not match.
        let first = text.span().start + 1;
        let file = &self.desk.source.text;
        match file.get(first..first + text.get_ref().len()) {
            Some(plain) if plain == text.get_ref() => first + part.start..first + part.end,
            _ => text.span(),
        }
    }

    fn note_origin(&mut self, key: &str, value: String, origin: Origin) {
        self.desk.effective.push(Effective {
            key: format!("{}.{key}", self.prefix),
            value,
            origin,
        });
    }
}

pub(super) fn located<T>(value: T, span: Range<usize>) -> Located<T> {
    Located {
        value,
        place: Place { span },
    }
}

pub(super) fn items(field: &Spanned<OneOrMany>) -> Vec<(&str, Range<usize>)> {
    match field.get_ref() {
        OneOrMany::One(text) => vec![(text.as_str(), field.span())],
        OneOrMany::Many(many) => many
            .iter()
            .map(|text| (text.get_ref().as_str(), text.span()))
            .collect(),
    }
}

/// A list as TOML has it.
pub(super) fn shown(field: &Spanned<OneOrMany>) -> String {
    array(items(field).into_iter().map(|(text, _)| text))
}

pub(super) fn array<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

pub(super) fn path(text: &str, base: &Path) -> Result<PathBuf, Refusal> {
    let refuse = |message: &str, cure: &str| {
        Err(Refusal {
            message: message.to_owned(),
            cure: cure.to_owned(),
        })
    };
    if text.is_empty() || text.contains('\0') {
        return refuse(
            "this is not a path",
            "write a file's path, such as \"/etc/ringway/edge.crt\"",
        );
    }
    if text.starts_with('~') {
        return refuse(
            "`~` is a shell's word for a home folder, and no shell reads this",
            "write the whole path",
        );
    }
    Ok(base.join(text))
}

fn in_bounds<T: Copy + PartialOrd>(
    value: T,
    setting: &Setting<T>,
    show: impl Fn(T) -> String,
) -> Result<T, Refusal> {
    if value < setting.min || value > setting.max {
        return Err(out_of_bounds(&show(value), setting, show));
    }
    Ok(value)
}

fn out_of_bounds<T: Copy>(
    value: &impl Display,
    setting: &Setting<T>,
    show: impl Fn(T) -> String,
) -> Refusal {
    Refusal {
        message: format!("`{}` cannot be {value}", setting.key),
        cure: format!(
            "write a value from {} to {}; without it, it is {}",
            show(setting.min),
            show(setting.max),
            show(setting.default)
        ),
    }
}
