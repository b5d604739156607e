//! One call as a runtime sees it: what to hand over, and whether anybody still wants the answer.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quickfire_client::TraceContext;
use quickfire_client::serve::Call;

use crate::Plan;
use crate::limits::DEADLINE_GRACE;

/// Why an answer is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time is over.
    TimedOut,
    /// Its caller took it back, or went away.
    Cancelled,
}

/// Asked while a call runs; a few nanoseconds.
pub type IsEnded<'a> = dyn Fn() -> Option<Ended> + 'a;

/// One call.
pub struct Job<'a> {
    /// The caller's bytes.
    pub payload: &'a [u8],
    /// What else is known of the call.
    pub attributes: Attributes<'a>,
    /// The most bytes of a result. One more, and the ring answers that it was too large.
    pub result_size_max: usize,
    /// Whether anybody still wants the answer.
    pub is_ended: &'a IsEnded<'a>,
}

/// What every runtime tells its program of a call, each in its own way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// The function's name.
    pub function: &'a str,
    /// The router's number of the call, in hexadecimal as `quickfire inspect` and `quickfire why` show it.
    pub id: String,
    /// When the call began here, in nanoseconds since 1970.
    pub begun_ns: u64,
    /// When the answer is worth nothing any more, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// `low`, `normal`, `high` or `critical`.
    pub criticality: &'static str,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
    /// The caller's mark for repetitions, in hexadecimal.
    pub idempotency_key: Option<String>,
}

impl<'a> Job<'a> {
    /// What a relay was given to do.
    pub fn new(plan: &'a Plan, call: &'a Call<'_>, is_ended: &'a IsEnded<'a>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let attributes = Attributes {
            function: &plan.function,
            id: format!("{:x}", call.invocation_id()),
            begun_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            deadline_ms: call.time_left().map(|left| milliseconds(now.saturating_add(left))),
            criticality: call.criticality().name(),
            trace: call.trace(),
            idempotency_key: call.idempotency_key().map(|key| hexadecimal(&key)),
        };
        Job { payload: call.payload(), attributes, result_size_max: call.result_size_max(), is_ended }
    }
}

impl Attributes<'_> {
    /// An id that no other call has or will have, in the shape of a UUID: programs use it to tell repetitions. A router's numbers begin
    /// anew with each router, so the time goes before them.
    pub fn unique_id(&self) -> String {
        let text = format!("{:016x}{:0>16}", self.begun_ns, self.id);
        let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
        [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
    }

    /// The trace as the header `traceparent` of W3C Trace Context has it.
    pub fn traceparent(&self) -> Option<String> {
        let trace = self.trace.as_ref()?;
        let [flags, ..] = trace.trace_flags.to_le_bytes();
        Some(format!(
            "00-{}-{}-{flags:02x}",
            hexadecimal(&trace.trace_id),
            hexadecimal(&trace.parent_span_id)
        ))
    }
}

/// Asks `call` itself whether it is still wanted. When its time is over, the router says so, and by then has answered its caller
/// with the right status, which no answer of ours should forestall. A router that is no more says nothing.
pub fn ending_of<'a>(call: &'a Call<'_>) -> impl Fn() -> Option<Ended> + 'a {
    let over_since = Cell::new(None::<Instant>);
    move || {
        let is_over = call.time_left().is_some_and(|left| left.is_zero());
        if call.is_cancelled() {
            return Some(if is_over { Ended::TimedOut } else { Ended::Cancelled });
        }
        if !is_over {
            return None;
        }
        let since = over_since.get().unwrap_or_else(Instant::now);
        over_since.set(Some(since));
        (since.elapsed() >= DEADLINE_GRACE).then_some(Ended::TimedOut)
    }
}

fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A function `test` that has ten seconds to start.
    pub fn plan(runtime: crate::Runtime, command: &[&str]) -> Plan {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Plan { function: "test".into(), command, runtime, start_timeout: Duration::from_secs(10) }
    }

    /// A call that nobody takes back.
    pub fn wanted() -> Option<Ended> {
        None
    }

    /// A call with this payload, and results of up to a kilobyte.
    pub fn job(payload: &[u8]) -> Job<'_> {
        job_until(payload, &wanted)
    }

    /// The same with an end.
    pub fn job_until<'a>(payload: &'a [u8], is_ended: &'a IsEnded<'a>) -> Job<'a> {
        let attributes =
            Attributes { function: "test", id: "1f".into(), criticality: "normal", ..Attributes::default() };
        Job { payload, attributes, result_size_max: 1024, is_ended }
    }

    #[test]
    fn the_trace_is_written_as_w3c_means_it() {
        let trace = TraceContext { trace_id: [0xAB; 16], parent_span_id: [1; 8], trace_flags: 0x101 };
        let attributes = Attributes { trace: Some(trace), ..Attributes::default() };
        let expected = format!("00-{}-{}-01", "ab".repeat(16), "01".repeat(8));
        assert_eq!(attributes.traceparent(), Some(expected));
        assert_eq!(Attributes::default().traceparent(), None);
    }

    #[test]
    fn a_unique_id_is_the_time_and_the_number_in_the_shape_of_a_uuid() {
        let attributes =
            |begun_ns, id: u64| Attributes { begun_ns, id: format!("{id:x}"), ..Attributes::default() };
        assert_eq!(
            attributes(0x1234_5678_9abc_def0, 0x1f).unique_id(),
            "12345678-9abc-def0-0000-00000000001f"
        );
        assert_eq!(attributes(u64::MAX, u64::MAX).unique_id(), "ffffffff-ffff-ffff-ffff-ffffffffffff");
    }

    #[test]
    fn a_call_alone_has_no_end_and_no_trace() {
        let plan = plan(crate::Runtime::Exec, &["x"]);
        let call = Call::with_payload(b"p");
        let is_ended = ending_of(&call);
        let job = Job::new(&plan, &call, &is_ended);
        assert_eq!((job.payload, (job.is_ended)()), (&b"p"[..], None));
        let begun_ns = job.attributes.begun_ns;
        let alone =
            Attributes { function: "test", id: "0".into(), criticality: "normal", ..Attributes::default() };
        assert_eq!(job.attributes, Attributes { begun_ns, ..alone });
    }
}
