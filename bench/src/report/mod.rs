//! From runs to a table: medians, ratios and their spread.

mod json;
mod record;
mod spread;
mod table;

pub(crate) use json::write_json;
pub(crate) use record::{Record, Row};
pub(crate) use table::print;
