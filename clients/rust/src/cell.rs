//! Where the I/O thread leaves an outcome and a caller picks it up: by blocking, or as a future.
//!
//! Always: an outcome is put once and taken once; whoever waits is woken after it is there.
//! Never: holds its lock while waking, because a waker may run code of the caller.

use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

/// One outcome on its way.
#[derive(Debug)]
pub(crate) struct Cell<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

#[derive(Debug)]
enum State<T> {
    /// Not there yet; the task to wake, if a future was polled.
    Waiting(Option<Waker>),
    There(T),
    Taken,
}

impl<T> Cell<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Waiting(None)), done: Condvar::new() }
    }

    /// Leaves the outcome and wakes who waits. A second outcome is dropped.
    pub(crate) fn put(&self, outcome: T) {
        let waker = {
            let mut state = self.lock();
            let State::Waiting(waker) = &mut *state else { return };
            let waker = waker.take();
            *state = State::There(outcome);
            waker
        };
        self.done.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for the outcome, at most until `give_up_at`. `None` also if it was taken before: it never comes again.
    pub(crate) fn take_by(&self, give_up_at: Option<Instant>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.take() {
                return Some(outcome);
            }
            if matches!(*state, State::Taken) {
                return None;
            }
            state = match give_up_at {
                None => self.done.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The outcome, or a promise to wake `waker` when it is there.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<T> {
        let mut state = self.lock();
        if let Some(outcome) = state.take() {
            return Poll::Ready(outcome);
        }
        if let State::Waiting(stored) = &mut *state
            && !stored.as_ref().is_some_and(|stored| stored.will_wake(waker))
        {
            *stored = Some(waker.clone());
        }
        Poll::Pending
    }

    /// The outcome is there or was taken.
    pub(crate) fn is_done(&self) -> bool {
        !matches!(*self.lock(), State::Waiting(_))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        // No code of ours panics while it holds this lock; should it, the state is still one of the three.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<T> {
        match std::mem::replace(self, State::Taken) {
            State::There(outcome) => Some(outcome),
            before => {
                *self = before;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn an_outcome_put_by_another_thread_is_taken_once() {
        let cell = Arc::new(Cell::new());
        let putting = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.put(7)
        });
        assert_eq!(cell.take_by(None), Some(7));
        assert_eq!(cell.take_by(None), None);
        putting.join().unwrap();
    }

    #[test]
    fn only_the_first_outcome_counts() {
        let cell = Cell::new();
        cell.put(1);
        cell.put(2);
        assert!(cell.is_done());
        assert_eq!(cell.poll(Waker::noop()), Poll::Ready(1));
        assert_eq!(cell.poll(Waker::noop()), Poll::Pending);
    }

    #[test]
    fn waiting_ends_at_its_limit_and_the_outcome_can_still_come() {
        let cell = Cell::new();
        assert_eq!(cell.take_by(Some(Instant::now())), None);
        cell.put(3);
        assert_eq!(cell.take_by(Some(Instant::now())), Some(3));
    }
}
