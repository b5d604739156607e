//! Counts, sizes and durations as an operator writes them: `100k`, `1MiB`, `50ms`.
//!
//! Whole numbers only: `1.5GiB` has an exact meaning and `0.1s` has one too, but `0.3MiB` has not,
//! and every duration can be written in a smaller unit.

use std::time::Duration;

/// Units of counts, by ascending size.
const COUNT_UNITS: &[(&str, u64)] = &[("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// Units of sizes in bytes. A number without unit is bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Units of durations in nanoseconds. There is none for a bare number: `timeout = 5` would be five of whose?
const DURATION_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is no number with a unit. The message completes the sentence "`TEXT` ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotQuantity {
    /// Does not start with a digit: empty, negative, a word.
    #[error("is not a whole number")]
    NotANumber,
    /// A count with something behind it that is no multiplier.
    #[error("has an unknown unit; a count is a number, or one with k, M or G (thousands)")]
    UnknownCountUnit,
    /// A size with something behind it that is no unit of bytes.
    #[error("has an unknown unit; sizes are in B, kB, KiB, MB, MiB, GB or GiB")]
    UnknownSizeUnit,
    /// A duration without a unit, or with an unknown one.
    #[error("needs a unit: ns, us, ms, s, m or h")]
    UnknownDurationUnit,
    /// More than 64 bits.
    #[error("is too large for any option")]
    TooLarge,
}

/// Reads `250`, `100k`, `2M`. Underscores may group digits, as in TOML.
pub fn parse_count(text: &str) -> Result<u64, NotQuantity> {
    quantity(text, COUNT_UNITS, NotQuantity::UnknownCountUnit)
}

/// Reads `4096`, `64kB`, `1MiB`.
pub fn parse_size(text: &str) -> Result<u64, NotQuantity> {
    quantity(text, SIZE_UNITS, NotQuantity::UnknownSizeUnit)
}

/// Reads `50ms`, `30s`, `100us`.
pub fn parse_duration(text: &str) -> Result<Duration, NotQuantity> {
    quantity(text, DURATION_UNITS, NotQuantity::UnknownDurationUnit).map(Duration::from_nanos)
}

/// Writes a size in the largest unit of 1024 that divides it: what [`parse_size`] reads back unchanged.
pub fn format_size(size: u64) -> String {
    for (unit, bytes) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if size >= bytes && size.is_multiple_of(bytes) {
            return format!("{}{unit}", size / bytes);
        }
    }
    format!("{size}B")
}

/// Writes a duration in the largest unit up to seconds that divides it: what [`parse_duration`] reads back unchanged.
pub fn format_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    for (unit, unit_ns) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if ns.is_multiple_of(unit_ns) {
            return format!("{}{unit}", ns / unit_ns);
        }
    }
    format!("{ns}ns")
}

fn quantity(text: &str, units: &[(&str, u64)], unknown_unit: NotQuantity) -> Result<u64, NotQuantity> {
    let text = text.trim();
    let digits_size = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    let (digits, unit) = text.split_at(digits_size);
    let digits = digits.replace('_', "");
    if digits.is_empty() {
        return Err(NotQuantity::NotANumber);
    }
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(unknown_unit)?;
    let number: u64 = digits.parse().map_err(|_| NotQuantity::TooLarge)?;
    number.checked_mul(*factor).ok_or(NotQuantity::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_their_units() {
        assert_eq!(parse_count("100k"), Ok(100_000));
        assert_eq!(parse_count("1_000"), Ok(1000));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("64 kB"), Ok(64_000));
        assert_eq!(parse_size("17"), Ok(17));
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn what_is_wrong_with_a_quantity_is_named() {
        assert_eq!(parse_count(""), Err(NotQuantity::NotANumber));
        assert_eq!(parse_count("-1"), Err(NotQuantity::NotANumber));
        assert_eq!(parse_count("_"), Err(NotQuantity::NotANumber));
        assert_eq!(parse_count("1MiB"), Err(NotQuantity::UnknownCountUnit));
        assert_eq!(parse_size("1.5GiB"), Err(NotQuantity::UnknownSizeUnit));
        assert_eq!(parse_duration("30"), Err(NotQuantity::UnknownDurationUnit));
        assert_eq!(parse_duration("0.1s"), Err(NotQuantity::UnknownDurationUnit));
        assert_eq!(parse_count("99999999999999999999"), Err(NotQuantity::TooLarge));
        assert_eq!(parse_duration("99999999999h"), Err(NotQuantity::TooLarge));
    }

    #[test]
    fn what_is_written_reads_back_unchanged() {
        for size in [0, 1, 1023, 1024, 4096, 1 << 20, (1 << 20) + 4096, 3 << 30] {
            assert_eq!(parse_size(&format_size(size)), Ok(size));
        }
        for ns in [0, 1, 999, 50_000, 1_500_000, 30_000_000_000, 90_000_000_001] {
            let duration = Duration::from_nanos(ns);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
