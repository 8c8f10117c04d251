//! Of `[log]`.

use super::{Choice, Setting};
use crate::config::plan::{Facility, LogFormat};

pub(in crate::config) const ACCESS_WHY: &str =
    "a service manager collects stderr; nothing to set up";

/// Field names survive new fields, and every log collector reads it.
pub(in crate::config) const FORMAT: Choice<LogFormat> = Choice {
    key: "format",
    words: &[("json", LogFormat::Json), ("logfmt", LogFormat::Logfmt)],
    why: "every log collector reads it",
};

pub(in crate::config) const FIELDS_WHY: &str =
    "every field that has a value, in the order of the docs";

/// A line is about 600 bytes: 8,000 connections a second are 400 GB a day, with 100 it is 4.
pub(in crate::config) const SAMPLE: Setting<u32> = Setting {
    key: "sample",
    default: 1,
    min: 1,
    max: 1_000_000,
    why: "each connection has a line",
};

/// What syslog.conf(5) sets aside for services of the system.
pub(in crate::config) const FACILITY: Choice<Facility> = Choice {
    key: "facility",
    words: &[
        ("daemon", Facility(3)),
        ("user", Facility(1)),
        ("local0", Facility(16)),
        ("local1", Facility(17)),
        ("local2", Facility(18)),
        ("local3", Facility(19)),
        ("local4", Facility(20)),
        ("local5", Facility(21)),
        ("local6", Facility(22)),
        ("local7", Facility(23)),
    ],
    why: "where services of the system log",
};

pub(in crate::config) const TAG: &str = "ringway";

pub(in crate::config) const TAG_WHY: &str = "the name of the program";

/// RFC 3164 4.1.3.
pub(in crate::config) const TAG_BYTES_MAX: usize = 32;

/// One second of a stalled disk at 8,000 connections a second and core; then records are dropped
/// and counted rather than let memory grow.
pub(in crate::config) const QUEUE: Setting<usize> = Setting {
    key: "queue",
    default: 8192,
    min: 1,
    max: 1_048_576,
    why: "the disk may stall a second at 8,000 connections per second and core",
};
