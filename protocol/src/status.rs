//! How a call, a RESOLVE or a connection ended: one number, one row of the table below, one meaning everywhere.
//!
//! Always: numbers are grouped by class in sixteens, so that an unknown number from a newer router still has a class
//! (W-81). Retired numbers are never used again. `docs/spec/wire.md` carries the same table, held by a test.
//! Why fault and retry are part of the protocol: a caller, a dashboard and a pager all ask these two questions, and
//! each would otherwise keep its own list of numbers.

use core::fmt;

/// Whose fault it is. Decides who is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Nobody's: it went well, or the circumstances were such.
    Nobody,
    /// The caller or its client library.
    Caller,
    /// The function's code or its configuration.
    Function,
    /// The process that ran the function.
    Worker,
    /// The router.
    Router,
}

/// What sending the same call again would do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retry {
    /// Nothing new: it is done, or would end the same way.
    Pointless,
    /// No harm: the function has not run.
    Safe,
    /// Harm, unless running twice is harmless: the function may have run.
    IfIdempotent,
}

/// The coarse ending, for reports and for unknown numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// 0.
    Ok,
    /// 1 to 15: the function ran and said no.
    FunctionError,
    /// 16 to 31: never admitted.
    Refused,
    /// 32 to 47: out of time.
    Expired,
    /// 48 to 63: no longer wanted.
    Cancelled,
    /// 64 to 79: its worker did not finish it.
    WorkerLost,
    /// 80 and above: the connection is at fault or at its end.
    Protocol,
}

macro_rules! statuses {
    ($($number:literal $variant:ident $name:literal $fault:ident $retry:ident $explain:literal;)*) => {
        /// How it ended.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Status {
            $(#[doc = $explain] $variant = $number,)*
        }

        impl Status {
            /// Every status, by number.
            pub const ALL: [Status; [$($number),*].len()] = [$(Status::$variant),*];

            /// The word used in documents, counters and reports.
            pub const fn name(self) -> &'static str {
                match self { $(Status::$variant => $name,)* }
            }

            /// Whose fault it is.
            pub const fn fault(self) -> Fault {
                match self { $(Status::$variant => Fault::$fault,)* }
            }

            /// What sending the call again would do. A REPLY without the flag `STARTED` proves more: see
            /// [`Status::retry_of_reply`].
            pub const fn retry(self) -> Retry {
                match self { $(Status::$variant => Retry::$retry,)* }
            }

            /// What happened and what the caller should do, in one sentence.
            pub const fn explain(self) -> &'static str {
                match self { $(Status::$variant => $explain,)* }
            }
        }

        impl TryFrom<u16> for Status {
            type Error = UnknownStatus;

            #[inline]
            fn try_from(number: u16) -> Result<Status, UnknownStatus> {
                match number {
                    $($number => Ok(Status::$variant),)*
                    unknown => Err(UnknownStatus(unknown)),
                }
            }
        }
    };
}

statuses! {
    0 Ok "ok" Nobody Pointless
        "The function returned a result: use it.";
    1 FunctionError "function_error" Function IfIdempotent
        "The function ran and returned an error: read it in the payload, and retry only if running twice is harmless.";
    2 Backpressure "backpressure" Nobody IfIdempotent
        "The function ran and found something overloaded that it calls and the payload names: try again after the advised time, and only if running twice is harmless.";

    16 UnknownFunction "unknown_function" Caller Pointless
        "No function has this name or number: check the name, and resolve it again after reconnecting.";
    17 QueueFull "queue_full" Nobody Safe
        "As many calls of this function are waiting as may: send fewer, or try again after the advised time.";
    18 DeadlinePassed "deadline_passed" Caller Safe
        "The budget was used up before the call was admitted: give it a larger one.";
    19 CreditsExceeded "credits_exceeded" Caller Pointless
        "The call's slot is not below the credits granted in HELLO: use only granted slots.";
    20 CallIdInUse "call_id_in_use" Caller Pointless
        "Another call of this connection holds the slot: wait for its reply before using the slot again.";
    21 Draining "draining" Nobody Safe
        "The router is shutting down and admits nothing new: connect again or call elsewhere.";
    22 Overloaded "overloaded" Router Safe
        "The router holds as many calls as it can: try again after the advised time.";
    23 PayloadTooLarge "payload_too_large" Caller Pointless
        "The payload is larger than this function takes: send less.";
    24 NoWorker "no_worker" Function Safe
        "The function has no process and none is being started: see its log, and try again once it is repaired.";
    25 UnknownCriticality "unknown_criticality" Caller Pointless
        "The criticality is none of the defined ones: use 0 to 3.";
    26 DeadlineUnreachable "deadline_unreachable" Nobody Safe
        "The calls waiting before it would take longer than the budget: try again after the advised time, or give it more time.";
    27 WouldDeadlock "would_deadlock" Caller Pointless
        "The call is made, at some remove, by the only processes that could run it, or nested too deep: keep more processes warm, or call less deep.";
    28 RateLimited "rate_limited" Caller Safe
        "More calls a second came than the function or its tenant may have: send fewer, or try again after the advised time.";
    30 BreakerOpen "breaker_open" Function Safe
        "The function fails most of the time and is left alone for a while: see its log, and try again after the advised time.";
    31 StartTooLate "start_too_late" Caller Pointless
        "The call is to start later than the router keeps calls for: ask for an earlier start, or send it nearer to its time.";

    32 Expired "expired" Nobody Safe
        "The deadline came while the call was waiting, so it was never started: try again with more time or less load.";
    33 TimedOut "timed_out" Function IfIdempotent
        "The function was still running at the deadline and was stopped: give it more time, and retry only if running twice is harmless.";

    48 Cancelled "cancelled" Caller IfIdempotent
        "The caller cancelled the call: nothing is left to do.";

    64 WorkerLost "worker_lost" Worker IfIdempotent
        "The process running the function died: retry only if running twice is harmless.";
    65 WorkerMisbehaved "worker_misbehaved" Worker IfIdempotent
        "The process running the function broke the rules of its ring and was stopped: see its log, and retry only if running twice is harmless.";
    66 ResultTooLarge "result_too_large" Function Pointless
        "The function ran, but its result is larger than it may be: ask it for less.";
    67 Quarantined "quarantined" Caller Pointless
        "Two processes died while they ran this call, so no third one is given it: have the function repaired, then replay the call.";

    80 MalformedFrame "malformed_frame" Caller Pointless
        "The bytes sent are not a valid frame: repair the client.";
    81 FrameTooLarge "frame_too_large" Caller Pointless
        "A frame was larger than agreed in HELLO: send smaller payloads.";
    82 UnsupportedVersion "unsupported_version" Caller Pointless
        "No protocol version is spoken by both sides: use a client that fits this router.";
    83 UnknownKind "unknown_kind" Caller Pointless
        "The frame's kind is not defined in the agreed version: repair the client.";
    84 UnknownCriticalFlag "unknown_critical_flag" Caller Pointless
        "The frame carries a flag that must be understood and is not: use a client that fits this router.";
    85 HelloExpected "hello_expected" Caller Pointless
        "A frame came before HELLO: say HELLO first.";
    86 SlowReader "slow_reader" Caller IfIdempotent
        "The client did not read its replies and too many piled up: read faster, or keep fewer calls outstanding.";
    87 TooManyConnections "too_many_connections" Router Safe
        "The router holds as many connections as it may: close some, or try again later.";
    88 GoingAway "going_away" Nobody Safe
        "The router is shutting down: take the replies still coming, then connect again.";
    89 UnexpectedFrame "unexpected_frame" Caller Pointless
        "A kind that only the router sends, or a second HELLO, came from the client: repair the client.";
}

/// A status number nobody has defined; its class is still known by [`Class::of_number`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("status {0} is not defined")]
pub struct UnknownStatus(pub u16);

impl Status {
    /// The coarse ending.
    pub const fn class(self) -> Class {
        Class::of_number(self as u16)
    }

    /// What sending the call again would do, knowing whether its REPLY carried the flag `STARTED` (W-54): where the
    /// function has provably not begun, a retry that depends on it is safe.
    pub const fn retry_of_reply(self, started: bool) -> Retry {
        match self.retry() {
            Retry::IfIdempotent if !started => Retry::Safe,
            retry => retry,
        }
    }
}

impl Class {
    /// The class of any number, also of one that is not defined yet (W-81).
    pub const fn of_number(number: u16) -> Class {
        match number {
            0 => Class::Ok,
            1..=15 => Class::FunctionError,
            16..=31 => Class::Refused,
            32..=47 => Class::Expired,
            48..=63 => Class::Cancelled,
            64..=79 => Class::WorkerLost,
            80.. => Class::Protocol,
        }
    }

    /// The word used in documents and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Ok => "ok",
            Class::FunctionError => "function_error",
            Class::Refused => "refused",
            Class::Expired => "expired",
            Class::Cancelled => "cancelled",
            Class::WorkerLost => "worker_lost",
            Class::Protocol => "protocol",
        }
    }
}

impl Fault {
    /// The word used in documents and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Nobody => "nobody",
            Fault::Caller => "caller",
            Fault::Function => "function",
            Fault::Worker => "worker",
            Fault::Router => "router",
        }
    }
}

impl Retry {
    /// The word used in documents and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Retry::Pointless => "pointless",
            Retry::Safe => "safe",
            Retry::IfIdempotent => "if_idempotent",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_way_over_its_number() {
        for status in Status::ALL {
            assert_eq!(Status::try_from(status as u16), Ok(status));
        }
        let known = (0..=u16::MAX).filter(|number| Status::try_from(*number).is_ok()).count();
        assert_eq!(known, Status::ALL.len());
    }

    #[test]
    fn names_are_unique_snake_case_and_follow_the_variant() {
        for (index, status) in Status::ALL.iter().enumerate() {
            assert!(status.name().chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'));
            assert_eq!(status.name().replace('_', ""), format!("{status:?}").to_lowercase());
            assert!(
                Status::ALL[..index]
                    .iter()
                    .all(|earlier| earlier < status && earlier.name() != status.name())
            );
        }
    }

    #[test]
    fn what_never_ran_may_be_sent_again_unless_it_would_be_refused_again() {
        for status in Status::ALL {
            let never_ran = matches!(status.class(), Class::Refused) || status == Status::Expired;
            if never_ran {
                assert_ne!(status.retry(), Retry::IfIdempotent, "{status}");
            }
            if status.retry() == Retry::Safe {
                assert!(never_ran || status.class() == Class::Protocol, "{status}");
            }
        }
    }

    #[test]
    fn a_lost_call_that_never_started_may_be_sent_again() {
        assert_eq!(Status::WorkerLost.retry_of_reply(true), Retry::IfIdempotent);
        assert_eq!(Status::WorkerLost.retry_of_reply(false), Retry::Safe);
        assert_eq!(Status::UnknownFunction.retry_of_reply(false), Retry::Pointless);
    }

    #[test]
    fn every_explanation_says_what_to_do_in_one_sentence() {
        for status in Status::ALL {
            let text = status.explain();
            assert!(
                text.contains(": ") && text.ends_with('.') && text.matches(". ").count() == 0,
                "{status}: {text}"
            );
        }
    }
}
