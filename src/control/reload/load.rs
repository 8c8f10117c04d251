//! A configuration with every file that it names, read once, checked and then used.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::diff::{Changes, Version, diff};
use crate::config::{Effective, Loaded, Paint, Plan};
use crate::control::confine::{self, Confinement};
use crate::tls::{Digests, Ends, Files};
use crate::{config, net, tls};

/// Everything that is to be said about a configuration, and the files that it was said of.
pub struct Examined {
    pub loaded: Loaded,
    files: Files,
}

/// A configuration without an error.
pub struct Checked {
    pub(in crate::control) plan: Plan,
    pub(in crate::control) files: Files,
    pub(in crate::control) basis: Basis,
}

/// What a plan was made of.
#[derive(Debug, Default)]
pub(in crate::control) struct Basis {
    /// Its file. `None`: it was made without one, and there is nothing to reload.
    pub(in crate::control) file: Option<PathBuf>,
    /// Every value that it works with.
    pub(in crate::control) effective: Vec<Effective>,
    /// When its certificates, lists and OCSP responses end.
    pub(in crate::control) ends: Vec<Ends>,
    /// When the log is told of them again. `None`: it has not been told yet.
    pub(super) look_at: Option<Instant>,
}

/// Opens the files that the configuration names, too, and tries what needs rights.
#[must_use]
pub fn examine(mut loaded: Loaded) -> Examined {
    loaded.inspect(confine::inspect);
    open(loaded)
}

fn open(mut loaded: Loaded) -> Examined {
    let files = Files::default();
    loaded.inspect(|plan| tls::inspect(plan, &files));
    loaded.inspect(net::inspect);
    Examined { loaded, files }
}

impl Examined {
    /// What `run` and a reload go on with; `None`: there is an error. `path`: where it was read.
    #[must_use]
    pub fn checked(self, path: &Path) -> Option<Checked> {
        let Self { loaded, files } = self;
        let effective = loaded.effective.clone();
        let plan = loaded.into_plan()?;
        let ends = tls::ends(&plan, &files);
        Some(Checked {
            plan,
            files,
            basis: Basis {
                file: Some(path.to_owned()),
                effective,
                ends,
                look_at: None,
            },
        })
    }
}

/// A plan that no file stands for.
impl From<Plan> for Checked {
    fn from(plan: Plan) -> Self {
        Self {
            plan,
            files: Files::default(),
            basis: Basis::default(),
        }
    }
}

/// What a process that runs by `before` would change by `after`, and what it could not.
#[must_use]
pub fn compare(before: &Checked, after: &Checked) -> Changes {
    let digests = [before.files.digests(), after.files.digests()];
    diff(before.version(&digests[0]), after.version(&digests[1]))
}

impl Checked {
    fn version<'a>(&'a self, digests: &'a Digests) -> Version<'a> {
        Version {
            plan: &self.plan,
            effective: &self.basis.effective,
            digests,
        }
    }
}

/// Reads a configuration anew, in a process that runs by `in_force` and has given up what `confinement`
/// says.
///
/// # Errors
/// What `ringway check` says of it, and what this process cannot do any more.
pub(super) fn load(
    path: &Path,
    confinement: Option<&Confinement>,
    in_force: &Plan,
) -> Result<Checked, String> {
    let mut loaded = config::load(path);
    if let Some(confinement) = confinement {
        loaded.inspect(|plan| confinement.inspect(plan, in_force));
    }
    let examined = open(loaded);
    let report = examined.loaded.report(Paint::Plain);
    examined.checked(path).ok_or(report)
}
