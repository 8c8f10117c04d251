//! What one configuration has that another has not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Effective, Plan};
use crate::tls::Digests;

/// A configuration as far as it can differ from another.
#[derive(Clone, Copy)]
pub(super) struct Version<'a> {
    pub(super) plan: &'a Plan,
    /// Every value that it works with.
    pub(super) effective: &'a [Effective],
    /// What its files hold.
    pub(super) digests: &'a Digests,
}

/// What a reload changes, and what it cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub live: Vec<Change>,
    /// Stays as it is until the process is started again.
    pub needs_restart: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A listener or an upstream.
    Added {
        table: String,
    },
    Removed {
        table: String,
    },
    /// One value; `None`: there is none.
    Set {
        key: String,
        before: Option<String>,
        after: Option<String>,
    },
    /// The same file holds something else.
    Content {
        table: String,
        file: String,
    },
}

/// Values of `[runtime]` and `[log]` that a process takes on while it runs.
const LIVE: [&str; 8] = [
    "runtime.drain_timeout",
    "runtime.max_handshakes",
    "runtime.accept_batch",
    "runtime.pipes",
    "runtime.resolver",
    "runtime.watch",
    "log.refused",
    "log.sample",
];

/// Everything by which `after` differs from `before`.
#[must_use]
pub(super) fn diff(before: Version<'_>, after: Version<'_>) -> Changes {
    let mut changes = Changes::default();
    let (old, new) = (tables(before.plan), tables(after.plan));
    for table in old.difference(&new).cloned() {
        changes.live.push(Change::Removed { table });
    }
    for table in new.difference(&old).cloned() {
        changes.live.push(Change::Added { table });
    }
    let is_shared = |key: &str| match table_of(key) {
        Some(table) => old.contains(table) && new.contains(table),
        None => true,
    };
    for change in values(before.effective, after.effective) {
        match &change {
            Change::Set { key, .. } if !is_shared(key) => {}
            Change::Set { key, .. } if !is_live(key) => changes.needs_restart.push(change),
            _ => changes.live.push(change),
        }
    }
    changes.live.extend(contents(before, after));
    changes
}

/// The values in force after a reload: what needs a restart is as it was.
#[must_use]
pub(super) fn in_force(before: &[Effective], after: Vec<Effective>) -> Vec<Effective> {
    let is_process = |key: &str| table_of(key).is_none();
    let frozen = |it: &&Effective| is_process(&it.key) && !is_live(&it.key);
    let old = before.iter().filter(frozen).cloned();
    let new = after.into_iter().filter_map(|it| {
        if is_live(&it.key) {
            return Some(it);
        }
        let known = before
            .iter()
            .find(|old| old.key == it.key && !is_process(&it.key));
        known
            .cloned()
            .or_else(|| (!is_process(&it.key)).then_some(it))
    });
    old.chain(new).collect()
}

fn tables(plan: &Plan) -> BTreeSet<String> {
    let listeners = plan.listeners.iter();
    let listeners = listeners.map(|it| format!("listener.{}", it.name));
    let upstreams = plan.upstreams.iter();
    let upstreams = upstreams.map(|it| format!("upstream.{}", it.name));
    listeners.chain(upstreams).collect()
}

/// "listener.database" of "listener.database.tls.alpn"; `None`: it belongs to neither kind.
fn table_of(key: &str) -> Option<&str> {
    let (kind, rest) = key.split_once('.')?;
    let (name, _) = rest.split_once('.')?;
    let is_named = matches!(kind, "listener" | "upstream");
    is_named.then(|| &key[..kind.len() + 1 + name.len()])
}

fn is_live(key: &str) -> bool {
    match table_of(key) {
        // The kernel keeps a filter for the sockets of an address, and gives none back.
        Some(table) => &key[table.len()..] != ".steering",
        None => LIVE.contains(&key),
    }
}

/// Values by their keys, in the order of the old ones first.
fn values(before: &[Effective], after: &[Effective]) -> Vec<Change> {
    let (old, new) = (by_lasting_key(before), by_lasting_key(after));
    let known: BTreeMap<_, _> = old.iter().cloned().collect();
    let wanted: BTreeMap<_, _> = new.iter().cloned().collect();
    let shown = |values: &BTreeMap<String, &Effective>, key: &String| {
        values.get(key).map(|it| it.masked().to_owned())
    };
    let mut keys: Vec<&String> = old.iter().map(|(key, _)| key).collect();
    keys.extend(
        new.iter()
            .map(|(key, _)| key)
            .filter(|it| !known.contains_key(*it)),
    );
    let changed = keys
        .into_iter()
        .filter(|it| known.get(*it).map(|it| &it.value) != wanted.get(*it).map(|it| &it.value));
    changed
        .map(|key| Change::Set {
            key: key.clone(),
            before: shown(&known, key),
            after: shown(&wanted, key),
        })
        .collect()
}

/// A server is known by its address: its place in the list says nothing.
fn by_lasting_key(effective: &[Effective]) -> Vec<(String, &Effective)> {
    let addresses = effective.iter().filter_map(|it| {
        let server = it.key.strip_suffix(".address")?;
        server.ends_with(']').then_some((server, &it.value))
    });
    let addresses: BTreeMap<_, _> = addresses.collect();
    let renamed = effective.iter().map(|it| {
        let place = it.key.find("].").map(|at| it.key.split_at(at + 1));
        let server = place.and_then(|(server, rest)| Some((server, addresses.get(server)?, rest)));
        let key = match server {
            Some((server, address, rest)) => {
                let list = server.rsplit_once('[').map_or(server, |(list, _)| list);
                format!("{list}[{address}]{rest}")
            }
            None => it.key.clone(),
        };
        (key, it)
    });
    renamed.collect()
}

/// Files that both name in the same table and that hold something else now.
fn contents(before: Version<'_>, after: Version<'_>) -> Vec<Change> {
    let old = before.plan.files();
    let mut changed = Vec::new();
    for file in after.plan.files() {
        let path = &file.file.value;
        let was_there = old
            .iter()
            .any(|it| it.table == file.table && it.file.value == *path);
        if was_there && !before.digests.agree_on(after.digests, path) {
            let change = Change::Content {
                table: file.table,
                file: path.display().to_string(),
            };
            if !changed.contains(&change) {
                changed.push(change);
            }
        }
    }
    changed
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.needs_restart.is_empty()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Self::Added { table } => write!(f, "+ {table}"),
            Self::Removed { table } => write!(f, "- {table}"),
            Self::Set { key, before, after } => {
                write!(f, "~ {key}: {} -> {}", or_none(before), or_none(after))
            }
            Self::Content { table, file } => write!(f, "~ {table}: {file} has new content"),
        }
    }
}

/// One line a change.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing changes");
        }
        for change in &self.live {
            writeln!(f, "{change}")?;
        }
        for change in &self.needs_restart {
            writeln!(f, "{change} (needs a restart)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, parse};

    const FRONT: &str =
        "[[listener]]\nname = \"front\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n";

    fn changed(before: &str, after: &str) -> Vec<String> {
        let (before, after) = (parse("a.toml", before), parse("b.toml", after));
        let of = |loaded: &'static Loaded| Version {
            plan: loaded.plan().unwrap(),
            effective: &loaded.effective,
            digests: Box::leak(Box::new(Digests::default())),
        };
        let leak = |loaded| -> &'static Loaded { Box::leak(Box::new(loaded)) };
        let changes = diff(of(leak(before)), of(leak(after)));
        changes.to_string().lines().map(str::to_owned).collect()
    }

    fn back(servers: &str) -> String {
        format!("[upstream.back]\nservers = [{servers}]\n")
    }

    #[test]
    fn the_same_configuration_written_otherwise_changes_nothing() {
        let (front, back) = (FRONT, back("\"127.0.0.1:1\""));
        let spaced = format!("# a comment\n\n{back}\n\n{front}");
        assert_eq!(
            changed(&format!("{front}{back}"), &spaced),
            ["nothing changes"]
        );
    }

    #[test]
    fn values_tables_and_what_needs_a_restart_are_told_apart() {
        let before = format!("[runtime]\nworkers = 1\n{FRONT}{}", back("\"127.0.0.1:1\""));
        let after = format!(
            "[runtime]\nworkers = 2\ndrain_timeout = \"5s\"\n{FRONT}idle_timeout = \"1h\"\n\
             steering = \"source-address\"\n{}\
             [[listener]]\nname = \"side\"\nbind = \"127.0.0.1:0\"\nupstream = \"back\"\n",
            back("\"127.0.0.1:1\"")
        );
        let there = [
            "+ listener.side",
            "~ runtime.drain_timeout: \"30s\" -> \"5s\"",
            "~ listener.front.idle_timeout: \"10m\" -> \"1h\"",
            "~ runtime.workers: 1 -> 2 (needs a restart)",
            "~ listener.front.steering: \"kernel\" -> \"source-address\" (needs a restart)",
        ];
        assert_eq!(changed(&before, &after), there);
        assert_eq!(changed(&after, &before)[0], "- listener.side");
    }

    #[test]
    fn servers_are_known_by_their_addresses() {
        let group = |servers: &str| format!("{FRONT}{}", back(servers));
        let one = "{ address = \"127.0.0.1:1\", weight = 2 }";
        let before = group(&format!("{one}, \"127.0.0.1:2\""));
        let after = group(&format!("\"127.0.0.1:3\", \"127.0.0.1:2\", {one}"));
        let lines = changed(&before, &after);
        assert!(!lines.is_empty());
        assert!(
            lines.iter().all(|it| it.contains("127.0.0.1:3")),
            "{lines:?}"
        );
    }

    #[test]
    fn what_a_check_says_is_told_to_have_changed_and_not_what_it_is() {
        let text = |password: &str| {
            format!(
                "{FRONT}{}[upstream.back.check]\nexpect = \"+OK\"\nsend = \"AUTH {password}\"\n",
                back("\"127.0.0.1:1\"")
            )
        };
        let line = "~ upstream.back.check.send: \"***\" -> \"***\"";
        assert_eq!(changed(&text("one"), &text("two")), [line]);
        assert_eq!(changed(&text("one"), &text("one")), ["nothing changes"]);
    }

    #[test]
    fn what_needs_a_restart_still_does_after_a_reload() {
        let text = |workers: u32| {
            format!(
                "[runtime]\nworkers = {workers}\n{FRONT}{}",
                back("\"127.0.0.1:1\"")
            )
        };
        let (one, two) = (parse("a", text(1)), parse("a", text(2)));
        let in_force = in_force(&one.effective, two.effective);
        let workers = in_force
            .iter()
            .find(|it| it.key == "runtime.workers")
            .unwrap();
        assert_eq!(workers.value, "1");
    }
}
