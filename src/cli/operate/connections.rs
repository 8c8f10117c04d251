//! `ringway connections` and `ringway close`: which connections, and how they are shown.

use std::time::Duration;

use clap::Args;

use super::show::{age, bytes, target};
use super::table::{Table, or_dash};
use crate::control::admin::model::Connections;

/// Which connections are meant: those that fit all of these.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct Filter {
    /// The connection of this id, as the access log has it.
    #[arg(long)]
    id: Option<String>,
    /// Of this listener.
    #[arg(long)]
    listener: Option<String>,
    /// To this group of servers.
    #[arg(long)]
    upstream: Option<String>,
    /// Served by this server, as the configuration names it, or at this address.
    #[arg(long)]
    server: Option<String>,
    /// From this address or network.
    #[arg(long, value_name = "CIDR")]
    source: Option<String>,
    /// At least so old: "10m", "1d".
    #[arg(long, value_name = "AGE")]
    min_age: Option<String>,
}

impl Filter {
    /// A path with these parameters and `more`.
    pub(super) fn target(&self, path: &str, more: &[(&str, &str)]) -> String {
        let own = [
            ("id", &self.id),
            ("listener", &self.listener),
            ("upstream", &self.upstream),
            ("server", &self.server),
            ("source", &self.source),
            ("min_age", &self.min_age),
        ];
        let own = own
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        target(path, own.chain(more.iter().copied()))
    }
}

pub(super) fn table(answer: &Connections) -> String {
    let mut table = Table::new([
        "ID", "LISTENER", "CLIENT", "UPSTREAM", "SERVER", "PHASE", "AGE", "UP", "DOWN",
    ]);
    for it in &answer.connections {
        table.row([
            it.id.clone(),
            it.listener.clone(),
            or_dash(it.client.as_deref()),
            or_dash(it.upstream.as_deref()),
            or_dash(it.address.as_deref()),
            it.phase.clone(),
            age(Duration::from_millis(it.age_ms)),
            bytes(it.bytes_up),
            bytes(it.bytes_down),
        ]);
    }
    let mut text = table.text();
    let shown = answer.connections.len();
    if shown < answer.total {
        text += &format!(
            "the {shown} oldest of {}: --limit shows more\n",
            answer.total
        );
    }
    text
}
