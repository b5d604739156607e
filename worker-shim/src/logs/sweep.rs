//! Stage 6 of 8: the end of log files whose lines are too old, also of functions and places that are no more.
//!
//! Always: an eighth of the shortest age after a line was too old it is gone, or an hour after, if that is sooner.
//! Never: removes what is written: a place puts its own file aside when that has reached a quarter of the age
//! ([`super::PlaceLog::retire`]), and only then are the too old removed.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::file::begun_at_us;
use super::name::LogName;

/// The longest time from one sweep to the next.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// The shortest.
const PERIOD_MIN: Duration = Duration::from_secs(1);

/// How often to sweep, if nothing may be older than this.
pub fn period(age_max: Duration) -> Duration {
    (age_max / 8).clamp(PERIOD_MIN, PERIOD_MAX)
}

/// Removes what is older than its function's bound.
pub fn sweep(logs_dir: &Path, now_us: u64, age_max_of: impl Fn(&str) -> Duration) {
    for entry in std::fs::read_dir(logs_dir).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().and_then(LogName::read) else { continue };
        let begun_at_us = match name.begun_at_ms {
            Some(at_ms) => Some(at_ms.saturating_mul(1_000)),
            // An empty one says nothing, and takes no place.
            None => File::open(entry.path()).ok().and_then(|file| begun_at_us(&file)),
        };
        let age_us = begun_at_us.map_or(0, |at_us| now_us.saturating_sub(at_us));
        if u128::from(age_us) > age_max_of(&name.function).as_micros() {
            // Somebody else may have been quicker.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
