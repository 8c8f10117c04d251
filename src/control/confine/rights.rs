//! The capabilities that are left.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::config::{BindAddress, LocalAddress, Plan};

/// The two capabilities that a plan can need once the process is no longer root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// CAP_NET_BIND_SERVICE: a reload may open a listener on a low port again.
    pub(super) low_ports: bool,
    /// CAP_NET_RAW: `transparent` binds to the addresses of clients.
    pub(super) transparent: bool,
}

impl Rights {
    pub(super) fn needed(plan: &Plan) -> Self {
        let mut binds = plan.listeners.iter().flat_map(|listener| &listener.binds);
        let is_client = |local: &LocalAddress| matches!(local, LocalAddress::Client(_));
        Self {
            low_ports: binds.any(|bind| Self::is_low(&bind.value)),
            transparent: plan.upstreams.iter().any(|it| is_client(&it.local)),
        }
    }

    /// Whether binding this needs CAP_NET_BIND_SERVICE.
    pub(super) fn is_low(address: &BindAddress) -> bool {
        match address {
            BindAddress::Tcp(address) => (1..first_free_port()).contains(&address.port()),
            BindAddress::Unix(_) => false,
        }
    }

    /// What connections need: a worker binds no listener.
    pub(super) fn of_worker(self) -> Self {
        Self {
            low_ports: false,
            ..self
        }
    }

    fn set(self) -> CapabilitySet {
        let mut set = CapabilitySet::empty();
        set.set(CapabilitySet::NET_BIND_SERVICE, self.low_ports);
        set.set(CapabilitySet::NET_RAW, self.transparent);
        set
    }

    /// The calling thread, and those that it starts, keep these of their capabilities and no others
    /// (those that are not permitted are not ambient either). What is left.
    pub(super) fn keep(self) -> io::Result<Self> {
        let left = self.set() & capabilities(None)?.permitted;
        set_capabilities(
            None,
            CapabilitySets {
                effective: left,
                permitted: left,
                inheritable: CapabilitySet::empty(),
            },
        )?;
        Ok(Self {
            low_ports: left.contains(CapabilitySet::NET_BIND_SERVICE),
            transparent: left.contains(CapabilitySet::NET_RAW),
        })
    }

    pub(super) fn words(self) -> String {
        let kept = [
            (self.low_ports, "CAP_NET_BIND_SERVICE (ports below 1024)"),
            (self.transparent, "CAP_NET_RAW (transparent)"),
        ];
        let kept: Vec<_> = kept.iter().filter(|it| it.0).map(|it| it.1).collect();
        if kept.is_empty() {
            "none".to_owned()
        } else {
            kept.join(", ")
        }
    }
}

/// The lowest port that everybody may bind: net.ipv4.ip_unprivileged_port_start (Linux 4.11).
fn first_free_port() -> u16 {
    const USUAL: u16 = 1024;
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn needed(bind: &str, upstream: &str) -> String {
        let text = format!(
            "[[listener]]\nname = \"a\"\nbind = [\"127.0.0.1:0\", {bind}]\nupstream = \"b\"\n\
             [upstream.b]\nservers = [\"127.0.0.1:1\"]\n{upstream}\n"
        );
        Rights::needed(parse("x.toml", text).plan().unwrap()).words()
    }

    #[test]
    fn a_plan_needs_the_rights_for_its_low_ports_and_for_the_addresses_of_clients() {
        if first_free_port() != 1024 {
            println!("SKIPPED: net.ipv4.ip_unprivileged_port_start is not 1024 here");
            return;
        }
        let low = "CAP_NET_BIND_SERVICE (ports below 1024)";
        let raw = "CAP_NET_RAW (transparent)";
        let transparent = "transparent = true";
        assert_eq!(needed("\"127.0.0.1:1024\"", ""), "none");
        assert_eq!(needed("\"[::1]:1023\"", ""), low);
        assert_eq!(needed("\"127.0.0.1:8443\"", transparent), raw);
        assert_eq!(
            needed("\"127.0.0.1:443\"", transparent),
            format!("{low}, {raw}")
        );
    }

    #[test]
    fn workers_bind_no_listener() {
        let all = Rights {
            low_ports: true,
            transparent: true,
        };
        assert_eq!(all.of_worker().words(), "CAP_NET_RAW (transparent)");
    }
}
