//! The figures as lines, for scripts: what it is, a name where there are several, words and values.

use std::fmt::Write as _;
use std::time::Duration;

use super::figures::{Figures, Handshakes};
use crate::cli::operate::show::bytes;
use crate::control::admin::model::Status;

pub(super) fn lines(status: &Status, figures: &Figures) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "process {} version {} state {} plan {}",
        status.pid, status.version, status.state, status.plan.digest
    );
    let Figures {
        connections,
        accepted,
        ..
    } = figures;
    let _ = writeln!(
        out,
        "connections {connections:.0} accepted {}",
        rate(*accepted)
    );
    let _ = writeln!(
        out,
        "throughput up {} down {}",
        bytes_rate(figures.up),
        bytes_rate(figures.down)
    );
    for (side, handshakes) in sides(figures) {
        let _ = writeln!(out, "handshakes {side} {}", words(handshakes));
        for (reason, failed) in &handshakes.failed {
            let _ = writeln!(out, "failures {side} {reason} {}", rate(*failed));
        }
    }
    for core in &figures.cores {
        let busy = core.busy.map_or_else(|| "-".to_owned(), percent);
        let _ = writeln!(
            out,
            "core {} busy {busy} connections {:.0}",
            core.name, core.connections
        );
    }
    for upstream in &status.upstreams {
        for it in &upstream.servers {
            let address = it.address.as_deref().unwrap_or("-");
            let _ = writeln!(
                out,
                "server {} {} {address} state {} connections {}",
                upstream.name, it.server, it.state, it.connections
            );
        }
    }
    out
}

pub(super) fn sides(figures: &Figures) -> [(&'static str, &Handshakes); 2] {
    [
        ("downstream", &figures.downstream),
        ("upstream", &figures.upstream),
    ]
}

fn words(handshakes: &Handshakes) -> String {
    format!(
        "full {} resumed {} failed {} p99 {}",
        rate(handshakes.full),
        rate(handshakes.resumed),
        rate(handshakes.failures()),
        handshakes.p99.map_or_else(|| "-".to_owned(), time)
    )
}

pub(super) fn rate(rate: f64) -> String {
    format!("{rate:.1}/s")
}

pub(super) fn bytes_rate(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of a counter is finite and not negative"
    )]
    let whole = rate as u64;
    format!("{}/s", bytes(whole).replace(' ', ""))
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// "1.02ms"
pub(super) fn time(time: Duration) -> String {
    format!("{time:.2?}")
}

#[cfg(test)]
pub(super) use tests::{figures as sample_figures, status as sample_status};

#[cfg(test)]
mod tests {
    use super::super::figures::Core;
    use super::*;
    use crate::control::admin::model::{PlanSeen, ServerSeen, UpstreamSeen};

    pub(in crate::cli::operate::top) fn status() -> Status {
        Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_secs: 61,
            state: "running".into(),
            workers: 2,
            plan: PlanSeen {
                file: "edge.toml".into(),
                digest: "0123".into(),
            },
            cores: Vec::new(),
            listeners: Vec::new(),
            upstreams: vec![UpstreamSeen {
                name: "db".into(),
                servers: vec![ServerSeen {
                    server: "db.example.org:5432".into(),
                    address: Some("10.0.0.1:5432".into()),
                    state: "drained".into(),
                    reason: None,
                    since: None,
                    backup: false,
                    connections: 3,
                }],
            }],
        }
    }

    pub(in crate::cli::operate::top) fn figures() -> Figures {
        Figures {
            accepted: 12.0,
            connections: 345.0,
            downstream: Handshakes {
                full: 10.0,
                resumed: 1.25,
                failed: vec![("timeout".into(), 0.5)],
                p99: Some(Duration::from_micros(1024)),
            },
            up: 2048.0,
            down: 1e9,
            cores: vec![Core {
                name: "0".into(),
                busy: Some(0.345),
                connections: 345.0,
            }],
            ..Figures::default()
        }
    }

    #[test]
    fn every_line_begins_with_what_it_is_about() {
        assert_eq!(
            lines(&status(), &figures()),
            "process 7 version 0.1.0 state running plan 0123\n\
             connections 345 accepted 12.0/s\n\
             throughput up 2.0KiB/s down 953.6MiB/s\n\
             handshakes downstream full 10.0/s resumed 1.2/s failed 0.5/s p99 1.02ms\n\
             failures downstream timeout 0.5/s\n\
             handshakes upstream full 0.0/s resumed 0.0/s failed 0.0/s p99 -\n\
             core 0 busy 34% connections 345\n\
             server db db.example.org:5432 10.0.0.1:5432 state drained connections 3\n"
        );
    }
}
