//! The outstanding calls of one connection, found by the slot in the low half of their ids.
//!
//! Always: a slot holds at most one outstanding call; slots are below the credits granted.
//! Never: larger than the slots really used: a connection that keeps one call outstanding pays for a few.
#![forbid(unsafe_code)]

use engine::InvocationId;
use protocol::{CallId, Status};

#[derive(Clone, Copy)]
struct Outstanding {
    invocation: InvocationId,
    /// The upper half of the call's id, so that a CANCEL of an older call in the same slot hits nobody.
    call_generation: u32,
    is_used: bool,
}

const EMPTY: Outstanding = Outstanding { invocation: InvocationId(0), call_generation: 0, is_used: false };

/// The table.
#[derive(Default)]
pub struct CallTable {
    slots: Vec<Outstanding>,
    count: u32,
}

impl CallTable {
    /// May a call with this id be made now?
    pub fn check(&self, call: CallId, credits: u32) -> Result<(), Status> {
        if call.slot() >= credits {
            return Err(Status::CreditsExceeded);
        }
        match self.slots.get(call.slot() as usize) {
            Some(outstanding) if outstanding.is_used => Err(Status::CallIdInUse),
            _ => Ok(()),
        }
    }

    /// Notes a call that was admitted. `check` allowed it before.
    pub fn insert(&mut self, call: CallId, invocation: InvocationId) {
        let slot = call.slot() as usize;
        if slot >= self.slots.len() {
            // Powers of two from 8: a busy connection grows a few times, an idle one never.
            self.slots.resize((slot + 1).next_power_of_two().max(8), EMPTY);
        }
        assert!(!self.slots[slot].is_used, "checked before admission");
        self.slots[slot] = Outstanding { invocation, call_generation: call.generation(), is_used: true };
        self.count += 1;
    }

    /// The invocation of an outstanding call.
    pub fn find(&self, call: CallId) -> Option<InvocationId> {
        let outstanding = self.slots.get(call.slot() as usize)?;
        (outstanding.is_used && outstanding.call_generation == call.generation())
            .then_some(outstanding.invocation)
    }

    /// Forgets a call that is answered; false if there was none.
    pub fn remove(&mut self, call: CallId) -> bool {
        if self.find(call).is_none() {
            return false;
        }
        self.slots[call.slot() as usize].is_used = false;
        self.count -= 1;
        true
    }

    /// Calls outstanding.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// All outstanding calls.
    pub fn iter(&self) -> impl Iterator<Item = InvocationId> + '_ {
        self.slots.iter().filter(|outstanding| outstanding.is_used).map(|outstanding| outstanding.invocation)
    }

    /// Takes all outstanding calls and gives the table's memory back.
    pub fn take_all(&mut self) -> impl Iterator<Item = InvocationId> + use<> {
        self.count = 0;
        std::mem::take(&mut self.slots)
            .into_iter()
            .filter(|outstanding| outstanding.is_used)
            .map(|outstanding| outstanding.invocation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDITS: u32 = 4;

    #[test]
    fn a_slot_holds_one_call_and_slots_end_at_the_credits() {
        let mut calls = CallTable::default();
        assert_eq!(calls.check(CallId::new(3, 9), CREDITS), Ok(()));
        assert_eq!(calls.check(CallId::new(4, 0), CREDITS), Err(Status::CreditsExceeded));
        calls.insert(CallId::new(3, 9), InvocationId(77));
        assert_eq!(calls.check(CallId::new(3, 10), CREDITS), Err(Status::CallIdInUse));
        assert_eq!(calls.find(CallId::new(3, 9)), Some(InvocationId(77)));
        assert_eq!(calls.find(CallId::new(3, 8)), None, "another generation is another call");
        assert!(!calls.remove(CallId::new(3, 8)));
        assert!(calls.remove(CallId::new(3, 9)));
        assert!(!calls.remove(CallId::new(3, 9)), "answered once");
        assert_eq!(calls.count(), 0);
    }

    #[test]
    fn all_outstanding_calls_are_taken_when_the_client_is_gone() {
        let mut calls = CallTable::default();
        for slot in [0, 1, 2, 3] {
            calls.insert(CallId::new(slot, 0), InvocationId(u64::from(slot)));
        }
        calls.remove(CallId::new(1, 0));
        let taken: Vec<_> = calls.take_all().collect();
        assert_eq!(taken, [InvocationId(0), InvocationId(2), InvocationId(3)]);
        assert_eq!(calls.count(), 0);
    }
}
