//! The clock of every stamp in a ring: CLOCK_MONOTONIC, the same in all processes of a host, read cheaply.
//!
//! In: nothing.  Out: nanoseconds.
//!
//! Asking the system costs some 30 ns, as much as the whole of a quick call, and makes the processor wait for every load
//! before. Its counter of ticks costs 12 ns and waits for nothing. So a [`Clock`] asks the system at most every 100 us, and
//! counts ticks from there:
//!
//! ```text
//!   system    |                                          |                 CLOCK_MONOTONIC and ticks, read together
//!   ticks     |--|-|--|---|-|--|-|---|                   |--|-|--          answer + ticks since, at most 100 us of them
//!                                     (nothing to do)
//! ```
//!
//! Always: what one clock gives never runs backwards, and is at most [`ERROR_NS_MAX`] away from CLOCK_MONOTONIC, usually
//! less than 50 ns. A process that was stopped, a machine that was suspended: more ticks than 100 us, so the system is
//! asked.
//! Never: guesses. Without a counter that runs at one rate in all states of the processor, or while its rate is not known,
//! each reading asks the system.
//! Never: read by the ends of a ring. Times are given to them, so that simulated time works as well.
//! Why not a crate: those that exist (quanta, minstant) measure the rate once and count from there for good, so two
//! processes drift apart from each other and from CLOCK_MONOTONIC, which deadlines are told in. See
//! `docs/decisions/0009-clock-of-a-worker.md`.

use rustix::time::{ClockId, clock_gettime};

/// Ticks bridge at most this time between two answers of the system.
const BRIDGE_NS_MAX: u64 = 100_000;

/// How far a reading may be from CLOCK_MONOTONIC: half a microsecond for an answer that took long to arrive, and 500
/// millionths of the bridge for a rate that changed since it was measured (as fast as the kernel lets the clock be slewed).
pub const ERROR_NS_MAX: u64 = 500 + BRIDGE_NS_MAX / 2_000;

/// An answer between whose two readings of the ticks more of them went by says nothing of when it was true: this thread
/// was interrupted. An undisturbed one takes 150; the fastest counters make 5 ticks a nanosecond, the slowest in use 2.
const SAMPLE_TICKS_MAX: u64 = 1_000;

/// The rate is measured over at least this time: an answer that is off by 200 ns is then a fiftieth of a thousandth, 2 ns
/// at the end of a bridge.
const MEASURE_NS_MIN: u64 = 10_000_000;
/// And at most over this: whoever was away longer may have missed that the machine was suspended, where ticks go on and
/// CLOCK_MONOTONIC does not.
const MEASURE_NS_MAX: u64 = 1_000_000_000;

/// Rates are nanoseconds per tick in units of 2^-32.
const RATE_ONE: u64 = 1 << 32;
/// Counters run at 100 MHz to 10 GHz; any other rate is a mistake of the measurement.
const RATE_MIN: u64 = RATE_ONE / 10;
const RATE_MAX: u64 = RATE_ONE * 10;

/// CLOCK_MONOTONIC, asked of the system.
#[inline]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Since boot: never negative, and 584 years until it wraps.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// See the module's header. For one thread that reads it often.
#[derive(Debug)]
pub struct Clock {
    bridge: Bridge,
    has_steady_ticks: bool,
    last_ns: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that does not know the rate of the ticks yet.
    pub fn new() -> Self {
        Self { bridge: Bridge::default(), has_steady_ticks: ticks::are_steady(), last_ns: 0 }
    }

    /// Nanoseconds of CLOCK_MONOTONIC, within [`ERROR_NS_MAX`].
    #[inline]
    pub fn now_ns(&mut self) -> u64 {
        let bridged = if self.has_steady_ticks { self.bridge.at(ticks::now()) } else { None };
        let now_ns = match bridged {
            Some(now_ns) => now_ns,
            None => self.ask_system(),
        };
        // A new answer may be some nanoseconds before the end of the bridge that it replaces.
        self.last_ns = self.last_ns.max(now_ns);
        self.last_ns
    }

    #[cold]
    fn ask_system(&mut self) -> u64 {
        if !self.has_steady_ticks {
            return monotonic_ns();
        }
        let ticks_before = ticks::now();
        let now_ns = monotonic_ns();
        self.bridge.note(Sample { ticks_before, now_ns, ticks_after: ticks::now() });
        now_ns
    }
}

/// The arithmetic of a clock, without its counter.
#[derive(Debug, Default)]
struct Bridge {
    /// The system's last answer.
    foot: Point,
    /// Where measuring the rate began.
    measured_from: Option<Point>,
    rate: u64,
    /// How many ticks this answer can be used for: 0 without a rate, or after a disturbed sample.
    ticks_max: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    ticks: u64,
    ns: u64,
}

struct Sample {
    ticks_before: u64,
    now_ns: u64,
    ticks_after: u64,
}

impl Bridge {
    /// `None`: the system is to be asked.
    #[inline]
    fn at(&self, ticks: u64) -> Option<u64> {
        // A counter that went backwards is as far away as can be.
        let since = ticks.wrapping_sub(self.foot.ticks);
        // At most 100 us in units of 2^-32 ns: 49 bits.
        (since < self.ticks_max).then(|| self.foot.ns + ((since * self.rate) >> 32))
    }

    fn note(&mut self, sample: Sample) {
        let disturbance = sample.ticks_after.wrapping_sub(sample.ticks_before);
        if disturbance > SAMPLE_TICKS_MAX {
            self.ticks_max = 0;
            return;
        }
        self.foot = Point { ticks: sample.ticks_before.wrapping_add(disturbance / 2), ns: sample.now_ns };
        let from = *self.measured_from.get_or_insert(self.foot);
        let elapsed_ns = self.foot.ns.saturating_sub(from.ns);
        if elapsed_ns >= MEASURE_NS_MIN {
            self.measured_from = Some(self.foot);
            if elapsed_ns <= MEASURE_NS_MAX {
                self.rate = rate(elapsed_ns, self.foot.ticks.wrapping_sub(from.ticks)).unwrap_or(0);
            }
        }
        self.ticks_max = (BRIDGE_NS_MAX << 32).checked_div(self.rate).unwrap_or(0);
    }
}

fn rate(elapsed_ns: u64, elapsed_ticks: u64) -> Option<u64> {
    let rate = (u128::from(elapsed_ns) << 32).checked_div(u128::from(elapsed_ticks))?;
    u64::try_from(rate).ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate))
}

#[cfg(target_arch = "x86_64")]
mod ticks {
    use std::arch::x86_64::{__cpuid, _rdtsc};

    /// "Invariant TSC": one rate in all states of the processor, and the kernel keeps processors together.
    #[allow(unused_unsafe, reason = "newer compilers know that asking the processor is safe")]
    pub(super) fn are_steady() -> bool {
        const POWER_MANAGEMENT: u32 = 0x8000_0007;
        // SAFETY: the one danger is a processor without the instruction: there is no such x86-64.
        let leaf = |number| unsafe { __cpuid(number) };
        leaf(0x8000_0000).eax >= POWER_MANAGEMENT && leaf(POWER_MANAGEMENT).edx & (1 << 8) != 0
    }

    #[inline]
    pub(super) fn now() -> u64 {
        // SAFETY: the one danger is a processor without the instruction: there is no such x86-64. A process that forbids
        // itself to read the counter (PR_SET_TSC) has forbidden itself `clock_gettime`, which reads it too.
        unsafe { _rdtsc() }
    }
}

/// Elsewhere the system's own answer is as cheap as its counter.
#[cfg(not(target_arch = "x86_64"))]
mod ticks {
    pub(super) fn are_steady() -> bool {
        false
    }

    pub(super) fn now() -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of 2 ticks a nanosecond that is asked `at_ns` after it began, undisturbed.
    fn sample(at_ns: u64) -> Sample {
        Sample { ticks_before: 2 * at_ns, now_ns: 7_000_000_000 + at_ns, ticks_after: 2 * at_ns }
    }

    fn measured() -> Bridge {
        let mut bridge = Bridge::default();
        bridge.note(sample(0));
        bridge.note(sample(MEASURE_NS_MIN));
        bridge
    }

    #[test]
    fn nothing_is_bridged_before_the_rate_is_known() {
        let mut bridge = Bridge::default();
        assert_eq!(bridge.at(0), None);
        bridge.note(sample(0));
        bridge.note(sample(MEASURE_NS_MIN - 1));
        assert_eq!(bridge.at(2 * MEASURE_NS_MIN), None);
    }

    #[test]
    fn ticks_since_the_last_answer_are_counted_for_as_long_as_a_bridge_is() {
        let bridge = measured();
        let foot = MEASURE_NS_MIN;
        for since in [0, 1, 50_000, BRIDGE_NS_MAX - 1] {
            assert_eq!(bridge.at(2 * (foot + since)), Some(7_000_000_000 + foot + since));
        }
        assert_eq!(bridge.at(2 * (foot + BRIDGE_NS_MAX)), None, "too long ago");
        assert_eq!(bridge.at(2 * foot - 1), None, "a counter that went backwards");
    }

    #[test]
    fn an_answer_that_took_long_is_not_built_upon() {
        let mut bridge = measured();
        let at_ns = MEASURE_NS_MIN + 5_000;
        bridge.note(Sample { ticks_after: 2 * at_ns + SAMPLE_TICKS_MAX + 1, ..sample(at_ns) });
        assert_eq!(bridge.at(2 * at_ns), None);
        bridge.note(sample(at_ns));
        assert!(bridge.at(2 * at_ns).is_some(), "and the next one is");
    }

    #[test]
    fn the_rate_is_not_measured_across_a_time_in_which_the_machine_may_have_slept() {
        let mut bridge = measured();
        let rate = bridge.rate;
        let suspended = 1_000 * MEASURE_NS_MAX;
        bridge.note(Sample { now_ns: 7_000_000_000 + 2 * MEASURE_NS_MAX, ..sample(suspended) });
        assert_eq!(bridge.rate, rate);
        assert!(bridge.at(2 * suspended).is_some(), "the answer itself is good");
    }

    #[test]
    fn a_rate_that_no_counter_has_is_not_believed() {
        assert_eq!(rate(1_000, 0), None);
        assert_eq!(rate(1_000, 99), None);
        assert_eq!(rate(1_000, 10_001), None);
        assert_eq!(rate(1_000, 2_000), Some(RATE_ONE / 2));
    }

    #[test]
    fn a_clock_stays_between_two_answers_of_the_system() {
        let mut clock = Clock::new();
        let begun_at_ns = monotonic_ns();
        let mut last_ns = 0;
        while last_ns < begun_at_ns + 3 * MEASURE_NS_MIN {
            let before_ns = monotonic_ns();
            let now_ns = clock.now_ns();
            let after_ns = monotonic_ns();
            assert!(now_ns >= last_ns, "backwards by {}", last_ns - now_ns);
            assert!(now_ns + ERROR_NS_MAX >= before_ns, "slow by {}", before_ns - now_ns);
            assert!(now_ns <= after_ns + ERROR_NS_MAX, "fast by {}", now_ns - after_ns);
            last_ns = now_ns;
        }
    }
}
