//! Points and lengths of time as the engine sees them: nanoseconds handed in by the caller.
//!
//! In: `now` of the router's turn, read once from CLOCK_MONOTONIC (or from a simulator).
//! Always: arithmetic saturates, because a hostile budget or a clock jump must not wrap into the past.
//! Never: reads a clock. `std::time::Instant` stays out, so that the same inputs give the same outputs.

use std::fmt;

/// A point or a length on the router's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The start of the clock, and the empty length.
    pub const ZERO: Nanos = Nanos(0);
    /// Later than every point that is ever reached.
    pub const NEVER: Nanos = Nanos(u64::MAX);

    /// A length of whole microseconds.
    pub const fn from_us(us: u64) -> Nanos {
        Nanos(us.saturating_mul(1_000))
    }

    /// A length of whole milliseconds.
    pub const fn from_ms(ms: u64) -> Nanos {
        Nanos(ms.saturating_mul(1_000_000))
    }

    /// A length of whole seconds.
    pub const fn from_secs(secs: u64) -> Nanos {
        Nanos(secs.saturating_mul(1_000_000_000))
    }

    /// `self + length`, or [`Nanos::NEVER`].
    pub const fn plus(self, length: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(length.0))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub const fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_saturate_instead_of_wrapping() {
        assert_eq!(Nanos::NEVER.plus(Nanos(1)), Nanos::NEVER);
        assert_eq!(Nanos(3).since(Nanos(5)), Nanos::ZERO);
        assert_eq!(Nanos::from_secs(u64::MAX), Nanos::NEVER);
        assert_eq!(Nanos::from_ms(2), Nanos::from_us(2_000));
    }
}
