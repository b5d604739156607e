//! The number by which a nested call and the function process that makes it show that they belong together.
//!
//! ```text
//! bit 0 number of the call, 16 bits | 16 secret of the process, 40 bits | 56 zero, 8 bits
//! ```
//!
//! In: what a call says beside CALLED_BY, and what the process that runs its caller shows in its own ring.
//! Out: whether the one made the other, and whether the other waits for the one.
//! Always: a process's numbers have its secret, which only it and the router see; so who claims in its name that it waits has
//! to guess 40 bits.
//! Never: 0 from a process: that is what those say who say nothing.
//! Why one number: two words would have to be read together. Decision: docs/decisions/0026-circles-of-waiting.md.

/// See the module's header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct WaitToken(u64);

impl WaitToken {
    /// Nobody's.
    pub const NONE: WaitToken = WaitToken(0);
    /// Bits of it; the rest of a word means other things, or nothing.
    pub const BITS: u32 = 56;
    const NUMBER_BITS: u32 = 16;
    const NUMBER_MASK: u64 = (1 << WaitToken::NUMBER_BITS) - 1;

    /// As a peer wrote it. All bits are valid; the highest eight are not looked at.
    #[inline]
    pub const fn from_bits(bits: u64) -> WaitToken {
        WaitToken(bits & ((1 << WaitToken::BITS) - 1))
    }

    /// As it is written.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What a process shows that waits for none of its calls. `secret`: any number that nobody else can guess.
    pub const fn of_process(secret: u64) -> WaitToken {
        let token = WaitToken::from_bits(secret << WaitToken::NUMBER_BITS);
        // One secret in 2^40 is the one that means nobody.
        if token.0 == 0 { WaitToken(1 << WaitToken::NUMBER_BITS) } else { token }
    }

    /// The n-th call of the same process. After 65,535 of them the numbers begin again, so that none is 0.
    pub const fn of_call(self, n: u32) -> WaitToken {
        let number = n as u64 % WaitToken::NUMBER_MASK + 1;
        WaitToken(self.0 & !WaitToken::NUMBER_MASK | number)
    }

    /// The number of the call; 0: of none.
    #[inline]
    pub const fn number(self) -> u16 {
        (self.0 & WaitToken::NUMBER_MASK) as u16
    }

    /// Both are of one process, which nobody else can say.
    #[inline]
    pub const fn is_same_process(self, other: WaitToken) -> bool {
        let secret = self.0 >> WaitToken::NUMBER_BITS;
        secret != 0 && secret == other.0 >> WaitToken::NUMBER_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_process_are_told_apart_and_belong_together() {
        let process = WaitToken::of_process(7);
        assert_eq!(process.number(), 0);
        let (first, second) = (process.of_call(0), process.of_call(1));
        assert_eq!((first.number(), second.number()), (1, 2));
        assert!(first.is_same_process(second) && first.is_same_process(process));
        assert!(!first.is_same_process(WaitToken::of_process(8).of_call(0)));
        assert_eq!(process.of_call(65_535), first);
        assert_eq!(
            process.of_call(u32::MAX).number(),
            process.of_call(0).number(),
            "2^32 - 1 = 65537 x 65535"
        );
    }

    #[test]
    fn nobody_belongs_to_nobody_and_every_process_is_somebody() {
        assert!(!WaitToken::NONE.is_same_process(WaitToken::NONE));
        assert!(
            !WaitToken::from_bits(5).is_same_process(WaitToken::from_bits(5)),
            "a number without a secret"
        );
        for secret in [0, 1 << 40, u64::MAX] {
            let process = WaitToken::of_process(secret);
            assert!(process.is_same_process(process.of_call(3)), "{secret}");
            assert_eq!(WaitToken::from_bits(process.bits()), process);
        }
        assert_eq!(WaitToken::from_bits(u64::MAX).bits(), (1 << 56) - 1);
    }
}
