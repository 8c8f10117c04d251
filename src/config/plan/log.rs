//! What the access log says of connections, and where it says it.

use std::path::PathBuf;

use crate::types::LogField;

#[derive(Debug, Clone)]
pub struct LogPlan {
    pub access: AccessLog,
    pub format: LogFormat,
    /// What a line holds, in this order. A template has its own.
    pub fields: Vec<LogField>,
    /// Of this many connections that end cleanly one has a line; 1: each.
    pub sample: u32,
    pub syslog: SyslogPlan,
    /// Records that may wait for the writer, per core; more are dropped and counted.
    pub queue_max: usize,
    /// Lines a second, for each core, listener and reason, about connections that were refused.
    pub refused_max: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stderr,
    File(PathBuf),
    /// The datagram socket of a syslog daemon.
    Syslog(PathBuf),
    /// The socket of journald's native protocol.
    Journald(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Logfmt,
    Template(Vec<Piece>),
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Field {
        field: LogField,
        /// It stands between two quotation marks.
        quoted: bool,
    },
}

/// What syslog daemons sort messages by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogPlan {
    pub facility: Facility,
    pub tag: String,
}

/// By its number in RFC 5424 6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(pub u8);
