use super::access_log::Logged;
use super::show::{Phase, Show, mebibytes};
use super::tally::Handshakes;

/// Failures that are told in full; the others are counted.
const FAILURES_SHOWN_MAX: usize = 8;

/// What the show has to say at its end.
pub(super) struct Report {
    pub text: String,
    pub passed: bool,
}

impl Report {
    pub(super) fn new(show: &Show, phases: &[Phase], logged: &Logged) -> Self {
        let failures = failures(phases, logged);
        let mut text = table(phases);
        text += &summary(phases, logged, failures.len());
        text += &format!(
            "\nClients, servers and proxy shared this machine's cores ({} workers): these are no\n\
             benchmark figures.\n",
            show.workers
        );
        for failure in failures.iter().take(FAILURES_SHOWN_MAX) {
            text += &format!("FAILED: {failure}\n");
        }
        text += &commands(show);
        Self {
            text,
            passed: failures.is_empty(),
        }
    }
}

fn failures(phases: &[Phase], logged: &Logged) -> Vec<String> {
    let told = phases.iter().flat_map(|phase| {
        let failures = phase.failures.iter();
        failures.map(|failure| format!("{}: {failure}", phase.name))
    });
    let unclean = logged.unclean.iter();
    let unclean = unclean.map(|line| format!("a connection did not end cleanly: {line}"));
    let missing = phases
        .iter()
        .filter(|phase| phase.downstream.total() == 0 || phase.bytes == 0);
    let missing = missing.map(|phase| format!("{}: nothing came through", phase.name));
    let (lines, made) = (logged.connections, connections(phases));
    let unlogged =
        (lines < made).then(|| format!("{lines} lines in the log of {made} connections"));
    told.chain(unclean).chain(missing).chain(unlogged).collect()
}

fn connections(phases: &[Phase]) -> u64 {
    phases.iter().map(|phase| phase.downstream.total()).sum()
}

/// Both legs of each phase, the downstream counted by the clients, the upstream by the servers.
fn table(phases: &[Phase]) -> String {
    let mut text = format!(
        "\n{:<20}{:<12}{:>8}{:>10}{:>10}{:>12}\n",
        "phase", "leg", "full", "resumed", "full/s", "resumed/s"
    );
    for phase in phases {
        let seconds = phase.took.as_secs_f64();
        let mut row = |name: &str, leg: &str, Handshakes { full, resumed }: Handshakes| {
            let rate = |count: u64| match phase.is_rated {
                true => format!("{:.0}", count as f64 / seconds),
                false => "-".to_owned(),
            };
            text += &format!(
                "{name:<20}{leg:<12}{full:>8}{resumed:>10}{:>10}{:>12}\n",
                rate(full),
                rate(resumed)
            );
        };
        row(phase.name, "downstream", phase.downstream);
        row(&format!("  {seconds:.1} s"), "upstream", phase.upstream);
    }
    text
}

fn summary(phases: &[Phase], logged: &Logged, failures: usize) -> String {
    let bytes = mebibytes(phases.iter().map(|phase| phase.bytes).sum());
    let finished: u64 = logged.paths.values().sum();
    let paths = logged.paths.iter();
    let paths: Vec<String> = paths
        .map(|((up, down), count)| format!("{up} up, {down} down ({count} connections)"))
        .collect();
    format!(
        "\nbytes verified      {bytes} up, the same {bytes} down\n\
         relay path          {}\n\
         access log          {finished} of {} connections finished cleanly\n\
         failed              {failures}\n",
        paths.join("; "),
        connections(phases)
    )
}

fn commands(show: &Show) -> String {
    let directory = show.pki.directory.display();
    let edge = show.edge;
    let port = edge.port();
    let server = show.servers.addresses[0];
    format!(
        "\nTo try by hand while a demo is up (ringway demo without --once; ports and paths differ\n\
         from run to run):\n\n\
         # HTTPS, carried to one of the two upstream servers over mutual TLS\n\
         curl --noproxy localhost --cacert {directory}/ca.crt https://localhost:{port}/\n\n\
         # what you type comes back\n\
         openssl s_client -connect {edge} -servername localhost -CAfile {directory}/ca.crt\n\n\
         # an upstream server refuses whom it does not know ...\n\
         openssl s_client -connect {server} -CAfile {directory}/ca.crt\n\n\
         # ... and takes the proxy's certificate\n\
         openssl s_client -connect {server} -CAfile {directory}/ca.crt \\\n    \
         -cert {directory}/client.crt -key {directory}/client.key\n\n\
         # one line for each connection\n\
         tail -n 1 {directory}/access.log\n\n\
         # what the proxy made of its configuration\n\
         ringway explain {directory}/ringway.toml\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn phase(full: u64, failures: &[&str]) -> Phase {
        let handshakes = Handshakes { full, resumed: 0 };
        Phase {
            name: "full handshakes",
            is_rated: true,
            took: Duration::from_secs(2),
            downstream: handshakes,
            upstream: handshakes,
            bytes: full * 64,
            failures: failures.iter().map(ToString::to_string).collect(),
        }
    }

    fn logged(connections: u64, unclean: &[&str]) -> Logged {
        Logged {
            connections,
            paths: BTreeMap::new(),
            unclean: unclean.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_failed_client_an_unclean_end_an_idle_phase_and_a_lost_line_each_fail_the_demo() {
        let fails = |phase, logged| failures(&[phase], &logged);
        assert!(fails(phase(8, &[]), logged(8, &[])).is_empty());
        for failed in [
            fails(
                phase(8, &["client 1: byte 7 came back changed"]),
                logged(8, &[]),
            ),
            fails(phase(8, &[]), logged(8, &["end=reset"])),
            fails(phase(0, &[]), logged(8, &[])),
            fails(phase(8, &[]), logged(7, &[])),
        ] {
            assert_eq!(failed.len(), 1, "{failed:?}");
        }
    }

    #[test]
    fn the_table_has_rates_by_the_time_the_phase_took() {
        let table = table(&[phase(800, &[])]);
        let words: Vec<&str> = table
            .lines()
            .nth(2)
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(
            words,
            ["full", "handshakes", "downstream", "800", "0", "400", "0"]
        );
    }
}
