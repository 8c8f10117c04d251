//! What Ringway says about files with errors: each `reject/NAME.toml` has its exact words beside
//! it in `NAME.stderr`. `UPDATE_REJECT=1 cargo test --test config_reject` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use ringway::config::{self, Paint};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reject");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    cases.sort();
    cases
}

fn said(case: &Path) -> String {
    let name = case.file_name().unwrap().to_str().unwrap();
    let loaded = config::parse(name, fs::read_to_string(case).unwrap());
    let warns_only = name.starts_with("warn-");
    assert_eq!(
        loaded.plan().is_some(),
        warns_only,
        "{name}: {}",
        loaded.report(Paint::Plain)
    );
    loaded.report(Paint::Plain)
}

#[test]
fn every_refused_file_gets_its_exact_words() {
    let update = std::env::var_os("UPDATE_REJECT").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let beside = case.with_extension("stderr");
        let said = said(&case);
        if update {
            fs::write(&beside, &said).unwrap();
            continue;
        }
        match fs::read_to_string(&beside) {
            Ok(expected) if expected == said => {}
            Ok(expected) => wrong.push(format!("--- expected\n{expected}--- said\n{said}")),
            Err(error) => wrong.push(format!("{}: {error}", beside.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_expectation_has_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reject");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.with_extension("toml").is_file(), "{}", path.display());
    }
    assert!(cases().len() >= 25);
}

#[test]
fn every_diagnostic_names_a_cure() {
    for case in cases() {
        let loaded = config::parse("x.toml", fs::read_to_string(&case).unwrap());
        assert!(!loaded.diagnostics.is_empty(), "{}", case.display());
        for diagnostic in loaded.diagnostics.iter() {
            assert!(
                diagnostic.cure.is_some(),
                "{}: {diagnostic:?}",
                case.display()
            );
        }
    }
}

/// Broken in every way that a slip of the hand can break it, a file still gets an answer.
#[test]
fn no_cut_or_changed_byte_of_a_good_file_panics() {
    let good = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/zero-trust-edge.toml"),
    )
    .unwrap();
    for at in (0..good.len())
        .filter(|at| good.is_char_boundary(*at))
        .step_by(7)
    {
        let _ = config::parse("cut.toml", &good[..at]).report(Paint::Plain);
        for byte in ['"', '[', '=', '\n', 'é', '\0', '.'] {
            let mut changed = good.clone();
            changed.insert(at, byte);
            let _ = config::parse("changed.toml", changed).report(Paint::Plain);
        }
    }
}
