//! What happened: counts, latencies, and the slices for the plots.
//!
//! In: sends and answers, with times in nanoseconds since the start.  Out: what the report is made of.
//! Always: every call sent ends in exactly one of ok, an error, or mismatched.
//! Always: answers that came in one read share one reading of the clock, and calls sent at once were due at once, so that
//! equal latencies come in runs. A run costs one comparison for each answer and one entry in each histogram ([`Run`]).
//! Never: allocates after the start. Histograms are fixed in size; larger latencies count as the largest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use protocol::{Class, Status};

use crate::plan::Workload;
use crate::timeline::{Interval, Timeline};

/// Latencies are exact to three digits from 100 ns, finer than any clock read costs here, to 100 s.
const LATENCY_NS_MIN: u64 = 100;
const LATENCY_NS_MAX: u64 = 100_000_000_000;
const DIGITS: u8 = 3;

/// Status numbers are below this, and unknown ones are counted by class.
const STATUS_COUNT: usize = 128;

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) ok: u64,
    /// Of `ok`: received before the sending ended.
    pub(crate) ok_in_time: u64,
    pub(crate) mismatched: u64,
    /// Of `answered`: through direct lanes.
    pub(crate) direct: u64,
    /// Since the intended send: with coordinated-omission correction.
    latency: Histogram<u64>,
    /// Since the actual send: without. `None` in a closed loop, where a call is due when it is sent and both are
    /// the same.
    latency_uncorrected: Option<Histogram<u64>>,
    /// What the histograms and the timeline do not have yet.
    run: Run,
    /// Answers other than ok, by status.
    by_status: [u64; STATUS_COUNT],
    by_unknown_class: BTreeMap<&'static str, u64>,
    /// Ends that were no answer, by name.
    unanswered: [u64; Unanswered::ALL.len()],
    errors: u64,
    timeline: Timeline,
    end_at_ns: u64,
}

/// Equal latencies in a row.
#[derive(Debug, Default)]
struct Run {
    latency_ns: u64,
    latency_uncorrected_ns: u64,
    count: u64,
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Its connection ended first.
    Disconnected,
    /// The router's bytes on its connection stopped being the protocol.
    RouterMisbehaved,
    /// The run ended first.
    NoAnswer,
    /// It was due and could not be sent at all.
    NotSent,
}

impl Unanswered {
    const ALL: [Self; 4] = [Self::Disconnected, Self::RouterMisbehaved, Self::NoAnswer, Self::NotSent];

    const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::RouterMisbehaved => "router_misbehaved",
            Self::NoAnswer => "no_answer",
            Self::NotSent => "not_sent",
        }
    }
}

/// One answer, matched to its call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) intended_at_ns: u64,
    pub(crate) sent_at_ns: u64,
    pub(crate) status: u16,
    /// The payload is the one that was sent, or nobody compares.
    pub(crate) matches: bool,
}

impl Tally {
    /// For a run whose sending ends at `end_at_ns`.
    pub(crate) fn new(workload: Workload, end_at_ns: u64) -> Self {
        let histogram = || {
            Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, DIGITS)
                .expect("the bounds are constants that fit each other")
        };
        Self {
            sent: 0,
            answered: 0,
            ok: 0,
            ok_in_time: 0,
            mismatched: 0,
            direct: 0,
            latency: histogram(),
            latency_uncorrected: matches!(workload, Workload::Open { .. }).then(histogram),
            run: Run::default(),
            by_status: [0; STATUS_COUNT],
            by_unknown_class: BTreeMap::new(),
            unanswered: [0; Unanswered::ALL.len()],
            errors: 0,
            timeline: Timeline::new(end_at_ns),
            end_at_ns,
        }
    }

    pub(crate) fn count_sent(&mut self, count: u64) {
        self.sent += count;
        self.timeline.count_sent(count);
    }

    /// Only results count towards latency: a refusal that comes quickly must not make the function look quick.
    #[inline]
    pub(crate) fn count_answer(&mut self, now_ns: u64, answered: Answered) {
        self.answered += 1;
        if answered.status != Status::Ok as u16 {
            return self.count_status(answered.status);
        }
        if !answered.matches {
            return self.count_mismatch();
        }
        let latency_ns = now_ns.saturating_sub(answered.intended_at_ns);
        let latency_uncorrected_ns = now_ns.saturating_sub(answered.sent_at_ns);
        self.ok += 1;
        self.ok_in_time += u64::from(now_ns <= self.end_at_ns);
        if (latency_ns, latency_uncorrected_ns) != (self.run.latency_ns, self.run.latency_uncorrected_ns) {
            self.settle();
            self.run = Run { latency_ns, latency_uncorrected_ns, count: 0 };
        }
        self.run.count += 1;
    }

    /// Brings histograms and timeline up to date.
    fn settle(&mut self) {
        let Run { latency_ns, latency_uncorrected_ns, count } = self.run;
        self.run.count = 0;
        self.latency.saturating_record_n(latency_ns, count);
        if let Some(uncorrected) = &mut self.latency_uncorrected {
            uncorrected.saturating_record_n(latency_uncorrected_ns, count);
        }
        self.timeline.count_ok(latency_ns, count);
    }

    /// An answer that belongs to no outstanding call, or carries another call's payload.
    pub(crate) fn count_mismatch(&mut self) {
        self.mismatched += 1;
        self.count_error();
    }

    pub(crate) fn count_unanswered(&mut self, why: Unanswered, count: u64) {
        if let Some(counted) = self.unanswered.get_mut(why as usize) {
            *counted += count;
            self.errors += count;
        }
    }

    /// Called once a turn.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        self.settle();
        self.timeline.advance(now_ns);
    }

    /// Everything but ok, by reason; reasons that did not occur are absent.
    pub(crate) fn errors_by_reason(&self) -> BTreeMap<String, u64> {
        let statuses = Status::ALL
            .iter()
            .map(|status| (status.name(), self.by_status.get(*status as usize).copied().unwrap_or_default()));
        let unknown = self.by_unknown_class.iter().map(|(class, count)| (*class, *count));
        let unanswered = Unanswered::ALL.iter().zip(self.unanswered).map(|(why, count)| (why.name(), count));
        let mut reasons = BTreeMap::new();
        for (name, count) in
            statuses.chain(unknown).chain(unanswered).chain([("mismatched", self.mismatched)])
        {
            if count > 0 {
                *reasons.entry(name.to_owned()).or_default() += count;
            }
        }
        reasons
    }

    pub(crate) fn into_parts(mut self) -> (Histogram<u64>, Histogram<u64>, Vec<Interval>) {
        self.settle();
        let uncorrected = self.latency_uncorrected.unwrap_or_else(|| self.latency.clone());
        (self.latency, uncorrected, self.timeline.into_intervals())
    }

    fn count_status(&mut self, number: u16) {
        match (Status::try_from(number), self.by_status.get_mut(usize::from(number))) {
            (Ok(_), Some(count)) => *count += 1,
            // A newer router: its class is all we know of the number.
            _ => *self.by_unknown_class.entry(Class::of_number(number).name()).or_default() += 1,
        }
        self.count_error();
    }

    fn count_error(&mut self) {
        self.errors += 1;
        self.timeline.count_error();
    }
}

/// What another thread may watch while the run goes on. Written by the generator alone, once a turn.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) ok: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) late_sends: AtomicU64,
    /// Zero until the clock of the run starts.
    pub(crate) elapsed_ns: AtomicU64,
}

impl Watched {
    pub(crate) fn publish(&self, tally: &Tally, late_sends: u64, now_ns: u64) {
        // Relaxed: each number is shown by itself, and nothing else is read on its strength.
        self.sent.store(tally.sent, Ordering::Relaxed);
        self.answered.store(tally.answered, Ordering::Relaxed);
        self.ok.store(tally.ok, Ordering::Relaxed);
        self.errors.store(tally.errors, Ordering::Relaxed);
        self.late_sends.store(late_sends, Ordering::Relaxed);
        self.elapsed_ns.store(now_ns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Arrivals;

    const OPEN: Workload = Workload::Open { rate: 1.0, arrivals: Arrivals::Constant };

    fn answered(status: Status, matches: bool) -> Answered {
        Answered { intended_at_ns: 1_000, sent_at_ns: 5_000, status: status as u16, matches }
    }

    #[test]
    fn latency_counts_from_the_intended_and_from_the_actual_send() {
        let mut tally = Tally::new(OPEN, 1_000_000);
        tally.count_answer(11_000, answered(Status::Ok, true));
        let (latency, uncorrected, _) = tally.into_parts();
        assert_eq!((latency.max() / 100, uncorrected.max() / 100), (100, 60));
    }

    #[test]
    fn runs_of_equal_latencies_count_as_many_times_as_they_came() {
        let mut tally = Tally::new(OPEN, 1_000_000);
        for now_ns in [2_000, 2_000, 3_000, 2_000] {
            tally.count_answer(now_ns, answered(Status::Ok, true));
        }
        tally.advance(3_000);
        tally.count_answer(3_000, answered(Status::Ok, true));
        let (latency, uncorrected, timeline) = tally.into_parts();
        assert_eq!((latency.len(), latency.count_at(1_000), latency.count_at(2_000)), (5, 3, 2));
        assert_eq!(uncorrected.len(), 5);
        assert_eq!(timeline.iter().map(|slice| slice.ok).sum::<u64>(), 5);
    }

    #[test]
    fn every_end_has_its_reason_and_only_results_have_a_latency() {
        let mut tally = Tally::new(OPEN, 1_000_000);
        tally.count_answer(2_000, answered(Status::Ok, true));
        tally.count_answer(2_000, answered(Status::Ok, false));
        tally.count_answer(2_000, answered(Status::QueueFull, true));
        tally.count_answer(2_000, answered(Status::QueueFull, true));
        tally.count_answer(2_000, Answered { status: 29, ..answered(Status::Ok, true) });
        tally.count_unanswered(Unanswered::Disconnected, 3);
        let reasons: Vec<_> = tally.errors_by_reason().into_iter().collect();
        let expected = [("disconnected", 3), ("mismatched", 1), ("queue_full", 2), ("refused", 1)];
        assert_eq!(reasons, expected.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!((tally.answered, tally.ok, tally.errors), (5, 1, 7));
        assert_eq!(tally.into_parts().0.len(), 1);
    }

    #[test]
    fn results_after_the_sending_ended_do_not_count_towards_throughput() {
        let mut tally = Tally::new(OPEN, 10_000);
        tally.count_answer(10_000, answered(Status::Ok, true));
        tally.count_answer(10_001, answered(Status::Ok, true));
        assert_eq!((tally.ok, tally.ok_in_time), (2, 1));
    }
}
