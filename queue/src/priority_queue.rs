//! The lock-free half of the priority queue: any thread pushes, one thread pops, most urgent lane first.
//!
//! ```text
//!   Sender ─┐ claim   ┌─ Pool ──────────────────────────────────────────────── release ─┐
//!           ▼                                                                           │
//!      write value, push on the lane's stack         Receiver::pop                      │
//!                     lane 0   NIL                    lane 5 swapped for NIL,           │
//!                     lane 5   9 ─> 4 ─> 7            reversed: 7 4 9                   │
//!   occupancy 0b10_0000 (a bit is set after the push) └─> private Lanes ─> value out ───┘
//! ```
//!
//! In: values, each with its lane.  Out: the same values; within a lane in the order of their pushes.
//! Owns: the values between push and pop. Those left over are dropped with the queue.
//! Always: a push that has returned is seen by every pop it happens before; nothing is lost, nothing comes twice.
//! Never: blocks. A producer that stalls anywhere holds back its own value and no other.
//! Why stacks: pushing is one exchange on one word and taking all of a lane is one swap, whatever its length.
//! Why not a ring or an intrusive queue per lane: docs/decisions/0002-priority-queue.md.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::{
    Full, LaneIndex, Lanes, Links, NIL,
    pool::Pool,
    sync::{Arc, AtomicU32, AtomicU64, Ordering},
};

/// A queue for at most `capacity` values, counted from push to pop.
///
/// # Panics
/// If the capacity is 0 or beyond what an index can name.
pub fn priority_queue<T>(capacity: u32) -> (Sender<T>, Receiver<T>) {
    let inbox = Arc::new(Inbox::with_capacity(capacity));
    let receiver =
        Receiver { inbox: inbox.clone(), links: Links::with_capacity(capacity), lanes: Lanes::new() };
    (Sender { inbox }, receiver)
}

/// The pushing end, one for each producer.
pub struct Sender<T> {
    inbox: Arc<Inbox<T>>,
}

/// The popping end: there is one.
pub struct Receiver<T> {
    inbox: Arc<Inbox<T>>,
    /// Nodes taken from the inbox, in their order. They are ours until released.
    lanes: Lanes,
    links: Links,
}

/// Whether a push found no lane marked as occupied.
///
/// Exactly one push makes the queue go from unmarked to marked, so ringing a doorbell that remembers (an eventfd,
/// `Thread::unpark`) whenever this is `true` wakes a receiver that goes to sleep after `pop` returned `None`. It may
/// be `true` once too often. The ring is the pusher's to do at once: those behind it rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the receiver may be asleep"]
pub struct WasEmpty(pub bool);

impl<T> Sender<T> {
    /// Puts a value at the end of a lane, or gives it back if the queue is full.
    #[inline]
    pub fn push(&self, lane: LaneIndex, value: T) -> Result<WasEmpty, Full<T>> {
        let Some(node) = self.inbox.pool.claim() else {
            return Err(Full(value));
        };
        // SAFETY: `claim` made the node ours; `publish` is where we give it up.
        unsafe { self.inbox.pool.write(node, value) };
        Ok(self.inbox.publish(lane, node))
    }

    /// How many values fit.
    pub fn capacity(&self) -> u32 {
        self.inbox.pool.capacity()
    }
}

impl<T> Receiver<T> {
    /// Takes the value that has waited longest in the most urgent lane.
    #[inline]
    pub fn pop(&mut self) -> Option<(LaneIndex, T)> {
        self.collect_more_urgent();
        let (lane, node) = self.lanes.pop(&mut self.links)?;
        // SAFETY: the node is ours since we swapped it out of the inbox, which also made its producer's write visible;
        // it has just left `lanes`, so that nobody takes its value again before it is released and written anew.
        let value = unsafe { self.inbox.pool.take(node) };
        self.inbox.pool.release(node);
        Some((lane, value))
    }

    /// How many values fit.
    pub fn capacity(&self) -> u32 {
        self.inbox.pool.capacity()
    }

    /// Moves lanes of the inbox into the private ones for as long as one is more urgent than all we have.
    #[inline]
    fn collect_more_urgent(&mut self) {
        while let Some(lane) = self.inbox.first_lane() {
            // In the same lane, what we have came earlier.
            if self.lanes.first_lane().is_some_and(|private| private <= lane) {
                return;
            }
            let mut node = self.inbox.take_lane_oldest_first(lane);
            while node != NIL {
                self.lanes.push(&mut self.links, lane, node);
                node = self.inbox.pool.next(node);
            }
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone() }
    }
}

impl<T> Drop for Receiver<T> {
    /// Drops what was pushed so far. What is pushed afterwards is dropped with the last sender.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("collected", &self.lanes.len()).finish_non_exhaustive()
    }
}

/// What both ends share: 64 stacks of nodes.
struct Inbox<T> {
    /// One bit for each lane that may hold something. Polled by the receiver, so kept off the lines producers fight for.
    occupancy: CachePadded<AtomicU64>,
    /// The newest node of each lane.
    heads: CachePadded<[AtomicU32; LaneIndex::COUNT]>,
    pool: Pool<T>,
}

impl<T> Inbox<T> {
    fn with_capacity(capacity: u32) -> Self {
        Self {
            occupancy: CachePadded::new(AtomicU64::new(0)),
            heads: CachePadded::new(std::array::from_fn(|_| AtomicU32::new(NIL))),
            pool: Pool::with_capacity(capacity),
        }
    }

    /// Pushes a node of ours, with its value in it, on a lane's stack and marks the lane.
    #[inline]
    fn publish(&self, lane: LaneIndex, node: u32) -> WasEmpty {
        let head = &self.heads[lane.index()];
        let mut newest = head.load(Ordering::Relaxed);
        loop {
            self.pool.set_next(node, newest);
            // SYNC(inbox.lane) Release: publishes the value and `next`; later pushes continue the release sequence.
            // SYNC(inbox.taken) Acquire: if the receiver emptied this lane before us, we see below that it first
            // cleared the mark.
            match head.compare_exchange_weak(newest, node, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(newer) => newest = newer,
            }
        }
        // Not only on an empty lane: the producer before us may be stalled right here, and our value must not wait
        // for it. A mark we see set was set after the receiver last cleared it, so it will be found and cover us.
        if self.occupancy.load(Ordering::Relaxed) & lane.bit() != 0 {
            return WasEmpty(false);
        }
        // SYNC(inbox.marked) Release: who sees the mark sees the node.
        WasEmpty(self.occupancy.fetch_or(lane.bit(), Ordering::Release) == 0)
    }

    /// The most urgent lane that is marked.
    #[inline]
    fn first_lane(&self) -> Option<LaneIndex> {
        // SYNC(inbox.marked) Acquire.
        LaneIndex::first_of(self.occupancy.load(Ordering::Acquire))
    }

    /// Takes all nodes of a lane, linked from the oldest to the newest. Only the receiver may call this.
    #[inline]
    fn take_lane_oldest_first(&self, lane: LaneIndex) -> u32 {
        // Unmark first, then take. The other way round, a push between the two would be left behind unmarked.
        // SYNC(inbox.marked) Acquire: the mark we clear may be newer than the one we came for; the swap below must
        // find the node it stands for.
        self.occupancy.fetch_and(!lane.bit(), Ordering::Acquire);
        // SYNC(inbox.lane) Acquire: values and links of all nodes we take.  SYNC(inbox.taken) Release: who pushes on
        // the emptied lane sees it unmarked.
        let mut newest = self.heads[lane.index()].swap(NIL, Ordering::AcqRel);
        let mut oldest = NIL;
        while newest != NIL {
            let below = self.pool.next(newest);
            self.pool.set_next(newest, oldest);
            (oldest, newest) = (newest, below);
        }
        oldest
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        // Not by the marks: a push whose thread died before marking is here as well.
        for index in 0..LaneIndex::COUNT {
            let mut node = self.take_lane_oldest_first(LaneIndex::from_index(index));
            while node != NIL {
                let next = self.pool.next(node);
                // SAFETY: both ends are gone, so all nodes are ours; this one was published with a value in it, and
                // the walk meets it once.
                drop(unsafe { self.pool.take(node) });
                node = next;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
