//! The documents say what the code does, where that can be compared.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringway::cli::{EXIT_INTERNAL, EXIT_REFUSED, EXIT_SYSTEM};
use ringway::observe::events::LEVEL_VARIABLE;

fn text(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The package names between `before` and the next of `ends`, once for each place.
fn lists(text: &str, before: &str, ends: &[char]) -> Vec<BTreeSet<String>> {
    let words = |list: &str| list.split_whitespace().map(str::to_owned).collect();
    let lists = text.split(before).skip(1);
    lists
        .map(|rest| words(rest.split(ends).next().unwrap()))
        .collect()
}

#[test]
fn readme_continuous_integration_and_tests_name_the_same_packages() {
    let ci = text(".ci/run");
    let build = lists(&ci, "build_packages=(", &[')']);
    let peers = lists(&ci, "peer_packages=(", &[')']);
    assert!(build.len() == 1 && peers.len() == 1);
    let readme = lists(&text("README.md"), "apt-get install ", &['\n']);
    assert_eq!(readme, [build, peers.clone()].concat(), "README.md");
    let cure = lists(
        &text("tests/support/src/openssl.rs"),
        "apt-get install ",
        &['"'],
    );
    assert_eq!(cure, peers, "the words of tests/support for a missing peer");
}

#[test]
fn continuous_integration_runs_the_very_test_command_of_the_readme() {
    let command = "\ncargo test\n";
    assert!(text(".ci/run").contains(command));
    assert!(text("README.md").contains(command));
}

#[test]
fn exit_codes_and_the_log_level_are_where_operators_look() {
    for document in ["README.md", "docs/operations.md"] {
        let text = text(document);
        for code in [0, 2, EXIT_REFUSED, EXIT_INTERNAL, EXIT_SYSTEM] {
            assert!(
                text.contains(&format!("\n| {code} | ")),
                "{document}: {code}"
            );
        }
    }
    assert!(text("docs/operations.md").contains(LEVEL_VARIABLE));
}

#[test]
fn every_fuzz_target_is_told_how_to_run() {
    let manifest: toml::Table = toml::from_str(&text("fuzz/Cargo.toml")).unwrap();
    let targets: BTreeSet<&str> = manifest["bin"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    let document = text("docs/testing.md");
    let commands = document.split("\ncargo +nightly fuzz run ").skip(1);
    let told: BTreeSet<&str> = commands
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert_eq!(told, targets);
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        documents.extend(paths.filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    for document in documents {
        for link in links(&fs::read_to_string(&document).unwrap()) {
            let target = document.parent().unwrap().join(Path::new(&link));
            assert!(target.exists(), "{} links to {link}", document.display());
        }
    }
}

/// Targets of `[words](target)` within the repository, without their anchors.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .map(str::to_owned)
        .collect()
}
