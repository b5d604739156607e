//! The word by which a worker says which call its running call waits for.
//!
//! In: wait tokens of the wire protocol, which mean nothing here.  Out: the same, for the router to compare with what calls say.
//! Always: the worker writes it, into its own control page: so what it says is said about this worker and no other.
//! Why not a part of [`WorkerEnd`](crate::WorkerEnd): the call that waits runs while that end is borrowed by it, and may be waited
//! for after the function has handed it on. The word has a writer of its own, the thread that runs calls.

use std::sync::atomic::Ordering;

use crate::access::Memory;
use crate::layout::worker_line;

/// The worker's side. Before the call is sent that is waited for, so that who receives the call finds the word.
///
/// No order is asked of the memory: the call comes another way, through the kernel, which orders what was stored before it
/// was sent before what is loaded after it came. A word that is found late ends nothing but a call that still waits.
#[inline]
pub fn show(memory: &impl Memory, token: u64) {
    memory.store_u64(worker_line::WAITS_FOR, token, Ordering::Relaxed);
}

/// The router's side.
#[inline]
pub(crate) fn shown(memory: &impl Memory) -> u64 {
    memory.load_u64(worker_line::WAITS_FOR, Ordering::Relaxed)
}
