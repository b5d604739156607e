//! The generator's one thread: the loop that sends what is due, takes what was answered, and waits as little as it may.
//!
//! In: open connections and a plan.  Out: a tally.
//! Always: the schedule decides when a call is due, and answers never move it. A turn reads the clock once, and once
//! more for each read that brought answers.
//! Never: allocates in steady state, blocks in a read or write, or sleeps across a send that is due.
//!
//! Waiting. epoll's time limit is a whole number of milliseconds, and waking costs tens of microseconds. So the loop
//! sleeps only while the next send is more than [`SLEEP_MARGIN_NS`] away, and otherwise looks again and again, giving
//! its processor away between looks (the router may be waiting for it).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

use crate::connection::{Connection, Lost, READ_SIZE, Template};
use crate::plan::{Plan, Workload};
use crate::schedule::{Lateness, Pacer, Schedule};
use crate::tally::{Tally, Unanswered, Watched};

/// Sends of one turn: a backlog larger than this lets answers be taken in between.
pub(crate) const SENDS_PER_TURN_MAX: usize = 4_096;

/// A send nearer than this is waited for without sleeping: epoll's millisecond, and a slow wake-up.
pub(crate) const SLEEP_MARGIN_NS: u64 = 2_000_000;

/// Without anything to send, look this long for answers before sleeping: longer than an answer in a busy pipeline
/// takes, shorter than anyone would notice in the processor time of an idle run.
pub(crate) const SPIN_NS: u64 = 100_000;

/// The longest sleep, so that the end of the run and a request to stop are seen.
pub(crate) const SLEEP_MAX: Duration = Duration::from_millis(10);

pub(crate) struct Generator<'a> {
    plan: &'a Plan,
    template: Template,
    connections: Vec<Connection>,
    poll: Poll,
    events: Events,
    /// Connections that may have answers for us, by index.
    readable: Vec<usize>,
    /// The same, being worked on. Kept for its capacity.
    reading: Vec<usize>,
    /// Open loop: connections with a credit, in the order of their turn.
    with_credit: VecDeque<usize>,
    is_with_credit: Vec<bool>,
    /// Connections with something to write, by index; one may stand here many times.
    to_flush: Vec<usize>,
    scratch: Vec<u8>,
    tally: Tally,
    pacer: Option<Pacer>,
    started_at: Instant,
    end_at_ns: u64,
    idle_ns: u64,
    active_at_ns: u64,
    slot_count: u64,
}

/// How a run went, for the report.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) lateness: Lateness,
    pub(crate) elapsed_ns: u64,
    /// Until the last call was sent: what throughput is measured over.
    pub(crate) sending_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) idle_ns: u64,
    /// Calls that could be outstanding at once.
    pub(crate) slot_count: u64,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        template: Template,
        mut connections: Vec<Connection>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (index, connection) in connections.iter_mut().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(connection.source(), Token(index), interest)?;
        }
        let count = connections.len();
        let end_at_ns = u64::try_from(plan.duration.as_nanos()).unwrap_or(u64::MAX);
        let pacer = match plan.workload {
            Workload::Closed { .. } => None,
            Workload::Open { rate, arrivals } => {
                Some(Pacer::new(Schedule::new(rate, arrivals, plan.duration, plan.seed), plan.late_after))
            }
        };
        let slot_count = connections.iter().map(Connection::slot_count).sum();
        Ok(Self {
            plan,
            template,
            poll,
            events: Events::with_capacity(1_024),
            readable: Vec::with_capacity(count),
            reading: Vec::with_capacity(count),
            with_credit: (0..count).collect(),
            is_with_credit: vec![true; count],
            to_flush: Vec::with_capacity(count.max(SENDS_PER_TURN_MAX)),
            scratch: vec![0; 2 * READ_SIZE],
            connections,
            tally: Tally::new(plan.workload, end_at_ns),
            pacer,
            started_at: Instant::now(),
            end_at_ns,
            idle_ns: 0,
            active_at_ns: 0,
            slot_count,
        })
    }

    /// Runs the plan to its end, or until `stop`.
    pub(crate) fn run(mut self, watched: &Watched, stop: &AtomicBool) -> io::Result<Outcome> {
        let cpu_before_ns = thread_cpu_ns();
        self.started_at = Instant::now();
        if self.pacer.is_none() {
            self.fill_windows();
        }
        let mut now_ns = self.now_ns();
        while now_ns < self.end_at_ns && !stop.load(Ordering::Relaxed) && !self.are_all_over() {
            let turn_at_ns = now_ns;
            let progress = self.turn(turn_at_ns, true)?;
            now_ns = self.now_ns();
            self.after_turn(turn_at_ns, now_ns, progress, watched);
        }
        let sending_ns = now_ns.min(self.end_at_ns);
        // The last turn may have begun before the last calls were due and ended after the end: they go out late,
        // and are counted as that. What has no credit even now is not sent.
        while now_ns >= self.end_at_ns && self.send_due() > 0 {}
        if let Some(pacer) = &mut self.pacer {
            let unsent = pacer.count_unsent(sending_ns);
            self.tally.count_unanswered(Unanswered::NotSent, unsent);
        }
        self.drain(now_ns, watched)?;
        let elapsed_ns = self.now_ns();
        let missing = self.connections.iter().map(Connection::outstanding).sum();
        self.tally.count_unanswered(Unanswered::NoAnswer, missing);
        watched.publish(&self.tally, self.lateness().late, elapsed_ns);
        Ok(Outcome {
            lateness: self.lateness(),
            tally: self.tally,
            elapsed_ns,
            sending_ns,
            cpu_ns: thread_cpu_ns().saturating_sub(cpu_before_ns),
            idle_ns: self.idle_ns,
            slot_count: self.slot_count,
        })
    }

    /// Takes the answers still outstanding, sending nothing new.
    fn drain(&mut self, from_ns: u64, watched: &Watched) -> io::Result<()> {
        let timeout_ns = u64::try_from(self.plan.drain_timeout.as_nanos()).unwrap_or(u64::MAX);
        let give_up_at_ns = from_ns.saturating_add(timeout_ns);
        let mut now_ns = from_ns;
        while now_ns < give_up_at_ns && self.connections.iter().any(|connection| connection.outstanding() > 0)
        {
            let turn_at_ns = now_ns;
            let progress = self.turn(turn_at_ns, false)?;
            now_ns = self.now_ns();
            self.after_turn(turn_at_ns, now_ns, progress, watched);
        }
        Ok(())
    }

    /// One turn of the loop. Returns how many calls were sent or answered in it.
    fn turn(&mut self, now_ns: u64, is_sending: bool) -> io::Result<u64> {
        let timeout = self.patience(now_ns, is_sending);
        self.look(timeout)?;
        let mut progress = self.take_answers(is_sending);
        if is_sending && self.pacer.is_some() {
            progress += self.send_due();
        }
        Ok(progress)
    }

    fn after_turn(&mut self, turn_at_ns: u64, now_ns: u64, progress: u64, watched: &Watched) {
        if progress > 0 {
            self.active_at_ns = now_ns;
        } else {
            self.idle_ns += now_ns - turn_at_ns;
        }
        self.tally.advance(now_ns);
        watched.publish(&self.tally, self.lateness().late, now_ns);
    }

    /// How long to sleep for readiness. Zero: look and go on.
    fn patience(&self, now_ns: u64, is_sending: bool) -> Duration {
        if !self.readable.is_empty() {
            return Duration::ZERO;
        }
        let due_at_ns = match &self.pacer {
            // With every credit in use, only an answer can help: wait for one as a closed loop does.
            Some(pacer) if is_sending && !self.with_credit.is_empty() => pacer.next_at_ns(),
            _ => None,
        };
        let until_due_ns = due_at_ns.map_or(u64::MAX, |at_ns| at_ns.saturating_sub(now_ns));
        if until_due_ns < SLEEP_MARGIN_NS || now_ns.saturating_sub(self.active_at_ns) < SPIN_NS {
            return Duration::ZERO;
        }
        Duration::from_nanos(until_due_ns - SLEEP_MARGIN_NS / 2).min(SLEEP_MAX)
    }

    /// Asks which sockets are ready.
    fn look(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.events.is_empty() && self.readable.is_empty() && timeout.is_zero() {
            // Nothing to do just now: whoever shares this processor may have.
            std::thread::yield_now();
        }
        for event in &self.events {
            let Token(index) = event.token();
            let Some(connection) = self.connections.get_mut(index).filter(|known| !known.is_lost()) else {
                continue;
            };
            if event.is_writable() {
                connection.on_writable();
                self.to_flush.push(index);
            }
            let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
            connection.is_at_end |= event.is_read_closed();
            if is_readable && !connection.is_readable {
                connection.is_readable = true;
                self.readable.push(index);
            }
        }
        self.flush_gathered();
        Ok(())
    }

    /// One read for each ready connection; in a closed loop, each answer lets the next call go at once.
    fn take_answers(&mut self, is_sending: bool) -> u64 {
        let mut progress = 0;
        std::mem::swap(&mut self.readable, &mut self.reading);
        while let Some(index) = self.reading.pop() {
            let Some(connection) = self.connections.get_mut(index).filter(|known| !known.is_lost()) else {
                continue;
            };
            let started_at = self.started_at;
            let received = connection
                .receive(&self.template, &mut self.scratch, &mut self.tally, || ns_since(started_at));
            let received = match received {
                Ok(received) => received,
                Err(lost) => {
                    self.lose(index, lost);
                    continue;
                }
            };
            progress += received.count;
            if received.has_more {
                self.readable.push(index);
            }
            if received.count > 0 && self.pacer.is_some() {
                self.note_credit(index);
            }
            if is_sending && self.pacer.is_none() {
                self.fill_window(index, self.now_ns());
            }
            // Calls just filled in, or a PONG.
            self.flush(index);
        }
        progress
    }

    /// Open loop: sends what is due, spread evenly over the connections that have credits.
    fn send_due(&mut self) -> u64 {
        let now_ns = self.now_ns();
        let Some(pacer) = &mut self.pacer else { return 0 };
        let mut sent = 0;
        while sent < SENDS_PER_TURN_MAX as u64 && pacer.next_at_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            let Some(index) = self.with_credit.pop_front() else {
                pacer.note_held(now_ns);
                break;
            };
            let Some(connection) = self.connections.get_mut(index) else { continue };
            if let Some(is_with_credit) = self.is_with_credit.get_mut(index) {
                *is_with_credit = false;
            }
            if !connection.has_credit() {
                continue;
            }
            let Some(intended_at_ns) = pacer.take_due(now_ns) else { break };
            connection.send(&self.template, intended_at_ns, now_ns);
            sent += 1;
            self.to_flush.push(index);
            if connection.has_credit() {
                self.with_credit.push_back(index);
                if let Some(is_with_credit) = self.is_with_credit.get_mut(index) {
                    *is_with_credit = true;
                }
            }
        }
        self.tally.count_sent(sent);
        self.flush_gathered();
        sent
    }

    fn note_credit(&mut self, index: usize) {
        let has_credit = self.connections.get(index).is_some_and(Connection::has_credit);
        if let Some(is_with_credit) = self.is_with_credit.get_mut(index)
            && has_credit
            && !*is_with_credit
        {
            *is_with_credit = true;
            self.with_credit.push_back(index);
        }
    }

    fn fill_windows(&mut self) {
        for index in 0..self.connections.len() {
            self.fill_window(index, 0);
            self.flush(index);
        }
    }

    /// Closed loop: one call for every free slot of the connection. A call is due when its slot is free.
    fn fill_window(&mut self, index: usize, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let mut sent = 0;
        while connection.send(&self.template, now_ns, now_ns) {
            sent += 1;
        }
        self.tally.count_sent(sent);
    }

    fn flush_gathered(&mut self) {
        while let Some(index) = self.to_flush.pop() {
            self.flush(index);
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if let Err(lost) = connection.flush() {
            self.lose(index, lost);
        }
    }

    /// Answers that had arrived before the end were taken: a socket is read until it is empty or broken.
    fn lose(&mut self, index: usize, lost: Lost) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let outstanding = connection.lose();
        // It will never be ready for anything again.
        let _already_gone = self.poll.registry().deregister(connection.source());
        let why = match lost {
            Lost::Closed => Unanswered::Disconnected,
            Lost::Misbehaved => Unanswered::RouterMisbehaved,
        };
        self.tally.count_unanswered(why, outstanding);
    }

    /// Nothing can be sent any more: the router said GOAWAY or is gone. Going on would only make the rate look low.
    fn are_all_over(&self) -> bool {
        self.connections.iter().all(Connection::is_over)
    }

    fn lateness(&self) -> Lateness {
        self.pacer.as_ref().map(Pacer::lateness).unwrap_or_default()
    }

    fn now_ns(&self) -> u64 {
        ns_since(self.started_at)
    }
}

pub(crate) fn ns_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}
