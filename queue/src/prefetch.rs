//! A hint to the processor: these bytes will soon be looked at.
//!
//! In: a reference.  Out: nothing that a program can see.
//! Why here: it takes an instruction that only unsafe code can name, and the crates that profit forbid unsafe code.

/// Asks for the cache line in which `value` begins. Worth it some 100 ns before the line is needed, which is about the
/// time of ten calls.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that a program can see, and never faults; the address is that of a reference.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
