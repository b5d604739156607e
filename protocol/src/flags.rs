//! The 16 flag bits of a header. The low byte may be ignored by who does not know it, the high byte may not.

use crate::extensions::{CALLED_BY_SIZE, IDEMPOTENCY_KEY_SIZE, START_AFTER_SIZE, TIMINGS_SIZE, TRACE_SIZE};
use rkyv::{Archive, Deserialize, Serialize};

/// A set of flag bits.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// A 16-byte idempotency key follows as an extension.
    pub const IDEMPOTENCY_KEY: Flags = Flags(1 << 0);
    /// A 32-byte trace context follows as an extension.
    pub const TRACE: Flags = Flags(1 << 1);
    /// INVOKE: the caller wants the stage timings in the REPLY.
    pub const WANT_TIMINGS: Flags = Flags(1 << 2);
    /// REPLY: the 64-byte stage timings follow as an extension.
    pub const TIMINGS: Flags = Flags(1 << 3);
    /// INVOKE: the caller says that running the call twice does no harm.
    pub const IDEMPOTENT: Flags = Flags(1 << 4);
    /// REPLY: the function had begun, or nobody can prove that it had not.
    pub const STARTED: Flags = Flags(1 << 5);
    /// INVOKE: a running call makes this one; a 16-byte extension says which.
    pub const CALLED_BY: Flags = Flags(1 << 6);
    /// INVOKE: the call must not start before a time that a 16-byte extension says. Critical: who does not know it would
    /// start it at once.
    pub const START_AFTER: Flags = Flags(1 << 8);

    /// The flags that announce an extension.
    pub const WITH_EXTENSION: Flags = Flags(
        Flags::IDEMPOTENCY_KEY.0
            | Flags::TRACE.0
            | Flags::TIMINGS.0
            | Flags::CALLED_BY.0
            | Flags::START_AFTER.0,
    );

    /// Bits 8 to 15: a reader that does not know one of these refuses the frame (W-20).
    pub const CRITICAL_MASK: u16 = 0xff00;

    /// Every flag of this version with its name and the size of its extension, in the order of their bits, which
    /// is also the order of the extensions (W-22).
    pub const ALL: [(Flags, &'static str, usize); 8] = [
        (Flags::IDEMPOTENCY_KEY, "IDEMPOTENCY_KEY", IDEMPOTENCY_KEY_SIZE),
        (Flags::TRACE, "TRACE", TRACE_SIZE),
        (Flags::WANT_TIMINGS, "WANT_TIMINGS", 0),
        (Flags::TIMINGS, "TIMINGS", TIMINGS_SIZE),
        (Flags::IDEMPOTENT, "IDEMPOTENT", 0),
        (Flags::STARTED, "STARTED", 0),
        (Flags::CALLED_BY, "CALLED_BY", CALLED_BY_SIZE),
        (Flags::START_AFTER, "START_AFTER", START_AFTER_SIZE),
    ];

    /// All of `other`'s bits are set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[inline]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The bits that are not in `other`.
    #[inline]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// The critical bits that this version does not define.
    #[inline]
    pub const fn unknown_critical(self) -> u16 {
        self.0 & Flags::CRITICAL_MASK & !Flags::START_AFTER.0
    }

    /// Bytes that the extensions of the known flags take.
    ///
    /// A frame may carry more: the extensions of flags with higher bits than ours come last and are skipped.
    #[inline]
    pub const fn known_extension_size(self) -> usize {
        // Written without branches, because every decoded header asks.
        (self.0 & 1) as usize * IDEMPOTENCY_KEY_SIZE
            + (self.0 >> 1 & 1) as usize * TRACE_SIZE
            + (self.0 >> 3 & 1) as usize * TIMINGS_SIZE
            + (self.0 >> 6 & 1) as usize * CALLED_BY_SIZE
            + (self.0 >> 8 & 1) as usize * START_AFTER_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_extension_size_is_the_sum_over_the_table() {
        for bits in 0..=0x1ff {
            let expected: usize = Flags::ALL
                .iter()
                .filter(|(flag, _, _)| Flags(bits).contains(*flag))
                .map(|entry| entry.2)
                .sum();
            assert_eq!(Flags(bits).known_extension_size(), expected, "flags {bits:#06x}");
        }
    }

    #[test]
    fn only_what_is_not_known_of_the_high_byte_is_critical() {
        assert_eq!(Flags(0x01ff).unknown_critical(), 0);
        assert_eq!(Flags(0x8301).unknown_critical(), 0x8200);
    }
}
