use crate::config::{BindAddress, Located};

/// Where those who operate the process speak to it.
#[derive(Debug, Clone)]
pub struct AdminPlan {
    /// At least one. TCP addresses serve only what changes nothing.
    pub listen: Vec<Located<BindAddress>>,
    /// Permissions of the unix sockets: who may connect.
    pub mode: u32,
}
