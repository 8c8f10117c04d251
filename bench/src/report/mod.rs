//! From runs to figures: medians, ratios and their spread; tables, JSON, .hgrm and the plot.

mod hgrm;
mod json;
mod plot;
mod record;
mod row;
mod spread;
mod table;

use std::path::PathBuf;

pub(crate) use record::Record;
pub(crate) use row::Row;
pub(crate) use table::print;

use crate::args::RunOptions;
use crate::environment::Environment;
use crate::peer::Peer;

/// Writes `NAME.json`, `NAME.svg` and `hgrm/`, and names them.
pub(crate) fn write(
    name: &str,
    options: &RunOptions,
    environment: &Environment,
    peers: &[Peer],
    rows: &[Row],
) -> anyhow::Result<Vec<PathBuf>> {
    let json = options.out.join(format!("{name}.json"));
    json::write(&json, options, environment, peers, rows)?;
    let mut files = vec![json, hgrm::write(&options.out, peers, rows)?];
    files.extend(plot::write(&options.out, name, peers, rows)?);
    Ok(files)
}
