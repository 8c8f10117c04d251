//! Whom the process becomes.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, setgroups, setresgid, setresuid,
};
use rustix::thread::{CapabilitySet, capabilities, set_keep_capabilities};

use crate::config::{AccountPlan, Diagnostic, Located};

/// A user as the kernel knows one: numbers, with the names for the banner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// All that its files may be shared with, `gid` among them.
    pub(super) groups: Vec<Gid>,
}

/// Why the process cannot become the user that the configuration names.
#[derive(Debug)]
pub(super) enum AccountError {
    NoSuchUser(Located<String>),
    NoSuchGroup(Located<String>),
    /// A number that no user has, so that its group is not known either.
    NoGroup(Located<String>),
    /// The system's list of users cannot be read.
    Unknown(Located<String>, Errno),
    /// This process has not the right to.
    NotPermitted {
        wanted: String,
        now: Uid,
    },
    Refused {
        wanted: String,
        error: Errno,
    },
}

impl Account {
    /// `None`: the plan names nobody.
    pub(super) fn find(plan: &AccountPlan) -> Result<Option<Self>, AccountError> {
        let Some(wanted) = &plan.user else {
            return Ok(None);
        };
        let unknown = |error| AccountError::Unknown(wanted.clone(), error);
        let named = match wanted.value.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(&wanted.value),
        };
        let user = named.map_err(unknown)?;
        let uid = match (&user, wanted.value.parse()) {
            (Some(user), _) => user.uid,
            (None, Ok(number)) => Uid::from_raw(number),
            (None, Err(_)) => return Err(AccountError::NoSuchUser(wanted.clone())),
        };
        let gid = match (&plan.group, &user) {
            (Some(group), _) => group_of(group)?,
            (None, Some(user)) => user.gid,
            (None, None) => return Err(AccountError::NoGroup(wanted.clone())),
        };
        Ok(Some(Self {
            groups: groups(user.as_ref(), gid).map_err(unknown)?,
            user: user.map_or_else(|| wanted.value.clone(), |user| user.name),
            uid,
            gid,
        }))
    }

    /// Whether the process is this user already.
    pub(super) fn is_current(&self) -> bool {
        self.uid == geteuid() && self.gid == getegid()
    }

    /// All threads become this user, for good. The calling one keeps its permitted capabilities.
    pub(super) fn assume(&self) -> Result<(), AccountError> {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let may = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
        if !may {
            return Err(AccountError::NotPermitted {
                wanted: self.user.clone(),
                now: geteuid(),
            });
        }
        let refused = |error| AccountError::Refused {
            wanted: self.user.clone(),
            error,
        };
        setgroups(&self.groups).map_err(refused)?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused)?;
        set_keep_capabilities(true)
            .map_err(|error| refused(Errno::from_raw(error.raw_os_error())))?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused)?;
        set_keep_capabilities(false).map_err(|error| refused(Errno::from_raw(error.raw_os_error())))
    }
}

fn group_of(wanted: &Located<String>) -> Result<Gid, AccountError> {
    if let Ok(number) = wanted.value.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(&wanted.value) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(AccountError::NoSuchGroup(wanted.clone())),
        Err(error) => Err(AccountError::Unknown(wanted.clone(), error)),
    }
}

fn groups(user: Option<&User>, gid: Gid) -> Result<Vec<Gid>, Errno> {
    let Some(user) = user else {
        return Ok(vec![gid]);
    };
    let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    let mut groups = getgrouplist(&name, gid)?;
    groups.sort_unstable_by_key(|group| group.as_raw());
    groups.dedup();
    Ok(groups)
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, uid, gid, .. } = self;
        write!(f, "{user} (uid {uid}, gid {gid}, groups")?;
        for group in &self.groups {
            write!(f, " {group}")?;
        }
        f.write_str(")")
    }
}

impl AccountError {
    /// The finding that `check` shows.
    pub(super) fn into_diagnostic(self) -> Diagnostic {
        let diagnostic = Diagnostic::error(self.what()).cure(self.cure());
        match self {
            Self::NoSuchUser(place)
            | Self::NoSuchGroup(place)
            | Self::NoGroup(place)
            | Self::Unknown(place, _) => diagnostic.at_place(&place.place),
            Self::NotPermitted { .. } | Self::Refused { .. } => diagnostic,
        }
    }

    fn what(&self) -> String {
        match self {
            Self::NoSuchUser(name) => format!("there is no user {}", name.value),
            Self::NoSuchGroup(name) => format!("there is no group {}", name.value),
            Self::NoGroup(name) => format!(
                "user {} is in no list, so its group is not known",
                name.value
            ),
            Self::Unknown(name, error) => format!("{} cannot be looked up: {error}", name.value),
            Self::NotPermitted { wanted, now } => {
                format!(
                    "`user` is {wanted}, but this process runs as uid {now}, which cannot become another user"
                )
            }
            Self::Refused { wanted, error } => {
                format!("this process could not become {wanted}: {}", error.desc())
            }
        }
    }

    fn cure(&self) -> String {
        match self {
            Self::NoSuchUser(name) => format!(
                "make it: `useradd --system --no-create-home --shell /usr/sbin/nologin {}`",
                name.value
            ),
            Self::NoSuchGroup(name) => format!("make it: `groupadd --system {}`", name.value),
            Self::NoGroup(_) => "name its `group`, too".to_owned(),
            Self::Unknown(..) => {
                "look at /etc/nsswitch.conf and the services that it names".to_owned()
            }
            Self::NotPermitted { .. } => {
                "start it as root, or take `user` and `group` out where a service manager starts \
                 it as the user (systemd: User=)"
                    .to_owned()
            }
            Self::Refused { .. } => {
                "see setresuid(2) and setgroups(2) for this error; a user namespace may not have \
                 the number"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.cure())
    }
}
