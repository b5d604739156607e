//! The bytes of a result while they lie in a worker's slot, and the two ways in which they leave it.
#![forbid(unsafe_code)]

use shm_ring::{Completion, CopyFrom, Mapped, RouterEnd};

/// Bytes that an answer carries.
pub trait ResultBytes {
    /// How many.
    fn size(&self) -> usize;
    /// Appends them to a frame.
    fn append_to(&self, out: &mut Vec<u8>);
    /// Copies them to a place in a client's memory.
    fn copy_to(&self, memory: &Mapped, place: usize);
    /// Appends the payload of its request, if that is wanted, and says its size. None where it is not known here.
    fn request(&self, out: Option<&mut Vec<u8>>) -> Option<u32>;
}

/// For answers without a result.
pub struct NoResult;

impl ResultBytes for NoResult {
    fn size(&self) -> usize {
        0
    }

    fn append_to(&self, _out: &mut Vec<u8>) {}
    fn copy_to(&self, _memory: &Mapped, _place: usize) {}

    fn request(&self, _out: Option<&mut Vec<u8>>) -> Option<u32> {
        None
    }
}

/// A result in its worker's slot.
pub(super) struct RingResult<'a> {
    ring: &'a RouterEnd<Mapped>,
    completion: &'a Completion,
    /// The answer carries it.
    is_wanted: bool,
}

impl<'a> RingResult<'a> {
    #[inline]
    pub fn new(ring: &'a RouterEnd<Mapped>, completion: &'a Completion, is_wanted: bool) -> RingResult<'a> {
        RingResult { ring, completion, is_wanted }
    }
}

impl ResultBytes for RingResult<'_> {
    #[inline]
    fn size(&self) -> usize {
        if self.is_wanted { self.completion.result_size as usize } else { 0 }
    }

    #[inline]
    fn append_to(&self, out: &mut Vec<u8>) {
        self.ring.read_result(self.completion, out);
    }

    #[inline]
    fn copy_to(&self, memory: &Mapped, place: usize) {
        let source = self.ring.result_place(self.completion);
        memory.copy_from(place, self.ring.memory(), source, self.completion.result_size as usize);
    }

    fn request(&self, out: Option<&mut Vec<u8>>) -> Option<u32> {
        Some(self.ring.answered_payload(self.completion, out))
    }
}
