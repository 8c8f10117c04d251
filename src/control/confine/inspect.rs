//! What `check` says of the user that the process will become.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::account::Account;
use super::reach::{log_files, named_files, sockets};
use crate::config::{Diagnostic, Located, Plan};

/// Looks whether there are `user` and `group`, and, as root, what they could not open: the files
/// that a reload reads, and the folder of the log.
#[must_use]
pub fn inspect(plan: &Plan) -> Vec<Diagnostic> {
    let mut findings = missing_folders(plan);
    match Account::find(&plan.runtime.account) {
        Err(error) => findings.push(error.into_diagnostic()),
        Ok(Some(account)) if geteuid().is_root() && !account.is_current() => {
            findings.extend(out_of_reach(&account, plan));
        }
        Ok(_) => {}
    }
    findings
}

fn missing_folders(plan: &Plan) -> Vec<Diagnostic> {
    let missing = plan.sandbox.read.iter().filter(|it| !it.value.exists());
    let finding = |it: &Located<PathBuf>| {
        let what = format!(
            "{} is not there, so it is not kept readable",
            it.value.display()
        );
        let cure = "make it, or take it out of `read`";
        Diagnostic::warning(what).at_place(&it.place).cure(cure)
    };
    missing.map(finding).collect()
}

/// The kernel itself is asked, access lists and all, on a thread that becomes the user for it.
fn out_of_reach(account: &Account, plan: &Plan) -> Vec<Diagnostic> {
    let asked = std::thread::scope(|scope| {
        let ask = || become_user(account).map(|()| refusals(account, plan));
        scope.spawn(ask).join()
    });
    match asked {
        Ok(Ok(findings)) => findings,
        // Whoever cannot become the user for a moment is told so at the start.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The calling thread alone; std and the C library know nothing of it, so nothing else may run on it.
fn become_user(account: &Account) -> rustix::io::Result<()> {
    let group = |gid: &nix::unistd::Gid| Gid::from_raw(gid.as_raw());
    let groups: Vec<Gid> = account.groups.iter().map(group).collect();
    let (uid, gid) = (Uid::from_raw(account.uid.as_raw()), group(&account.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn refusals(account: &Account, plan: &Plan) -> Vec<Diagnostic> {
    let user = &account.user;
    let may = |path: &Path, access: Access| {
        let answer = accessat(CWD, path, access, AtFlags::EACCESS);
        answer != Err(rustix::io::Errno::ACCESS)
    };
    let mut findings: Vec<_> = named_files(plan)
        .filter(|file| !may(&file.value, Access::READ_OK))
        .map(|file| {
            let path = file.value.display();
            let what = format!("{path}: `user` {user} cannot read it, so a reload would fail");
            let cure = format!(
                "`chgrp {} {path} && chmod g+r {path}`, and let it pass through the folders above",
                account.gid
            );
            Diagnostic::warning(what).at_place(&file.place).cure(cure)
        })
        .collect();
    let logs = log_files(plan);
    let refusal = |log: &Located<PathBuf>| {
        let refusal = log_refusal(user, &log.value, may)?;
        Some(refusal.at_place(&log.place))
    };
    findings.extend(logs.iter().filter_map(refusal));
    findings.extend(socket_refusals(user, plan, may));
    findings
}

fn log_refusal(user: &str, path: &Path, may: impl Fn(&Path, Access) -> bool) -> Option<Diagnostic> {
    let there = path.metadata().ok();
    if there.is_some() && !may(path, Access::WRITE_OK) {
        let cure = format!("`chown {user} {}`", path.display());
        let what = format!("{}: `user` {user} cannot write it", path.display());
        return Some(Diagnostic::warning(what).cure(cure));
    }
    // A device or a pipe is not rotated.
    let rotates = there.is_none_or(|it| it.is_file());
    let folder = folder_of(path);
    let what = "so the log cannot be opened there, at the start or later";
    (rotates && !may(folder, TO_MAKE)).then(|| not_made_in(user, folder, what))
}

fn socket_refusals(
    user: &str,
    plan: &Plan,
    may: impl Fn(&Path, Access) -> bool,
) -> Vec<Diagnostic> {
    let refused = sockets(plan).filter_map(|(path, place)| {
        let folder = folder_of(path);
        let what = "so no socket can be made there after the start, nor removed at the end";
        let finding = (!may(folder, TO_MAKE)).then(|| not_made_in(user, folder, what))?;
        Some(match place {
            Some(place) => finding.at_place(place),
            None => finding,
        })
    });
    refused.collect()
}

/// What making and removing a file asks of its folder.
const TO_MAKE: Access = Access::WRITE_OK.union(Access::EXEC_OK);

fn not_made_in(user: &str, folder: &Path, so: &str) -> Diagnostic {
    let folder = folder.display();
    Diagnostic::warning(format!(
        "{folder}: `user` {user} cannot make files there, {so}"
    ))
    .cure(format!(
        "`chown {user} {folder}`, or choose a folder of its own"
    ))
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
