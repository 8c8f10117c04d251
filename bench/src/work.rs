//! What can be measured. A row of the table is one [`Work`]: the legs that carry TLS, what the
//! clients do, and what both ends offer.

use anyhow::bail;

/// Which legs of the proxy carry TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    Terminate,
    Originate,
    Both,
}

impl Role {
    pub(crate) fn terminates(self) -> bool {
        matches!(self, Self::Terminate | Self::Both)
    }

    pub(crate) fn originates(self) -> bool {
        matches!(self, Self::Originate | Self::Both)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Client,
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A new connection for each operation: it counts when the first byte has come back.
    Connect(Handshake),
    /// Messages of this size there and back over connections that stay.
    Pingpong { bytes: usize },
    /// One direction as fast as it goes.
    Bulk(Toward),
    /// Connections that say nothing: the proxy's memory for each.
    Idle,
}

impl Mode {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Pingpong { .. } => "CPU us/op",
            Self::Bulk(_) => "CPU s/GiB",
            Self::Idle => "KiB/conn",
        }
    }

    /// Bytes that the upstream server waits for before it sends as many back.
    pub(crate) fn message_bytes(self) -> usize {
        match self {
            Self::Pingpong { bytes } => bytes,
            Self::Connect(_) | Self::Bulk(_) | Self::Idle => 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// The cipher suites that the harness's own end offers or accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suites {
    /// AES-128-GCM with SHA-256 alone: the same work for every proxy.
    Aes128,
    /// AES-256-GCM with SHA-384 first, as OpenSSL's and rustls's clients do.
    AsTheyCome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientIdentity {
    Anonymous,
    Certificate,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    pub(crate) version: Version,
    pub(crate) suites: Suites,
    pub(crate) client: ClientIdentity,
}

impl Work {
    const fn new(name: &'static str, role: Role, mode: Mode) -> Self {
        Self {
            name,
            role,
            mode,
            version: Version::Tls13,
            suites: Suites::Aes128,
            client: ClientIdentity::Anonymous,
        }
    }

    const fn tls12(self) -> Self {
        Self {
            version: Version::Tls12,
            ..self
        }
    }

    const fn as_they_come(self) -> Self {
        Self {
            suites: Suites::AsTheyCome,
            ..self
        }
    }

    const fn with_client_certificate(self) -> Self {
        Self {
            client: ClientIdentity::Certificate,
            ..self
        }
    }
}

const FULL: Mode = Mode::Connect(Handshake::Full);
const RESUMED: Mode = Mode::Connect(Handshake::Resumed);
const SMALL: Mode = Mode::Pingpong { bytes: 64 };
/// The longest TLS record (RFC 8446 5.1).
const LARGE: Mode = Mode::Pingpong { bytes: 16 * 1024 };
const DOWN: Mode = Mode::Bulk(Toward::Client);
const UP: Mode = Mode::Bulk(Toward::Server);

/// Every row, in the table's order.
const CATALOG: &[Work] = &[
    Work::new("connect-plain", Role::Plain, FULL),
    Work::new("terminate-full-1.3", Role::Terminate, FULL),
    Work::new("terminate-full-1.2", Role::Terminate, FULL).tls12(),
    Work::new("terminate-resumed-1.3", Role::Terminate, RESUMED),
    Work::new("terminate-resumed-1.2", Role::Terminate, RESUMED).tls12(),
    Work::new("terminate-full-as-they-come", Role::Terminate, FULL).as_they_come(),
    Work::new("terminate-resumed-as-they-come", Role::Terminate, RESUMED).as_they_come(),
    Work::new("terminate-client-certificate-full", Role::Terminate, FULL).with_client_certificate(),
    Work::new("originate-full-1.3", Role::Originate, FULL),
    Work::new("originate-resumed-1.3", Role::Originate, RESUMED),
    Work::new("both-full-1.3", Role::Both, FULL),
    Work::new("both-resumed-1.3", Role::Both, RESUMED),
    Work::new("pingpong-64-plain", Role::Plain, SMALL),
    Work::new("pingpong-64-terminated", Role::Terminate, SMALL),
    Work::new("pingpong-64-originated", Role::Originate, SMALL),
    Work::new("pingpong-16k-plain", Role::Plain, LARGE),
    Work::new("pingpong-16k-terminated", Role::Terminate, LARGE),
    Work::new("pingpong-16k-originated", Role::Originate, LARGE),
    Work::new("bulk-down-plain", Role::Plain, DOWN),
    Work::new("bulk-down-terminated", Role::Terminate, DOWN),
    Work::new("bulk-down-originated", Role::Originate, DOWN),
    Work::new("bulk-up-plain", Role::Plain, UP),
    Work::new("bulk-up-terminated", Role::Terminate, UP),
    Work::new("bulk-up-originated", Role::Originate, UP),
    Work::new("idle-plain", Role::Plain, Mode::Idle),
    Work::new("idle-terminated", Role::Terminate, Mode::Idle),
    Work::new("idle-originated", Role::Originate, Mode::Idle),
];

/// The rows whose names begin with one of `wanted`; all when nothing is wanted in particular.
pub(crate) fn select(wanted: &[String]) -> anyhow::Result<Vec<Work>> {
    let unknown = wanted
        .iter()
        .find(|w| !CATALOG.iter().any(|work| work.name.starts_with(*w)));
    if let Some(unknown) = unknown {
        let names: Vec<_> = CATALOG.iter().map(|work| work.name).collect();
        bail!(
            "--work {unknown}: no row begins with that. The rows are: {}",
            names.join(", ")
        );
    }
    let matches =
        |work: &&Work| wanted.is_empty() || wanted.iter().any(|w| work.name.starts_with(w));
    Ok(CATALOG.iter().filter(matches).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_selects_all_rows_that_share_it() {
        let rows = select(&["terminate-full".into()]).unwrap();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|work| work.role == Role::Terminate));
    }

    #[test]
    fn nothing_wanted_in_particular_selects_every_row() {
        assert_eq!(select(&[]).unwrap().len(), CATALOG.len());
    }

    #[test]
    fn an_unknown_row_is_refused_with_the_names_that_exist() {
        let error = select(&["sideways".into()]).unwrap_err().to_string();
        assert!(
            error.contains("sideways") && error.contains("connect-plain"),
            "{error}"
        );
    }

    #[test]
    fn no_name_stands_for_two_rows() {
        let names: std::collections::BTreeSet<_> = CATALOG.iter().map(|work| work.name).collect();
        assert_eq!(names.len(), CATALOG.len());
    }
}
