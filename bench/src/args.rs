//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::peer::Kind;
use crate::work::{
    ClientIdentity, Group, Handshake, Key, Mode, Role, Suites, Toward, Version, Work,
};

/// What a proxied connection costs: CPU of the proxy's process, beside other proxies.
#[derive(Debug, Parser)]
#[command(name = "ringway-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The same work through each proxy in turn: medians, ratios and their spread.
    Compare(CompareOptions),
    /// Lists every row by its name, and where it belongs.
    Rows,
    /// Full handshakes.
    Full(HandshakeOptions),
    /// Resumed handshakes.
    Resumed(HandshakeOptions),
    /// Plain connections.
    Connect(ConnectOptions),
    /// Messages there and back over connections that stay.
    Pingpong(PingpongOptions),
    /// One direction as fast as it goes.
    Bulk(BulkOptions),
    /// Memory for each connection that says nothing.
    Idle(IdleOptions),
    /// Operations that come at times of their own: latency from the intended start.
    Open(OpenOptions),
    /// Ping-pong over 1, 10, 100, 1,000 and 8,000 connections.
    Ladder(LadderOptions),
    /// Two workers beside one.
    Workers(WorkersOptions),
    /// Ringway in user space beside Ringway with kernel TLS, on a kernel that has it.
    Paths(PathsOptions),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareOptions {
    /// Rows to measure: names or beginnings of names (`terminate`, `bulk-down`), comma-separated.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) work: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HandshakeOptions {
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

impl HandshakeOptions {
    pub(crate) fn work(&self, kind: Handshake) -> Work {
        self.tls.work(Mode::Connect(kind))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConnectOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PingpongOptions {
    /// Length of a message.
    #[arg(long, default_value_t = 64, value_parser = message_bytes)]
    bytes: usize,
    /// Connections at a time. Default: --in-flight.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

impl PingpongOptions {
    pub(crate) fn work(&self) -> Work {
        let mode = Mode::Pingpong { bytes: self.bytes };
        Work {
            connections: self.connections,
            ..self.tls.work(mode)
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Direction {
    /// From the upstream server to the client.
    Down,
    /// From the client to the upstream server.
    Up,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BulkOptions {
    #[arg(value_enum)]
    direction: Direction,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

impl BulkOptions {
    pub(crate) fn work(&self) -> Work {
        let toward = match self.direction {
            Direction::Down => Toward::Client,
            Direction::Up => Toward::Server,
        };
        self.tls.work(Mode::Bulk(toward))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct IdleOptions {
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

impl IdleOptions {
    pub(crate) fn work(&self) -> Work {
        self.tls.work(Mode::Idle)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct OpenOptions {
    #[arg(long, value_enum, default_value = "full")]
    handshake: Handshake,
    /// Arrivals a second on average (Poisson). Default: --share of the closed-loop maximum, which
    /// is measured first: once of each proxy's own, once of the lowest, the same for all.
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Share of the closed-loop maximum.
    #[arg(long, default_value_t = 0.7, value_parser = share)]
    pub(crate) share: f64,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

impl OpenOptions {
    pub(crate) fn open(&self) -> Work {
        self.tls.work(Mode::Open(self.handshake))
    }

    pub(crate) fn closed(&self) -> Work {
        self.tls.work(Mode::Connect(self.handshake))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct LadderOptions {
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "plain,terminate"
    )]
    pub(crate) role: Vec<Role>,
    /// Length of a message.
    #[arg(long, default_value_t = 64, value_parser = message_bytes)]
    pub(crate) bytes: usize,
    /// The ladder's steps.
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = crate::work::LADDER,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) connections: Vec<u16>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkersOptions {
    /// Rows to measure, as in `compare`.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "connect-plain,terminate-full-1.3,terminate-resumed-1.3,pingpong-64-terminated"
    )]
    pub(crate) work: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PathsOptions {
    /// Rows to measure, as in `compare`. A whole handshake shows what the hand-over costs.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "bulk-down,bulk-up,terminate-full-1.3"
    )]
    pub(crate) work: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// What both ends of a TLS leg offer and show.
#[derive(Debug, clap::Args)]
struct TlsOptions {
    #[arg(long, value_enum, default_value = "terminate")]
    role: Role,
    #[arg(long, value_enum, default_value = "1.3")]
    tls: Version,
    /// Key of the certificates that TLS servers show.
    #[arg(long, value_enum, default_value = "p256")]
    key: Key,
    /// The group of the key exchange; mlkem is X25519MLKEM768.
    #[arg(long, value_enum, default_value = "x25519")]
    group: Group,
    #[arg(long, value_enum, default_value = "aes128")]
    suites: Suites,
    /// Who opens a TLS leg shows a certificate on it.
    #[arg(long)]
    client_certificate: bool,
}

impl TlsOptions {
    fn work(&self, mode: Mode) -> Work {
        Work {
            version: self.tls,
            key: self.key,
            group: self.group,
            suites: self.suites,
            client: match self.client_certificate {
                true => ClientIdentity::Certificate,
                false => ClientIdentity::Anonymous,
            },
            ..Work::new(self.role, mode)
        }
    }
}

/// What every measurement needs to know.
#[derive(Debug, clap::Args)]
pub(crate) struct RunOptions {
    /// Proxies to measure. Default: all that are installed in compare, open and ladder, Ringway
    /// alone elsewhere; and those given by path.
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub(crate) peers: Vec<Kind>,
    /// Ringway's binary. Default: `ringway` beside this one, if it is there.
    #[arg(long, value_name = "PATH")]
    pub(crate) proxy: Vec<PathBuf>,
    /// An nginx with the stream module; may be given several times. Default: the one installed.
    #[arg(long, value_name = "PATH")]
    pub(crate) nginx: Vec<PathBuf>,
    /// A HAProxy; may be given several times. Default: the one installed.
    #[arg(long, value_name = "PATH")]
    pub(crate) haproxy: Vec<PathBuf>,
    /// A Hitch; may be given several times. Default: the one installed.
    #[arg(long, value_name = "PATH")]
    pub(crate) hitch: Vec<PathBuf>,
    /// A stunnel; may be given several times. Default: the one installed.
    #[arg(long, value_name = "PATH")]
    pub(crate) stunnel: Vec<PathBuf>,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Seconds of load before the measured ones; sessions to resume are made in this time.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up: f64,
    /// Runs of each row and proxy; the proxies take turns within a round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Operations in flight (bulk: a quarter of it streams).
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: u16,
    /// Connections held by idle rows.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle_connections: u32,
    /// The cores that the proxy is pinned to, a worker on each.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    pub(crate) proxy_cores: Vec<usize>,
    /// The cores of the clients and upstream servers, a thread on each. Default: the last one.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) generator_cores: Vec<usize>,
    /// Directory for the figures as JSON, the latencies as .hgrm and the plot.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Print the configurations that the proxies would get for this work, and end.
    #[arg(long)]
    pub(crate) show_configs: bool,
}

impl RunOptions {
    pub(crate) fn paths(&self, kind: Kind) -> &[PathBuf] {
        match kind {
            Kind::Ringway => &self.proxy,
            Kind::Nginx => &self.nginx,
            Kind::Haproxy => &self.haproxy,
            Kind::Hitch => &self.hitch,
            Kind::Stunnel => &self.stunnel,
        }
    }
}

/// The generator holds a message in memory for each connection on either side.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

fn message_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 1..=MESSAGE_BYTES_MAX) => Ok(bytes),
        _ => Err(format!("a message has 1 to {MESSAGE_BYTES_MAX} bytes")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a rate is 0.1 to 1000000 arrivals a second".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a share is over 0 and at most 1".to_owned()),
    }
}
