use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::diagnostic::{Diagnostic, Diagnostics, Paint};
use super::explain::Effective;
use super::file::FileRoot;
use super::plan::Plan;
use super::read::{self, Lost};
use super::resolve::{self, Resolved};
use super::source::Source;

/// Thousands of listeners fit; a device or a log given by mistake is not read to its end.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A configuration and all that is to be said about it.
#[derive(Debug)]
pub struct Loaded {
    pub source: Source,
    /// Every value that the plan works with; empty when the text is no TOML.
    pub effective: Vec<Effective>,
    pub diagnostics: Diagnostics,
    /// Whole only while there is no error.
    draft: Plan,
}

impl Loaded {
    /// The plan, unless there is an error.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        (self.diagnostics.errors() == 0).then_some(&self.draft)
    }

    /// The plan, unless there is an error.
    #[must_use]
    pub fn into_plan(self) -> Option<Plan> {
        (self.diagnostics.errors() == 0).then_some(self.draft)
    }

    /// Adds what a check of the plan finds, say of the files that it names. The check sees as much
    /// of the plan as could be made even when there are errors, so that all are told at once.
    pub fn inspect<F>(&mut self, check: impl FnOnce(&Plan) -> F)
    where
        F: IntoIterator<Item = Diagnostic>,
    {
        self.diagnostics.extend(check(&self.draft));
    }

    /// All diagnostics as text, empty when there are none.
    #[must_use]
    pub fn report(&self, paint: Paint) -> String {
        self.diagnostics.render(&self.source, paint)
    }
}

/// Reads and resolves a file. Relative paths in it start at its folder.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    let name = path.display().to_string();
    match text_of(path) {
        Ok(text) => parse(name, text),
        Err(diagnostic) => {
            let source = Source {
                name,
                text: String::new(),
            };
            let mut diagnostics = Diagnostics::default();
            diagnostics.push(diagnostic);
            nothing(source, diagnostics)
        }
    }
}

/// Resolves a text. `name` is what messages call it; relative paths start at its folder.
#[must_use]
pub fn parse(name: impl Into<String>, text: impl Into<String>) -> Loaded {
    let source = Source {
        name: name.into(),
        text: text.into(),
    };
    let mut diagnostics = Diagnostics::default();
    match read::read(&source, &mut diagnostics) {
        Some((root, lost)) => {
            let resolved = resolve::resolve(&source, root, lost, diagnostics);
            loaded(source, resolved)
        }
        None => nothing(source, diagnostics),
    }
}

/// What cannot be read has the plan of an empty file, and its own errors only.
fn nothing(source: Source, diagnostics: Diagnostics) -> Loaded {
    let empty = Source {
        name: source.name.clone(),
        text: String::new(),
    };
    let resolved = resolve::resolve(
        &empty,
        FileRoot::default(),
        Lost::default(),
        Diagnostics::default(),
    );
    let resolved = Resolved {
        effective: Vec::new(),
        diagnostics,
        ..resolved
    };
    loaded(source, resolved)
}

fn loaded(source: Source, resolved: Resolved) -> Loaded {
    Loaded {
        source,
        effective: resolved.effective,
        diagnostics: resolved.diagnostics,
        draft: resolved.plan,
    }
}

fn text_of(path: &Path) -> Result<String, Diagnostic> {
    let bytes = bytes_of(path).map_err(|error| unreadable(&error))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Diagnostic::error(format!(
            "the file is larger than {} KiB, which no configuration needs",
            FILE_BYTES_MAX / 1024
        ))
        .cure("check that the path names the configuration"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Diagnostic::error(format!("line {line} is not UTF-8, and TOML is"))
            .cure("save the file as UTF-8; `iconv -f latin1 -t utf-8` converts the old encoding")
    })
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> Diagnostic {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => "check the path; configs/ has files to start from",
        io::ErrorKind::PermissionDenied => {
            "let the user that runs this read the file, or run as one who may"
        }
        io::ErrorKind::IsADirectory => "name the file, not its folder",
        _ => "see that the file can be read, for instance with `cat`",
    };
    Diagnostic::error(format!("the file cannot be read: {error}")).cure(cure)
}
