//! A call on the tape: six words, whatever it was.
//!
//! ```text
//!   word 0   received at
//!   word 1   budget            32 | until a worker had it  32
//!   word 2   until it began    32 | until it ended         32
//!   word 3   until the answer  32 | function               32
//!   word 4   bytes of request  32 | bytes of result        32
//!   word 5   connection        32 | flags 16 | status 8 | criticality 2 | a body follows 1
//! ```
//! Always: a length is in nanoseconds below 2.1 s, and in units of 65.536 us beyond, up to 39 hours; longer ones are that.
//! Why not the record of the file, which has 88 bytes: they take twice as many lines from the cache of the shard, whose time is
//! every caller's. The recorder's time is its own; it writes one from the other.
#![forbid(unsafe_code)]

use protocol::recording::RecordedCall;

/// Bytes of an entry. A body takes as many more such cells as it needs.
pub const CELL_SIZE: usize = 48;

/// The words of an entry.
pub type Words = [u64; CELL_SIZE / 8];

/// Set in a length that is not in nanoseconds.
const IS_COARSE: u64 = 1 << 31;
/// The unit of those, as a power of two of nanoseconds.
const COARSE_SHIFT: u32 = 16;

const FLAGS_SHIFT: u32 = 32;
const STATUS_SHIFT: u32 = 48;
const CRITICALITY_SHIFT: u32 = 56;
const HAS_BODY_SHIFT: u32 = 58;

/// The words of a call. Statuses are below 256, and criticalities below 4.
#[inline(always)]
pub fn pack(call: &RecordedCall, has_body: bool) -> Words {
    let pair = |low: u64, high: u64| low | high << 32;
    let rest = u64::from(call.connection)
        | u64::from(call.flags) << FLAGS_SHIFT
        | u64::from(call.status as u8) << STATUS_SHIFT
        | u64::from(call.criticality & 3) << CRITICALITY_SHIFT
        | u64::from(has_body) << HAS_BODY_SHIFT;
    [
        call.received_at_ns,
        pair(length(call.budget_ns), length(call.pushed_ns)),
        pair(length(call.started_ns), length(call.finished_ns)),
        pair(length(call.answered_ns), call.function.into()),
        pair(call.payload_size.into(), call.result_size.into()),
        rest,
    ]
}

/// The reverse: the call, and whether a body follows.
pub fn unpack(words: &Words, shard: u16) -> (RecordedCall, bool) {
    let [received_at_ns, first, second, third, sizes, rest] = *words;
    let low = |word: u64| word & u64::from(u32::MAX);
    let call = RecordedCall {
        shard,
        received_at_ns,
        budget_ns: ns(low(first)),
        pushed_ns: ns(first >> 32),
        started_ns: ns(low(second)),
        finished_ns: ns(second >> 32),
        answered_ns: ns(low(third)),
        function: (third >> 32) as u32,
        payload_size: sizes as u32,
        result_size: (sizes >> 32) as u32,
        connection: rest as u32,
        status: (rest >> STATUS_SHIFT) as u16 & 0xFF,
        flags: (rest >> FLAGS_SHIFT) as u16,
        criticality: (rest >> CRITICALITY_SHIFT) as u8 & 3,
    };
    (call, rest >> HAS_BODY_SHIFT & 1 != 0)
}

#[inline(always)]
fn length(ns: u64) -> u64 {
    if ns < IS_COARSE { ns } else { coarse(ns) }
}

#[cold]
fn coarse(ns: u64) -> u64 {
    IS_COARSE | (ns >> COARSE_SHIFT).min(IS_COARSE - 1)
}

fn ns(length: u64) -> u64 {
    if length < IS_COARSE { length } else { (length & !IS_COARSE) << COARSE_SHIFT }
}

#[cfg(test)]
mod tests {
    use protocol::Status;

    use super::*;

    fn call() -> RecordedCall {
        RecordedCall {
            shard: 3,
            received_at_ns: u64::MAX - 1,
            budget_ns: 1,
            pushed_ns: 2,
            started_ns: 3,
            finished_ns: 4,
            answered_ns: 2_147_483_647,
            function: u32::MAX,
            payload_size: u32::MAX - 1,
            result_size: u32::MAX - 2,
            connection: u32::MAX - 3,
            status: 67,
            flags: 0xFFFE,
            criticality: 3,
        }
    }

    #[test]
    fn an_entry_tells_what_it_was_told() {
        for has_body in [false, true] {
            assert_eq!(unpack(&pack(&call(), has_body), 3), (call(), has_body));
        }
    }

    #[test]
    fn every_status_fits() {
        for status in Status::ALL {
            let call = RecordedCall { status: status as u16, ..call() };
            assert_eq!(unpack(&pack(&call, false), 3).0.status, status as u16);
        }
    }

    #[test]
    fn long_lengths_lose_less_than_their_unit_and_endless_ones_are_39_hours() {
        let check = |given: u64, expected: u64| assert_eq!(ns(length(given)), expected, "{given} ns");
        check(2_147_483_647, 2_147_483_647);
        check(2_147_483_648, 2_147_483_648);
        check(2_147_483_648 + 65_535, 2_147_483_648);
        check(3_600_000_000_000, 3_600_000_000_000 & !0xFFFF);
        check(u64::MAX, 140_737_488_289_792);
    }
}
