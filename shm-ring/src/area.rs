//! The raw operations under [`crate::Mapped`] and [`crate::HeapMemory`]: the only file that dereferences a pointer
//! into shared memory.
//!
//! Words are atomics. Payload bytes are copied with `ptr::copy_nonoverlapping`: another process may write them at the
//! same time, and the copy is then a mixture of old and new. That harms only who broke the protocol: the router uses
//! payload bytes as opaque bytes of the tenant who wrote them, and sizes were taken from a checked copy before. The
//! compiler cannot build on the bytes being stable, because they are only ever seen through raw pointers, once.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::thread::futex;

use crate::layout::{Record, slot};

/// Where a block of memory is. Who keeps it alive holds the area beside the owner.
pub(crate) struct Area {
    base: NonNull<u8>,
    size: usize,
    /// Words and headers begin before this: a header's size and not a byte less in front of the end. Regions are the last
    /// thing in a ring, so no word is nearer to it, and one comparison does for all of them.
    words_end: usize,
    /// Both again, or 0 in a read-only mapping, so that the bounds check of a store is also the permission check.
    writable_size: usize,
    writable_words_end: usize,
}

// SAFETY: the hazard of sharing a pointer between threads is an unsynchronised access. Words are accessed as atomics,
// and byte copies race only where the protocol is broken (see the header). The pointer itself never changes.
unsafe impl Send for Area {}
// SAFETY: as for Send.
unsafe impl Sync for Area {}

impl Area {
    /// # Safety
    /// `base` points to `size` bytes, aligned to 8, readable (and writable if `is_writable`) for as long as the area is
    /// used, and no reference to them exists or is made outside of this file.
    pub(crate) unsafe fn new(base: NonNull<u8>, size: usize, is_writable: bool) -> Self {
        assert!(base.as_ptr().addr().is_multiple_of(8));
        let words_end = size.saturating_sub(slot::HEADER_SIZE - 1);
        let (writable_size, writable_words_end) = if is_writable { (size, words_end) } else { (0, 0) };
        Self { base, size, words_end, writable_size, writable_words_end }
    }

    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    #[inline]
    fn word_u32(&self, offset: usize, words_end: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        assert!(offset < words_end);
        // SAFETY: outside or misaligned would be undefined: the two lines above, and `new` for the base and for 32 bytes
        // behind `words_end`. Mixed
        // atomic and plain access would be a race: header words are only accessed here, as words.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    #[inline]
    fn word_u64(&self, offset: usize, words_end: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        assert!(offset < words_end);
        // SAFETY: as in `word_u32`, with the alignment of 8 that `new` asserts for the base.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    #[inline]
    fn header(&self, offset: usize, words_end: usize) -> &[AtomicU64; slot::HEADER_SIZE / 8] {
        assert!(offset.is_multiple_of(8));
        assert!(offset < words_end);
        // SAFETY: outside or misaligned would be undefined: the two lines above, and `new` for the base and for the header's
        // size behind `words_end`. The peer may write at any time, which is no race: the words are atomics.
        unsafe { &*self.base.as_ptr().add(offset).cast::<[AtomicU64; slot::HEADER_SIZE / 8]>() }
    }

    #[inline]
    fn bytes_at(&self, offset: usize, count: usize, size: usize) -> *mut u8 {
        assert!(offset <= size);
        assert!(count <= size - offset);
        // SAFETY: a pointer outside of its allocation would be undefined: the two lines above.
        unsafe { self.base.as_ptr().add(offset) }
    }

    #[inline]
    pub(crate) fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.word_u32(offset, self.words_end).load(order)
    }

    #[inline]
    pub(crate) fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.word_u32(offset, self.writable_words_end).store(value, order);
    }

    #[inline]
    pub(crate) fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.word_u64(offset, self.words_end).load(order)
    }

    #[inline]
    pub(crate) fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.word_u64(offset, self.writable_words_end).store(value, order);
    }

    #[inline]
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.bytes_at(offset, into.len(), self.size);
        // SAFETY: the source is inside (checked by `bytes_at`), the target is a private slice, so they do not overlap.
        // A peer that writes meanwhile gives a torn copy, which only its own payload suffers from (header).
        unsafe { copy(from, into.as_mut_ptr(), into.len()) };
    }

    #[inline]
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        let into = self.bytes_at(offset, from.len(), self.writable_size);
        // SAFETY: the target is inside and writable (checked by `bytes_at`). The source is not in this memory, or it is
        // in the other part of a slot: only `BorrowPayload` makes such references, for parts this side does not write.
        unsafe { copy(from.as_ptr(), into, from.len()) };
    }

    /// Copies from one block of shared memory into another.
    #[inline]
    pub(crate) fn copy_from(&self, offset: usize, source: &Area, source_offset: usize, count: usize) {
        let into = self.bytes_at(offset, count, self.writable_size);
        let from = source.bytes_at(source_offset, count, source.size);
        // SAFETY: the source is inside its memory and the target inside a writable one (checked by `bytes_at`). `copy`,
        // not `copy_nonoverlapping`: two areas may be clones of one block. Torn copies as in `read`.
        unsafe { copy(from, into, count) };
    }

    #[inline]
    pub(crate) fn read_record(&self, offset: usize) -> Record {
        let header = self.header(offset, self.words_end);
        let words = [0, 1, 2, 3].map(|index: usize| header[index].load(Ordering::Relaxed));
        let mut record = Record([0; slot::HEADER_SIZE]);
        for (bytes, word) in record.0.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        record
    }

    #[inline]
    pub(crate) fn write_record(&self, offset: usize, words: [u64; slot::HEADER_SIZE / 8]) {
        let header = self.header(offset, self.writable_words_end);
        header[1].store(words[1], Ordering::Relaxed);
        header[2].store(words[2], Ordering::Relaxed);
        header[3].store(words[3], Ordering::Relaxed);
        header[0].store(words[0], Ordering::Release);
    }

    #[inline]
    pub(crate) fn append_to(&self, offset: usize, size: usize, out: &mut Vec<u8>) {
        let from = self.bytes_at(offset, size, self.size);
        out.reserve(size);
        // SAFETY: `reserve` made room for `size` bytes after the initialised ones, and the copy initialises exactly
        // those before `set_len` counts them. Source and torn copies as in `read`.
        unsafe {
            copy(from, out.as_mut_ptr().add(out.len()), size);
            out.set_len(out.len() + size);
        }
    }

    #[inline]
    pub(crate) fn fence_seq_cst(&self) {
        fence(Ordering::SeqCst);
    }

    /// A hint; see `Memory::prefetch_to_read`.
    #[inline]
    pub(crate) fn prefetch_to_read(&self, offset: usize) {
        // Not in its memory, it is a hint for nothing: nobody looks through this pointer.
        let place = self.base.as_ptr().wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program can see, and never faults, whatever the address is.
        unsafe {
            std::arch::asm!("prefetcht0 [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }

    /// A hint; see `Memory::prefetch_to_write`. Written as an instruction because the compiler's intrinsic becomes a
    /// prefetch for reading unless the processor is named at build time; processors that lack it take it for a no-op.
    #[inline]
    pub(crate) fn prefetch_to_write(&self, offset: usize) {
        // Not in its memory, it is a hint for nothing: nobody looks through this pointer.
        let place = self.base.as_ptr().wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `prefetch_to_read`.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }

    pub(crate) fn futex_wait(&self, offset: usize, expected: u32, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        // Without PRIVATE the kernel names the futex by inode and offset, so that another process finds it.
        // Every error (value changed, interrupted, timed out) means the same to the caller: look again.
        let _ = futex::wait(
            self.word_u32(offset, self.words_end),
            futex::Flags::empty(),
            expected,
            timeout.as_ref(),
        );
    }

    pub(crate) fn futex_wake(&self, offset: usize) {
        // One sleeper at most: the worker's one ring thread. Fails only for an address that is not mapped: not ours.
        let _ = futex::wake(self.word_u32(offset, self.words_end), futex::Flags::empty(), 1);
    }

    /// # Safety
    /// As `BorrowPayload::bytes`.
    pub(crate) unsafe fn bytes(&self, offset: usize, size: usize) -> &[u8] {
        let from = self.bytes_at(offset, size, self.size);
        // SAFETY: inside (checked by `bytes_at`), alive as long as `self`; that nobody writes is the caller's promise.
        unsafe { std::slice::from_raw_parts(from, size) }
    }

    /// # Safety
    /// As `BorrowPayload::bytes_mut`.
    #[expect(clippy::mut_from_ref, reason = "as in the trait: exclusivity is the caller's proof")]
    pub(crate) unsafe fn bytes_mut(&self, offset: usize, size: usize) -> &mut [u8] {
        let from = self.bytes_at(offset, size, self.writable_size);
        // SAFETY: inside and writable (checked by `bytes_at`); that nobody else looks is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(from, size) }
    }
}

/// Copies bytes that may overlap. Payloads and results are mostly short: those are copied in two pieces from each end,
/// which meet or overlap in the middle, without a call of the library that would cost more than the copy.
///
/// # Safety
/// As `ptr::copy`: `from` is readable and `into` writable for `size` bytes.
#[inline(always)]
unsafe fn copy(from: *const u8, into: *mut u8, size: usize) {
    match size {
        // SAFETY: as promised by the caller; the piece is not longer than the whole.
        16..=32 => unsafe { copy_ends::<u128>(from, into, size) },
        // SAFETY: as above.
        8..=15 => unsafe { copy_ends::<u64>(from, into, size) },
        0 => {}
        // SAFETY: the caller's promise, passed on unchanged.
        _ => unsafe { ptr::copy(from, into, size) },
    }
}

/// Copies the first and the last bytes, a `Piece` each.
///
/// # Safety
/// As `copy`, and `size` is at least the piece's.
#[inline(always)]
unsafe fn copy_ends<Piece: Copy>(from: *const u8, into: *mut u8, size: usize) {
    let last = size - size_of::<Piece>();
    // SAFETY: out of bounds would be undefined: `last` and a piece make `size`. Both are read before the first is
    // written, so that it does not matter if they overlap. A `Piece` is an integer, for which every bit pattern is a
    // value, and is read and written at any address.
    unsafe {
        let (head, tail) =
            (from.cast::<Piece>().read_unaligned(), from.add(last).cast::<Piece>().read_unaligned());
        into.cast::<Piece>().write_unaligned(head);
        into.add(last).cast::<Piece>().write_unaligned(tail);
    }
}

/// Implements `Memory`, `CopyFrom` itself and `BorrowPayload` for a type with a field `area`.
macro_rules! memory_through_area {
    ($type:ty) => {
        impl $crate::access::Memory for $type {
            #[inline]
            fn size(&self) -> usize {
                self.area.size()
            }
            #[inline]
            fn load_u32(&self, offset: usize, order: ::std::sync::atomic::Ordering) -> u32 {
                self.area.load_u32(offset, order)
            }
            #[inline]
            fn store_u32(&self, offset: usize, value: u32, order: ::std::sync::atomic::Ordering) {
                self.area.store_u32(offset, value, order);
            }
            #[inline]
            fn load_u64(&self, offset: usize, order: ::std::sync::atomic::Ordering) -> u64 {
                self.area.load_u64(offset, order)
            }
            #[inline]
            fn store_u64(&self, offset: usize, value: u64, order: ::std::sync::atomic::Ordering) {
                self.area.store_u64(offset, value, order);
            }
            #[inline]
            fn read(&self, offset: usize, into: &mut [u8]) {
                self.area.read(offset, into);
            }
            #[inline]
            fn write(&self, offset: usize, from: &[u8]) {
                self.area.write(offset, from);
            }
            #[inline]
            fn fence_seq_cst(&self) {
                self.area.fence_seq_cst();
            }
            #[inline]
            fn read_record(&self, offset: usize) -> $crate::layout::Record {
                self.area.read_record(offset)
            }
            #[inline]
            fn write_record(&self, offset: usize, words: [u64; $crate::layout::slot::HEADER_SIZE / 8]) {
                self.area.write_record(offset, words);
            }
            #[inline]
            fn append_to(&self, offset: usize, size: usize, out: &mut Vec<u8>) {
                self.area.append_to(offset, size, out);
            }
            #[inline]
            fn prefetch_to_read(&self, offset: usize) {
                self.area.prefetch_to_read(offset);
            }
            #[inline]
            fn prefetch_to_write(&self, offset: usize) {
                self.area.prefetch_to_write(offset);
            }
            fn futex_wait(&self, offset: usize, expected: u32, timeout: Option<::std::time::Duration>) {
                self.area.futex_wait(offset, expected, timeout);
            }
            fn futex_wake(&self, offset: usize) {
                self.area.futex_wake(offset);
            }
        }

        impl $crate::access::CopyFrom<$type> for $type {
            #[inline]
            fn copy_from(&self, offset: usize, source: &$type, source_offset: usize, size: usize) {
                self.area.copy_from(offset, &source.area, source_offset, size);
            }
        }

        // SAFETY: a wrong or dangling slice would be undefined: `Area` bounds-checks it, and the type keeps the memory
        // of its area alive as long as itself.
        unsafe impl $crate::access::BorrowPayload for $type {
            #[inline]
            unsafe fn bytes(&self, offset: usize, size: usize) -> &[u8] {
                // SAFETY: the caller's promise, passed on unchanged.
                unsafe { self.area.bytes(offset, size) }
            }
            #[inline]
            unsafe fn bytes_mut(&self, offset: usize, size: usize) -> &mut [u8] {
                // SAFETY: the caller's promise, passed on unchanged.
                unsafe { self.area.bytes_mut(offset, size) }
            }
        }
    };
}
pub(crate) use memory_through_area;

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 256;

    fn check(size: usize, from: usize, into: usize) {
        let mut words: Vec<u64> = vec![0; SIZE / 8];
        let base = NonNull::new(words.as_mut_ptr().cast::<u8>()).expect("a vector has an address");
        // SAFETY: the vector outlives the area, and is not looked at beside it.
        let area = unsafe { Area::new(base, SIZE, true) };
        let bytes: Vec<u8> = (0..SIZE).map(|index| index as u8).collect();
        area.write(0, &bytes);
        area.copy_from(into, &area, from, size);
        // Expect
        let mut expected = bytes;
        expected.copy_within(from..from + size, into);
        let mut copied = Vec::new();
        area.append_to(0, SIZE, &mut copied);
        assert_eq!(copied, expected, "{size} bytes from {from} to {into}");
    }

    #[test]
    fn every_size_is_copied_exactly_apart_and_overlapping() {
        for size in 0..=100 {
            for (from, into) in [(3, 130), (130, 3), (20, 21), (21, 20), (9, 40), (7, 7)] {
                check(size, from, into);
            }
        }
    }
}
