//! From the file's structs to the [`Plan`], with everything said that can be said.
//!
//! A plan comes out even of a file with errors, so that the certificates it names can be checked
//! in the same run; only [`super::Loaded`] decides whether it may be used.

mod access;
mod admin;
mod checks;
mod downstream;
mod health_check;
mod key_log;
mod listener;
mod log;
mod members;
mod names;
mod policy;
mod proxied;
mod routes;
mod runtime;
mod sandbox;
mod scope;
mod socket;
mod upstream;
mod warm;

use super::diagnostic::Diagnostics;
use super::explain::Effective;
use super::file::FileRoot;
use super::plan::Plan;
use super::read::Lost;
use super::source::Source;

use scope::Desk;
use upstream::Groups;

pub(super) struct Resolved {
    pub(super) plan: Plan,
    pub(super) effective: Vec<Effective>,
    pub(super) diagnostics: Diagnostics,
}

pub(super) fn resolve(
    source: &Source,
    root: FileRoot,
    lost: Lost,
    diagnostics: Diagnostics,
) -> Resolved {
    let desk = &mut Desk::new(source, lost, diagnostics);
    let mut groups = Groups::of(&root.upstream);
    let plan = Plan {
        digest: source.digest(),
        runtime: runtime::runtime(desk, root.runtime),
        log: log::log(desk, root.log),
        admin: admin::admin(desk, root.admin),
        sandbox: sandbox::sandbox(desk, root.sandbox),
        listeners: listener::listeners(desk, root.listener, &mut groups),
        upstreams: upstream::upstreams(desk, root.upstream),
    };
    checks::whole_file(desk, &plan, &groups);
    Resolved {
        plan,
        effective: std::mem::take(&mut desk.effective),
        diagnostics: std::mem::take(&mut desk.diagnostics),
    }
}
