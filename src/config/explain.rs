//! Every effective value, and where it comes from.

use std::fmt::Write as _;

use super::source::Source;

/// One value that the plan works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// "listener.database.idle_timeout"
    pub key: String,
    /// As TOML would have it, or "none".
    pub value: String,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    File { line: usize },
    Default { why: &'static str },
}

/// Keys whose values may be secret: what a check says to a server may log it in. All others are
/// names of files, never what is in them.
const MASKED: [&str; 2] = ["check.send", "check.expect"];

impl Effective {
    /// The value as whoever may look at the process may see it, and its log show it.
    #[must_use]
    pub fn masked(&self) -> &str {
        let is_default = matches!(self.origin, Origin::Default { .. });
        let is_secret = MASKED.iter().any(|key| self.key.ends_with(key));
        match is_secret && !is_default {
            true => "\"***\"",
            false => &self.value,
        }
    }
}

/// Values wider than this do not push every origin to the right.
const VALUE_COLUMNS_MAX: usize = 44;

/// One line a value: `key = value   # FILE:LINE` or `# default: why`.
#[must_use]
pub fn explain(effective: &[Effective], source: &Source) -> String {
    let width = |text: &str| text.chars().count();
    let keys = effective.iter().map(|e| width(&e.key)).max().unwrap_or(0);
    let values = effective.iter().map(|e| width(&e.value));
    let values = values
        .filter(|columns| *columns <= VALUE_COLUMNS_MAX)
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for Effective { key, value, origin } in effective {
        let _ = match origin {
            Origin::File { line } => {
                writeln!(
                    out,
                    "{key:keys$} = {value:values$}   # {}:{line}",
                    source.name
                )
            }
            Origin::Default { why } => {
                writeln!(out, "{key:keys$} = {value:values$}   # default: {why}")
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_origins_stand_in_columns() {
        let source = Source {
            name: "edge.toml".to_owned(),
            text: String::new(),
        };
        let effective = [
            Effective {
                key: "log.queue".to_owned(),
                value: "8192".to_owned(),
                origin: Origin::Default { why: "room" },
            },
            Effective {
                key: "listener.database.idle_timeout".to_owned(),
                value: "\"10m\"".to_owned(),
                origin: Origin::File { line: 7 },
            },
        ];
        assert_eq!(
            explain(&effective, &source),
            "log.queue                      = 8192    # default: room\n\
             listener.database.idle_timeout = \"10m\"   # edge.toml:7\n"
        );
    }
}
