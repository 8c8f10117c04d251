//! What the process says of itself when it starts.

use super::sockets::Sockets;
use crate::config::Plan;
use crate::sys::{Nofile, Probe};
use crate::worker::Driver;

pub(super) struct Banner<'a> {
    pub plan: &'a Plan,
    pub probe: &'a Probe,
    pub driver: Driver,
    pub cpus: &'a [Option<usize>],
    pub nofile: Nofile,
    pub sockets: &'a Sockets,
}

impl Banner<'_> {
    pub(super) fn say(&self) {
        self.say_machine();
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
        match self.probe.ktls {
            Ok(()) => tracing::info!(
                "kernel TLS (kTLS): the kernel has it; this version does not use it yet"
            ),
            Err(why) => tracing::info!("kernel TLS (kTLS): no ({why})"),
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
