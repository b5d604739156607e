//! Memory in which something changes before every read: what a peer can do who writes what it likes, when it likes.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use shm_ring::{CopyFrom, HeapMemory, Memory};

/// See above.
pub struct Scribbled {
    /// The same memory, left alone: for the other end.
    pub memory: HeapMemory,
    /// Where the lines begin that come after the constants, and where the regions do: what lies between is scribbled on.
    first: usize,
    end: usize,
    /// The blows to come, the next one last.
    pub script: RefCell<Vec<Scribble>>,
}

/// One blow.
#[derive(Clone, Copy, Debug)]
pub struct Scribble {
    /// Where, in words of four bytes, from the first line after the constants.
    word: usize,
    value: u32,
    /// Most reads are left alone, so that the ring makes progress between the blows.
    happens: bool,
}

impl Scribbled {
    /// Memory that is left alone until it is given a script.
    pub fn new(size: usize, first: usize, end: usize) -> Self {
        Self { memory: HeapMemory::new(size), first, end, script: RefCell::default() }
    }

    fn strike(&self) {
        let Some(scribble) = self.script.borrow_mut().pop() else { return };
        if scribble.happens {
            let offset = self.first + (scribble.word * 4) % (self.end - self.first);
            self.memory.store_u32(offset, scribble.value, Ordering::Relaxed);
        }
    }
}

impl CopyFrom<Scribbled> for Scribbled {}

impl Memory for Scribbled {
    fn size(&self) -> usize {
        self.memory.size()
    }
    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.strike();
        self.memory.load_u32(offset, order)
    }
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.memory.store_u32(offset, value, order);
    }
    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.strike();
        self.memory.load_u64(offset, order)
    }
    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.memory.store_u64(offset, value, order);
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.strike();
        self.memory.read(offset, into);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.memory.write(offset, from);
    }
    fn fence_seq_cst(&self) {
        self.memory.fence_seq_cst();
    }
}

/// Any blow; `ready` is what the control word of a ready slot looks like.
pub fn scribble(ready: u32) -> impl Strategy<Value = Scribble> {
    // Near the control lines, in the index rings (4096 bytes on), and anywhere; small numbers pass more checks.
    let word = prop_oneof![0_usize..48, 992_usize..1060, any::<usize>().prop_map(|word| word >> 2)];
    let value = prop_oneof![0_u32..8, any::<u32>(), Just(4_u32), Just(ready)];
    (word, value, prop::bool::weighted(0.2)).prop_map(|(word, value, happens)| Scribble {
        word,
        value,
        happens,
    })
}
