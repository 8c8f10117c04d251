//! What the process says of itself when it starts.

use super::sockets::Sockets;
use crate::config::{Carriage, KeyLogPlan, PathChoice, Plan};
use crate::sys::{Nofile, Probe, ktls_words};
use crate::worker::Driver;

pub(super) struct Banner<'a> {
    pub plan: &'a Plan,
    pub probe: &'a Probe,
    pub driver: Driver,
    pub cpus: &'a [Option<usize>],
    pub nofile: Nofile,
    pub sockets: &'a Sockets,
}

/// Tables that ask for kernel TLS by name.
fn asking_for_ktls(plan: &Plan) -> impl Iterator<Item = String> {
    let asks = |tls: bool, carriage: Carriage| tls && carriage.path == PathChoice::Splice;
    let listeners = plan
        .listeners
        .iter()
        .filter(move |listener| asks(listener.tls.is_some(), listener.carriage))
        .map(|listener| format!("listener {}", listener.name));
    let upstreams = plan
        .upstreams
        .iter()
        .filter(move |upstream| asks(upstream.tls.is_some(), upstream.carriage))
        .map(|upstream| format!("upstream {}", upstream.name));
    listeners.chain(upstreams)
}

/// Tables whose clients' secrets are written to a file.
fn logging_keys(plan: &Plan) -> impl Iterator<Item = (String, &KeyLogPlan)> {
    let listeners = plan.listeners.iter().filter_map(|listener| {
        let key_log = listener.tls.as_ref()?.key_log.as_ref()?;
        Some((format!("listener {}", listener.name), key_log))
    });
    let upstreams = plan.upstreams.iter().filter_map(|upstream| {
        let key_log = upstream.tls.as_ref()?.key_log.as_ref()?;
        Some((format!("upstream {}", upstream.name), key_log))
    });
    listeners.chain(upstreams)
}

impl Banner<'_> {
    pub(super) fn say(&self) {
        self.say_machine();
        self.say_key_logs();
        self.say_limits();
        for (listener, address) in self.sockets.addresses() {
            let name = &self.plan.listener(listener).name;
            tracing::info!("listening name={name} address={address}");
        }
    }

    fn say_machine(&self) {
        let version = env!("CARGO_PKG_VERSION");
        let kernel = &self.probe.kernel;
        tracing::info!(
            "ringway {version} on Linux {kernel}, {} workers",
            self.cpus.len()
        );
        let pinned: Vec<String> = self
            .cpus
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        tracing::info!("workers on CPUs {}", pinned.join(","));
        match self.driver {
            Driver::Ring(features) => tracing::info!("io_uring: {features}"),
            Driver::Epoll => tracing::warn!(
                "RUNNING WITHOUT io_uring, on epoll (--allow-epoll): slower, and only for machines \
                 that forbid io_uring"
            ),
        }
        tracing::info!("kernel TLS (kTLS): {}", ktls_words(self.probe.ktls));
        if self.probe.ktls.is_err() {
            for table in asking_for_ktls(self.plan) {
                tracing::warn!(
                    "{table} has relay_path = \"splice\", but its TLS stays in user space: this \
                     kernel has none"
                );
            }
        }
    }

    fn say_key_logs(&self) {
        for (table, KeyLogPlan { file, sources }) in logging_keys(self.plan) {
            let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "WRITING TLS SECRETS of {table} for clients from {} to {}: whoever reads that file \
                 can read what they send and receive. Take key_log out when you have seen what \
                 you need",
                sources.join(", "),
                file.value.display()
            );
        }
    }

    fn say_limits(&self) {
        let Nofile { wanted, granted } = self.nofile;
        if granted < wanted {
            tracing::warn!(
                "{granted} open files allowed, the configured limits need {wanted}: raise the hard \
                 limit (LimitNOFILE=, ulimit -Hn), or lower max_connections"
            );
        } else {
            tracing::info!("open files: {granted} allowed, {wanted} needed");
        }
        for listener in &self.plan.listeners {
            tracing::info!(
                "limits of {}: {} connections, {} TLS handshakes in flight per core",
                listener.name,
                listener.connections_max,
                self.plan.runtime.handshakes_max
            );
        }
    }
}
