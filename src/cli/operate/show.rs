//! From answers to text.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::cli::ask::{AskError, Socket};
use crate::config::show_duration;
use crate::control::admin::model::{Closed, LogLevel, ServerHeld};

/// The answer in words, or as it came.
pub(super) fn shown<T: DeserializeOwned>(
    socket: &Socket,
    answer: String,
    json: bool,
    show: impl FnOnce(&T) -> String,
) -> Result<String, AskError> {
    if json {
        return Ok(answer);
    }
    match serde_json::from_str(&answer) {
        Ok(answer) => Ok(show(&answer)),
        Err(_) => Err(socket.strange()),
    }
}

/// A path with its parameters.
pub(super) fn target<'a>(
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    match query.finish().as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

pub(super) fn closed(answer: &Closed) -> String {
    let plural = if answer.closed == 1 { "" } else { "s" };
    format!("{} connection{plural} closed\n", answer.closed)
}

pub(super) fn held(answer: &ServerHeld) -> String {
    let ServerHeld {
        upstream,
        server,
        state,
    } = answer;
    let words = match state.as_str() {
        "drained" => "has no new connections any more",
        "taken_down" => "has no connections any more",
        _ => "is as its checks and its connections find it",
    };
    format!("{server} of {upstream} {words}\n")
}

pub(super) fn level(answer: &LogLevel) -> String {
    format!("{}\n", answer.level)
}

/// The two largest units that it has: an age is to be seen at a glance.
pub(super) fn age(age: Duration) -> String {
    let step = match age.as_secs() {
        0 => 1,
        1..60 => 100,
        60..3_600 => 1_000,
        3_600..86_400 => 60_000,
        _ => 3_600_000,
    };
    let millis = age.as_millis() / step * step;
    show_duration(Duration::from_millis(
        u64::try_from(millis).unwrap_or(u64::MAX),
    ))
}

/// "1.2 MiB"
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut unit, mut scale) = (0, 1_u64);
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_short() {
        let ages = [
            (7, "7ms"),
            (1_234, "1s200ms"),
            (61_500, "1m1s"),
            (3_700_000, "1h1m"),
        ];
        for (millis, words) in ages {
            assert_eq!(age(Duration::from_millis(millis)), words);
        }
        assert_eq!(age(Duration::from_secs(90_061)), "1d1h");
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_310_720, "1.2 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (count, words) in sizes {
            assert_eq!(bytes(count), words);
        }
    }

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(target("/x", []), "/x");
        assert_eq!(
            target("/x", [("a", "b c"), ("d", "[::1]:1&")]),
            "/x?a=b+c&d=%5B%3A%3A1%5D%3A1%26"
        );
    }
}
