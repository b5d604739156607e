//! A function's name as it travels: at most 128 bytes of UTF-8, held without allocation.

use crate::limits::NAME_SIZE_MAX;
use core::fmt;

/// A valid function name. Equal names are equal bytes: nothing is folded or normalised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName {
    // Bytes behind `size` are zero, so that the derived comparisons are right.
    bytes: [u8; NAME_SIZE_MAX],
    size: u8,
}

const _: () = assert!(NAME_SIZE_MAX <= u8::MAX as usize);

/// Why bytes are no function name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameInvalid {
    /// No bytes.
    #[error("the name is empty")]
    Empty,
    /// Too many bytes.
    #[error("the name has {size} bytes, at most {NAME_SIZE_MAX} are allowed")]
    TooLong {
        /// How many.
        size: usize,
    },
    /// Not text.
    #[error("the name is not UTF-8")]
    NotUtf8,
}

impl FunctionName {
    /// Checks and copies a name.
    pub fn new(name: &str) -> Result<FunctionName, NameInvalid> {
        FunctionName::from_bytes(name.as_bytes())
    }

    /// Checks and copies a name that came as bytes.
    pub fn from_bytes(name: &[u8]) -> Result<FunctionName, NameInvalid> {
        if name.is_empty() {
            return Err(NameInvalid::Empty);
        }
        let size = name.len();
        let mut bytes = [0; NAME_SIZE_MAX];
        bytes.get_mut(..size).ok_or(NameInvalid::TooLong { size })?.copy_from_slice(name);
        core::str::from_utf8(name).map_err(|_| NameInvalid::NotUtf8)?;
        Ok(FunctionName { bytes, size: size as u8 })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Checked when it was built, and never changed since.
        core::str::from_utf8(self.as_bytes()).expect("a name is UTF-8 since it was built")
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_up_to_the_limit_are_kept_as_they_came() {
        for name in ["echo", "größe", &"x".repeat(NAME_SIZE_MAX)] {
            assert_eq!(FunctionName::new(name).map(|kept| kept.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn empty_long_and_binary_names_are_refused_with_their_reason() {
        assert_eq!(FunctionName::new(""), Err(NameInvalid::Empty));
        assert_eq!(FunctionName::new(&"x".repeat(129)), Err(NameInvalid::TooLong { size: 129 }));
        assert_eq!(FunctionName::from_bytes(&[0xff, 0xfe]), Err(NameInvalid::NotUtf8));
    }
}
