//! Whom the process becomes, and what it closes behind itself.

use std::path::PathBuf;

use super::Located;

/// `user` and `group` of `[runtime]`: names, or numbers.
#[derive(Debug, Clone, Default)]
pub struct AccountPlan {
    /// `None`: the process stays who it was started as.
    pub user: Option<Located<String>>,
    /// `None`: the user's own.
    pub group: Option<Located<String>>,
}

/// The table `[sandbox]`.
#[derive(Debug, Clone, Default)]
pub struct SandboxPlan {
    /// Never off while one of the next two is on.
    pub no_new_privs: bool,
    pub landlock: bool,
    pub seccomp: bool,
    pub core_dumps: bool,
    /// Folders and files that stay readable beside those which the plan needs.
    pub read: Vec<Located<PathBuf>>,
}
