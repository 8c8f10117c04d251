//! What the process gives up once it has opened what it needs.

use super::{Optional, Switch};

/// A name of our own would not exist on most hosts, and `nobody` is shared with strangers.
pub(in crate::config) const USER: Optional = Optional {
    key: "user",
    why: "the process stays who it was started as",
};

pub(in crate::config) const GROUP: Optional = Optional {
    key: "group",
    why: "the user's own group",
};

pub(in crate::config) const NO_NEW_PRIVS: Switch = Switch {
    key: "no_new_privs",
    default: true,
    why: "Ringway starts no program, so none can give it rights",
};

pub(in crate::config) const LANDLOCK: Switch = Switch {
    key: "landlock",
    default: true,
    why: "Ringway needs no other files than those of its configuration",
};

pub(in crate::config) const SECCOMP: Switch = Switch {
    key: "seccomp",
    default: true,
    why: "Ringway needs a third of the kernel's system calls",
};

/// An image of the process holds its private keys, and lands where a crash handler puts it.
pub(in crate::config) const CORE_DUMPS: Switch = Switch {
    key: "core_dumps",
    default: false,
    why: "a core dump holds the private keys",
};

pub(in crate::config) const READ: Optional = Optional {
    key: "read",
    why: "the folders of the files that the configuration names are enough",
};
