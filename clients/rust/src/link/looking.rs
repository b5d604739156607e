//! A ring has no thread of its own that reads it: whoever waits looks, and the client's thread when nobody else does.
//!
//! In: callers that wait, the thread that wakes.  Out: completed calls.
//! Always: calls are completed after unlocking, by whoever found their answers; a caller may complete the calls of others.
//! One looks at a time: a second would only contend for the lock. It is a caller that waits, if there is one.
//! Never: leaves an outstanding call unseen. Before the last one stops looking, the thread looks, or has announced its sleep.
//! Why not the thread alone: a caller that is woken by it pays a switch of threads for each answer, on top of what the ring
//! costs (docs/decisions/0007).

use std::hint;
use std::sync::MutexGuard;

use crate::connection::Event;
use crate::error::{CallError, Expiry};
use crate::link::{Life, Link, State, Up, Waiter};
use crate::ring::{Looker, RingUp, Watched};

/// As in `ClientEnd`: a `sched_yield` with nobody waiting costs as much as some rounds.
const ROUNDS_PER_YIELD: u32 = 32;

impl Link {
    /// Looks at the ring of this connection until `is_done`, for as long as that has lately been worth it. Nothing happens where
    /// there is no ring, or somebody looks already.
    pub(crate) fn look(&self, connection: u64, looker: Looker, is_done: impl Fn() -> bool) {
        let mut state = self.lock();
        let ring = state.ring_of(connection).filter(|_| !is_done());
        if ring.is_some_and(|ring| ring.begin_looking(looker)) {
            // Dropped after the lock was given back, which its end takes again.
            let mut looking = Looking { link: self, connection, looker, was_worth_it: false };
            looking.go_on(state, is_done);
        }
    }

    /// Makes sure that somebody sees the next answer, where there is a ring.
    pub(crate) fn watch<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        let mut events = Vec::new();
        loop {
            let Life::Up(Up::Ring(ring)) = &mut state.life else { return };
            match ring.watch() {
                Watched::Yes => return,
                Watched::IfThreadIsRung => {
                    drop(state);
                    return self.ring();
                }
                Watched::IfSleepEnds => return ring.end_sleep(),
                Watched::AnswersWait => {
                    // An error stays: the thread finds it when its sleep is over.
                    if ring.take_answers(&mut events).count == 0 {
                        return;
                    }
                    self.notify(&state);
                    drop(state);
                    complete(&mut events, &mut Vec::new());
                    state = self.lock();
                }
            }
        }
    }
}

/// Somebody looks. However that ends, also by a waker that panics, somebody else sees the next answer.
struct Looking<'a> {
    link: &'a Link,
    connection: u64,
    looker: Looker,
    was_worth_it: bool,
}

impl<'a> Looking<'a> {
    fn go_on(&mut self, mut state: MutexGuard<'a, State>, is_done: impl Fn() -> bool) {
        let mut events = Vec::new();
        let mut rounds_left = u32::MAX;
        while let Some(ring) = state.ring_of(self.connection).filter(|ring| ring.is_looking(self.looker)) {
            rounds_left = rounds_left.min(ring.spin_count());
            let looked = ring.take_answers(&mut events);
            if looked.count > 0 {
                self.was_worth_it = true;
                rounds_left = u32::MAX;
                self.link.notify(&state);
                drop(state);
                complete(&mut events, &mut Vec::new());
                if is_done() {
                    return;
                }
            } else {
                drop(state);
                if rounds_left.is_multiple_of(ROUNDS_PER_YIELD) {
                    rustix::thread::sched_yield();
                } else {
                    hint::spin_loop();
                }
            }
            if looked.ended.is_some() || rounds_left == 0 {
                return;
            }
            rounds_left -= 1;
            state = self.link.lock();
        }
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        let looker = self.looker;
        if let Some(ring) = state.ring_of(self.connection).filter(|ring| ring.is_looking(looker)) {
            ring.end_looking(self.was_worth_it);
            self.link.watch(state);
        }
    }
}

impl State {
    /// The ring of this connection, if it is one and the connection is there.
    fn ring_of(&mut self, connection: u64) -> Option<&mut RingUp> {
        match &mut self.life {
            Life::Up(Up::Ring(ring)) if self.connection == connection => Some(ring),
            _ => None,
        }
    }
}

/// Tells those whose calls ended.
pub(crate) fn complete(events: &mut Vec<Event<Waiter>>, expired: &mut Vec<Waiter>) {
    for event in events.drain(..) {
        match event {
            Event::Answered { waiter: Waiter::Call(cell), outcome } => cell.put(outcome),
            Event::Resolved { waiter: Waiter::Function(cell), outcome } => cell.put(outcome),
            // The session checks that each answer is of the kind its slot asked for.
            Event::Answered { .. } | Event::Resolved { .. } => {
                debug_assert!(false, "answer of another kind")
            }
        }
    }
    for waiter in expired.drain(..) {
        waiter.fail(CallError::Expired(Expiry::NoAnswer));
    }
}
