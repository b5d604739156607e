//! Calls that a function makes while it runs one: they inherit its time, its criticality and its trace.
//!
//! In: the running call and a handle to the function wanted.  Out: a [`CallBuilder`] that says by whom it is made.
//! Always: a nested call has less time than the call that makes it, so that its end, also the end "no time left", comes while
//! the caller can still do something about it; and so that circles of waiting calls that the router does not see end from the
//! inside out.
//! Always: the process shows the router that it makes the call, and that it waits for it (`waits.rs`).
//! Never: chooses the connection. A function opens its client before `serve`, and keeps it warm with everything else.
//! Guide: docs/coding/rust-functions.md.  Why: docs/decisions/0017-deadlines-and-nesting.md, 0026-circles-of-waiting.md.

use std::time::Duration;

use protocol::{CalledBy, WaitToken};

use super::Call;
use crate::call::CallBuilder;
use crate::client::Function;

/// What a call keeps for itself of its time when it makes another one: a twentieth,
const RESERVE_PART: u32 = 20;
/// but at least this much.
const RESERVE_MIN: Duration = Duration::from_millis(1);

impl<'a> Call<'a> {
    /// A call of another function, made by this one: with this one's criticality and trace, and its time but for a reserve of
    /// a twentieth, at least 1 ms. The router ends it as `WouldDeadlock` where only processes that wait for it, or for each other, could run it.
    ///
    /// ```no_run
    /// use quickfire_client::Client;
    /// use quickfire_client::serve::{Call, serve};
    ///
    /// let client = Client::connect("unix:///run/quickfire/router.sock")?;
    /// let thumbnail = client.function("thumbnail")?;
    /// serve(move |call: &Call<'_>| Ok(call.nested(&thumbnail, call.payload()).wait()?.payload))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nested<'f, P: AsRef<[u8]> + ?Sized>(
        &self,
        function: &'f Function,
        payload: &'f P,
    ) -> CallBuilder<'f>
    where
        'a: 'f,
    {
        let reserve = self.time_left().map_or(Duration::ZERO, reserve_of);
        self.nested_keeping(reserve, function, payload)
    }

    /// The same with a reserve of one's own: what is left to do with the answer takes that long.
    pub fn nested_keeping<'f, P: AsRef<[u8]> + ?Sized>(
        &self,
        reserve: Duration,
        function: &'f Function,
        payload: &'f P,
    ) -> CallBuilder<'f>
    where
        'a: 'f,
    {
        // The router, which knows the calls of its shard, corrects the depth.
        let called_by = CalledBy { invocation_id: self.router_id(), depth: 1, wait_token: WaitToken::NONE };
        let mut nested =
            function.call(payload).criticality(self.criticality()).called_by(called_by, self.waits());
        if let Some(trace) = self.trace() {
            nested = nested.trace(trace);
        }
        match self.time_left() {
            Some(left) => nested.deadline(left.saturating_sub(reserve)),
            None => nested,
        }
    }
}

fn reserve_of(left: Duration) -> Duration {
    (left / RESERVE_PART).max(RESERVE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_is_kept_and_at_least_a_millisecond() {
        for (left_ms, kept_ms) in [(1_000, 50), (20, 1), (10, 1), (0, 1)] {
            assert_eq!(reserve_of(Duration::from_millis(left_ms)), Duration::from_millis(kept_ms));
        }
    }
}
