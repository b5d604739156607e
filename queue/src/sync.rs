//! The atomics, cells and threads everything here is built on: the real ones, or loom's under `--cfg loom`.
//!
//! Loom runs a test body under every interleaving and every value a weak memory model lets a load return, and it
//! watches the cells for unsynchronised access. Code that reaches past this module is invisible to it.
//!
//! Orders are written with a label: the `Release` and the `Acquire` that belong together share one `SYNC(name)`.

#[cfg(not(loom))]
pub use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread,
};

#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread,
};

/// `std::cell::UnsafeCell` with loom's interface: access happens inside a closure, whose length loom can see.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell with a value.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Lends the value for writing. Dereferencing the pointer is where the caller vouches that nobody else does.
    #[inline]
    pub fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}
