//! What ends soon: certificates and revocation lists that are in use.

use super::load::Basis;
use crate::config::Plan;

impl Basis {
    pub(in crate::control) fn warn_of_ends(&self, _plan: &Plan) {}
}
