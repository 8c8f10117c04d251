//! The rows of the table, and the matrix that they are a choice from.

use anyhow::bail;

use super::{ClientIdentity, Group, Handshake, Key, Mode, Role, Suites, Toward, Version, Work};

const FULL: Mode = Mode::Connect(Handshake::Full);
const RESUMED: Mode = Mode::Connect(Handshake::Resumed);
const SMALL: Mode = Mode::Pingpong { bytes: 64 };
/// The longest TLS record (RFC 8446 5.1).
const LARGE: Mode = Mode::Pingpong { bytes: 16 * 1024 };
const DOWN: Mode = Mode::Bulk(Toward::Client);
const UP: Mode = Mode::Bulk(Toward::Server);
const TLS_ROLES: [Role; 4] = [
    Role::Terminate,
    Role::Originate,
    Role::Both,
    Role::Passthrough,
];
/// Connections at a time on the steps of the ladder.
pub(crate) const LADDER: [u16; 5] = [1, 10, 100, 1000, 8000];

/// The rows that are measured when no others are named, in the table's order.
pub(crate) fn table() -> Vec<Work> {
    let of = Work::new;
    let mut rows = vec![of(Role::Plain, FULL)];
    rows.extend(terminations());
    rows.extend([
        of(Role::Originate, FULL),
        of(Role::Originate, RESUMED),
        Work {
            client: ClientIdentity::Certificate,
            ..of(Role::Originate, FULL)
        },
        of(Role::Both, FULL),
        of(Role::Both, RESUMED),
        // Both ends of these handshakes are the harness's own: dearer ones would be its figure.
        tls12(of(Role::Passthrough, RESUMED)),
    ]);
    for mode in [SMALL, LARGE, DOWN, UP, Mode::Idle] {
        rows.extend([Role::Plain, Role::Terminate, Role::Originate].map(|role| of(role, mode)));
    }
    rows
}

fn tls12(work: Work) -> Work {
    Work {
        version: Version::Tls12,
        ..work
    }
}

fn terminations() -> impl Iterator<Item = Work> {
    let (full, resumed) = (
        Work::new(Role::Terminate, FULL),
        Work::new(Role::Terminate, RESUMED),
    );
    let as_they_come = |work| Work {
        suites: Suites::AsTheyCome,
        ..work
    };
    [
        full,
        tls12(full),
        resumed,
        tls12(resumed),
        as_they_come(full),
        as_they_come(resumed),
        Work {
            key: Key::Rsa2048,
            ..full
        },
        Work {
            group: Group::X25519MlKem768,
            ..full
        },
        Work {
            client: ClientIdentity::Certificate,
            ..full
        },
    ]
    .into_iter()
}

/// Every row that a name stands for.
pub(crate) fn all_rows() -> Vec<Work> {
    let mut rows = vec![Work::new(Role::Plain, FULL)];
    for role in TLS_ROLES {
        for mode in [FULL, RESUMED] {
            rows.extend(variants(Work::new(role, mode)));
        }
    }
    let roles = || [Role::Plain].into_iter().chain(TLS_ROLES);
    for mode in [SMALL, LARGE, DOWN, UP, Mode::Idle] {
        rows.extend(roles().map(|role| Work::new(role, mode)));
    }
    for connections in LADDER {
        rows.extend(roles().map(|role| Work {
            connections: Some(connections),
            ..Work::new(role, SMALL)
        }));
    }
    rows
}

/// Every key, group, client and suite. X25519MLKEM768 is of TLS 1.3 only.
fn variants(base: Work) -> Vec<Work> {
    let profiles = [
        (Version::Tls13, Group::X25519),
        (Version::Tls12, Group::X25519),
        (Version::Tls13, Group::X25519MlKem768),
    ];
    let mut rows = Vec::new();
    for (version, group) in profiles {
        for key in [Key::EcdsaP256, Key::Rsa2048] {
            for client in [ClientIdentity::Anonymous, ClientIdentity::Certificate] {
                rows.extend([Suites::Aes128, Suites::AsTheyCome].map(|suites| Work {
                    version,
                    key,
                    group,
                    suites,
                    client,
                    ..base
                }));
            }
        }
    }
    rows
}

/// The rows that `wanted` names; the table when nothing is wanted in particular.
///
/// A row's whole name is that row alone. The beginning of names is all rows of the table that
/// begin so, and where the table has none, all rows that there are.
pub(crate) fn select(wanted: &[String]) -> anyhow::Result<Vec<Work>> {
    if wanted.is_empty() {
        return Ok(table());
    }
    let mut rows: Vec<Work> = Vec::new();
    for word in wanted {
        let found = named(word);
        if found.is_empty() {
            bail!("--work {word}: no row begins with that; `ringway-bench rows` lists them");
        }
        for work in found {
            if !rows.contains(&work) {
                rows.push(work);
            }
        }
    }
    Ok(rows)
}

fn named(word: &str) -> Vec<Work> {
    let all = all_rows();
    if let Some(work) = all.iter().find(|work| work.name() == word) {
        return vec![*work];
    }
    let begins = |work: &Work| work.name().starts_with(word);
    let of_table: Vec<_> = table().into_iter().filter(begins).collect();
    if !of_table.is_empty() {
        return of_table;
    }
    all.into_iter().filter(begins).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(wanted: &str) -> Vec<String> {
        let rows = select(&[wanted.to_owned()]).unwrap();
        rows.iter().map(Work::name).collect()
    }

    #[test]
    fn a_beginning_selects_the_rows_of_the_table_that_share_it() {
        assert_eq!(
            names("terminate-full"),
            ["terminate-full-1.3", "terminate-full-1.2"]
        );
    }

    #[test]
    fn a_whole_name_selects_one_row() {
        assert_eq!(
            names("both-rsa-mlkem-client-certificate-resumed-1.3").len(),
            1
        );
        assert_eq!(
            names("pingpong-64-terminated"),
            ["pingpong-64-terminated"],
            "and not its ladder"
        );
    }

    #[test]
    fn what_the_table_has_not_comes_from_the_matrix() {
        let rows = names("both-rsa");
        assert!(
            rows.len() > 4 && rows.iter().all(|name| name.starts_with("both-rsa")),
            "{rows:?}"
        );
    }

    #[test]
    fn nothing_wanted_in_particular_selects_the_table() {
        assert_eq!(select(&[]).unwrap(), table());
    }

    #[test]
    fn an_unknown_row_is_refused() {
        let error = select(&["sideways".into()]).unwrap_err().to_string();
        assert!(error.contains("sideways"), "{error}");
    }

    #[test]
    fn no_name_stands_for_two_rows_and_the_table_is_part_of_the_matrix() {
        let all = all_rows();
        let names: BTreeSet<_> = all.iter().map(Work::name).collect();
        assert_eq!(names.len(), all.len());
        assert!(table().iter().all(|work| all.contains(work)));
    }

    #[test]
    fn no_row_asks_tls_12_for_a_hybrid_group() {
        let impossible =
            |work: &Work| work.version == Version::Tls12 && work.group == Group::X25519MlKem768;
        assert!(!all_rows().iter().any(impossible));
    }
}
