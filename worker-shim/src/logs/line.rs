//! Stage 6 of 8: one line of a log: what the shim writes, and `quickfire logs` reads. Pure.
//!
//! ```text
//! 1795465437.123456 shim 00000000000000c7 4711 - started, pid 4711
//! 1795465439.001000 err 00000000000000c7 4711 1f no model file
//! 1795465439.002000 out+ 00000000000000c7 4711 - the first 8 KiB of a longer line
//! ```
//! Always: five words and the text, each with one space behind it. Seconds since 1970 with six decimals; the stream, with a plus if
//! the next line of it goes on with this one; the edition in hexadecimal; the process; the call in hexadecimal. What is not known is
//! a dash.
//! Always: the text is what was printed, byte for byte, without its line feed.
//! Never: a line that cannot be told from another: the text comes last, so that nothing in it can pass for a word.

use std::io::{self, Write};

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was read, in microseconds since 1970.
    pub at_us: u64,
    /// Who said it.
    pub source: Source,
    /// Of which edition of the function.
    pub edition: u64,
    /// The process; none where the shim speaks of a place without one.
    pub pid: Option<u32>,
    /// The call that printed it, where that is known.
    pub call: Option<u64>,
    /// What was printed: any bytes but a line feed.
    pub text: &'a [u8],
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The shim.
    Shim,
    /// The process, on stdout.
    Out {
        /// The next line of stdout is another piece of this one.
        goes_on: bool,
    },
    /// The process, on stderr.
    Err {
        /// The next line of stderr is another piece of this one.
        goes_on: bool,
    },
}

impl Source {
    const ALL: [(&'static str, Source); 5] = [
        ("shim", Source::Shim),
        ("out", Source::Out { goes_on: false }),
        ("out+", Source::Out { goes_on: true }),
        ("err", Source::Err { goes_on: false }),
        ("err+", Source::Err { goes_on: true }),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Source::ALL.iter().find(|(_, source)| *source == self).map_or("", |(name, _)| name)
    }

    fn from_name(name: &str) -> Option<Source> {
        Source::ALL.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
    }
}

impl<'a> Line<'a> {
    /// Appends it with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let Line { at_us, source, edition, pid, call, text } = self;
        write!(out, "{}.{:06} {} {edition:016x} ", at_us / 1_000_000, at_us % 1_000_000, source.name())?;
        match pid {
            Some(pid) => write!(out, "{pid} ")?,
            None => out.extend_from_slice(b"- "),
        }
        match call {
            Some(call) => write!(out, "{call:x} ")?,
            None => out.extend_from_slice(b"- "),
        }
        out.extend_from_slice(text);
        out.push(b'\n');
        Ok(())
    }

    /// Reads one without its line feed; nothing if it is none, such as the half of one whose writer was killed.
    pub fn read(bytes: &'a [u8]) -> Option<Line<'a>> {
        let mut words = bytes.splitn(6, |byte| *byte == b' ');
        let at_us = read_stamp(words.next()?)?;
        let mut word = || std::str::from_utf8(words.next()?).ok();
        let source = Source::from_name(word()?)?;
        let edition = u64::from_str_radix(word()?, 16).ok()?;
        let known = |word: &str| (word != "-").then(|| word.to_owned());
        let pid = known(word()?).map(|pid| pid.parse()).transpose().ok()?;
        let call = known(word()?).map(|call| u64::from_str_radix(&call, 16)).transpose().ok()?;
        Some(Line { at_us, source, edition, pid, call, text: words.next()? })
    }
}

/// The time with which the bytes of a file begin.
pub fn begun_at_us(bytes: &[u8]) -> Option<u64> {
    read_stamp(bytes.split(|byte| *byte == b' ').next()?)
}

fn read_stamp(word: &[u8]) -> Option<u64> {
    let (seconds, decimals) = std::str::from_utf8(word).ok()?.split_once('.')?;
    let decimals = Some(decimals).filter(|decimals| decimals.len() == 6)?;
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(decimals.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'_> = Line {
        at_us: 1_795_465_439_001_000,
        source: Source::Err { goes_on: false },
        edition: 0xC7,
        pid: Some(4711),
        call: Some(0x1F),
        text: b"no model file",
    };

    #[test]
    fn a_line_is_written_as_documented() {
        let mut bytes = Vec::new();
        LINE.write(&mut bytes).unwrap();
        assert_eq!(bytes, b"1795465439.001000 err 00000000000000c7 4711 1f no model file\n");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for source in Source::ALL.map(|(_, source)| source) {
            for (pid, call) in [(None, None), (Some(1), Some(0)), (Some(u32::MAX), Some(u64::MAX))] {
                for text in [&b""[..], b" two  spaces ", &[0xFF, 0, b'\r', 0x1B]] {
                    let line = Line { source, pid, call, text, ..LINE };
                    let mut bytes = Vec::new();
                    line.write(&mut bytes).unwrap();
                    assert_eq!(Line::read(&bytes[..bytes.len() - 1]), Some(line));
                    assert_eq!(begun_at_us(&bytes), Some(LINE.at_us));
                }
            }
        }
    }

    #[test]
    fn half_a_line_and_anything_else_is_none() {
        let mut whole = Vec::new();
        Line { text: b"", ..LINE }.write(&mut whole).unwrap();
        whole.pop();
        for size in 0..whole.len() {
            assert_eq!(Line::read(&whole[..size]), None, "{size}");
        }
        for bytes in [
            &b"hello"[..],
            b"1.0 out c7 1 - x",
            b"1.000000 what c7 1 - x",
            b"99999999999999999.000000 out c7 1 - x",
        ] {
            assert_eq!(Line::read(bytes), None);
        }
    }
}
