use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the last lines may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);

/// What the proxy's own log says of the show.
pub(super) struct Logged {
    pub connections: u64,
    /// Connections by the paths of their two directions, up first.
    pub paths: BTreeMap<(String, String), u64>,
    /// Lines of connections that did not come to their clean end.
    pub unclean: Vec<String>,
}

impl Logged {
    /// Reads the log as soon as it holds so many connections, or as far as it came in time.
    pub(super) fn read(path: &Path, connections: u64) -> Self {
        let deadline = Instant::now() + WRITTEN_WITHIN;
        loop {
            let text = fs::read_to_string(path).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if whole.lines().count() as u64 >= connections || Instant::now() >= deadline {
                return Self::of(whole);
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn of(text: &str) -> Self {
        let mut logged = Self {
            connections: 0,
            paths: BTreeMap::new(),
            unclean: Vec::new(),
        };
        for line in text.lines() {
            let fields: Value = serde_json::from_str(line).unwrap_or_default();
            let word = |name: &str| fields[name].as_str().unwrap_or("?").to_owned();
            if word("end") == "finished" {
                let path = (word("path_up"), word("path_down"));
                *logged.paths.entry(path).or_default() += 1;
            } else {
                logged.unclean.push(line.to_owned());
            }
            logged.connections += 1;
        }
        logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_path_and_unclean_ends_kept() {
        let clean = r#"{"end":"finished","path_up":"user","path_down":"user"}"#;
        let reset = r#"{"end":"reset","path_up":"user","path_down":"none"}"#;
        let logged = Logged::of(&[clean, reset, clean, "no JSON"].join("\n"));
        assert_eq!(logged.connections, 4);
        assert_eq!(logged.paths[&("user".to_owned(), "user".to_owned())], 2);
        assert_eq!(logged.unclean, [reset, "no JSON"]);
    }
}
