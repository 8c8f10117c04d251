//! The proxies that are compared: what each is called, configured with and started as.

mod haproxy;
mod hitch;
mod library;
mod nginx;
mod process;
mod ringway;
mod stunnel;
mod usage;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;

pub(crate) use process::{Running, pin};
pub(crate) use usage::{Usage, family_usage};

use crate::load::{server_addresses, server_count};
use crate::pki::Pki;
use crate::work::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Ringway,
    Nginx,
    Haproxy,
    Hitch,
    Stunnel,
}

impl Kind {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 5] = [
        Self::Ringway,
        Self::Nginx,
        Self::Haproxy,
        Self::Hitch,
        Self::Stunnel,
    ];

    /// The program's name on the PATH.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Hitch => "hitch",
            Self::Stunnel => "stunnel",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    /// What it is called in the table: its name and version.
    pub(crate) label: String,
    /// What it says about itself and its TLS library.
    pub(crate) about: String,
    /// Ringway's `relay_path` on both legs, where it is not left to itself.
    pub(crate) relay_path: Option<&'static str>,
}

/// What a configuration is written for.
pub(crate) struct Setting<'a> {
    pub(crate) work: &'a Work,
    pub(crate) pki: &'a Pki,
    pub(crate) listen_port: u16,
    pub(crate) upstream_port: u16,
    pub(crate) in_flight: u16,
    /// One worker on each.
    pub(crate) cores: &'a [usize],
    pub(crate) dir: &'a Path,
}

impl Setting<'_> {
    /// The upstream servers as `address:port`.
    fn servers(&self) -> impl Iterator<Item = String> {
        let count = server_count(self.work, self.in_flight);
        server_addresses(count).map(|address| format!("{address}:{}", self.upstream_port))
    }
}

impl Peer {
    pub(crate) fn examine(kind: Kind, path: &Path) -> anyhow::Result<Self> {
        let argument = match kind {
            Kind::Ringway | Kind::Hitch => "--version",
            Kind::Nginx => "-V",
            Kind::Haproxy => "-vv",
            Kind::Stunnel => "-version",
        };
        let output = Command::new(path)
            .arg(argument)
            .output()
            .with_context(|| format!("cannot run {} {argument}", path.display()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !output.status.success() {
            bail!(
                "{} {argument}: {}: {}",
                path.display(),
                output.status,
                said.trim()
            );
        }
        let (label, about) = match kind {
            Kind::Ringway => match said.trim() {
                "" => bail!("{} {argument} says nothing: is it ringway?", path.display()),
                said => (said.to_owned(), said.to_owned()),
            },
            Kind::Nginx => nginx::identity(&said),
            Kind::Haproxy => haproxy::identity(&said),
            Kind::Hitch => hitch::identity(&said, &library::linked(path)),
            Kind::Stunnel => stunnel::identity(&said),
        };
        Ok(Self {
            kind,
            path: path.to_owned(),
            label,
            about,
            relay_path: None,
        })
    }

    /// The same proxy on another `relay_path`.
    pub(crate) fn on_path(&self, relay_path: &'static str) -> Self {
        Self {
            label: format!("{}, {relay_path}", self.label),
            relay_path: Some(relay_path),
            ..self.clone()
        }
    }

    pub(crate) fn configuration(&self, setting: &Setting<'_>) -> String {
        match self.kind {
            Kind::Ringway => ringway::configuration(setting, self.relay_path),
            Kind::Nginx => nginx::configuration(setting, &self.about),
            Kind::Haproxy => haproxy::configuration(setting),
            Kind::Hitch => hitch::configuration(setting),
            Kind::Stunnel => stunnel::configuration(setting),
        }
    }

    /// Its TLS library and that one's version, as far as it says.
    pub(crate) fn library(&self) -> String {
        match self.kind {
            Kind::Ringway => "rustls, aws-lc-rs".to_owned(),
            _ => library::named(&self.about).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Why this proxy cannot do this work, if it cannot.
    pub(crate) fn lacks(&self, work: &Work) -> Option<String> {
        let by_kind = match self.kind {
            Kind::Hitch => hitch::lacks(work),
            Kind::Stunnel => stunnel::lacks(work),
            Kind::Ringway | Kind::Nginx | Kind::Haproxy => None,
        };
        by_kind
            .map(str::to_owned)
            .or_else(|| library::lacks(&self.about, work))
    }

    /// Ends in the foreground, so that the process tree is known.
    fn command(&self, configuration: &Path) -> Command {
        let mut command = Command::new(&self.path);
        match self.kind {
            Kind::Ringway => command.arg("run").arg(configuration),
            Kind::Nginx => command.arg("-c").arg(configuration),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(configuration),
            Kind::Hitch => command.arg("--config").arg(configuration),
            Kind::Stunnel => command.arg(configuration),
        };
        command
    }
}

/// The first program of this name on the PATH or where Debian puts servers.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Role, all_rows};

    const LISTEN: u16 = 21_001;
    const UPSTREAM: u16 = 21_002;

    /// Certificates for one test: keys take a moment to make.
    struct Desk {
        dir: tempfile::TempDir,
        pki: Pki,
    }

    impl Desk {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let pki = Pki::create(dir.path()).unwrap();
            Self { dir, pki }
        }

        /// Every row's configuration for this kind, of the rows that it can do.
        fn configurations(&self, kind: Kind) -> Vec<(Work, String)> {
            let peer = Peer {
                relay_path: None,
                kind,
                path: PathBuf::new(),
                label: kind.program().to_owned(),
                about: "OpenSSL 3.5.0".to_owned(),
            };
            let configuration = |work: &Work| {
                peer.configuration(&Setting {
                    work,
                    pki: &self.pki,
                    listen_port: LISTEN,
                    upstream_port: UPSTREAM,
                    in_flight: 16,
                    cores: &[0, 2],
                    dir: self.dir.path(),
                })
            };
            all_rows()
                .into_iter()
                .filter(|work| peer.lacks(work).is_none())
                .map(|work| (work, configuration(&work)))
                .collect()
        }
    }

    #[test]
    fn every_configuration_names_its_listener_and_its_servers() {
        let desk = Desk::new();
        for kind in Kind::ALL {
            for (work, text) in desk.configurations(kind) {
                for word in [LISTEN, UPSTREAM].map(|port| port.to_string()) {
                    assert!(text.contains(&word), "{kind:?} {}: {text}", work.name());
                }
            }
        }
    }

    #[test]
    fn ringway_takes_every_configuration_that_is_written_for_it() {
        for (work, text) in Desk::new().configurations(Kind::Ringway) {
            let loaded = ::ringway::config::parse("bench.toml", text);
            let report = loaded.report(::ringway::config::Paint::Plain);
            assert!(report.is_empty(), "{}: {report}", work.name());
        }
    }

    #[test]
    fn each_core_gets_a_worker() {
        let desk = Desk::new();
        let first = |kind| desk.configurations(kind).remove(0).1;
        assert!(first(Kind::Ringway).contains("cpus = \"0,2\""));
        let nginx = first(Kind::Nginx);
        assert!(
            nginx.contains("worker_processes 2;\nworker_cpu_affinity 1 100;"),
            "{nginx}"
        );
        assert!(first(Kind::Haproxy).contains("nbthread 2\n    cpu-map 1/1-2 0 2\n"));
        assert!(first(Kind::Hitch).contains("workers = 2\n"));
    }

    #[test]
    fn who_passes_tls_through_chooses_by_the_servers_name() {
        let desk = Desk::new();
        for (kind, word) in [
            (Kind::Ringway, "sni = \"upstream.ringway.test\""),
            (Kind::Nginx, "ssl_preread on;"),
            (Kind::Haproxy, "req.ssl_sni -i upstream.ringway.test"),
        ] {
            for (work, text) in desk.configurations(kind) {
                let passes = work.role == Role::Passthrough;
                assert_eq!(
                    text.contains(word),
                    passes,
                    "{kind:?} {}: {text}",
                    work.name()
                );
            }
        }
    }

    #[test]
    fn hitch_only_terminates_and_stunnel_has_tls_on_one_leg() {
        let desk = Desk::new();
        let roles = |kind| {
            desk.configurations(kind)
                .into_iter()
                .map(|(work, _)| work.role)
        };
        assert!(roles(Kind::Hitch).all(|role| role == Role::Terminate));
        for (work, text) in desk.configurations(Kind::Stunnel) {
            let is_client = text.contains("\nclient = yes\n");
            assert_eq!(is_client, work.role == Role::Originate, "{}", work.name());
            assert!(work.role.terminates() != work.role.originates());
        }
    }
}
