//! The name of something that a function calls, as a function that finds it overloaded gives it: the payload of a REPLY with
//! the status `backpressure`.
//!
//! Always: 1 to 32 visible ASCII characters, so that it can be shown to anybody as it is and kept without allocation.
//! Why a name and not a number: processes of one function would have to agree on numbers, and operators to look them up.

use core::fmt;

/// The longest name: a name, not a sentence.
pub const DOWNSTREAM_NAME_SIZE_MAX: usize = 32;

/// A valid name. Equal names are equal bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DownstreamName {
    // Bytes behind `size` are zero, so that the derived comparison is right.
    bytes: [u8; DOWNSTREAM_NAME_SIZE_MAX],
    size: u8,
}

/// What stands for anything that is no visible ASCII character, and for a name without bytes.
const REPLACEMENT: u8 = b'?';

impl DownstreamName {
    /// A name made of these bytes, whatever they are: what may not stand in a name becomes `?`, and what is too long is cut.
    pub fn from_bytes(name: &[u8]) -> DownstreamName {
        let mut bytes = [0; DOWNSTREAM_NAME_SIZE_MAX];
        let name = if name.is_empty() { &[REPLACEMENT][..] } else { name };
        for (to, from) in bytes.iter_mut().zip(name) {
            *to = if from.is_ascii_graphic() { *from } else { REPLACEMENT };
        }
        DownstreamName { bytes, size: name.len().min(DOWNSTREAM_NAME_SIZE_MAX) as u8 }
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }

    /// The name as bytes, with zeros behind it.
    pub fn as_padded(&self) -> &[u8; DOWNSTREAM_NAME_SIZE_MAX] {
        &self.bytes
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // ASCII since it was built, and never changed since.
        core::str::from_utf8(self.as_bytes()).expect("a name is ASCII since it was built")
    }
}

impl fmt::Display for DownstreamName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for DownstreamName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_bytes_are_a_name_can_be_shown() {
        let cases: [(&[u8], &str); 5] = [
            (b"database", "database"),
            (b"", "?"),
            (b"two words", "two?words"),
            (b"\x1b[31m\xff", "?[31m?"),
            (&[b'x'; 40], "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ];
        for (bytes, name) in cases {
            assert_eq!(DownstreamName::from_bytes(bytes).as_str(), name, "{bytes:?}");
        }
        for byte in 0..=u8::MAX {
            let name = DownstreamName::from_bytes(&[byte]);
            assert_eq!(name, DownstreamName::from_bytes(name.as_bytes()), "a name stays what it is");
        }
    }
}
