//! Whom the process becomes, and what it closes behind itself.

use std::path::Path;

use toml::Spanned;

use crate::config::defaults::{self, Optional};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{RuntimeFile, SandboxFile, Table, Text};
use crate::config::plan::{AccountPlan, Located, SandboxPlan};
use crate::config::value::Refusal;

use super::runtime::opened;
use super::scope::{Desk, Scope, located, path, quoted};

pub(super) fn account(scope: &mut Scope<'_, '_>, file: &RuntimeFile) -> AccountPlan {
    let user = name(scope, &file.user, &defaults::USER);
    let group = name(scope, &file.group, &defaults::GROUP);
    if let (None, Some(group), false) = (&file.user, &file.group, scope.lost(defaults::USER.key)) {
        scope.push(
            Diagnostic::error("`group` without `user` changes nothing")
                .at(group.span())
                .cure("name the `user` whose rights the process shall have, too"),
        );
    }
    AccountPlan { user, group }
}

/// Longer than any system allows (useradd: 256), and bounded.
const NAME_BYTES_MAX: usize = 256;

fn name(scope: &mut Scope<'_, '_>, field: &Text, optional: &Optional) -> Option<Located<String>> {
    let Some(text) = field else {
        scope.note_none(optional);
        return None;
    };
    let key = optional.key;
    let is_foreign = |it: char| it.is_whitespace() || it.is_control() || matches!(it, ':' | '/');
    if text.get_ref().is_empty()
        || text.get_ref().len() > NAME_BYTES_MAX
        || text.get_ref().contains(is_foreign)
    {
        let refusal = Refusal {
            message: format!("`{key}` cannot be {}", quoted(text.get_ref())),
            cure: format!(
                "write the name of a {key} that `getent` shows, such as \"ringway\", or its number"
            ),
        };
        scope.refuse(refusal, text.span());
        return None;
    }
    scope.note(key, quoted(text.get_ref()), &text.span());
    Some(located(text.get_ref().clone(), text.span()))
}

pub(super) fn sandbox(
    desk: &mut Desk<'_>,
    file: Option<Spanned<Table<SandboxFile>>>,
) -> SandboxPlan {
    let (file, table) = opened(file);
    let scope = &mut desk.scope("sandbox", table);
    let base = scope.base();
    let plan = SandboxPlan {
        no_new_privs: scope.switch(&file.no_new_privs, &defaults::NO_NEW_PRIVS),
        landlock: scope.switch(&file.landlock, &defaults::LANDLOCK),
        seccomp: scope.switch(&file.seccomp, &defaults::SECCOMP),
        core_dumps: scope.switch(&file.core_dumps, &defaults::CORE_DUMPS),
        read: scope.optional_list(&file.read, &defaults::READ, |text| path(text, &base)),
    };
    contradictions(scope, &file, &plan);
    plan
}

fn contradictions(scope: &mut Scope<'_, '_>, file: &SandboxFile, plan: &SandboxPlan) {
    if let Some(flag) = &file.no_new_privs
        && !plan.no_new_privs
        && (plan.landlock || plan.seccomp)
    {
        scope.push(
            Diagnostic::error("`no_new_privs` cannot be off while `landlock` or `seccomp` is on")
                .at(flag.span())
                .cure(
                    "take the line out; or turn both off by `landlock = false` and \
                     `seccomp = false`, which the kernel allows only beside it",
                ),
        );
    }
    if let (Some(read), false) = (&file.read, plan.landlock) {
        scope.push(
            Diagnostic::warning("`read` has no effect: Landlock is off, so every file is readable")
                .at(read.span())
                .cure("take the line out, or `landlock = false`"),
        );
    }
    if let Some(folder) = plan.read.iter().find(|it| it.value == Path::new("/")) {
        scope.push(
            Diagnostic::warning("`read` names the root, so Landlock protects no file from reading")
                .at_place(&folder.place)
                .cure("name the folders that a later configuration may need"),
        );
    }
}
