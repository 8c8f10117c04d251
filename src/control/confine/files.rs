//! Landlock: no file can be opened but those within [`Reach`].

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, make_bitflags,
};

use super::State;
use super::reach::Reach;

/// The last one with a right that concerns files we may want: later ones forbid connecting to unix
/// sockets by their path, which servers and loggers are reached by. A kernel that has less forbids
/// what it can.
const HANDLED: ABI = ABI::V5;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const LOG: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});
const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});

/// Closes all files but those within `reach` to this thread and those that it starts, for good.
pub(super) fn close_but(reach: &Reach) -> State {
    match restrict(reach) {
        Ok(status) => state(&status, reach),
        Err(error) => State::Unavailable(format!("this system refuses it: {error}")),
    }
}

fn state(status: &RestrictionStatus, reach: &Reach) -> State {
    match (status.landlock, &status.ruleset) {
        (LandlockStatus::NotImplemented, _) => State::Unavailable(
            "this kernel has none (Linux 5.13 with CONFIG_SECURITY_LANDLOCK)".to_owned(),
        ),
        (LandlockStatus::NotEnabled, _) | (_, RulesetStatus::NotEnforced) => State::Unavailable(
            "it is not enabled on this kernel (add `landlock` to the parameter lsm=)".to_owned(),
        ),
        (LandlockStatus::Available { effective_abi, .. }, _) => {
            State::On(format!("ABI {effective_abi}: {}", reach.words()))
        }
    }
}

fn restrict(reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(HANDLED))?
        .create()?;
    let sets = [
        (&reach.read, READ),
        (&reach.logs, LOG),
        (&reach.sockets, SOCKET),
    ];
    for (paths, rights) in sets {
        for path in paths {
            // What is gone since can be opened by nobody.
            let Ok(fd) = PathFd::new(path) else { continue };
            let rights = match path.is_dir() {
                true => rights,
                false => rights & AccessFs::from_file(HANDLED),
            };
            ruleset = ruleset.add_rule(PathBeneath::new(fd, rights))?;
        }
    }
    ruleset.restrict_self()
}
