//! Runs a recording again: the calls of `quickfire record`, when they came, for as long as they might take, and whether
//! they end as they did then.
//!
//! In: a recording and a router.  Out: a [`ReplayReport`] that sets the two side by side.
//! Always: each call is due at its recorded time, divided by the speed, whatever became of those before; its latency
//! counts from then. Function, criticality, budget and size are the recorded ones, and the bytes where they were recorded.
//! Never: waits in a read or a write. With at most some dozens of connections, looking at each in turn is simpler than
//! asking the kernel which are ready, and as quick.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use protocol::recording::Recording;
use protocol::{CallId, FrameParts, FunctionId, Status, limits};
use serde::Serialize;

use crate::connection::{Connection, Lost, READ_SIZE, Template};
use crate::dial::{dial, resolve};
use crate::error::LoadError;
use crate::generator::ns_since;
use crate::pattern::Pattern;
use crate::plan::{Arrivals, Plan, Workload};
use crate::report::LatencyReport;
use crate::tally::{Tally, Unanswered};

/// The longest sleep while nothing is due.
const SLEEP_MAX: Duration = Duration::from_micros(50);

/// What a replay showed, beside what was recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// How much faster than recorded.
    pub speed: f64,
    /// Calls of the recording.
    pub calls: u64,
    /// Calls that were missing in it.
    pub lost: u64,
    /// Calls sent.
    pub sent: u64,
    /// From the first send to the last answer.
    pub elapsed_s: f64,
    /// As recorded.
    pub recorded: ReplaySide,
    /// As it was now.
    pub replayed: ReplaySide,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ReplaySide {
    /// Calls by how they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Of those that ended with a result. Recorded: as the router saw them; replayed: since the send that was due.
    pub latency_ns: LatencyReport,
}

/// Sends every call of the recording. `plan` says where to, by how many connections and with what patience.
///
/// # Errors
/// If the router cannot be reached or does not have a function of the recording. What goes wrong later is counted.
pub fn replay(
    plan: &Plan,
    recording: &Recording,
    speed: f64,
    stop: &AtomicBool,
) -> Result<ReplayReport, LoadError> {
    let mut player = Player::connect(
        plan,
        recording,
        due_at_ns(recording, recording.calls.len().saturating_sub(1), speed),
    )?;
    let elapsed_ns = player.run(plan, recording, speed, stop);
    let missing = player.connections.iter().map(Connection::outstanding).sum();
    player.tally.count_unanswered(Unanswered::NoAnswer, missing);
    let unsent = recording.calls.len() as u64 - player.tally.sent;
    player.tally.count_unanswered(Unanswered::NotSent, unsent);
    let (sent, ok) = (player.tally.sent, player.tally.ok);
    let mut outcomes = player.tally.errors_by_reason();
    if ok > 0 {
        outcomes.insert(Status::Ok.name().to_owned(), ok);
    }
    let (latency, _, _) = player.tally.into_parts();
    Ok(ReplayReport {
        speed,
        calls: recording.calls.len() as u64,
        lost: recording.lost_count,
        sent,
        elapsed_s: elapsed_ns as f64 / 1e9,
        recorded: recorded(recording),
        replayed: ReplaySide { outcomes, latency_ns: LatencyReport::new(&latency) },
    })
}

/// What the recording says of itself.
fn recorded(recording: &Recording) -> ReplaySide {
    let mut outcomes = BTreeMap::new();
    let mut latency = Histogram::new(3).expect("three digits are allowed");
    for call in &recording.calls {
        let name = Status::try_from(call.status).map_or("unknown", Status::name);
        *outcomes.entry(name.to_owned()).or_default() += 1;
        if call.status == Status::Ok as u16 {
            latency.saturating_record(call.answered_ns);
        }
    }
    ReplaySide { outcomes, latency_ns: LatencyReport::new(&latency) }
}

struct Player {
    connections: Vec<Connection>,
    /// The router's numbers of the recording's functions.
    functions: Vec<FunctionId>,
    /// Answers are matched by their call id alone.
    any_answer: Template,
    tally: Tally,
    scratch: Vec<u8>,
    payload: Vec<u8>,
    started_at: Instant,
    turn: usize,
}

impl Player {
    fn connect(plan: &Plan, recording: &Recording, end_at_ns: u64) -> Result<Player, LoadError> {
        let called = |number: usize| recording.calls.iter().any(|call| call.function as usize == number);
        let first = (0..recording.functions.len()).find(|number| called(*number)).unwrap_or_default();
        let function = recording.functions.get(first).cloned().unwrap_or_default();
        // Dialling resolves one name; the others follow on the same socket.
        let plan = &Plan { function, workload: OPEN, ..plan.clone() };
        let (mut dialled, _) = dial(plan)?;
        let size_max = dialled
            .iter()
            .map(|dialled| limits::payload_size_max(dialled.hello.frame_size_max, 0))
            .min()
            .unwrap_or_default();
        let size = recording.calls.iter().map(|call| call.payload_size).max().unwrap_or_default();
        if size > size_max {
            return Err(LoadError::PayloadTooLarge { size, size_max });
        }
        let mut buffer = Vec::new();
        let mut functions = Vec::new();
        for (number, name) in recording.functions.iter().enumerate() {
            let on = dialled.first_mut().ok_or(crate::plan::PlanInvalid::NoConnections)?;
            // A function that nobody called need not be there.
            functions.push(match called(number) {
                true => resolve(plan, name, on, &mut buffer)?,
                false => FunctionId(u32::MAX),
            });
        }
        let connections = dialled.into_iter().enumerate().map(|(index, dialled)| {
            let credits = dialled.hello.credits;
            Connection::new(dialled, credits, Pattern::new(plan.seed, index))
        });
        let connections = connections.collect::<Result<_, _>>().map_err(LoadError::NoResources)?;
        let parts = FrameParts::invoke(CallId::NONE, FunctionId(0));
        Ok(Player {
            connections,
            functions,
            any_answer: Template::new(&parts, 0, false),
            tally: Tally::new(OPEN, end_at_ns.clamp(1, 1 << 50)),
            scratch: vec![0; 2 * READ_SIZE],
            payload: vec![0; size as usize],
            started_at: Instant::now(),
            turn: 0,
        })
    }

    /// Sends what is due until all is sent, and waits for the answers. Returns how long that took.
    fn run(&mut self, plan: &Plan, recording: &Recording, speed: f64, stop: &AtomicBool) -> u64 {
        self.started_at = Instant::now();
        let mut give_up_at_ns = u64::MAX;
        let mut next = 0;
        loop {
            let now_ns = ns_since(self.started_at);
            let mut progress = 0;
            while next < recording.calls.len() {
                let at_ns = due_at_ns(recording, next, speed);
                if at_ns > now_ns || !self.send(recording, next, at_ns, now_ns) {
                    break;
                }
                next += 1;
                progress += 1;
            }
            progress += self.take_answers();
            self.tally.advance(now_ns);
            let is_outstanding = self.connections.iter().any(|connection| connection.outstanding() > 0);
            let is_over = next == recording.calls.len() || stop.load(Ordering::Relaxed);
            if is_over && give_up_at_ns == u64::MAX {
                let patience_ns = u64::try_from(plan.drain_timeout.as_nanos()).unwrap_or(u64::MAX);
                give_up_at_ns = now_ns.saturating_add(patience_ns);
            }
            let is_lost = self.connections.iter().all(Connection::is_over);
            if is_lost || (is_over && !is_outstanding) || now_ns >= give_up_at_ns {
                return now_ns;
            }
            if progress == 0 {
                std::thread::sleep(SLEEP_MAX);
            }
        }
    }

    /// Sends one call by the next connection that has a credit. False: none has.
    fn send(&mut self, recording: &Recording, index: usize, due_at_ns: u64, now_ns: u64) -> bool {
        let Some(call) = recording.calls.get(index) else { return false };
        let function = self.functions.get(call.function as usize).copied().unwrap_or(FunctionId(u32::MAX));
        let parts = FrameParts {
            budget_us: u32::try_from(call.budget_ns.div_ceil(1_000)).unwrap_or(u32::MAX),
            criticality: call.criticality,
            ..FrameParts::invoke(CallId::NONE, function)
        };
        let body = recording.body(index);
        let zeros = self.payload.get(..call.payload_size as usize).unwrap_or_default();
        let payload = if body.is_empty() { zeros } else { body };
        for _ in 0..self.connections.len() {
            self.turn = (self.turn + 1) % self.connections.len();
            let connection = &mut self.connections[self.turn];
            if connection.send_call(&parts, payload, due_at_ns, now_ns) {
                self.tally.count_sent(1);
                return true;
            }
        }
        false
    }

    fn take_answers(&mut self) -> u64 {
        let mut count = 0;
        let started_at = self.started_at;
        for connection in self.connections.iter_mut().filter(|connection| !connection.is_lost()) {
            connection.on_writable();
            let received = connection.flush().and_then(|()| {
                connection
                    .receive(&self.any_answer, &mut self.scratch, &mut self.tally, || ns_since(started_at))
            });
            match received {
                Ok(received) => count += received.count,
                Err(lost) => {
                    let why = match lost {
                        Lost::Closed => Unanswered::Disconnected,
                        Lost::Misbehaved => Unanswered::RouterMisbehaved,
                    };
                    let outstanding = connection.lose();
                    self.tally.count_unanswered(why, outstanding);
                }
            }
        }
        count
    }
}

/// When a call is due, since the first.
fn due_at_ns(recording: &Recording, index: usize, speed: f64) -> u64 {
    let first_at_ns = recording.calls.first().map_or(0, |call| call.received_at_ns);
    let at_ns = recording.calls.get(index).map_or(first_at_ns, |call| call.received_at_ns);
    ((at_ns - first_at_ns) as f64 / speed) as u64
}

/// Calls come when they come; the rate is the recording's.
const OPEN: Workload = Workload::Open { rate: 1.0, arrivals: Arrivals::Constant };

impl ReplayReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let ms = |ns: u64| format!("{:.3} ms", ns as f64 / 1e6);
        let mut out = format!(
            "replayed {} of {} calls at {} times the recorded speed in {:.2} s\n",
            self.sent, self.calls, self.speed, self.elapsed_s
        );
        if self.lost > 0 {
            out.push_str(&format!("the recording lacks {} calls that came too fast\n", self.lost));
        }
        out.push_str(&format!("{:<22}{:>14}{:>14}\n", "", "recorded", "replayed"));
        let (before, now) = (&self.recorded, &self.replayed);
        let names: std::collections::BTreeSet<_> =
            before.outcomes.keys().chain(now.outcomes.keys()).collect();
        for name in names {
            let count = |side: &ReplaySide| side.outcomes.get(name).copied().unwrap_or_default();
            out.push_str(&format!("{name:<22}{:>14}{:>14}\n", count(before), count(now)));
        }
        let rows = [
            ("latency p50", before.latency_ns.p50, now.latency_ns.p50),
            ("latency p99", before.latency_ns.p99, now.latency_ns.p99),
            ("latency max", before.latency_ns.max, now.latency_ns.max),
        ];
        for (name, before, now) in rows {
            out.push_str(&format!("{name:<22}{:>14}{:>14}\n", ms(before), ms(now)));
        }
        out
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
