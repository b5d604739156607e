//! The table of invocations: fixed capacity, grown only as far as it was ever used.
//!
//! Always: `free` and the slots in a state other than `Free` are disjoint and together all slots made so far. Free
//! slots are reused last in, first out, so that a quiet router keeps touching the same few cache lines.
//! Never: gives a slot out under a generation it had before (a generation comes round after 2^32 uses of one slot;
//! nobody remembers an id that long).

use protocol::{CallId, FunctionId};

use crate::invocation::{Event, Invocation, InvocationId, Marks, Origin, ShardId, State, on_event};
use crate::time::Nanos;

#[derive(Debug)]
pub(crate) struct Slab {
    shard: ShardId,
    entries: Vec<Invocation>,
    free: Vec<u32>,
    capacity_max: u32,
}

impl Slab {
    pub fn new(shard: ShardId, capacity_max: u32) -> Slab {
        Slab { shard, entries: Vec::new(), free: Vec::new(), capacity_max }
    }

    /// A free slot, still in state `Free`; none when `grow` has to make some.
    #[inline]
    pub fn claim(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Slots that `claim` gives out before it fails.
    #[inline]
    pub fn claimable(&self) -> u32 {
        self.free.len() as u32
    }

    #[inline]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Gives a slot back that is in state `Free` again. Ids of its last use are stale from here on.
    #[inline]
    pub fn release(&mut self, slot: u32) {
        end_use(&mut self.entries[slot as usize]);
        self.free.push(slot);
    }

    /// The same for the slot of an id that came from outside, if it still means what it meant, and if `end` ends that call.
    #[inline(always)]
    pub fn release_if<T>(
        &mut self,
        id: InvocationId,
        end: impl FnOnce(&mut Invocation) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entries.get_mut(id.slot() as usize).filter(|it| is_current(it, id, self.shard))?;
        let ended = end(entry)?;
        end_use(entry);
        self.free.push(id.slot());
        Some(ended)
    }

    pub fn in_use(&self) -> u32 {
        (self.entries.len() - self.free.len()) as u32
    }

    /// Slots made so far: every slot is below.
    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    #[inline]
    pub fn id_of(&self, slot: u32) -> InvocationId {
        InvocationId::new(self.shard, slot, self.entries[slot as usize].generation)
    }

    /// The slot of an id that came from outside, if it still means what it meant.
    #[inline]
    pub fn slot_of(&self, id: InvocationId) -> Option<u32> {
        let entry = self.entries.get(id.slot() as usize)?;
        is_current(entry, id, self.shard).then_some(id.slot())
    }

    #[inline]
    pub fn at(&self, slot: u32) -> &Invocation {
        &self.entries[slot as usize]
    }

    #[inline]
    pub fn at_mut(&mut self, slot: u32) -> &mut Invocation {
        &mut self.entries[slot as usize]
    }

    /// A hint: this slot will soon be looked at.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        if let Some(entry) = self.entries.get(slot as usize) {
            queue::prefetch(entry);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Invocation)> {
        (0..).zip(&self.entries)
    }

    /// Rare: doubles until the limit, so that after a while it never happens again. A slot of the new ones; none when
    /// the table is full.
    #[cold]
    pub fn grow(&mut self) -> Option<u32> {
        let old = self.capacity();
        let new = old.saturating_mul(2).clamp(CAPACITY_FIRST, self.capacity_max.max(CAPACITY_FIRST));
        let new = new.min(self.capacity_max);
        self.entries.resize(new as usize, UNUSED);
        self.free.reserve_exact(new as usize);
        // Reversed, so that the lowest slot is given out first.
        self.free.extend((old..new).rev());
        self.free.pop()
    }

    pub fn invariants(&self) {
        let mut is_free = vec![false; self.entries.len()];
        for slot in &self.free {
            assert!(!is_free[*slot as usize], "slot {slot} is free twice");
            is_free[*slot as usize] = true;
        }
        for (slot, entry) in self.iter() {
            assert_eq!(
                entry.state == State::Free,
                is_free[slot as usize],
                "slot {slot} is {:?}",
                entry.state
            );
            assert!(entry.generation != 0, "slot {slot} has generation 0");
        }
    }
}

/// The ids of this use are stale from here on. 0 is skipped, so that no id is 0.
#[inline]
fn end_use(entry: &mut Invocation) {
    assert!(entry.state == State::Free, "a slot is released while {:?}", entry.state);
    entry.generation = entry.generation.checked_add(1).unwrap_or(1);
}

/// Whether this entry is still the call that the id means.
#[inline]
fn is_current(entry: &Invocation, id: InvocationId, shard: ShardId) -> bool {
    entry.generation == id.generation() && id.shard() == shard && entry.state != State::Free
}

/// A first step of 64 KiB.
const CAPACITY_FIRST: u32 = 1024;

const UNUSED: Invocation = Invocation {
    generation: 1,
    state: State::Free,
    lane: 0,
    attempts: 0,
    marks: Marks::NONE,
    function: FunctionId(0),
    worker: 0,
    deadline_at: Nanos::ZERO,
    received_at: Nanos::ZERO,
    queued_at: Nanos::ZERO,
    pushed_at: Nanos::ZERO,
    origin: Origin { connection: 0, connection_generation: 0, call_id: CallId(0) },
};

impl Invocation {
    /// The only way to change a state. Illegal events are our bug.
    #[inline]
    pub fn on(&mut self, event: Event) {
        match on_event(self.state, event) {
            Ok(state) => self.state = state,
            Err(illegal) => panic!("{illegal}"),
        }
    }
}
