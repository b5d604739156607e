//! The payload of each call: a pattern that no other call of the run has, so that a swapped answer is seen.
//!
//! In: the seed of a connection and the id of a call.  Out: bytes to send, or the verdict on bytes that came back.
//! Always: the same (seed, call, size) gives the same bytes.  Never: allocates, or panics on a router's bytes.
//!
//! Layout: 64-bit little-endian words, `mix(seed ^ call_id) + index * GOLDEN`; the last word is cut to the size.
//! One multiplication chain per call and one addition per word: cheap enough to write and to check every byte.
//! A payload of fewer than 8 bytes tells calls apart only as far as its bits reach.

use crate::chance::{GOLDEN, mix};

/// The patterns of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern {
    seed: u64,
}

impl Pattern {
    pub(crate) fn new(run_seed: u64, connection_index: usize) -> Self {
        Self { seed: mix(run_seed.wrapping_add((connection_index as u64).wrapping_mul(GOLDEN))) }
    }

    /// Writes the pattern of a call over all of `payload`.
    #[inline]
    pub(crate) fn fill(self, call_id: u64, payload: &mut [u8]) {
        let mut word = mix(self.seed ^ call_id);
        let (words, rest) = payload.as_chunks_mut::<8>();
        let (blocks, words) = words.as_chunks_mut::<4>();
        for block in blocks {
            *block = block_at(word).map(u64::to_le_bytes);
            word = word.wrapping_add(BLOCK_STEP);
        }
        for bytes in words {
            *bytes = word.to_le_bytes();
            word = word.wrapping_add(GOLDEN);
        }
        for (byte, expected) in rest.iter_mut().zip(word.to_le_bytes()) {
            *byte = expected;
        }
    }

    /// Whether `payload` is the whole pattern of a call, `size` bytes long.
    #[inline]
    pub(crate) fn matches(self, call_id: u64, size: usize, payload: &[u8]) -> bool {
        let mut word = mix(self.seed ^ call_id);
        // Differences are gathered, not branched on: one comparison at the end.
        let mut difference = 0;
        let (words, rest) = payload.as_chunks::<8>();
        let (blocks, words) = words.as_chunks::<4>();
        for block in blocks {
            for (bytes, expected) in block.iter().zip(block_at(word)) {
                difference |= u64::from_le_bytes(*bytes) ^ expected;
            }
            word = word.wrapping_add(BLOCK_STEP);
        }
        for bytes in words {
            difference |= u64::from_le_bytes(*bytes) ^ word;
            word = word.wrapping_add(GOLDEN);
        }
        for (byte, expected) in rest.iter().zip(word.to_le_bytes()) {
            difference |= u64::from(byte ^ expected);
        }
        payload.len() == size && difference == 0
    }
}

/// Four words of a pattern, the first of them given: few enough to stay in registers, so that a block is written or compared
/// without a loop.
#[inline]
fn block_at(word: u64) -> [u64; 4] {
    std::array::from_fn(|index| word.wrapping_add(GOLDEN.wrapping_mul(index as u64)))
}

const BLOCK_STEP: u64 = GOLDEN.wrapping_mul(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_matches_at_every_size() {
        let pattern = Pattern::new(9, 3);
        for size in 0..200 {
            let mut payload = vec![0; size];
            pattern.fill(77, &mut payload);
            assert!(pattern.matches(77, size, &payload), "{size}");
        }
    }

    #[test]
    fn any_changed_bit_or_size_is_seen() {
        let pattern = Pattern::new(9, 3);
        let mut payload = vec![0; 61];
        pattern.fill(77, &mut payload);
        for at in 0..payload.len() {
            payload[at] ^= 0x10;
            assert!(!pattern.matches(77, 61, &payload), "byte {at}");
            payload[at] ^= 0x10;
        }
        assert!(!pattern.matches(77, 61, &payload[..60]));
        assert!(!pattern.matches(77, 60, &payload));
    }

    #[test]
    fn calls_connections_and_runs_have_patterns_of_their_own() {
        let mut payload = [0; 64];
        Pattern::new(9, 3).fill(77, &mut payload);
        assert!(!Pattern::new(9, 3).matches(78, 64, &payload));
        assert!(!Pattern::new(9, 4).matches(77, 64, &payload));
        assert!(!Pattern::new(8, 3).matches(77, 64, &payload));
    }
}
