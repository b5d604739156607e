//! Stage 2 of 8, the part that only functions with policies reach: every reason of a policy to refuse a call.
//!
//! In: the function of a request that nothing else speaks against.  Out: yes, or the refusal with advice when to try again.
//! Always: one ordered list, in which everything is asked before anything (a token, a probe) is taken, so that a refused call
//! has used nothing up of what others could have had; of its own caller's rate it has.
//! Never: reached by a call of a function without a policy at admission.
//! Tests: one file in `tests/` for each policy.

use queue::LaneIndex;

use crate::Engine;
use crate::admission::{Admitted, QueueRoom, Refusal, Request, full};
use crate::callers::KEPT_PERCENT;
use crate::counters::Counter;
use crate::policy::Checks;
use crate::run_queue::bucket_of;
use crate::time::Nanos;

impl Engine {
    /// What the policies of a function, which exists, say about one more call.
    pub(super) fn admit_by_policy(
        &mut self,
        now: Nanos,
        request: &Request,
        admitted: &mut Admitted,
        room: QueueRoom,
    ) -> Result<(), Refusal> {
        // How things are now says nothing about a call that starts later: neither the queue, nor a breaker, whose probes
        // have to run at once.
        let is_for_now = room != QueueRoom::Later;
        let function = &mut self.functions[request.function.0 as usize];
        if function.is_retired {
            return Err(Refusal::UnknownFunction);
        }
        let checks = function.checks;
        if let Some(max) = function.spec.policy.queue_delay_max.filter(|_| is_for_now) {
            // Those that matter as much or more: the others do not go before it, however many they are.
            let last = LaneIndex::new(admitted.criticality as u8, LaneIndex::BUCKET_COUNT - 1);
            let wait = function.drain_rate.wait(now, function.queue.count_up_to(last));
            if wait > max {
                return Err(Refusal::QueueFull { retry_after: wait.since(max) });
            }
        }
        if checks.has(Checks::BACKPRESSURE) && is_for_now {
            let remaining = admitted.deadline_at.since(now);
            let lane = LaneIndex::new(admitted.criticality as u8, bucket_of(remaining));
            function.admit_under_pressure(now, function.queue.count_up_to(lane), remaining)?;
        }
        let limited = |retry_after| Refusal::RateLimited { retry_after };
        if let Some(ramp) = &function.ramp {
            ramp.ask(now).map_err(limited)?;
        }
        let mut rate = function.rate.as_mut().filter(|_| checks.has(Checks::RATE));
        if let Some(rate) = &rate {
            rate.ask(now).map_err(limited)?;
        }
        let tenant_rate = &mut self.permits.tenant_mut(function.spec.tenant).rate;
        let mut tenant_rate = tenant_rate.as_mut().filter(|_| checks.has(Checks::TENANT_RATE));
        if let Some(rate) = &tenant_rate {
            rate.ask(now).map_err(limited)?;
        }
        // Taken before the breaker is asked: a caller that calls a function which is left alone has called it.
        if let Some(callers) = function.callers.as_mut().filter(|_| is_for_now) {
            admitted.is_beyond_rate = !callers.take(now, &request.origin);
        }
        if admitted.is_beyond_rate {
            let kept = u64::from(function.spec.queue_count_max) * u64::from(KEPT_PERCENT) / 100;
            if u64::from(function.queue.len()) >= u64::from(function.spec.queue_count_max) - kept {
                return Err(full(function));
            }
        }
        if let Some(breaker) = function.breaker.as_mut().filter(|_| is_for_now) {
            breaker.admit(now).map_err(|retry_after| Refusal::BreakerOpen { retry_after })?;
        }
        if admitted.is_beyond_rate {
            self.counters.count(Counter::CallsBeyondRate);
        }
        if let Some(ramp) = &mut function.ramp {
            ramp.take(now);
        }
        for bucket in [&mut rate, &mut tenant_rate].into_iter().flatten() {
            bucket.take(now);
        }
        Ok(())
    }
}
