use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::timeout;

use super::system::SystemFiles;

/// Bound of one lookup, over all name servers, search domains and attempts of resolv.conf.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);

/// More addresses than this of one name are left aside: a balancer has no use for them.
const ADDRESSES_MAX: usize = 64;

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct Source {
    /// `None`: /etc/resolv.conf.
    servers: Option<Arc<(ResolverConfig, ResolverOpts)>>,
    files: SystemFiles,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Sorted, without doubles, never empty.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookupError {
    /// NXDOMAIN.
    NoSuchName,
    /// The name exists, but not with this kind of record.
    NoAddress,
    /// The same, of SRV.
    NoService,
    /// No host of a service has an address; this one is the first.
    Host(String, Box<Self>),
    Timeout,
    Refused(ResponseCode),
    BadName(String),
    /// resolv.conf cannot be read or names no server.
    Configuration(String),
    Network(String),
}

impl Source {
    /// /etc/hosts, then these name servers, and where there are none those of /etc/resolv.conf. Names
    /// are taken as they stand: no search domain is added.
    #[must_use]
    pub fn of(name_servers: &[SocketAddr], files: &SystemFiles) -> Self {
        let files = files.clone();
        if name_servers.is_empty() {
            return Self {
                servers: None,
                files,
            };
        }
        let config = |server: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
            }
            NameServerConfig::new(server.ip(), true, connections)
        };
        let servers = name_servers.iter().map(config).collect();
        let config = ResolverConfig::from_name_servers(servers);
        Self {
            servers: Some(Arc::new((config, ResolverOpts::default()))),
            files,
        }
    }

    /// These name servers, after a hosts file of one's own.
    #[must_use]
    pub fn fixed(config: ResolverConfig, options: ResolverOpts, hosts: PathBuf) -> Self {
        Self {
            servers: Some(Arc::new((config, options))),
            files: SystemFiles::with_hosts(hosts),
        }
    }

    /// Looks up both families. A family of `known` whose question alone fails keeps its
    /// addresses: half an answer is no reason to lose servers.
    pub(super) async fn lookup(&self, host: &str, known: &[IpAddr]) -> Result<Answer, LookupError> {
        let name = Name::from_str_relaxed(host)
            .map_err(|error| LookupError::BadName(error.to_string()))?;
        if let Some(answer) = self.lookup_in_hosts(&name) {
            return Ok(answer);
        }
        timeout(LOOKUP_TIMEOUT, self.ask(name, known))
            .await
            .unwrap_or(Err(LookupError::Timeout))
    }

    /// As in glibc, a name that stands in the hosts file is not asked for elsewhere.
    fn lookup_in_hosts(&self, name: &Name) -> Option<Answer> {
        let mut hosts = Hosts::default();
        let text = self.files.hosts.read().ok()?;
        hosts.read_hosts_conf(text.as_slice()).ok()?;
        let addresses = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|lookup| LookupIp::from(lookup).into_iter())
            .collect();
        // No TTL: looked at again as soon as the plan's floor allows.
        Answer::new(addresses, Duration::ZERO).ok()
    }

    async fn ask(&self, name: Name, known: &[IpAddr]) -> Result<Answer, LookupError> {
        let resolver = self.resolver()?;
        let lookup = resolver.lookup_ip(name).await?;
        let mut addresses: Vec<IpAddr> = lookup.iter().collect();
        let ttl = lookup
            .valid_until()
            .saturating_duration_since(Instant::now());
        for (kind, is_of_kind) in FAMILIES {
            let kept: Vec<IpAddr> = known.iter().copied().filter(is_of_kind).collect();
            if kept.is_empty() || addresses.iter().any(is_of_kind) {
                continue;
            }
            // The lookup hides whether the family is gone or its question failed.
            match resolver.lookup(lookup.query().name().clone(), kind).await {
                Err(error) if !error.is_no_records_found() => addresses.extend(kept),
                _ => {}
            }
        }
        Answer::new(addresses, ttl)
    }

    pub(super) fn resolver(&self) -> Result<TokioResolver, LookupError> {
        let configuration = |error: NetError| LookupError::Configuration(error.to_string());
        let (config, options) = match &self.servers {
            None => {
                let text = self.files.resolv_conf.read();
                let text = text.map_err(|error| LookupError::Configuration(error.to_string()))?;
                parse_resolv_conf(text).map_err(configuration)?
            }
            Some(servers) => servers.as_ref().clone(),
        };
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options);
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map_err(configuration)
    }
}

type Family = (RecordType, fn(&IpAddr) -> bool);

const FAMILIES: [Family; 2] = [
    (RecordType::A, IpAddr::is_ipv4),
    (RecordType::AAAA, IpAddr::is_ipv6),
];

impl Answer {
    /// Sorts, because name servers turn the order with each answer.
    pub(super) fn new(mut addresses: Vec<IpAddr>, ttl: Duration) -> Result<Self, LookupError> {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(LookupError::NoAddress);
        }
        Ok(Self { addresses, ttl })
    }
}

impl From<NetError> for LookupError {
    fn from(error: NetError) -> Self {
        match error {
            error if error.is_nx_domain() => Self::NoSuchName,
            error if error.is_no_records_found() => Self::NoAddress,
            NetError::Timeout => Self::Timeout,
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Refused(code),
            other => Self::Network(other.to_string()),
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str(
                "the name does not exist (NXDOMAIN); check its spelling in `servers`, or add it \
                 to the DNS",
            ),
            Self::NoAddress => f.write_str(
                "the name has neither an A nor an AAAA record; add one to the DNS, or name \
                 another host in `servers`",
            ),
            Self::NoService => {
                f.write_str("the name has no SRV record; add one to the DNS, or correct `servers`")
            }
            Self::Host(host, error) => write!(
                f,
                "no host of its SRV records has an address; {host}: {error}"
            ),
            Self::Timeout => f.write_str(
                "no name server answered in time; check the nameserver lines of \
                 /etc/resolv.conf, or `resolver` in [runtime], and the way to them",
            ),
            Self::Refused(code) => {
                write!(f, "the name server answered {code}; look at its log")
            }
            Self::BadName(error) => write!(f, "not a host name: {error}; correct `servers`"),
            Self::Configuration(error) => {
                write!(
                    f,
                    "no name server is known: {error}; correct /etc/resolv.conf"
                )
            }
            Self::Network(error) => write!(
                f,
                "no name server can be asked: {error}; check the nameserver lines of \
                 /etc/resolv.conf, or `resolver` in [runtime], and the way to them"
            ),
        }
    }
}
