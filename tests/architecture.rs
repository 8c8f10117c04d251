//! The rules of the house that a compiler does not know: which room may import which, where
//! `unsafe` and tokio may stand, how long a file may be, which words are not ours.
//!
//! The layers are read from the table in `src/lib.rs`, so that the document is the rule.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Without its tests. A file that outgrows it holds two things.
const LINES_MAX: usize = 500;

/// Rooms in which the control thread's runtime may be used.
const TOKIO_ROOMS: [&str; 2] = ["control", "cli"];
const UNSAFE_ROOM: &str = "sys";

/// Words for which docs/lexicon.md has another, and words that name nothing.
const FOREIGN_WORDS: [&str; 9] = [
    "backend", "frontend", "helper", "helpers", "util", "utils", "manager", "misc", "todo",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `src/`, its path relative to that.
fn sources() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let (mut folders, mut found) = (vec![src.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&src).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(
        found.len() > 50,
        "the sources are where they are looked for"
    );
    found
}

/// Layer of each room, from the table in the doc of `src/lib.rs`.
fn layers(lib: &str) -> BTreeMap<String, u32> {
    let mut layers = BTreeMap::new();
    for line in lib.lines() {
        let Some(row) = line.strip_prefix("//! |") else {
            continue;
        };
        let Some((layer, rooms)) = row.split_once('|') else {
            continue;
        };
        let Ok(layer) = layer.trim().parse() else {
            continue;
        };
        for room in rooms.split("[`").skip(1) {
            let room = room.split('`').next().unwrap();
            let before = layers.insert(room.to_owned(), layer);
            assert_eq!(before, None, "{room} stands twice in the table");
        }
    }
    layers
}

/// Layer of each room, from the table of docs/architecture.md: a row for each room.
fn layers_in_document(document: &str) -> BTreeMap<String, u32> {
    let mut layers = BTreeMap::new();
    for line in document.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(layer), Some(room)) = (cells.next(), cells.next()) else {
            continue;
        };
        if let Ok(layer) = layer.parse() {
            let before = layers.insert(room.trim_matches('`').to_owned(), layer);
            assert_eq!(before, None, "{room} stands twice in the table");
        }
    }
    layers
}

/// The room of a file, and how many modules deep it stands in the crate. `None` for the files
/// that are above all rooms.
fn place(path: &Path) -> Option<(String, usize)> {
    let mut parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let file = parts.pop()?;
    let room = (*parts.first()?).to_owned();
    let depth = parts.len() + usize::from(file != "mod.rs");
    Some((room, depth))
}

/// The code alone: comments, texts and characters are blanked, lines stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] => text_literal(rest),
            [b'r', b'"' | b'#', ..] if !ends_in_word(&code) => raw_literal(rest),
            [b'\'', ..] => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let blank = |it: char| if it == '\n' { '\n' } else { ' ' };
            code.extend(rest[..skipped].chars().map(blank));
            rest = &rest[skipped..];
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(is_word)
}

fn is_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let bytes = &rest.as_bytes()[at..];
        at += match bytes {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn text_literal(rest: &str) -> usize {
    let mut escaped = false;
    for (at, it) in rest.char_indices().skip(1) {
        match it {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// `r"…"` and `r#"…"#`; 0 for a raw identifier.
fn raw_literal(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|it| *it == b'#').count();
    if rest.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    rest[body..]
        .find(&end)
        .map_or(rest.len(), |at| body + at + end.len())
}

/// `'x'` and `'\n'`; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut inner = rest[1..].char_indices();
    match (inner.next(), inner.next()) {
        (Some((_, '\\')), Some((at, _))) => rest[1 + at + 1..]
            .find('\'')
            .map_or(0, |more| 1 + at + 1 + more + 1),
        (Some(_), Some((at, '\''))) => 1 + at + 1,
        _ => 0,
    }
}

/// The names that stand right behind `prefix` in paths and in `use` groups, and their lines.
fn named_after<'a>(code: &'a str, prefix: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|it| is_word(it) || it == ':' || it == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        let names = if rest.starts_with('{') {
            first_names(rest)
        } else {
            vec![word(rest)]
        };
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    found
}

fn word(rest: &str) -> &str {
    let rest = rest.trim_start();
    &rest[..rest.find(|it| !is_word(it)).unwrap_or(rest.len())]
}

/// First name of each item of a `{…}` group.
fn first_names(group: &str) -> Vec<&str> {
    let (mut depth, mut names) = (0, Vec::new());
    for (at, it) in group.char_indices() {
        match it {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(it, '{' | ',') {
            names.push(word(&group[at + 1..]));
        }
    }
    names
}

/// Words of every identifier in the code, in lower case, and their lines.
fn words(code: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    code.lines().enumerate().flat_map(|(index, line)| {
        let identifiers = line.split(|it| !is_word(it));
        identifiers
            .flat_map(|it| it.split('_'))
            .flat_map(humps)
            .map(move |word| (index + 1, word))
    })
}

fn humps(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for it in identifier.chars() {
        if it.is_uppercase() && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        words.last_mut().unwrap().extend(it.to_lowercase());
    }
    words
}

/// Everything in one file that breaks a rule.
fn complaints(path: &Path, text: &str, layers: &BTreeMap<String, u32>) -> Vec<String> {
    let code = code_of(text);
    let mut found = imports(path, &code, layers);
    let room = place(path).map(|(room, _)| room).unwrap_or_default();
    for (index, line) in code.lines().enumerate() {
        let mut words = line.split(|it| !is_word(it));
        if room != UNSAFE_ROOM && words.clone().any(|it| it == "unsafe") {
            found.push((index + 1, "`unsafe` outside of src/sys".to_owned()));
        }
        if !TOKIO_ROOMS.contains(&room.as_str()) && words.any(|it| it == "tokio") {
            let what = "tokio outside of src/control and src/cli";
            found.push((index + 1, what.to_owned()));
        }
        if line.contains("fn get_") {
            found.push((
                index + 1,
                "a getter is named after what it gives".to_owned(),
            ));
        }
    }
    for (line, word) in words(&code) {
        if FOREIGN_WORDS.contains(&word.as_str()) {
            found.push((line, format!("`{word}` is no word of docs/lexicon.md")));
        }
    }
    let lines = lines_without_tests(path, text);
    if lines > LINES_MAX {
        found.push((
            lines,
            format!("more than {LINES_MAX} lines without its tests"),
        ));
    }
    found
        .into_iter()
        .map(|(line, what)| format!("src/{}:{line}: {what}", path.display()))
        .collect()
}

fn imports(path: &Path, code: &str, layers: &BTreeMap<String, u32>) -> Vec<(usize, String)> {
    let Some((room, depth)) = place(path) else {
        return Vec::new();
    };
    let Some(own) = layers.get(&room) else {
        return vec![(
            1,
            format!("the room {room} is not in the table of src/lib.rs"),
        )];
    };
    // As many `super::` as the file is deep lead to the crate, too.
    let climb = "super::".repeat(depth);
    let mut named = named_after(code, "crate::");
    named.extend(named_after(code, &climb));
    let is_wrong = |other: &str| other != room && layers.get(other).is_some_and(|it| it >= own);
    let wrong = named.into_iter().filter(|(_, other)| is_wrong(other));
    wrong
        .map(|(line, other)| (line, format!("{room} (layer {own}) imports {other}")))
        .collect()
}

/// 0 for a file that holds nothing but tests.
fn lines_without_tests(path: &Path, text: &str) -> usize {
    let tests_only = path
        .iter()
        .any(|part| part == "tests" || part == "tests.rs");
    if tests_only {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let inline = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{'));
    inline.unwrap_or(lines.len())
}

#[test]
fn every_room_keeps_the_rules_of_the_house() {
    let layers = layers(&fs::read_to_string(root().join("src/lib.rs")).unwrap());
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| complaints(path, text, &layers))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_table_has_every_room_and_no_other() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let table: BTreeSet<String> = layers(&lib).into_keys().collect();
    let rooms: BTreeSet<String> = sources()
        .iter()
        .filter_map(|(path, _)| place(path).map(|(room, _)| room))
        .collect();
    assert_eq!(table, rooms);
}

#[test]
fn the_document_has_the_same_table() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let document = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    assert_eq!(layers_in_document(&document), layers(&lib));
}

#[test]
fn every_room_has_a_face_that_says_what_it_is_for() {
    for (path, text) in sources() {
        if path.iter().count() == 2 && path.ends_with("mod.rs") {
            assert!(text.starts_with("//! "), "src/{}", path.display());
        }
    }
}

const HOUSE: &str = "
//! | layer | rooms |
//! |---|---|
//! | 0 | [`types`], [`sys`] |
//! | 1 | [`net`], [`proto`] |
//! | 2 | [`relay`] |
";

fn said_of(path: &str, text: &str) -> Vec<String> {
    complaints(Path::new(path), text, &layers(HOUSE))
}

#[test]
fn an_upward_import_is_found_in_every_form_it_can_have() {
    let upward = [
        "use crate::relay::Flow;",
        "use crate::relay;",
        "pub use crate::{types::Side, relay::{Flow, Leg}};",
        "use crate::{\n    types,\n    relay,\n};",
        "fn f() { crate::relay::run() }",
        "fn f(it: &crate::relay::Flow) {}",
        "use super::super::relay::Flow;",
    ];
    for text in upward {
        let said = said_of("net/socket.rs", text);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        assert!(said[0].contains("net (layer 1) imports relay"), "{said:?}");
    }
    assert_eq!(said_of("net/mod.rs", "use super::relay::Flow;").len(), 1);
    let sideways = said_of("net/socket.rs", "\n\nuse crate::proto::Header;");
    assert_eq!(
        sideways,
        ["src/net/socket.rs:3: net (layer 1) imports proto"]
    );
    let stranger = said_of("attic/mod.rs", "");
    assert!(stranger[0].contains("attic is not in the table"));
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    let fine = [
        "use crate::net::{Socket, relay};",
        "use crate::{net, sys::{self, relay}, types::Side};",
        "use super::relay::Flow;",
        "use other_crate::relay::Flow;",
        "pub(crate) fn f() {}",
        "// use crate::relay::Flow;\n/* unsafe /* tokio */ crate::relay */",
        "const A: &str = \"use crate::relay; unsafe \\\" tokio\";",
        "const B: &str = r#\"crate::relay \" unsafe\"#;",
        "fn f<'a>(it: &'a str) -> char { '\"' } // crate::relay",
        "fn f() -> [char; 2] { ['\\'', '\\\\'] } /// [`crate::relay`]",
        "#![expect(unsafe_code, reason = \"unsafe\")]",
    ];
    for text in fine {
        assert!(said_of("net/socket.rs", text).is_empty(), "{text}");
    }
    assert!(said_of("main.rs", "use crate::relay::Flow;").is_empty());
}

#[test]
fn unsafe_tokio_and_foreign_words_are_found_where_they_have_no_place() {
    let block = "fn f() { unsafe { g() } }";
    assert!(said_of("net/socket.rs", block)[0].contains("`unsafe`"));
    assert!(said_of("sys/fd.rs", block).is_empty());
    let tokio = "use tokio::time::sleep;";
    assert!(said_of("net/socket.rs", tokio)[0].contains("tokio"));
    let both = BTreeMap::from([("control".to_owned(), 8)]);
    assert!(complaints(Path::new("control/mod.rs"), tokio, &both).is_empty());
    for text in ["struct PipeManager;", "fn pick_backend() {}", "mod util {}"] {
        assert_eq!(said_of("net/socket.rs", text).len(), 1, "{text}");
    }
    assert!(said_of("net/socket.rs", "fn get_socket() {}")[0].contains("getter"));
}

#[test]
fn a_file_may_be_longer_than_the_limit_only_by_its_tests() {
    let long = "const A: u8 = 1;\n".repeat(LINES_MAX + 1);
    assert_eq!(said_of("net/socket.rs", &long).len(), 1);
    assert!(said_of("net/tests.rs", &long).is_empty());
    let tests = format!("struct A;\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(said_of("net/socket.rs", &tests).is_empty());
    let elsewhere = format!("#[cfg(test)]\nmod tests;\n{long}");
    assert_eq!(said_of("net/socket.rs", &elsewhere).len(), 1);
}
