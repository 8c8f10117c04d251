use std::time::Duration;

use super::Refusal;

/// Units from the largest; a text names each at most once, in this order.
const UNITS_MS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// "250ms", "5s", "10m", "1h30m", "1d".
pub(crate) fn duration(text: &str) -> Result<Duration, Refusal> {
    let malformed = || {
        Refusal::new(
            format!("`{text}` is not a duration"),
            "write whole numbers with units, the largest unit first: \"250ms\", \"5s\", \"10m\", \"1h30m\", \"1d\"",
        )
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new(
            format!("the duration `{text}` has no unit"),
            format!(
                "write \"{text}s\" for seconds, \"{text}ms\" for milliseconds or \"{text}m\" for minutes"
            ),
        ));
    }
    let mut rest = text;
    let mut units = UNITS_MS.as_slice();
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(malformed)?;
        let name_end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (name, next) = after.split_at(name_end);
        let at = units.iter().position(|(unit, _)| *unit == name);
        let at = at.ok_or_else(malformed)?;
        total_ms = number
            .checked_mul(units[at].1)
            .and_then(|ms| ms.checked_add(total_ms))
            .ok_or_else(malformed)?;
        units = &units[at + 1..];
        rest = next;
    }
    if text.is_empty() {
        return Err(malformed());
    }
    Ok(Duration::from_millis(total_ms))
}

/// The shortest text that [`duration`] reads back.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest_ms = duration.as_millis();
    let mut out = String::new();
    for (unit, unit_ms) in UNITS_MS {
        let count = rest_ms / u128::from(unit_ms);
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
            rest_ms %= u128::from(unit_ms);
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..end].parse().ok()?;
    Some((number, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_units() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1m500ms", 60_500),
            ("0s", 0),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_mean_two_things() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "1.5s",
            "30m1h",
            "5s5s",
            "5x",
            "5S",
            "99999999999999999d",
            "18446744073709551616s",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("5").unwrap_err().cure.contains("\"5s\""));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["250ms", "5s", "10m", "1h30m", "1d", "1d2h3m4s5ms", "0s"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
    }
}
