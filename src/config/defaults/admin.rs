//! How the process is operated while it runs.

use super::Optional;

pub(in crate::config) const ADMIN_LISTEN: Optional = Optional {
    key: "listen",
    why: "a socket in the file system has an owner and permissions; a port has not",
};

/// Where the commands look for it, too. systemd's `RuntimeDirectory=ringway` makes the folder.
pub const ADMIN_SOCKET: &str = "/run/ringway/admin.sock";

pub(in crate::config) const ADMIN_MODE: Optional = Optional {
    key: "mode",
    why: "its owner and its group may read and change, and nobody else",
};

pub(in crate::config) const ADMIN_MODE_DEFAULT: u32 = 0o660;
