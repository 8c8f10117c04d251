use crate::config::{Diagnostic, Plan};
pub fn inspect(_plan: &Plan) -> Vec<Diagnostic> {
    vec![]
}
