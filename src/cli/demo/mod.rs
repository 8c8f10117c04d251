//! `ringway demo`: the proxy at work on loopback, between clients and servers of its own, on a
//! throw-away PKI. Clients and servers are plain threads: they are not the data plane.

mod access_log;
mod clients;
mod pki;
mod report;
mod servers;
mod show;
mod tally;

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::pki::{Pki, UPSTREAM_NAME};
use self::servers::Servers;
use self::show::Show;
use super::{EXIT_INTERNAL, EXIT_SYSTEM, report as report_on, run};
use crate::config;
use crate::control::{Checked, Options, Started, examine, start};
use crate::net::PeerAddress;
use crate::observe::events;

#[expect(
    clippy::disallowed_types,
    reason = "the demo's clients and servers have a thread for each connection, on no core"
)]
type Stream = std::net::TcpStream;

/// Bytes that a client sends before it reads the echo.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long a client waits for anything before it calls it a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// `ringway demo`: builds the scene, shows it, and stays up unless it is for `once`.
#[must_use]
pub(super) fn run(once: bool, allow_epoll: bool) -> ExitCode {
    let (_events, held) = events::hold();
    held.begin();
    std::panic::set_hook(Box::new(run::on_panic));
    // Its clients and servers live in this process, so it keeps its rights.
    let options = Options {
        allow_epoll,
        ..Options::default()
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .context("no runtime for the control thread")
        .and_then(|runtime| runtime.block_on(perform(once, options)));
    ended.unwrap_or_else(|error| {
        tracing::error!("the demo cannot go on: {error:#}");
        let refused = error.chain().any(|cause| cause.is::<io::Error>());
        ExitCode::from(if refused { EXIT_SYSTEM } else { EXIT_INTERNAL })
    })
}

async fn perform(once: bool, options: Options) -> Result<ExitCode> {
    // Before there is a directory to remove: from here on a signal ends the demo in order.
    let mut interrupts = Interrupts::new()?;
    let directory = directory()?;
    let pki = Pki::issue(directory.path())?;
    let servers = Servers::start(&pki)?;
    let plan = plan(directory.path(), &servers.addresses)?;
    let started = match start(plan, options).await {
        Ok(started) => started,
        Err(error) => return Ok(run::refuse(&error)),
    };
    tracing::info!("ringway is ready");
    let show = Show {
        edge: edge(&started)?,
        workers: started.workers(),
        pki,
        servers,
    };
    let outcome = show.begin()?;
    let mut exit = ExitCode::SUCCESS;
    let stop = async {
        if interrupts.came_early().await {
            return;
        }
        let report = tokio::select! {
            report = outcome => report,
            _ = interrupts.hangup.recv() => return,
        };
        let passed = report.is_ok_and(|report| {
            say(&report.text);
            report.passed
        });
        if !passed {
            exit = ExitCode::from(EXIT_INTERNAL);
        } else if !once {
            say("\nThe demo stays up until Ctrl-C.\n");
            interrupts.hangup.recv().await;
        }
    };
    if let Err(words) = started.run(stop).await {
        bail!(words);
    }
    directory
        .close()
        .context("the demo's directory cannot be removed")?;
    Ok(exit)
}

/// Keys will lie in it: nobody else may look.
fn directory() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("ringway-demo-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("no temporary directory can be made (TMPDIR names another place for it)")
}

/// The plan of a file as users write them, read as theirs are.
fn plan(directory: &Path, servers: &[SocketAddr]) -> Result<Checked> {
    let file = directory.join("ringway.toml");
    let text = toml(directory, servers);
    pki::write(&file, &text)?;
    let name = file.display().to_string();
    let examined = examine(config::parse(&name, &text));
    report_on(&examined.loaded);
    let Some(checked) = examined.checked(&file) else {
        bail!("its own configuration is refused: a defect of Ringway, please report it");
    };
    say(&format!(
        "Clients of the demo come with TLS to a listener; the proxy carries their bytes with mutual\n\
         TLS to two servers of the demo. All on loopback, in this process, configured by\n\
         {name}:\n\n{}\n",
        indented(&text)
    ));
    Ok(checked)
}

fn toml(directory: &Path, servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    let servers = servers.join(", ");
    let file = |name: &str| toml::Value::from(directory.join(name).display().to_string());
    let (log, ca) = (file("access.log"), file("ca.crt"));
    let (edge, edge_key) = (file("edge.crt"), file("edge.key"));
    let (client, client_key) = (file("client.crt"), file("client.key"));
    format!(
        r#"[runtime]
drain_timeout = "1s"             # Ctrl-C need not wait long for a demo

[log]
access = {log}

[[listener]]
name = "demo"
bind = "127.0.0.1:0"             # 0: any free port
upstream = "backend"
max_connections = 1000

[listener.tls]                   # terminate TLS
certificate = {edge}
private_key = {edge_key}

[upstream.backend]
servers = [{servers}]

[upstream.backend.tls]           # mutual TLS to these servers
certificate = {client}
private_key = {client_key}
trusted_certificate = {ca}
server_name = "{UPSTREAM_NAME}"
"#
    )
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}"));
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

fn edge(started: &Started) -> Result<SocketAddr> {
    match started.addresses().first() {
        Some((_, PeerAddress::Ip(address))) => Ok(*address),
        _ => bail!("the proxy has no address: a defect of Ringway, please report it"),
    }
}

fn say(text: &str) {
    // Who closes stdout early wants to know no more.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Signals that end the demo besides those that the running proxy waits for.
struct Interrupts {
    /// SIGINT and SIGTERM. Once the proxy runs they are its own: told of one twice, it would take
    /// it for the second signal, which closes at once.
    early: [Signal; 2],
    /// The terminal was closed: nothing may stay behind then either.
    hangup: Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("no handler for signals");
        Ok(Self {
            early: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
            ],
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Whether a signal came before now.
    async fn came_early(&mut self) -> bool {
        let [interrupt, terminate] = &mut self.early;
        tokio::select! {
            biased;
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = std::future::ready(()) => false,
        }
    }
}
