//! A hashed timer wheel: one timer per invocation, armed and disarmed in a few nanoseconds.
//!
//! ```text
//!   tick = 2^18 ns (262 us)                      16384 slots = one turn of 4.3 s
//!   slot  [ . ][ . ][7 3][ . ][ 9 ][ . ] ...     slot = due tick mod 16384
//!                    ▲ cursor: every tick before it has been looked at
//! ```
//!
//! In: "wake me about slot 7 at `at`".  Out: the indices whose time has come, never early, at most a tick late.
//! Always: an armed index is in exactly the list of its due tick; a bit of `occupancy` is set exactly for the slots
//! that are not empty, so that the next wake-up is found without walking empty slots.
//! A timer further away than one turn is looked at once a turn and left where it is.
//! Never: more than the visits allowed in one call, and after a clock jump of hours never one slot twice.
//! Why not a heap: arm and disarm happen for every call and almost no timer ever fires; a wheel pays for those that
//! fire.  Why not hierarchical: re-visiting 1 M far timers costs about 5 ms of each 4.3 s turn, 0.1 %.

use queue::{Links, List};

use crate::time::Nanos;

const TICK_SHIFT: u32 = 18;
/// The resolution of every time-out.
pub(crate) const TICK: Nanos = Nanos(1 << TICK_SHIFT);
const SLOT_COUNT: usize = 1 << 14;
const UNARMED: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Timers {
    slots: Box<[Slot]>,
    occupancy: Occupancy,
    links: Links,
    /// The due tick of each index, or `UNARMED`.
    due_ticks: Vec<u64>,
    /// All ticks before this one are done.
    cursor: u64,
    /// Timers of the cursor's slot that this pass has still to look at; 0 = the slot was not begun.
    left_in_slot: u32,
}

#[derive(Clone, Debug)]
struct Slot {
    list: List,
    count: u32,
}

impl Timers {
    pub fn new() -> Timers {
        Timers {
            slots: vec![Slot { list: List::EMPTY, count: 0 }; SLOT_COUNT].into(),
            occupancy: Occupancy::default(),
            links: Links::with_capacity(0),
            due_ticks: Vec::new(),
            cursor: 0,
            left_in_slot: 0,
        }
    }

    /// Makes room for the indices `0..capacity`.
    pub fn grow_to(&mut self, capacity: u32) {
        self.links.grow_to(capacity);
        self.due_ticks.resize(capacity as usize, UNARMED);
    }

    /// Wakes `index` at `at`, instead of when it was to be woken before.
    #[inline]
    pub fn arm(&mut self, index: u32, at: Nanos) {
        self.disarm(index);
        // Rounded up, so that nothing fires early. A slot that is being visited takes no newcomers: the visit
        // would miss them.
        let earliest = self.cursor + u64::from(self.left_in_slot > 0);
        let tick = next_tick(at).0 >> TICK_SHIFT;
        self.insert(index, tick.max(earliest));
    }

    /// Never wakes `index`. Not being armed is fine.
    #[inline]
    pub fn disarm(&mut self, index: u32) {
        let tick = std::mem::replace(&mut self.due_ticks[index as usize], UNARMED);
        if tick != UNARMED {
            self.unlink(slot_of(tick), index);
        }
    }

    pub fn is_armed(&self, index: u32) -> bool {
        self.due_ticks[index as usize] != UNARMED
    }

    /// Disarms and returns one index whose time has come. Each look at a timer costs one of `visits_left`.
    pub fn pop_due(&mut self, now: Nanos, visits_left: &mut u32) -> Option<u32> {
        let now_tick = now.0 >> TICK_SHIFT;
        self.skip_whole_turns(now_tick);
        while *visits_left > 0 {
            if self.left_in_slot == 0 && !self.begin_next_slot(now_tick) {
                return None;
            }
            *visits_left -= 1;
            let slot = slot_of(self.cursor);
            let Some(index) = self.slots[slot].list.front() else {
                // Everything that was left has been disarmed since the visit began.
                self.finish_slot();
                continue;
            };
            self.left_in_slot -= 1;
            let due_tick = std::mem::replace(&mut self.due_ticks[index as usize], UNARMED);
            self.unlink(slot, index);
            let is_due = due_tick <= now_tick;
            if !is_due {
                self.insert(index, due_tick);
            }
            if self.left_in_slot == 0 {
                self.finish_slot();
            }
            if is_due {
                return Some(index);
            }
        }
        None
    }

    /// When `pop_due` has something to look at next. In the past if visits ran out.
    pub fn next(&self) -> Option<Nanos> {
        if self.left_in_slot > 0 {
            return Some(Nanos(self.cursor << TICK_SHIFT));
        }
        let distance = self.occupancy.distance_from(slot_of(self.cursor))?;
        Some(Nanos((self.cursor + distance as u64).saturating_mul(TICK.0)))
    }

    /// After a jump of more than a turn, one look at every slot finds everything that is due.
    fn skip_whole_turns(&mut self, now_tick: u64) {
        if now_tick.saturating_sub(self.cursor) >= SLOT_COUNT as u64 {
            self.cursor = now_tick - (SLOT_COUNT as u64 - 1);
            self.left_in_slot = 0;
        }
    }

    /// Moves the cursor to the next slot with timers; false if there is none up to `now_tick`.
    fn begin_next_slot(&mut self, now_tick: u64) -> bool {
        if self.cursor > now_tick {
            return false;
        }
        let next = self.occupancy.distance_from(slot_of(self.cursor)).map(|it| self.cursor + it as u64);
        match next {
            Some(tick) if tick <= now_tick => {
                self.cursor = tick;
                self.left_in_slot = self.slots[slot_of(tick)].count;
                true
            }
            _ => {
                self.cursor = now_tick + 1;
                false
            }
        }
    }

    fn finish_slot(&mut self) {
        self.left_in_slot = 0;
        self.cursor += 1;
    }

    #[inline]
    fn insert(&mut self, index: u32, tick: u64) {
        self.due_ticks[index as usize] = tick;
        let slot = slot_of(tick);
        self.slots[slot].list.push_back(&mut self.links, index);
        self.slots[slot].count += 1;
        self.occupancy.set(slot);
    }

    #[inline]
    fn unlink(&mut self, slot: usize, index: u32) {
        let entry = &mut self.slots[slot];
        entry.list.remove(&mut self.links, index);
        entry.count -= 1;
        if entry.count == 0 {
            self.occupancy.clear(slot);
        }
    }

    /// Checks what is always true here. Slots without a bit need no look: all armed timers are in slots with one.
    pub fn invariants(&self) {
        let mut armed = 0;
        for number in self.occupancy.iter() {
            let slot = &self.slots[number];
            assert!(slot.count > 0, "wheel slot {number}: bit and list disagree");
            assert_eq!(slot.list.invariants(&self.links), slot.count as usize, "wheel slot {number}: count");
            for index in slot.list.iter(&self.links) {
                let due_tick = self.due_ticks[index as usize];
                assert!(due_tick != UNARMED, "timer {index} is listed but not armed");
                assert_eq!(slot_of(due_tick), number, "timer {index} is in the wrong wheel slot");
            }
            armed += slot.count as usize;
        }
        assert_eq!(armed, self.due_ticks.iter().filter(|tick| **tick != UNARMED).count());
        self.occupancy.invariants();
    }
}

/// The first tick that is not before `at`: when it is looked at.
#[inline]
pub(crate) fn next_tick(at: Nanos) -> Nanos {
    at.0.checked_add(TICK.0 - 1).map_or(Nanos::NEVER, |sum| Nanos(sum & !(TICK.0 - 1)))
}

#[inline]
fn slot_of(tick: u64) -> usize {
    tick as usize & (SLOT_COUNT - 1)
}

const WORD_COUNT: usize = SLOT_COUNT / 64;
const SUMMARY_COUNT: usize = WORD_COUNT / 64;

/// One bit per wheel slot, and above it one bit per word, so that the next occupied slot is at most six words away.
#[derive(Debug)]
struct Occupancy {
    words: [u64; WORD_COUNT],
    summary: [u64; SUMMARY_COUNT],
}

impl Default for Occupancy {
    fn default() -> Occupancy {
        Occupancy { words: [0; WORD_COUNT], summary: [0; SUMMARY_COUNT] }
    }
}

impl Occupancy {
    #[inline]
    fn set(&mut self, slot: usize) {
        let word = slot / 64;
        self.words[word] |= 1 << (slot % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    #[inline]
    fn clear(&mut self, slot: usize) {
        let word = slot / 64;
        self.words[word] &= !(1 << (slot % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let occupied = self.words.iter().enumerate().filter(|(_, word)| **word != 0);
        occupied.flat_map(|(number, word)| {
            (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| number * 64 + bit)
        })
    }

    /// How many slots after `start`, going round, the next occupied one lies.
    fn distance_from(&self, start: usize) -> Option<usize> {
        let here = self.words[start / 64] >> (start % 64);
        if here != 0 {
            return Some(here.trailing_zeros() as usize);
        }
        let word = self.next_word(start / 64 + 1)?;
        let slot = word * 64 + self.words[word].trailing_zeros() as usize;
        Some((slot + SLOT_COUNT - start) % SLOT_COUNT)
    }

    /// The first word from `start`, going round, that is not zero.
    fn next_word(&self, start: usize) -> Option<usize> {
        let start = start % WORD_COUNT;
        let first = start / 64;
        // The summary word of `start` comes twice: first its bits from `start` on, at the end the rest.
        (0..=SUMMARY_COUNT).find_map(|step| {
            let group = (first + step) % SUMMARY_COUNT;
            let mask = if step == 0 { u64::MAX << (start % 64) } else { u64::MAX };
            let bits = self.summary[group] & mask;
            (bits != 0).then(|| group * 64 + bits.trailing_zeros() as usize)
        })
    }

    fn invariants(&self) {
        for (number, word) in self.words.iter().enumerate() {
            let is_marked = self.summary[number / 64] & 1 << (number % 64) != 0;
            assert_eq!(is_marked, *word != 0, "wheel word {number}: summary disagrees");
        }
    }
}

#[cfg(test)]
mod tests;
