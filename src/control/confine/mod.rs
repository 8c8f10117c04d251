//! Little privilege: what the process gives up once it has opened what needs rights.
//!
//! [`confine`] runs while the process has one thread: capabilities and Landlock belong to threads,
//! and those that start later inherit them. The order: `no_new_privs`, which the next two ask for;
//! the user and its groups; capabilities; core dumps; Landlock; seccomp last, for it forbids the
//! calls of all before it.

mod account;
mod calls;
mod files;
mod forbidden;
mod inspect;
mod reach;
mod rights;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{clear_ambient_capability_set, no_new_privs, set_no_new_privs};

use self::account::{Account, AccountError};
use self::reach::Reach;
use self::rights::Rights;
use crate::config::{Plan, SandboxPlan};
use crate::observe::events::HeldEvents;

pub use inspect::inspect;

/// What it takes to give up rights in the middle of the start.
#[derive(Debug)]
pub struct Enclosure {
    /// The configuration's: it is read again.
    pub file: PathBuf,
    /// Written from there on, by a thread that then begins.
    pub events: HeldEvents,
}

impl Enclosure {
    pub(super) fn close(self, plan: &Plan) -> Result<Arc<Confinement>, ConfineError> {
        let confinement = confine(plan, &self.file)?;
        self.events.begin();
        Ok(Arc::new(confinement))
    }
}

/// How much of this machine the process can still reach.
#[derive(Debug)]
pub struct Confinement {
    user: String,
    /// Root keeps all its rights: no file says how few it could do with.
    rights: Option<Rights>,
    no_new_privs: State,
    landlock: State,
    reach: Reach,
    seccomp: State,
    core_dumps: State,
    /// Threads that had begun before, and have none of Landlock.
    earlier_threads: usize,
    _statistics: Vec<File>,
}

/// One thing that can be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// What it means here.
    On(String),
    /// The line of the configuration that says so.
    Off(&'static str),
    /// Why this system cannot.
    Unavailable(String),
}

/// Why the process cannot give up what it has.
#[derive(Debug)]
pub struct ConfineError(Cause);

#[derive(Debug)]
enum Cause {
    Account(AccountError),
    System(&'static str, io::Error),
}

/// Gives up all that `plan`, which stands in `file`, does not need from here on.
///
/// # Errors
/// [`ConfineError`]. The process may then have given up a part, and must end.
pub fn confine(plan: &Plan, file: &Path) -> Result<Confinement, ConfineError> {
    let account = Account::find(&plan.runtime.account)?;
    // Looked up while every folder can still be looked into.
    let reach = Reach::of(plan, file);
    let statistics = reach::hold_statistics(plan);
    let earlier_threads = threads().saturating_sub(1);
    let no_new_privs = forgo_new_privileges(&plan.sandbox)?;
    if let Some(account) = account.as_ref().filter(|it| !it.is_current()) {
        account.assume()?;
    }
    let rights = reduce_rights(plan)?;
    let core_dumps = forgo_core_dumps(&plan.sandbox)?;
    let landlock = match plan.sandbox.landlock {
        true => files::close_but(&reach),
        false => State::Off("landlock = false"),
    };
    let seccomp = match plan.sandbox.seccomp {
        true => calls::close_but_the_list(),
        false => State::Off("seccomp = false"),
    };
    Ok(Confinement {
        user: who(account),
        rights,
        no_new_privs,
        landlock,
        reach,
        seccomp,
        core_dumps,
        earlier_threads,
        _statistics: statistics,
    })
}

fn who(account: Option<Account>) -> String {
    match account {
        Some(account) => account.to_string(),
        None => format!("uid {}", geteuid().as_raw()),
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn forgo_new_privileges(plan: &SandboxPlan) -> Result<State, ConfineError> {
    if !plan.no_new_privs {
        // A service manager may have set it, and then it stays.
        return Ok(match no_new_privs() {
            Ok(true) => State::On("set before it started".to_owned()),
            _ => State::Off("no_new_privs = false"),
        });
    }
    set_no_new_privs(true).map_err(refused("no_new_privs"))?;
    Ok(State::On(String::new()))
}

fn reduce_rights(plan: &Plan) -> Result<Option<Rights>, ConfineError> {
    if geteuid().is_root() {
        return Ok(None);
    }
    // EINVAL before Linux 4.3, which has no ambient set.
    let _ = clear_ambient_capability_set();
    let kept = Rights::needed(plan).keep();
    kept.map(Some).map_err(refused("capabilities"))
}

/// A crash handler that is a program is given dumps whatever the limit says, so both are set.
/// The kernel forgets the second when the user changes.
fn forgo_core_dumps(plan: &SandboxPlan) -> Result<State, ConfineError> {
    if plan.core_dumps {
        set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(refused("core dumps"))?;
        return Ok(State::Off("core_dumps = true"));
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(refused("core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("core dumps"))?;
    Ok(State::On(String::new()))
}

fn refused<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |error| ConfineError(Cause::System(what, error.into()))
}

impl Confinement {
    /// For a worker's thread, before it serves: connections need less than reloads.
    pub(super) fn enter_worker(&self) -> io::Result<()> {
        match self.rights {
            Some(kept) => kept.of_worker().keep().map(drop),
            None => Ok(()),
        }
    }

    /// The lines of the banner.
    pub(super) fn say(&self) {
        tracing::info!("user: {}", self.user);
        match self.rights {
            Some(rights) => tracing::info!("capabilities: {}", rights.words()),
            None => tracing::warn!(
                "RUNNING AS ROOT, with all its rights: name a `user` in [runtime]; it is taken on \
                 once addresses are bound and keys are read"
            ),
        }
        let states = [
            ("no_new_privs", &self.no_new_privs),
            ("Landlock", &self.landlock),
            ("seccomp", &self.seccomp),
        ];
        for (what, state) in states {
            match state {
                State::Unavailable(_) => tracing::warn!("{what}: {state}"),
                _ => tracing::info!("{what}: {state}"),
            }
        }
        if self.earlier_threads > 0 && matches!(self.landlock, State::On(_)) {
            tracing::warn!(
                "{} threads had begun before, and Landlock does not hold for them: a defect of \
                 Ringway, please report it",
                self.earlier_threads
            );
        }
        let dumps = match self.core_dumps {
            State::On(_) => "off",
            _ => "as the system has them (core_dumps = true in [sandbox]); they hold private keys",
        };
        tracing::info!("core dumps: {dumps}");
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(words) if words.is_empty() => f.write_str("on"),
            Self::On(words) => write!(f, "on ({words})"),
            Self::Off(line) => write!(f, "off ({line} in [sandbox])"),
            Self::Unavailable(why) => write!(f, "NOT AVAILABLE: {why}"),
        }
    }
}

impl From<AccountError> for ConfineError {
    fn from(error: AccountError) -> Self {
        Self(Cause::Account(error))
    }
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Account(error) => error.fmt(f),
            Cause::System(what, error) => {
                write!(
                    f,
                    "{what} could not be given up: {error}: see prctl(2) and capset(2)"
                )
            }
        }
    }
}

impl std::error::Error for ConfineError {}
