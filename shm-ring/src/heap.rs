//! Plain memory as a ring: both ends in one process, for the simulator, tests and benchmarks.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::area::{Area, memory_through_area};
use crate::layout::PAGE_SIZE;

/// Zeroed memory on the heap. Clones share the bytes, as two mappings of one memfd would.
pub struct HeapMemory {
    area: Area,
    block: Arc<Block>,
}

impl HeapMemory {
    /// At least one page more is allocated than asked for, so that the ring can begin on a page boundary.
    /// The allocator hands large zeroed blocks out untouched: unused regions cost nothing here either.
    pub fn new(size: usize) -> Self {
        let words = vec![0_u64; (size + PAGE_SIZE).div_ceil(8)];
        // SAFETY: `UnsafeCell<u64>` has the layout of `u64`, so that the vector keeps its allocation and length.
        let words = unsafe {
            let mut words = std::mem::ManuallyDrop::new(words);
            Vec::from_raw_parts(words.as_mut_ptr().cast::<UnsafeCell<u64>>(), words.len(), words.capacity())
        };
        Self::over(Arc::new(Block { words: words.into_boxed_slice(), size }))
    }

    fn over(block: Arc<Block>) -> Self {
        let start = block.words.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: `new` allocated a page more than `size`, so the step to the next page boundary stays inside.
        let base = unsafe { start.add(start.addr().next_multiple_of(PAGE_SIZE) - start.addr()) };
        let base = NonNull::new(base).expect("a block of our own has an address");
        // SAFETY: the bytes outlive the area because `block` lies beside it in every clone; they are in `UnsafeCell`,
        // and nothing but the area looks at them.
        let area = unsafe { Area::new(base, block.size, true) };
        Self { area, block }
    }
}

impl Clone for HeapMemory {
    fn clone(&self) -> Self {
        Self::over(Arc::clone(&self.block))
    }
}

memory_through_area!(HeapMemory);

struct Block {
    words: Box<[UnsafeCell<u64>]>,
    size: usize,
}

// SAFETY: sharing cells between threads would race; nobody reaches the cells except through `Area`, which is atomic
// for words and bound by the ring's protocol for bytes.
unsafe impl Sync for Block {}
// SAFETY: as for Sync; the block itself is plain bytes.
unsafe impl Send for Block {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::Memory;

    #[test]
    fn clones_share_their_bytes_and_new_memory_is_zero() {
        let memory = HeapMemory::new(100);
        let other = memory.clone();
        assert_eq!(other.load_u64(64, Ordering::Relaxed), 0);
        memory.write(3, b"abc");
        let mut read = [0; 5];
        other.read(2, &mut read);
        assert_eq!(&read, b"\0abc\0");
    }

    #[test]
    #[should_panic]
    fn a_word_across_the_end_is_our_bug() {
        HeapMemory::new(100).load_u64(96, Ordering::Relaxed);
    }

    #[test]
    fn a_header_may_end_where_the_memory_ends() {
        let memory = HeapMemory::new(96);
        memory.write_record(64, [1, 2, 3, 4]);
        assert_eq!(memory.read_record(64).0[24..], 4_u64.to_le_bytes());
    }

    #[test]
    #[should_panic]
    fn a_header_across_the_end_is_our_bug() {
        HeapMemory::new(96).write_record(72, [0; 4]);
    }

    #[test]
    #[should_panic]
    fn a_copy_beyond_the_end_is_our_bug() {
        HeapMemory::new(100).write(usize::MAX, b"ab");
    }
}
