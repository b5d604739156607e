//! What belongs to the process that made it.
//!
//! A forked process has copies of its parent's objects, but not its parent's threads, and shares its parent's connections. Used there, a
//! client would wait for ever; dropped there, it would end the parent's connection, since shutting a socket down ends it for all who
//! have it. So both happen only in the process that made the object.

use std::fmt;
use std::process;

/// A value, and the process that may use it.
pub struct Owned<T> {
    value: Option<T>,
    process_id: u32,
}

/// This process was forked from the one that made the object.
#[derive(Debug)]
pub struct Forked;

impl fmt::Display for Forked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("made by the process that this one was forked from: connect after the fork (see quickfire.after_fork)")
    }
}

impl<T> Owned<T> {
    /// Belongs to this process.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), process_id: process::id() }
    }

    /// The value, if this is its process and it was not taken.
    pub fn value(&self) -> Result<Option<&T>, Forked> {
        self.check()?;
        Ok(self.value.as_ref())
    }

    /// The same, to be changed.
    pub fn value_mut(&mut self) -> Result<Option<&mut T>, Forked> {
        self.check()?;
        Ok(self.value.as_mut())
    }

    /// The value itself, once, and only in its process.
    pub fn take(&mut self) -> Option<T> {
        self.check().ok().and_then(|()| self.value.take())
    }

    fn check(&self) -> Result<(), Forked> {
        if self.process_id == process::id() { Ok(()) } else { Err(Forked) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.check().is_err() {
            // Never dropped: see the module's header. The copy of the memory ends with this process.
            std::mem::forget(self.value.take());
        }
    }
}
