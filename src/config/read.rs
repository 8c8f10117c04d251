//! From text to [`FileRoot`], with every unknown key and wrong type reported in one go.
//!
//! serde stops at its first error. So the text is parsed once to a spanned tree, and whatever
//! serde refuses is reported, cut out of the tree, and the rest tried again.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::file::FileRoot;
use super::source::Source;
use super::{keys, syntax};

/// Refusals of serde told at once: beyond this the file is something else than a configuration.
const REFUSALS_MAX: usize = 200;

/// Keys that the file has but that could not be taken: nothing may call them missing.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Start of the table's span, and the key.
    keys: HashSet<(usize, String)>,
    /// Keys whose table is not known.
    anywhere: HashSet<String>,
}

impl Lost {
    pub(super) fn has(&self, table: &Range<usize>, key: &str) -> bool {
        self.anywhere.contains(key) || self.keys.contains(&(table.start, key.to_owned()))
    }

    /// Whether a key of this name was lost in any table.
    pub(super) fn mentions(&self, key: &str) -> bool {
        self.anywhere.contains(key) || self.keys.iter().any(|(_, lost)| lost == key)
    }

    /// Whether nothing was lost, so that what is absent is truly absent.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.anywhere.is_empty()
    }
}

pub(super) fn read(source: &Source, diagnostics: &mut Diagnostics) -> Option<(FileRoot, Lost)> {
    let sound = syntax::check(source, diagnostics)?;
    let mut lost = Lost {
        anywhere: sound.broken_keys.into_iter().collect(),
        ..Lost::default()
    };
    let mut tree = DeTable::parse(&sound.text).ok()?;
    for _ in 0..REFUSALS_MAX {
        let error = match FileRoot::deserialize(Deserializer::from(tree.clone())) {
            Ok(root) => return Some((root, lost)),
            Err(error) => error,
        };
        let cut = error
            .span()
            .and_then(|span| cut_table(tree.get_mut(), &Home::default(), &span));
        let Some(cut) = cut else {
            diagnostics.push(Diagnostic::error(error.message()).cure(
                "this part of the file could not be read; compare it with the configuration's \
                 reference",
            ));
            return None;
        };
        diagnostics.push(explain(&cut, &error, &mut lost));
        lost.keys.insert((cut.home.start, cut.key));
    }
    None
}

/// The table that a key stands in.
#[derive(Debug, Clone, Default)]
struct Home {
    start: usize,
    /// As written: `upstream.backend.tls`.
    path: String,
    /// As in [`keys::TABLES`]: `upstream.X.tls`.
    kind: String,
}

impl Home {
    fn inner(&self, key: &str, start: usize) -> Self {
        let kind = if self.kind == "upstream" { "X" } else { key };
        Self {
            start,
            path: joined(&self.path, key),
            kind: joined(&self.kind, kind),
        }
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

struct Cut {
    home: Home,
    key: String,
    span: Range<usize>,
    /// What serde refused is an element of the key's array.
    element: bool,
}

/// Takes the outermost key, value or element at `span` out of the tree.
fn cut_table(table: &mut DeTable<'_>, home: &Home, span: &Range<usize>) -> Option<Cut> {
    let found = table
        .iter()
        .find(|(key, value)| key.span() == *span || value.span() == *span)
        .map(|(key, _)| key.get_ref().to_string());
    if let Some(key) = found {
        table.remove(key.as_str());
        return Some(Cut {
            home: home.clone(),
            key,
            span: span.clone(),
            element: false,
        });
    }
    table
        .iter_mut()
        .find_map(|(key, value)| cut_value(value, home, key.get_ref(), span))
}

fn cut_value(
    value: &mut Spanned<DeValue<'_>>,
    home: &Home,
    key: &str,
    span: &Range<usize>,
) -> Option<Cut> {
    let start = value.span().start;
    match value.get_mut() {
        DeValue::Table(table) => cut_table(table, &home.inner(key, start), span),
        DeValue::Array(array) => cut_array(array, home, key, span),
        _ => None,
    }
}

fn cut_array(array: &mut DeArray<'_>, home: &Home, key: &str, span: &Range<usize>) -> Option<Cut> {
    if array.iter().any(|element| element.span() == *span) {
        let mut rest = DeArray::new();
        for element in array.iter().filter(|element| element.span() != *span) {
            rest.push(element.clone());
        }
        *array = rest;
        return Some(Cut {
            home: home.clone(),
            key: key.to_owned(),
            span: span.clone(),
            element: true,
        });
    }
    array
        .iter_mut()
        .find_map(|element| cut_value(element, home, key, span))
}

fn explain(cut: &Cut, error: &Error, lost: &mut Lost) -> Diagnostic {
    if error.message().starts_with("unknown field") {
        unknown_key(cut, lost)
    } else {
        wrong_type(cut, error)
    }
}

fn unknown_key(cut: &Cut, lost: &mut Lost) -> Diagnostic {
    let key = cut.key.as_str();
    let place = keys::header(&cut.home.path);
    let known: Vec<&str> = keys::table(&cut.home.kind)
        .map(|table| table.keys.iter().map(|key| key.name).collect())
        .unwrap_or_default();
    let nginx = keys::NGINX
        .iter()
        .find(|(theirs, _)| *theirs == key)
        .map(|(_, ours)| *ours);
    let cure = if let Some(ours) = nginx {
        let there = home_of(ours, &cut.home.kind);
        if there == cut.home.kind {
            lost.keys.insert((cut.home.start, ours.to_owned()));
        }
        format!(
            "nginx's `{key}` is `{ours}` in {} here",
            keys::header(&named(&there, &cut.home.path))
        )
    } else if let Some(near) = keys::nearest(key, known.iter().copied()) {
        lost.keys.insert((cut.home.start, near.to_owned()));
        format!("did you mean `{near}`?")
    } else if tables_with(key).next().is_some() {
        let tables: Vec<String> = tables_with(key).map(keys::header).collect();
        format!("`{key}` belongs in {}", tables.join(" or "))
    } else {
        format!("{place} takes: {}", known.join(", "))
    };
    Diagnostic::error(format!("unknown key `{key}` in {place}"))
        .at(cut.span.clone())
        .cure(cure)
}

/// `upstream.X.tls` with the group's name, where the file shows it.
fn named(kind: &str, path: &str) -> String {
    let group = path
        .strip_prefix("upstream.")
        .and_then(|rest| rest.split('.').next());
    match group {
        Some(group) => kind.replace("upstream.X", &format!("upstream.{group}")),
        None => kind.to_owned(),
    }
}

/// The table that a key belongs in: the one it was written in, if that has it.
fn home_of(key: &str, written_in: &str) -> String {
    let here = tables_with(key).find(|table| *table == written_in);
    let leg = written_in.split('.').next().unwrap_or_default();
    let same_leg = || tables_with(key).find(|table| !leg.is_empty() && table.starts_with(leg));
    let found = here.or_else(same_leg).or_else(|| tables_with(key).next());
    found.unwrap_or_default().to_owned()
}

fn tables_with(key: &str) -> impl Iterator<Item = &'static str> {
    keys::TABLES
        .iter()
        .filter(move |table| table.keys.iter().any(|known| known.name == key))
        .map(|table| table.name)
}

fn wrong_type(cut: &Cut, error: &Error) -> Diagnostic {
    let key = cut.key.as_str();
    let (found, expected) = error
        .message()
        .split_once(", expected ")
        .unwrap_or((error.message(), "another value"));
    let found = found
        .trim_start_matches("invalid type: ")
        .trim_start_matches("invalid value: ")
        .replace("map", "a table")
        .replace("sequence", "an array")
        .replace("floating point", "the number")
        .replace("integer", "the number")
        .replace("boolean", "the value")
        .replace("string", "the text");
    let expected = match expected {
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "a table",
        other => other,
    };
    let subject = if cut.element {
        format!("an element of `{key}`")
    } else {
        format!("`{key}`")
    };
    let cure = match (key, keys::example(&cut.home.kind, key)) {
        (_, Some(example)) => format!("write it like `{key} = {example}`"),
        ("listener" | "route", _) => format!(
            "each is a table of its own, with two brackets: `[[{}]]`",
            joined(&cut.home.path, key)
        ),
        ("upstream", _) => "each group is a table with its name: `[upstream.backend]`".to_owned(),
        _ => format!("write it as a table: `[{}]`", joined(&cut.home.path, key)),
    };
    Diagnostic::error(format!("{subject} takes {expected}, not {found}"))
        .at(cut.span.clone())
        .cure(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let source = Source {
            name: "x.toml".to_owned(),
            text: text.to_owned(),
        };
        let mut diagnostics = Diagnostics::default();
        read(&source, &mut diagnostics);
        let told = diagnostics.iter().map(|d| d.message.clone());
        let mut told: Vec<String> = told.collect();
        told.sort();
        told
    }

    #[test]
    fn the_table_of_keys_is_what_serde_takes() {
        for table in keys::TABLES {
            let header = match table.name {
                "" => String::new(),
                "listener" => "[[listener]]".to_owned(),
                "listener.route" => "[[listener]]\n[[listener.route]]".to_owned(),
                "listener.tls.certificates" => {
                    "[[listener]]\n[[listener.tls.certificates]]".to_owned()
                }
                "upstream.X.servers" => "[[upstream.X.servers]]".to_owned(),
                name if name.starts_with("listener.") => format!("[[listener]]\n[{name}]"),
                name => format!("[{name}]"),
            };
            let text = format!("{header}\nzzzzzzzzzz = 1\n");
            let tree = DeTable::parse(&text).unwrap();
            let error = FileRoot::deserialize(Deserializer::from(tree)).unwrap_err();
            let expected: Vec<&str> = error.message().split('`').skip(3).step_by(2).collect();
            let mut ours: Vec<&str> = table.keys.iter().map(|key| key.name).collect();
            assert!(
                error.message().contains("zzzzzzzzzz"),
                "{}: {error}",
                table.name
            );
            ours.sort_unstable();
            let mut theirs = expected.clone();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{}", table.name);
        }
    }

    #[test]
    fn every_nginx_word_leads_to_a_key_that_exists() {
        for (theirs, ours) in keys::NGINX {
            assert!(tables_with(ours).next().is_some(), "{theirs} -> {ours}");
        }
    }

    #[test]
    fn every_example_is_a_value_that_serde_takes_for_its_key() {
        for table in keys::TABLES {
            for key in table.keys.iter().filter(|key| !key.example.is_empty()) {
                let header = match table.name {
                    "listener" => "[[listener]]".to_owned(),
                    "listener.route" => "[[listener]]\n[[listener.route]]".to_owned(),
                    "listener.tls.certificates" => {
                        "[[listener]]\n[[listener.tls.certificates]]".to_owned()
                    }
                    "upstream.X.servers" => "[[upstream.X.servers]]".to_owned(),
                    name if name.starts_with("listener.") => format!("[[listener]]\n[{name}]"),
                    name => format!("[{name}]"),
                };
                let told = messages(&format!("{header}\n{} = {}\n", key.name, key.example));
                assert_eq!(told, Vec::<String>::new(), "{}.{}", table.name, key.name);
            }
        }
    }

    #[test]
    fn unknown_keys_and_wrong_types_show_together() {
        let told = messages(
            "foo = 1\n[[listener]]\nname = 5\nbind = [1, \"a\"]\nidle_timout = \"5s\"\n\
             keepalive = { idel = \"5s\" }\n[upstream.b]\nservers = [{ adress = \"x\" }]\n\
             tcp_nodelay = \"yes\"\n",
        );
        assert_eq!(
            told,
            [
                "`name` takes a string, not the number `5`",
                "`tcp_nodelay` takes true or false, not the text \"yes\"",
                "an element of `bind` takes a string, not the number `1`",
                "unknown key `adress` in [upstream.b.servers]",
                "unknown key `foo` in the file's top level",
                "unknown key `idel` in [listener.keepalive]",
                "unknown key `idle_timout` in [[listener]]",
            ]
        );
    }

    #[test]
    fn a_broken_line_does_not_hide_the_rest() {
        let told = messages("[[listener]]\nidle_timeout = 5m\nconect_timeout = \"5s\"\n");
        assert_eq!(
            told,
            [
                "a text needs quotes",
                "unknown key `conect_timeout` in [[listener]]"
            ]
        );
    }

    #[test]
    fn an_unclosed_bracket_is_told_once() {
        assert_eq!(messages("x = [1,2\n[b]\nc=1\nd=2\n").len(), 1);
    }
}
