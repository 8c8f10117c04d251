//! `ringway status` in words.

use std::time::Duration;

use super::show::age;
use super::table::{Table, or_dash};
use crate::control::admin::model::{ServerSeen, Status};
use crate::types::{UnixSeconds, unix_now};

/// As long a part of a digest as tells plans apart.
const DIGEST_DIGITS: usize = 12;

pub(super) fn table(status: &Status) -> String {
    at(status, unix_now())
}

fn at(status: &Status, now: UnixSeconds) -> String {
    let mut text = head(status);
    let mut listeners = Table::new(["LISTENER", "ADDRESS", "CONNECTIONS", "LIMIT"]);
    for it in &status.listeners {
        listeners.row([
            it.name.clone(),
            it.addresses.join(" "),
            it.connections.to_string(),
            it.max_connections.to_string(),
        ]);
    }
    text += &listeners.text();
    text += "\n";
    let heads = ["UPSTREAM", "SERVER", "STATE", "FOR", "CONNECTIONS", "WHY"];
    let mut servers = Table::new(heads);
    for upstream in &status.upstreams {
        for it in &upstream.servers {
            let since = it
                .since
                .map_or(status.uptime_secs, |it| now.saturating_sub(it));
            servers.row([
                upstream.name.clone(),
                server(it),
                it.state.replace('_', " "),
                age(Duration::from_secs(since)),
                it.connections.to_string(),
                or_dash(it.reason.as_deref()),
            ]);
        }
    }
    text + &servers.text()
}

fn head(status: &Status) -> String {
    let uptime = age(Duration::from_secs(status.uptime_secs));
    let cores: Vec<String> = status
        .cores
        .iter()
        .map(|it| it.connections.to_string())
        .collect();
    let digest: String = status.plan.digest.chars().take(DIGEST_DIGITS).collect();
    let mut head = format!(
        "ringway {}, process {}, {} for {uptime}\n{} ({digest})\n{} workers with {} connections\n",
        status.version,
        status.pid,
        status.state,
        status.plan.file,
        status.workers,
        cores.join(" + "),
    );
    if cores.len() < status.workers {
        let silent = status.workers - cores.len();
        head += &format!("{silent} of them did not answer in time\n");
    }
    head + "\n"
}

/// An address alone, where it says all.
fn server(it: &ServerSeen) -> String {
    let backup = if it.backup { " (backup)" } else { "" };
    match &it.address {
        Some(address) if *address != it.server => format!("{} {address}{backup}", it.server),
        _ => format!("{}{backup}", it.server),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::model::{CoreSeen, ListenerSeen, PlanSeen, UpstreamSeen};

    fn server_at(address: Option<&str>, state: &str, since: Option<u64>) -> ServerSeen {
        ServerSeen {
            server: "db.example.org:5432".into(),
            address: address.map(str::to_owned),
            state: state.into(),
            reason: since.map(|_| "by the operator".into()),
            since,
            backup: address.is_none(),
            connections: 3,
        }
    }

    #[test]
    fn the_table_says_what_is_how_and_for_how_long() {
        let status = Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_secs: 3600,
            state: "running".into(),
            workers: 3,
            plan: PlanSeen {
                file: "/etc/ringway/edge.toml".into(),
                digest: "0123456789abcdef".into(),
            },
            cores: vec![
                CoreSeen {
                    core: 0,
                    connections: 4,
                },
                CoreSeen {
                    core: 1,
                    connections: 5,
                },
            ],
            listeners: vec![ListenerSeen {
                name: "edge".into(),
                addresses: vec!["0.0.0.0:443".into(), "[::]:443".into()],
                connections: 9,
                max_connections: 8192,
            }],
            upstreams: vec![UpstreamSeen {
                name: "db".into(),
                servers: vec![
                    server_at(Some("10.0.0.1:5432"), "taken_down", Some(1_000)),
                    server_at(None, "unresolved", None),
                ],
            }],
        };
        assert_eq!(
            at(&status, 1_061),
            "ringway 0.1.0, process 7, running for 1h\n\
             /etc/ringway/edge.toml (0123456789ab)\n\
             3 workers with 4 + 5 connections\n\
             1 of them did not answer in time\n\
             \n\
             LISTENER  ADDRESS               CONNECTIONS  LIMIT\n\
             edge      0.0.0.0:443 [::]:443  9            8192\n\
             \n\
             UPSTREAM  SERVER                             STATE       FOR   CONNECTIONS  WHY\n\
             db        db.example.org:5432 10.0.0.1:5432  taken down  1m1s  3            by the operator\n\
             db        db.example.org:5432 (backup)       unresolved  1h    3            -\n"
        );
    }
}
