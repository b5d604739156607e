//! What a caller is given instead of `BreakerOpen`: the work of another function, or bytes from the configuration.
//!
//! In: a request that its function's breaker refused.  Out: the verdict on the same request for another function, or
//! [`Verdict::Fallback`]; nothing if the function has no fallback.
//! Always: one hop at most. If the other function refuses, for whatever reason, that refusal is the answer.
//! Always: counted, because the status does not show it: a fallback that nobody notices is an outage that nobody notices.
//! Never: tried for another refusal. Who sends too much is told so; a fallback is for a function that does not work.
//! Tests: `tests/breaker.rs`.

use protocol::FunctionId;

use crate::Engine;
use crate::admission::{QueueRoom, Request, Verdict};
use crate::counters::Counter;
use crate::time::Nanos;

/// See above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The same payload goes to this function.
    Function(FunctionId),
    /// The caller gets these bytes with the status `Ok`.
    Answer(Box<[u8]>),
}

impl Engine {
    /// The bytes of a function whose fallback is a static answer; none otherwise.
    pub fn static_answer(&self, function: FunctionId) -> Option<&[u8]> {
        match self.functions.get(function.0 as usize)?.spec.policy.fallback.as_ref()? {
            Fallback::Answer(bytes) => Some(bytes),
            Fallback::Function(_) => None,
        }
    }

    /// What the function of a refused request has to offer instead.
    pub(crate) fn fall_back(&mut self, now: Nanos, request: Request) -> Option<Verdict> {
        let function = &self.functions[request.function.0 as usize];
        match function.spec.policy.fallback.as_ref()? {
            Fallback::Answer(_) => {
                self.counters.count(Counter::FallbacksAnswered);
                Some(Verdict::Fallback(request.function))
            }
            Fallback::Function(other) => {
                let request = Request { function: *other, ..request };
                self.counters.count(Counter::FallbacksRun);
                Some(match self.admit_governed(now, &request, QueueRoom::Usual) {
                    Ok(admitted) => self.accept(now, &request, admitted),
                    Err(refusal) => self.refuse(refusal),
                })
            }
        }
    }
}
