use super::Refusal;

/// Units from the largest.
const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// "0B", "256KiB", "1MiB", "2GiB": a whole number and one unit.
pub(in crate::config) fn size(text: &str) -> Result<u64, Refusal> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bytes = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, bytes)| number.parse::<u64>().ok()?.checked_mul(*bytes));
    bytes.ok_or_else(|| match unit {
        "" if digits > 0 => Refusal::new(
            format!("the size `{text}` has no unit"),
            format!("write \"{text}B\" for bytes, \"{text}KiB\" for 1,024 times as many"),
        ),
        _ => Refusal::new(
            format!("`{text}` is not a size"),
            "write a whole number and B, KiB, MiB or GiB: \"256KiB\", \"1MiB\"",
        ),
    })
}

/// The shortest text that [`size`] reads back.
pub(in crate::config) fn show_size(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_number_and_a_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("256KiB", 262_144),
            ("1MiB", 1_048_576),
            ("3GiB", 3_221_225_472),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(show_size(1500), "1500B");
    }

    #[test]
    fn refuses_what_could_mean_two_things() {
        for text in [
            "",
            "256",
            "KiB",
            "256 KiB",
            "256K",
            "256KB",
            "256kib",
            "-1B",
            "1.5MiB",
            "1MiB2KiB",
            "99999999999999999999B",
            "18446744073709551615GiB",
            "٣B",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size("256").unwrap_err().cure.contains("\"256KiB\""));
    }
}
