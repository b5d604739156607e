//! Stage 7 of 8: the loop of a function process over its ring.
//!
//! In: requests.  Out: for each exactly one answer, in the order taken.
//! Always: a request is taken only when it is its turn to run. What still lies in the ring when this process dies was
//! provably not started, and the router gives it to another.
//! Never: allocates (the handler may), or reads the clock more than once for a call when calls follow each other: the end of
//! one is the beginning of the next. What a reading costs, and how exact it is: `shm_ring::clock`.
//!
//! Publishing costs a fence and, when the router sleeps, a system call, so answers of quick calls are shown in batches; but
//! an answer should not wait for a slow call behind it. So batches are formed only while calls have lately been quick: see
//! [`Pace`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shm_ring::clock::Clock;
use shm_ring::doorbell::EventDoorbell;
use shm_ring::layout::Outcome;
use shm_ring::{Mapped, RouterMisbehaved, Taken, WorkerEnd};

use super::ServeFailed;
use super::attachment::Attachment;
use super::call::{Call, FunctionError, Reply};
use super::lanes::{Lanes, Work};
use super::log;
use super::stop::Stop;
use super::watcher::{News, Watcher};
use crate::waits::Waits;

/// The longest text of a panic that goes to the caller. All of it goes to stderr, and so into the log.
const PANIC_SIZE_MAX: usize = 1024;

/// How serving one attachment ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The router said stop, and everything it had sent is answered; or this process asked for it.
    Stopped,
    /// The router is dead.
    RouterGone,
    /// The memory is not what a router writes.
    RingDamaged(RouterMisbehaved),
}

/// Serves until the attachment ends, one way or another.
pub fn serve_attachment(
    attachment: Attachment,
    spin_count_max: u32,
    stop: &Stop,
    handler: &mut impl FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
) -> Result<End, ServeFailed> {
    let Attachment { ring, bell, stream, waker, unread, .. } = attachment;
    let waits = Waits::new(Arc::clone(&waker)).map_err(ServeFailed::NoSecret)?;
    let waits = Arc::new(waits);
    let watcher = Watcher::start(stream, waker, unread).map_err(ServeFailed::NoThread)?;
    stop.wakes(watcher.teller());
    let mut worker =
        Worker { ring, bell, clock: Clock::new(), reply: Reply::new(), pace: Pace::new(), waits, handler };
    let mut lanes = Lanes::default();
    loop {
        let news = watcher.news(|order| lanes.obey(order));
        if stop.is_asked() {
            // What is left in the ring and in lanes has not begun, and goes to another process.
            return Ok(End::Stopped);
        }
        if news == News::RouterGone {
            // What is left in the ring has lost its callers together with the router, so it is not begun.
            return Ok(End::RouterGone);
        }
        if news == News::Stop {
            // What clients still have in their lanes goes another way.
            lanes = Lanes::default();
        }
        let has_answered = match worker.serve_batch() {
            Ok(false) if news == News::Stop => return Ok(End::Stopped),
            Ok(has_answered) => has_answered,
            Err(damage) => return Ok(End::RingDamaged(damage)),
        };
        let has_served = lanes.serve_batch(worker.work());
        if has_answered || has_served {
            continue;
        }
        // Sleeps without a limit: the router wakes for requests, the watcher for news.
        if let Err(damage) = lanes.wait(&mut worker.ring, spin_count_max) {
            return Ok(End::RingDamaged(damage));
        }
    }
}

struct Worker<'h, H> {
    ring: WorkerEnd<Mapped>,
    bell: EventDoorbell,
    clock: Clock,
    reply: Reply,
    pace: Pace,
    waits: Arc<Waits>,
    handler: &'h mut H,
}

impl<H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>> Worker<'_, H> {
    /// Answers one batch and shows it to the router; `false` if there was nothing to answer.
    fn serve_batch(&mut self) -> Result<bool, RouterMisbehaved> {
        let mut answered_count = 0;
        let mut now = 0;
        while let Some(taken) = self.ring.next_request()? {
            if answered_count == 0 {
                now = self.clock.now_ns();
            }
            now = self.serve_one(taken, now);
            answered_count += 1;
            if answered_count >= self.pace.batch_count_max() {
                break;
            }
        }
        if self.ring.publish() {
            // Fails only for a descriptor that is none, and this one was received as a bell.
            let _ = self.bell.ring();
        }
        Ok(answered_count > 0)
    }

    /// Runs and answers one request, unless nobody waits for it. Gives the time at its end.
    fn serve_one(&mut self, taken: Taken, now: u64) -> u64 {
        if taken.cancelled || taken.deadline_at_ns <= now {
            let outcome = if taken.cancelled { Outcome::Cancelled } else { Outcome::Expired };
            self.ring.complete(taken, outcome, now, now, &[]);
            return now;
        }
        self.ring.note_started(&taken, now);
        self.reply.clear(self.ring.geometry().region_size() as usize);
        let ran = self.run(&taken);
        let finished_at = self.clock.now_ns();
        self.pace.note_run(finished_at.saturating_sub(now));
        let reply = self.reply.bytes();
        match ran {
            Ran::Well => self.ring.complete(taken, Outcome::Ok, now, finished_at, reply),
            Ran::Failed => self.ring.complete(taken, Outcome::FunctionError, now, finished_at, reply),
            Ran::PushedBack { severity } => {
                self.ring.complete_pushed_back(taken, severity, now, finished_at, reply);
            }
        }
        finished_at
    }

    fn run(&mut self, taken: &Taken) -> Ran {
        let Self { ring, reply, waits, handler, .. } = self;
        run_guarded(*handler, &Call::new(ring, taken, waits), reply)
    }

    /// What lanes need to run calls as this ring does.
    fn work(&mut self) -> Work<'_, H> {
        let Self { clock, reply, pace, handler, .. } = self;
        Work { clock, reply, pace, handler }
    }
}

/// How a function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The reply is its result.
    Well,
    /// The reply is its error.
    Failed,
    /// The reply is the name of what pushed it back.
    PushedBack {
        /// How many refusals that stands for, at least 1.
        severity: u8,
    },
}

/// Runs the function. What it returns, or dies of, is in the reply.
pub fn run_guarded<H>(handler: &mut H, call: &Call<'_>, reply: &mut Reply) -> Ran
where
    H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
{
    let number = Some(call.router_id()).filter(|id| *id != 0);
    log::during(number, || answer_guarded(handler, call, reply))
}

fn answer_guarded<H>(handler: &mut H, call: &Call<'_>, reply: &mut Reply) -> Ran
where
    H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
{
    // The reply is replaced after a panic. The handler's own state may be half changed; whether to go on with it is
    // its author's choice, who can end the process, and the shim starts another.
    let returned = catch_unwind(AssertUnwindSafe(|| handler(call, reply)));
    match returned {
        Ok(Ok(())) => return Ran::Well,
        Ok(Err(error)) => {
            reply.replace(error.bytes());
            if let severity @ 1.. = error.severity() {
                return Ran::PushedBack { severity };
            }
        }
        Err(panic) => {
            let told = panic_text(&*panic);
            // What the panic itself printed is of no call: `std` knows none.
            super::eprintln!("the call {told}");
            reply.replace(told.as_bytes());
        }
    }
    Ran::Failed
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no text)");
    let mut told = format!("panicked: {text}");
    let size = (0..=PANIC_SIZE_MAX.min(told.len())).rev().find(|&size| told.is_char_boundary(size));
    told.truncate(size.unwrap_or(0));
    told
}

/// How many answers may wait for each other, by how long calls have lately taken.
///
/// An answer in a batch waits for the calls behind it: at most 16 of at most 1.25 us, 20 us in all, which is less than it
/// takes to wake a core. A slow call after quick ones delays up to 15 answers, once; then each answer is shown at once until
/// calls have been quick for a while.
pub struct Pace {
    run_ns_recent: u64,
}

impl Pace {
    /// A quick function has at least 64 calls in its ring while calls wait: the router can refill three quarters of them
    /// while a batch is on its way.
    const BATCH_COUNT_MAX: u32 = 16;
    const QUICK_NS: u64 = 1_250;

    /// Slow until proved quick.
    fn new() -> Self {
        Self { run_ns_recent: 16 * Self::QUICK_NS }
    }

    /// The longest run of late: each further call makes an earlier one an eighth less important.
    #[inline]
    pub fn note_run(&mut self, run_ns: u64) {
        self.run_ns_recent = run_ns.max(self.run_ns_recent - self.run_ns_recent.div_ceil(8));
    }

    #[inline]
    pub fn batch_count_max(&self) -> u32 {
        if self.run_ns_recent <= Self::QUICK_NS { Self::BATCH_COUNT_MAX } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_calls_are_answered_in_batches_only_after_they_have_proved_quick() {
        let mut pace = Pace::new();
        assert_eq!(pace.batch_count_max(), 1);
        for _ in 0..64 {
            pace.note_run(200);
        }
        assert_eq!(pace.batch_count_max(), Pace::BATCH_COUNT_MAX);
        pace.note_run(1_000_000);
        assert_eq!(pace.batch_count_max(), 1, "one slow call ends the batches at once");
    }

    #[test]
    fn pace_takes_any_length() {
        let mut pace = Pace::new();
        for run_ns in [u64::MAX, 0, 1, u64::MAX] {
            pace.note_run(run_ns);
        }
        for _ in 0..1_000 {
            pace.note_run(0);
        }
        assert_eq!(pace.run_ns_recent, 0);
    }

    #[test]
    fn a_panic_of_any_kind_has_a_text_of_bounded_size() {
        let caught = |run: fn()| panic_text(&*catch_unwind(run).unwrap_err());
        assert_eq!(caught(|| panic!("plain")), "panicked: plain");
        assert_eq!(caught(|| panic!("with {}", 1)), "panicked: with 1");
        assert_eq!(caught(|| std::panic::panic_any(7)), "panicked: (no text)");
        assert!(caught(|| panic!("{}", "ü".repeat(5_000))).len() <= PANIC_SIZE_MAX);
    }
}
