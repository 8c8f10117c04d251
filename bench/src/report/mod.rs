//! From runs to a table: medians, ratios and their spread.

mod hgrm;
mod json;
mod record;
mod spread;
mod table;

pub(crate) use hgrm::write_hgrm;
pub(crate) use json::write_json;
pub(crate) use record::{Record, Row};
pub(crate) use table::print;
