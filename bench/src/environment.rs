//! What the figures were taken on.

use std::fs;

use serde::Serialize;

use crate::peer::Peer;

#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) proxy_cores: Vec<usize>,
    pub(crate) generator_cores: Vec<usize>,
    pub(crate) generator: String,
    pub(crate) proxies: Vec<ProxyVersion>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProxyVersion {
    pub(crate) label: String,
    pub(crate) library: String,
    pub(crate) about: String,
}

impl Environment {
    pub(crate) fn look(peers: &[Peer], proxy_cores: &[usize], generator_cores: &[usize]) -> Self {
        let version = |peer: &Peer| ProxyVersion {
            label: peer.label.clone(),
            library: peer.library(),
            about: peer.about.clone(),
        };
        Self {
            kernel: read_line("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(),
            cores: cores(),
            proxy_cores: proxy_cores.to_vec(),
            generator_cores: generator_cores.to_vec(),
            generator: concat!(
                "ringway-bench ",
                env!("CARGO_PKG_VERSION"),
                ", rustls with aws-lc-rs"
            )
            .to_owned(),
            proxies: peers.iter().map(version).collect(),
        }
    }
}

pub(crate) fn cores() -> usize {
    core_affinity::get_core_ids().map_or(1, |cores| cores.len())
}

pub(crate) fn first_cores(count: usize) -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.iter().map(|core| core.id).take(count).collect()
}

pub(crate) fn last_core() -> usize {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.iter().map(|core| core.id).max().unwrap_or(0)
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// x86 names the model; aarch64 gives its part number.
fn cpu_model() -> String {
    let text = read_line("/proc/cpuinfo");
    let named = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
    };
    named("model name")
        .or_else(|| named("CPU part"))
        .unwrap_or_else(|| "unknown".into())
}
