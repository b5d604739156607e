//! Calls that are not waited for one by one.
//!
//! ```text
//!   submit ──▶ on its way: tag -> call ── its end wakes ──▶ ended: tag, in order ── next ──▶ taken
//! ```
//!
//! Always: a call is in `calls` from `submit` until it is taken; its tag is in `ended` from its end until then, once; and `outstanding`
//! counts it from before its end can come until it is taken.
//! Always: the waker of a call takes only the lock of `ended`; nobody who holds that takes the other one. So a call may end while another
//! thread, or this one, talks to its client.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use quickfire_client::{Answer, Call, CallError};
use rustix::event::{EventfdFlags, eventfd};

use crate::argument::{CallOptions, borrow, timeout};
use crate::caller::{Function, free, taken};
use crate::outcome::{Ending, Outcome, ending};

/// `qf_queue`.
#[derive(Default)]
pub struct Queue {
    calls: Mutex<HashMap<u64, InFlight>>,
    ended: Arc<Ended>,
}

struct InFlight {
    call: Call,
    /// If it was there at the first look.
    outcome: Option<Result<Answer, CallError>>,
}

/// Calls that have ended.
#[derive(Default)]
struct Ended {
    state: Mutex<EndedState>,
    /// A tag was added; or none is outstanding any more, so that none will be.
    changed: Condvar,
}

#[derive(Default)]
struct EndedState {
    /// In the order in which they ended.
    tags: VecDeque<u64>,
    outstanding: usize,
    /// Readable exactly while there are tags. Made when somebody asks for it: who does not pays no system call for it.
    bell: Option<OwnedFd>,
}

impl EndedState {
    fn push(&mut self, tag: u64) {
        if self.tags.is_empty() {
            self.ring();
        }
        self.tags.push_back(tag);
    }

    fn pop(&mut self) -> Option<u64> {
        let tag = self.tags.pop_front()?;
        if self.tags.is_empty()
            && let Some(bell) = &self.bell
        {
            // Its counter is 1, so this neither waits nor fails.
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
        Some(tag)
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            // Its counter is 0, so this neither waits nor fails.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }
}

/// What a call's end does.
struct Mark {
    ended: Arc<Ended>,
    tag: u64,
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.ended.lock().push(self.tag);
        self.ended.changed.notify_one();
    }
}

impl Ended {
    /// Takes the next tag by `give_up_at` (`None`: whenever that is), unless none is outstanding.
    fn next(&self, give_up_at: Option<Instant>) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if let Some(tag) = state.pop() {
                state.outstanding -= 1;
                if state.outstanding == 0 {
                    self.changed.notify_all();
                }
                return Some(tag);
            }
            if state.outstanding == 0 {
                return None;
            }
            state = match give_up_at {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Makes the bell, if there is none yet.
    fn bell(&self) -> Option<RawFd> {
        let mut state = self.lock();
        if state.bell.is_none() {
            state.bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
            if !state.tags.is_empty() {
                state.ring();
            }
        }
        state.bell.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn lock(&self) -> MutexGuard<'_, EndedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn calls(&self) -> MutexGuard<'_, HashMap<u64, InFlight>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, tag: u64, start: impl FnOnce() -> Result<Call, Ending>) -> Result<(), Ending> {
        let in_use = || Ending::invalid(format!("`tag` is {tag}, as of a call that is in the queue"));
        if self.calls().contains_key(&tag) {
            return Err(in_use());
        }
        // May wait for a credit, which another thread's `next` may have to free.
        let call = start()?;
        let mut calls = self.calls();
        let Entry::Vacant(place) = calls.entry(tag) else {
            return Err(in_use()); // another thread was faster; dropping the call cancels it
        };
        let in_flight = place.insert(InFlight { call, outcome: None });
        self.ended.lock().outstanding += 1;
        let mark = Arc::new(Mark { ended: Arc::clone(&self.ended), tag });
        let waker = Waker::from(Arc::clone(&mark));
        if let Poll::Ready(outcome) = Pin::new(&mut in_flight.call).poll(&mut Context::from_waker(&waker)) {
            in_flight.outcome = Some(outcome);
            mark.wake();
        }
        Ok(())
    }

    fn next(&self, give_up_at: Option<Instant>) -> Option<(u64, Result<Answer, CallError>)> {
        let tag = self.ended.next(give_up_at)?;
        // Not waited for by whoever gets the tag, but by `submit` of its call, which may not have let go of the lock yet.
        let InFlight { mut call, outcome } = self.calls().remove(&tag)?;
        let outcome = outcome
            .map_or_else(|| Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready);
        match outcome {
            Poll::Ready(outcome) => Some((tag, outcome)),
            Poll::Pending => unreachable!("its waker said that it has ended, and nobody else asks it"),
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn qf_queue_new() -> *mut Queue {
    Box::into_raw(Box::default())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_queue_free(queue: *mut Queue) {
    // SAFETY: see `free`; the header says that this came from `qf_queue_new`.
    unsafe { free(queue) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_submit(
    queue: *mut Queue,
    tag: u64,
    function: *const Function,
    payload: *const c_void,
    size: usize,
    options: *const CallOptions,
) -> *mut Outcome {
    ending(|| {
        // SAFETY: as the header says: from `qf_queue_new` and not freed. It is borrowed as `&`, as by other threads that use it now.
        let queue = unsafe { borrow(queue, "queue")? };
        // SAFETY: as the header says: from `qf_find` and not freed, `size` bytes, and a struct that begins with its size; or NULL. All of
        // it is used only until this function returns.
        let (function, payload, said) = unsafe { taken(function, payload, size, options)? };
        let call = said.apply(function.handle().call(payload))?;
        queue.submit(tag, || Ok(if said.may_wait() { call.start() } else { call.try_start() }?))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_next(queue: *mut Queue, timeout_ns: u64, tag: *mut u64) -> *mut Outcome {
    ending(|| {
        // SAFETY: as the header says: from `qf_queue_new` and not freed.
        let queue = unsafe { borrow(queue, "queue")? };
        // A time beyond what a clock can say is for ever.
        let give_up_at = timeout(timeout_ns).and_then(|timeout| Instant::now().checked_add(timeout));
        let Some((found, outcome)) = queue.next(give_up_at) else { return Ok(()) };
        if !tag.is_null() {
            // SAFETY: the hazard is memory that is not the caller's; the header says that `tag` may be written to.
            unsafe { tag.write(found) };
        }
        Err(outcome.into())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_queue_fd(queue: *mut Queue) -> c_int {
    // SAFETY: as the header says: from `qf_queue_new` and not freed.
    unsafe { borrow(queue, "queue") }.ok().and_then(|queue| queue.ended.bell()).unwrap_or(-1)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_cancel(queue: *mut Queue, tag: u64) {
    // SAFETY: as the header says: from `qf_queue_new` and not freed.
    let Ok(queue) = (unsafe { borrow(queue, "queue") }) else { return };
    if let Some(in_flight) = queue.calls().get(&tag) {
        in_flight.call.cancel();
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_outstanding(queue: *const Queue) -> usize {
    // SAFETY: as the header says: from `qf_queue_new` and not freed.
    unsafe { borrow(queue, "queue") }.map_or(0, |queue| queue.ended.lock().outstanding)
}
