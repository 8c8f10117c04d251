//! Every metric, once: docs/metrics.md, the dashboard and the alert rules are held to this.

/// What a scrape may show.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// None of them ever comes from a peer.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word of the text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub const $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// In the order of a scrape.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "ringway_build_info" ["version", "architecture"]
        "Always 1: which Ringway runs.";
    PLAN_INFO: Gauge "ringway_plan_info" ["digest"]
        "Always 1: which configuration is in use, by the SHA-256 of its file.";
    PLAN_LOADED: Gauge "ringway_plan_loaded_timestamp_seconds" []
        "When the configuration in use was loaded.";
    RELOADS: Counter "ringway_reloads_total" ["result"]
        "Reloads, by what they came to: applied or refused.";
    WORKERS: Gauge "ringway_workers" []
        "Workers, one for each core that serves.";
    WORKER_RESTARTS: Counter "ringway_worker_restarts_total" []
        "Workers that died and were started again.";
    EPOLL: Gauge "ringway_epoll_in_use" []
        "1 where Ringway runs on epoll instead of io_uring.";
    CORE_BUSY: Counter "ringway_core_busy_seconds_total" ["core"]
        "Time that a core's thread has run.";
    CORE_WAIT: Counter "ringway_core_wait_seconds_total" ["core"]
        "Time that a core's thread was ready to run and had no CPU.";
    CORE_CONNECTIONS: Gauge "ringway_core_connections" ["core"]
        "Connections that live on a core.";
    CORE_PLANS: Gauge "ringway_core_plans" ["core"]
        "Configurations that a core holds: the one for new connections, and those that others began with.";
    RING_WAITS: Counter "ringway_core_ring_waits_total" ["core"]
        "Operations that a core has put on its ring to wait for a socket.";
    ACCEPT_PAUSES: Counter "ringway_core_accept_pauses_total" ["core"]
        "Times that accepting rested because files or memory had run out.";
    PIPES_SMALL: Counter "ringway_core_pipes_small_total" ["core"]
        "Pipes that the kernel made smaller than they were asked for.";
    PIPES_REFUSED: Counter "ringway_core_pipes_refused_total" ["core"]
        "Pipes that could not be had: the bytes were copied.";
    FALLBACKS: Counter "ringway_fallbacks_total" ["direction", "reason"]
        "Directions that did not come to kernel TLS though they should have.";
    CONNECTIONS: Gauge "ringway_connections" ["listener", "phase"]
        "Connections that live, by how far they have come.";
    CONNECTIONS_MAX: Gauge "ringway_connections_max" ["listener"]
        "max_connections of a listener.";
    ACCEPTED: Counter "ringway_connections_accepted_total" ["listener"]
        "Connections accepted, also those that were refused then.";
    ENDED: Counter "ringway_connections_ended_total" ["listener", "end", "phase", "ended_by"]
        "Connections that have ended, by reason, phase and who ended them.";
    BYTES: Counter "ringway_bytes_total" ["listener", "direction", "path"]
        "Application bytes sent on, by direction and engine.";
    DOWNSTREAM_HANDSHAKES: Counter "ringway_downstream_handshakes_total"
        ["listener", "version", "group", "kind"]
        "TLS handshakes with clients that were finished.";
    DOWNSTREAM_FAILURES: Counter "ringway_downstream_handshake_failures_total"
        ["listener", "reason"]
        "TLS handshakes with clients that failed.";
    UPSTREAM_HANDSHAKES: Counter "ringway_upstream_handshakes_total"
        ["upstream", "version", "group", "kind"]
        "TLS handshakes with servers that were finished.";
    UPSTREAM_FAILURES: Counter "ringway_upstream_handshake_failures_total"
        ["upstream", "reason"]
        "TLS handshakes with servers that failed.";
    PHASE_SECONDS: Histogram "ringway_phase_seconds" ["listener", "phase"]
        "Time that each phase of a connection took, also one that failed.";
    CONNECTION_SECONDS: Histogram "ringway_connection_seconds" ["listener"]
        "Time from accept to the end of a connection.";
    SERVER_ADDRESSES: Gauge "ringway_server_addresses" ["upstream", "server", "state"]
        "Addresses of a server, by state: up, down by what connections met, barred by its checks, \
         held by the operator, off by the configuration.";
    SERVER_CONNECTIONS: Gauge "ringway_server_connections" ["upstream", "server"]
        "Connections that hold a place at a server, ready ones among them.";
    SERVER_TRIES: Counter "ringway_server_tries_total" ["upstream", "server"]
        "Tries to connect to a server.";
    SERVER_TAKEN: Counter "ringway_server_connections_taken_total" ["upstream", "server"]
        "Tries that came to a connection, TLS included.";
    SERVER_FAILURES: Counter "ringway_server_failures_total" ["upstream", "server", "reason"]
        "Tries that failed, by the words of next_upstream; other: not the server's doing.";
    WARM: Gauge "ringway_warm_connections" ["upstream"]
        "Connections to servers that are ready.";
    WARM_HANDED_OUT: Counter "ringway_warm_handed_out_total" ["upstream"]
        "Ready connections that a client was given.";
    WARM_DISCARDED: Counter "ringway_warm_discarded_total" ["upstream", "reason"]
        "Ready connections that were thrown away.";
    WARM_FAILED: Counter "ringway_warm_failed_total" ["upstream"]
        "Connections that should have been made ready and could not.";
    CERTIFICATE_ENDS: Gauge "ringway_certificate_not_after_timestamp_seconds"
        ["side", "name", "use", "file", "subject"]
        "When a certificate ends.";
    CRL_NEXT_UPDATE: Gauge "ringway_crl_next_update_timestamp_seconds"
        ["side", "name", "file", "issuer"]
        "When a revocation list is out of date.";
    OCSP_NEXT_UPDATE: Gauge "ringway_ocsp_next_update_timestamp_seconds"
        ["side", "name", "file", "subject"]
        "When an OCSP response is out of date.";
    LOG_WRITTEN: Counter "ringway_log_lines_written_total" []
        "Lines written to the access log.";
    LOG_DROPPED: Counter "ringway_log_lines_dropped_total" []
        "Lines that the access log has lost.";
    LOG_FAILURES: Counter "ringway_log_write_failures_total" []
        "Attempts at writing the access log that failed.";
    EVENTS_DROPPED: Counter "ringway_events_dropped_total" []
        "Lines for stderr that were dropped.";
    CPU: Counter "process_cpu_seconds_total" []
        "CPU time of the process.";
    OPEN_FDS: Gauge "process_open_fds" []
        "Files that are open.";
    MAX_FDS: Gauge "process_max_fds" []
        "Files that may be open.";
    RESIDENT: Gauge "process_resident_memory_bytes" []
        "Memory that the process has in use.";
    START_TIME: Gauge "process_start_time_seconds" []
        "When the process began.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_what_prometheus_wants_them_to_be() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            let is_word = |it: &str| it.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(is_word(name), "{name}");
            assert!(metric.labels.iter().all(|label| is_word(label)), "{name}");
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert!(
                !metric.help.contains('\n') && metric.help.ends_with('.'),
                "{name}"
            );
        }
    }
}
