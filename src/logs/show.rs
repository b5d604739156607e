//! A line of a log for people, and for programs.
//!
//! ```text
//! 2026-11-23T20:23:59.001000Z thumbnail.3 00a4c7f1 1f err no model file
//! {"time":"2026-11-23T20:23:59.001000Z","function":"thumbnail","instance":"3","edition":"00a4c7f1...","pid":4711,"call":"1f","stream":"err","text":"no model file"}
//! ```

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Map, Value};
use worker_shim::logs::line::{Line, Source};

/// How lines are shown.
pub struct Show<'a> {
    /// Whose they are.
    pub function: &'a str,
    /// As JSON.
    pub is_json: bool,
}

impl Show<'_> {
    /// Appends a line with its line feed.
    pub fn line(&self, instance: &str, line: &Line<'_>, out: &mut Vec<u8>) {
        // A vector takes everything.
        let _ = if self.is_json {
            writeln!(out, "{}", self.json(instance, line))
        } else {
            let call = line.call.map_or("-".to_owned(), |call| format!("{call:x}"));
            let edition = line.edition >> 32;
            let (time, function, source) = (time(line.at_us), self.function, line.source.name());
            writeln!(out, "{time} {function}.{instance} {edition:08x} {call} {source} {}", plain(line.text))
        };
    }

    fn json(&self, instance: &str, line: &Line<'_>) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("time", time(line.at_us).into());
        put("function", self.function.into());
        put("instance", instance.into());
        put("edition", format!("{:016x}", line.edition).into());
        if let Some(pid) = line.pid {
            put("pid", pid.into());
        }
        if let Some(call) = line.call {
            put("call", format!("{call:x}").into());
        }
        let (stream, goes_on) = match line.source {
            Source::Shim => ("shim", false),
            Source::Out { goes_on } => ("out", goes_on),
            Source::Err { goes_on } => ("err", goes_on),
        };
        put("stream", stream.into());
        if goes_on {
            put("goes_on", true.into());
        }
        put("text", String::from_utf8_lossy(line.text).into());
        Value::Object(object)
    }
}

/// Text that does nothing to a terminal.
fn plain(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\t' => text.push('\t'),
            // A string takes everything.
            control if control.is_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text
}

/// As RFC 3339 writes it, in UTC.
fn time(at_us: u64) -> String {
    let (seconds, us) = (at_us / 1_000_000, at_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z")
}

/// Days since 1970 as year, month and day: Howard Hinnant's `civil_from_days`, whose years begin in March, so that the leap day is
/// their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days / 146_097; // 400 years
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year_of_era + era * 400 + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'_> = Line {
        at_us: 1_795_465_439_001_000,
        source: Source::Err { goes_on: false },
        edition: 0x00A4_C7F1_0000_0001,
        pid: Some(4711),
        call: Some(0x1F),
        text: b"no \"model\"\tfile",
    };

    fn shown(is_json: bool, line: &Line<'_>) -> String {
        let mut out = Vec::new();
        Show { function: "thumbnail", is_json }.line("3", line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_for_people_has_all_that_is_known_of_it() {
        let expected = "2026-11-23T20:23:59.001000Z thumbnail.3 00a4c7f1 1f err no \"model\"\tfile\n";
        assert_eq!(shown(false, &LINE), expected);
        let unknown = Line { call: None, pid: None, source: Source::Shim, text: b"", ..LINE };
        assert_eq!(shown(false, &unknown), "2026-11-23T20:23:59.001000Z thumbnail.3 00a4c7f1 - shim \n");
    }

    #[test]
    fn a_line_for_programs_has_all_that_is_known_of_it() {
        let read = |line| serde_json::from_str::<Value>(&shown(true, line)).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-23T20:23:59.001000Z", "function": "thumbnail", "instance": "3",
            "edition": "00a4c7f100000001", "pid": 4711, "call": "1f", "stream": "err", "text": "no \"model\"\tfile",
        });
        assert_eq!(read(&LINE), expected);
        let unknown =
            Line { call: None, pid: None, source: Source::Out { goes_on: true }, text: &[0xFF], ..LINE };
        let expected = serde_json::json!({
            "time": "2026-11-23T20:23:59.001000Z", "function": "thumbnail", "instance": "3",
            "edition": "00a4c7f100000001", "stream": "out", "goes_on": true, "text": "\u{FFFD}",
        });
        assert_eq!(read(&unknown), expected);
    }

    #[test]
    fn nothing_that_a_function_prints_reaches_the_terminal_as_a_command() {
        let text = "a\u{1b}[2Jb\rc\u{9b}d\u{7f}\0é";
        assert_eq!(plain(text.as_bytes()), "a\\x1b[2Jb\\x0dc\\x9bd\\x7f\\x00é");
        assert_eq!(plain(&[b'x', 0xFF, b'y']), "x\u{FFFD}y");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at_s, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(time(at_s * 1_000_000), expected);
        }
    }
}
