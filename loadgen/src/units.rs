//! Rates and durations as people write them: `100k`, `2.5M`, `10s`, `250ms`, `100us`.
//!
//! In: text from a flag.  Out: a number, or what is wrong with the text. Used by `quickfire load`.

use std::time::Duration;

/// Why a text is not a rate or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not a positive number of calls per second.
    #[error("`{0}` is not a rate: expected calls per second, such as 500, 100k or 2.5M")]
    Rate(String),
    /// Not a number with a unit of time.
    #[error("`{0}` is not a duration: expected a number and a unit, such as 100us, 250ms, 10s or 2m")]
    Duration(String),
}

/// Calls per second: a positive number, with `k` for thousands or `M` for millions.
///
/// ```
/// assert_eq!(loadgen::parse_rate("100k")?, 100_000.0);
/// # Ok::<(), loadgen::UnitError>(())
/// ```
pub fn parse_rate(text: &str) -> Result<f64, UnitError> {
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => match text.strip_suffix('M') {
            Some(number) => (number, 1e6),
            None => (text, 1.0),
        },
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number * factor),
        _ => Err(UnitError::Rate(text.into())),
    }
}

/// A length of time: a number with `ns`, `us`, `ms`, `s`, `m` or `h`.
///
/// ```
/// assert_eq!(loadgen::parse_duration("1.5s")?.as_millis(), 1_500);
/// # Ok::<(), loadgen::UnitError>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    // "ns" before "s": the longer unit is tried first.
    const UNITS: [(&str, f64); 6] =
        [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    UNITS
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .and_then(|(number, seconds)| Some(number.trim().parse::<f64>().ok()? * seconds))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| UnitError::Duration(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_and_without_a_factor() {
        assert_eq!(parse_rate("500"), Ok(500.0));
        assert_eq!(parse_rate("100k"), Ok(100_000.0));
        assert_eq!(parse_rate("2.5M"), Ok(2_500_000.0));
        for wrong in ["", "0", "-1", "k", "inf", "NaN", "1G"] {
            assert_eq!(parse_rate(wrong), Err(UnitError::Rate(wrong.into())));
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("100us"), Ok(Duration::from_micros(100)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "10", "s", "-1s", "NaNs", "1e300h"] {
            assert_eq!(parse_duration(wrong), Err(UnitError::Duration(wrong.into())));
        }
    }
}
