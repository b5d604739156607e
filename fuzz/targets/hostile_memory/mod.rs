//! Memory as one end of a ring sees it whose other side writes anything, anywhere, between any two of its reads.
//!
//! In: the fuzzer's bytes, as choices.  Always: the same bytes make the same choices in the same order.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arbitrary::Unstructured;
use shm_ring::layout::{CONTROL_PAGE_SIZE, LINE_SIZE, slot};
use shm_ring::{HeapMemory, Memory};

pub type Script<'a> = RefCell<Unstructured<'a>>;

/// A number below `count`; 0 when the script is over.
pub fn choose(script: &Script<'_>, count: usize) -> usize {
    script.borrow_mut().choose_index(count).unwrap_or(0)
}

pub fn pick<'a, T>(script: &Script<'_>, choices: &'a [T]) -> &'a T {
    &choices[choose(script, choices.len())]
}

/// Memory as our end sees it: before each of its loads, the other side may have written.
pub struct HostileMemory<'a> {
    pub memory: HeapMemory,
    pub script: &'a Script<'a>,
    pub places: &'static Places,
}

/// Where a blow hurts: words of the control page, and of a slot from its start.
pub struct Places {
    pub answers_tail: usize,
    pub lines: [usize; 3],
    pub answer: [usize; 3],
    pub request: [usize; 3],
}

impl HostileMemory<'_> {
    fn scribble(&self) {
        // Mostly not, so that a story gets somewhere between two lies.
        if self.script.borrow().is_empty() || choose(self.script, 16) != 1 {
            return;
        }
        // The last bytes of the memory, fewer than a header has, are never accessed as words.
        let words = (self.memory.size() - slot::HEADER_SIZE) / 4;
        // At most 8 slots, so that each index ring is one line. In a smaller ring this is a region now and then.
        let slots_at = CONTROL_PAGE_SIZE + 2 * LINE_SIZE;
        let slot = slots_at + choose(self.script, 8) * slot::SIZE;
        let offset = match choose(self.script, 6) {
            0 => self.places.answers_tail,
            1 => *pick(self.script, &self.places.lines),
            // An entry of one of the index rings.
            2 => CONTROL_PAGE_SIZE + choose(self.script, 2 * LINE_SIZE / 4) * 4,
            3 => slot + *pick(self.script, &self.places.answer),
            4 => slot + *pick(self.script, &self.places.request),
            _ => choose(self.script, words) * 4,
        };
        let old = self.memory.load_u32(offset, Ordering::Relaxed);
        let value = match choose(self.script, 5) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => choose(self.script, 16) as u32,
            3 => u32::MAX,
            _ => self.script.borrow_mut().arbitrary().unwrap_or(0),
        };
        self.memory.store_u32(offset, value, Ordering::Relaxed);
    }
}

impl Memory for HostileMemory<'_> {
    fn size(&self) -> usize {
        self.memory.size()
    }

    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.scribble();
        self.memory.load_u32(offset, order)
    }

    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.memory.store_u32(offset, value, order);
    }

    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.scribble();
        self.memory.load_u64(offset, order)
    }

    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.memory.store_u64(offset, value, order);
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        self.scribble();
        self.memory.read(offset, into);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        self.memory.write(offset, from);
    }

    fn fence_seq_cst(&self) {
        self.memory.fence_seq_cst();
    }

    fn futex_wait(&self, _offset: usize, _expected: u32, _timeout: Option<Duration>) {
        self.scribble();
    }
}
