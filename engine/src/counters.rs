//! What the engine counts: one table of names, units and meanings, and an array of numbers beside it.
//!
//! Out: `Counters`, which the router copies into its mapped counters file once a turn.
//! Always: counters only grow. `calls_admitted` is the sum of all `answered_*`, `calls_forgotten` and the calls
//! that are still unanswered; `invariants()` holds the engine to it.
//! Never: reordered; a new counter goes to the end, because readers of an old file find theirs by position.

macro_rules! counter_table {
    ($($variant:ident $name:literal $unit:literal $meaning:literal)*) => {
        /// Names one counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Counter {
            $(#[doc = $meaning] $variant,)*
        }

        /// All counters in the order of their positions.
        pub const COUNTER_TABLE: &[CounterRow] = &[
            $(CounterRow { counter: Counter::$variant, name: $name, unit: $unit, meaning: $meaning },)*
        ];
    };
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct CounterRow {
    /// Which counter.
    pub counter: Counter,
    /// Its name in files and reports.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// When it goes up.
    pub meaning: &'static str,
}

counter_table! {
    CallsReceived "calls_received" "calls" "Requests that reached admission."
    CallsAdmitted "calls_admitted" "calls" "Requests that became an obligation to answer."
    RefusedUnknownFunction "refused_unknown_function" "calls" "Refused: no function has this number."
    RefusedUnknownCriticality "refused_unknown_criticality" "calls" "Refused: no criticality has this number."
    RefusedPayloadTooLarge "refused_payload_too_large" "calls" "Refused: more bytes than the function takes."
    RefusedDeadlinePassed "refused_deadline_passed" "calls" "Refused: the deadline was over on arrival."
    RefusedDraining "refused_draining" "calls" "Refused: the router is going away."
    RefusedNoWorker "refused_no_worker" "calls" "Refused: the function has no worker and its processes keep failing."
    RefusedQueueFull "refused_queue_full" "calls" "Refused: the function's queue is at its bound."
    RefusedOverloaded "refused_overloaded" "calls" "Refused: the invocation table is full."
    CallsPushed "calls_pushed" "calls" "Hand-overs to a worker, second attempts included."
    CallsRetried "calls_retried" "calls" "Attempts made again: the worker was lost, or the function failed."
    CallsRelaned "calls_relaned" "calls" "Moves of a queued call to a more urgent lane as its deadline drew near."
    AnsweredOk "answered_ok" "calls" "Answers: the function's result."
    AnsweredFunctionError "answered_function_error" "calls" "Answers: the function failed."
    AnsweredExpired "answered_expired" "calls" "Answers: the deadline passed and the function never started."
    AnsweredTimedOut "answered_timed_out" "calls" "Answers: the deadline passed and the function had, or may have, started."
    AnsweredCancelled "answered_cancelled" "calls" "Answers: the caller cancelled."
    AnsweredWorkerLost "answered_worker_lost" "calls" "Answers: the worker died and the call could not be tried again."
    AnsweredWorkerMisbehaved "answered_worker_misbehaved" "calls" "Answers: the worker broke the ring's rules and the call could not be tried again."
    AnsweredResultTooLarge "answered_result_too_large" "calls" "Answers: the function's result does not fit its region."
    CallsForgotten "calls_forgotten" "calls" "Calls whose client went away before an answer existed."
    CancelsIgnored "cancels_ignored" "cancels" "Cancels that named no call, or one already answered."
    ResultsDropped "results_dropped" "results" "Results that came after their call was answered or forgotten."
    ResultsStale "results_stale" "results" "Results for a call that the worker does not hold."
    WorkersAttached "workers_attached" "workers" "Workers that attached."
    AttachesRefused "attaches_refused" "workers" "Workers that were refused."
    WorkersLost "workers_lost" "workers" "Attached workers whose process is gone."
    WorkersQuarantined "workers_quarantined" "workers" "Workers that broke the ring's rules."
    WorkersOverstayed "workers_overstayed" "workers" "Workers to be killed for running a call past its deadline and grace."
    WorkersStalled "workers_stalled" "workers" "Workers to be killed for starting nothing and finishing nothing while holding expired calls."
    TimersFired "timers_fired" "timers" "Timers that came due."
    LeasesGranted "leases_granted" "leases" "Credits lent to a client that calls a worker directly."
    LeasesRefused "leases_refused" "leases" "Credits asked for and not lent."
    RefusedRateLimited "refused_rate_limited" "calls" "Refused: more calls a second than the function or its tenant may have."
    RefusedDeadlineUnreachable "refused_deadline_unreachable" "calls" "Refused: those waiting before it would take longer than it has."
    CallsAged "calls_aged" "calls" "Queued calls that waited as long as their function's `ageing`."
    RefusedWouldDeadlock "refused_would_deadlock" "calls" "Refused: a nested call whose function has no worker but those that wait for it, or one nested too deep."
    CallsNested "calls_nested" "calls" "Calls admitted that another call makes."
    RefusedBreakerOpen "refused_breaker_open" "calls" "Refused: the function fails most of the time and is left alone for a while."
    BreakersOpened "breakers_opened" "openings" "Breakers that opened, or opened again when a probe failed."
    FallbacksRun "fallbacks_run" "calls" "Calls given to another function because their own one's breaker was open."
    FallbacksAnswered "fallbacks_answered" "calls" "Calls answered with bytes from the configuration because their function's breaker was open."
    RetriesDenied "retries_denied" "calls" "Calls not tried again because their function's budget of retries was used up."
    AnsweredQuarantined "answered_quarantined" "calls" "Answers: two workers died while they ran the call."
    AnsweredBackpressure "answered_backpressure" "calls" "Answers: something that the function calls is overloaded."
    CallsJoined "calls_joined" "calls" "Calls admitted that wait for the result of another one with the same key, and are not run."
    RefusedJoinFull "refused_join_full" "calls" "Refused: as many wait for the call with the same key as may, or there are too many keys."
    HedgesPushed "hedges_pushed" "attempts" "Second attempts at calls that took long, while the first still ran."
    HedgesWon "hedges_won" "attempts" "Second attempts whose result was the answer."
    HedgesDenied "hedges_denied" "calls" "Calls that took long and got no second attempt: no idle worker, or the budget was used up."
    BackpressureLowered "backpressure_lowered" "limits" "Times that a function was limited, or limited further, for something that it calls."
    BackpressureCrowded "backpressure_crowded" "answers" "Answers of back-pressure that counted for another name, because their function had no room for one more."
    CallsScheduled "calls_scheduled" "calls" "Calls admitted that start later, at a time their callers gave."
    RefusedStartTooLate "refused_start_too_late" "calls" "Refused: it is to start later than calls are kept for."
    AnsweredWouldDeadlock "answered_would_deadlock" "calls" "Answers: a nested call that had to wait, and closed a circle of calls that wait for each other."
    CallsBeyondRate "calls_beyond_rate" "calls" "Calls that were more than their callers' rate allows, and waited behind those of others."
    CallsToCanary "calls_to_canary" "calls" "Calls given to their function's canary, whether it took them or not."
    AnsweredNoWorker "answered_no_worker" "calls" "Answers: the function has no worker, and its processes keep failing or are not kept any more."
    InstancesAskedFor "instances_asked_for" "workers" "Instances that the shim was asked for because calls waited that nobody could take."
    InstancesReleased "instances_released" "workers" "Instances that were told to end because they had nothing to do for too long."
    InstancesPrewarmed "instances_prewarmed" "workers" "Instances that attached before a call came for which they had been started ahead."
    ColdStarts "cold_starts" "workers" "Workers that attached after calls had asked for them."
    CallsHeldForStart "calls_held_for_start" "calls" "Calls that waited when the first worker of their function attached, which was started for them."
}

/// How many counters there are.
pub const COUNTER_COUNT: usize = COUNTER_TABLE.len();

/// The numbers, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters([u64; COUNTER_COUNT]);

impl Default for Counters {
    fn default() -> Counters {
        Counters([0; COUNTER_COUNT])
    }
}

impl Counters {
    #[inline]
    pub(crate) fn count(&mut self, counter: Counter) {
        self.0[counter as usize] += 1;
    }

    #[inline]
    pub(crate) fn add(&mut self, counter: Counter, count: u64) {
        self.0[counter as usize] += count;
    }

    /// The value of one counter.
    pub fn value(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// All values in the order of [`COUNTER_TABLE`].
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn table_positions_are_the_enum_values_and_names_are_unique() {
        let mut names = BTreeSet::new();
        for (position, row) in COUNTER_TABLE.iter().enumerate() {
            assert_eq!(row.counter as usize, position);
            assert!(names.insert(row.name), "{} stands twice", row.name);
            assert!(row.meaning.ends_with('.'), "{}: a meaning is a sentence", row.name);
        }
    }
}
