//! One call as a runtime sees it: what to hand over, and whether anybody still wants the answer.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quickfire_client::TraceContext;
use quickfire_client::serve::Call;

use crate::Plan;

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
        let attributes = Attributes {
            function: &plan.function,
            id: format!("{:x}", call.invocation_id()),
            deadline_ms: call.time_left().map(|left| unix_ms(SystemTime::now(), left)),
            criticality: call.criticality().name(),
            trace: call.trace(),
            idempotency_key: call.idempotency_key().map(|key| hexadecimal(&key)),
        };
        Job { payload: call.payload(), attributes, result_size_max: call.result_size_max(), is_ended }
    }
}

impl Attributes<'_> {
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

/// Asks `call` itself whether it is still wanted.
pub fn ending_of<'a>(call: &'a Call<'_>) -> impl Fn() -> Option<Ended> + 'a {
    move || match call.time_left() {
        Some(Duration::ZERO) => Some(Ended::TimedOut),
        _ if call.is_cancelled() => Some(Ended::Cancelled),
        _ => None,
    }
}

fn unix_ms(now: SystemTime, left: Duration) -> u64 {
    let at = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).saturating_add(left);
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
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
    fn a_deadline_is_told_as_a_point_in_time() {
        let now = UNIX_EPOCH + Duration::from_millis(5);
        assert_eq!(unix_ms(now, Duration::from_secs(1)), 1005);
        assert_eq!(unix_ms(now, Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_call_alone_has_no_end_and_no_trace() {
        let plan = Plan { function: "f".into(), command: vec!["x".into()], runtime: crate::Runtime::Exec };
        let call = Call::with_payload(b"p");
        let is_ended = ending_of(&call);
        let job = Job::new(&plan, &call, &is_ended);
        assert_eq!((job.payload, (job.is_ended)()), (&b"p"[..], None));
        let expected =
            Attributes { function: "f", id: "0".into(), criticality: "normal", ..Attributes::default() };
        assert_eq!(job.attributes, expected);
    }
}
