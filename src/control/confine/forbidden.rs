//! What a plan that comes later asks for and the process has given up: it needs a restart.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::reach::{first_name, key_logs, name_files, named_files};
use super::rights::Rights;
use super::{Confinement, State};
use crate::config::{BindAddress, Diagnostic, LocalAddress, Plan};

const CURE: &str = "restart Ringway: what it gave up at its start does not come back";

impl Confinement {
    /// Whether Landlock keeps this file from being read.
    #[must_use]
    pub fn forbids(&self, file: &Path) -> bool {
        self.has_landlock() && !self.reach.reads(file)
    }

    /// All that `plan`, read anew, cannot have in this process, which runs by `in_force`, each with its
    /// place in the file. What no reload changes (the account, the access log) is not looked at.
    #[must_use]
    pub fn inspect(&self, plan: &Plan, in_force: &Plan) -> Vec<Diagnostic> {
        let mut findings = self.beyond_rights(plan);
        if self.has_landlock() {
            findings.extend(self.beyond_reach(plan));
            findings.extend(out_of_sight(plan, in_force));
        }
        findings
    }

    fn has_landlock(&self) -> bool {
        matches!(self.landlock, State::On(_))
    }

    fn beyond_rights(&self, plan: &Plan) -> Vec<Diagnostic> {
        let Some(kept) = self.rights else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        for bind in plan.listeners.iter().flat_map(|listener| &listener.binds) {
            if !kept.low_ports && Rights::is_low(&bind.value) {
                let what =
                    "a port that needs CAP_NET_BIND_SERVICE, which was given up at the start";
                findings.push(Diagnostic::error(what).at_place(&bind.place).cure(CURE));
            }
        }
        for upstream in &plan.upstreams {
            if let (LocalAddress::Client(flag), false) = (&upstream.local, kept.transparent) {
                let what = "`transparent` needs CAP_NET_RAW, which was given up at the start";
                findings.push(Diagnostic::error(what).at_place(&flag.place).cure(CURE));
            }
        }
        findings
    }

    fn beyond_reach(&self, plan: &Plan) -> Vec<Diagnostic> {
        let mut findings: Vec<_> = named_files(plan)
            .filter(|file| !self.reach.reads(&file.value))
            .map(|file| closed(&file.value, "read").at_place(&file.place))
            .collect();
        for log in key_logs(plan) {
            if !self.reach.logs_to(&log.value) {
                findings.push(closed(&log.value, "written").at_place(&log.place));
            }
        }
        for bind in plan.listeners.iter().flat_map(|listener| &listener.binds) {
            if let BindAddress::Unix(path) = &bind.value
                && !self.reach.binds(path)
            {
                findings.push(closed(path, "bound").at_place(&bind.place));
            }
        }
        findings
    }
}

/// Names need files that were replaced since the start, so that Landlock does not know them again. What
/// those in force are looked up with was read before, and goes on to hold.
fn out_of_sight(plan: &Plan, in_force: &Plan) -> Vec<Diagnostic> {
    let Some(name) = first_name(plan) else {
        return Vec::new();
    };
    let read: Vec<_> = first_name(in_force)
        .into_iter()
        .flat_map(|_| name_files(in_force))
        .collect();
    let is_closed = |path: &&Path| {
        File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    let unread = name_files(plan).filter(|path| !read.contains(path));
    let closed = unread.filter(is_closed).map(|path| {
        let path = path.display();
        Diagnostic::error(format!(
            "a name is looked up with {path}, which was replaced since the start, and the sandbox \
             forbids the new file to be read"
        ))
        .at_place(&name.place)
        .cure(
            "restart Ringway; `read = [\"/etc\"]` in [sandbox] keeps such files readable from the next \
             start on",
        )
    });
    closed.collect()
}

fn closed(path: &Path, done: &str) -> Diagnostic {
    Diagnostic::error(format!(
        "{}: the sandbox forbids it to be {done}: no file there was named at the start",
        path.display()
    ))
    .cure(
        "restart Ringway; or put the file beside those that it reads, or name its folder in \
         `read` of [sandbox] before the next start",
    )
}
