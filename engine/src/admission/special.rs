//! Stage 2 of 8, for requests that say more than most: by which running call they are made, or when they may start.
//!
//! In: a request and what its extensions say.  Out: a verdict, as for any other.
//! Always: what belongs to the extension is checked first, then every reason to say no that there is for any call.
//! Never: on the path of a call without such an extension.
//! Tests: `tests/nesting.rs`, `tests/later.rs`.

use crate::Engine;
use crate::admission::{QueueRoom, Refusal, Request, Verdict};
use crate::counters::Counter;
use crate::nesting::CalledBy;
use crate::time::Nanos;

/// What a request says beyond its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// By which running call it is made, as its caller claims.
    pub called_by: Option<CalledBy>,
    /// How long after its receipt it may start; zero: at once.
    pub start_after: Nanos,
}

impl Engine {
    /// As [`handle_request`](Engine::handle_request), for a request that says more than most.
    #[inline(never)]
    pub fn handle_special_request(&mut self, now: Nanos, request: Request, special: Special) -> Verdict {
        let request = self.choose_version(request, None);
        self.handle_special_version(now, request, special)
    }

    /// The same for a request of which it is known to which version of its function it goes.
    pub(crate) fn handle_special_version(
        &mut self,
        now: Nanos,
        request: Request,
        special: Special,
    ) -> Verdict {
        self.counters.count(Counter::CallsReceived);
        self.admit_special(now, request, special).unwrap_or_else(|refusal| self.refuse(refusal))
    }

    fn admit_special(&mut self, now: Nanos, request: Request, special: Special) -> Result<Verdict, Refusal> {
        let called_by =
            special.called_by.map(|claim| self.check_nested(request.function, claim)).transpose()?;
        let start_at = request.received_at.plus(special.start_after);
        if start_at > now {
            self.check_start(&request, special.start_after)?;
        }
        let room = match called_by {
            _ if start_at > now => QueueRoom::Later,
            Some(_) => QueueRoom::WithReserve,
            None => QueueRoom::Usual,
        };
        // The budget is what the call may take from its start.
        let asked = Request { received_at: start_at, ..request };
        let admitted = self.admit_governed(now, &asked, room)?;
        if let Some(called_by) = called_by {
            self.note_nested(self.invocations.id_of(admitted.slot), called_by);
        }
        if room == QueueRoom::Later {
            return Ok(self.accept_later(now, &request, admitted, start_at));
        }
        let verdict = self.accept(now, &request, admitted);
        if let (Some(_), Verdict::Admitted(id)) = (called_by, verdict) {
            self.note_waiting(id);
        }
        Ok(verdict)
    }
}
