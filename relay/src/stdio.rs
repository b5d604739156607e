//! Runtime `stdio`: a program that lives long, reads a line of JSON for each call and writes one for each answer.
//!
//! In: a call.  Out: `{"id":"1f","function":"f","criticality":"normal","deadline_ms":1,"body":"text"}` and a line feed.
//! Back: `{"id":"1f","result":"text"}`, or `result_base64`, or `error`, and a line feed.
//! Always: one call at a time; its answer is the next line, and there is nothing behind it.
//! Never: a line longer than the answer within the limits could need.  Tests: `stdio/tests.rs`.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::fault::{Failed, Fault, found};
use crate::job::{IsEnded, Job};
use crate::keeper::Instance;
use crate::limits::{FOUND_SIZE_MAX, JSON_GROWTH_MAX, LINE_ROOM, STOP_GRACE};
use crate::plan::Plan;
use crate::program::{Program, Streams};
use crate::talk::{Step, Talk};

/// One instance of the program.
pub struct Stdio {
    program: Program,
}

/// What the program reads. Keys are never renamed, and a program ignores those it does not know.
#[derive(Debug, Serialize)]
struct Request<'a> {
    id: &'a str,
    function: &'a str,
    criticality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    /// The payload, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// The payload otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// What the program writes: an id, and one of the others. Other keys are ignored.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// `null` is a value like any other.
fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Instance for Stdio {
    fn spawn(plan: &Plan) -> Result<Self, Fault> {
        Ok(Stdio { program: Program::spawn(&plan.command, &[], Streams::Pipes, None)? })
    }

    fn make_ready(&mut self, _is_ended: &IsEnded<'_>) -> Result<bool, Fault> {
        // It has no way to say so, and needs none: a line waits in its pipe.
        Ok(true)
    }

    fn check_fit(&mut self) -> Result<(), Fault> {
        if let Some(exit) = self.program.poll_exit() {
            return Err(Fault::Died(exit));
        }
        let Some(stdout) = &mut self.program.stdout else { return Err(Fault::OutputClosed) };
        let mut unasked = [0; FOUND_SIZE_MAX];
        match stdout.read(&mut unasked) {
            Ok(0) => Err(Fault::OutputClosed),
            Ok(size) => Err(Fault::TwoAnswers(found(unasked.get(..size).unwrap_or_default()))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Fault::Pipe(error)),
        }
    }

    fn call(&mut self, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), Failed> {
        let request = request_line(job).map_err(|error| Fault::Pipe(error.into()))?;
        let line = self.exchange(&request, job)?;
        read_answer(&line, &job.attributes.id, reply)
    }

    fn program(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Stdio {
    /// Writes one line and reads one.
    fn exchange(&mut self, request: &[u8], job: &Job<'_>) -> Result<Vec<u8>, Fault> {
        let mut output = Vec::new();
        let output_size_max = job.result_size_max.saturating_mul(JSON_GROWTH_MAX).saturating_add(LINE_ROOM);
        let mut talk =
            Talk { program: &mut self.program, unwritten: request, output: &mut output, output_size_max };
        let mut searched_size = 0;
        loop {
            let step = talk.step(job.is_ended).map_err(Fault::Pipe)?;
            let new = talk.output.get(searched_size..).unwrap_or_default();
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let mut behind = talk.output.split_off(searched_size + at);
                return match behind.split_off(1) {
                    more if more.is_empty() => Ok(output),
                    more => Err(Fault::TwoAnswers(found(&more))),
                };
            }
            searched_size = talk.output.len();
            match step {
                Step::Output | Step::Nothing => {}
                Step::TooMuch => return Err(Fault::LineTooLarge(output_size_max)),
                Step::Ended(ended) => return Err(Fault::Stopped(ended)),
                Step::Exited(_) | Step::OutputClosed if searched_size > 0 => {
                    return Err(Fault::PartialLine(found(&output)));
                }
                Step::Exited(exit) => return Err(Fault::Died(exit)),
                // As a rule because it ends; how, is worth a wait, because it is of no use any more.
                Step::OutputClosed => {
                    let exit = talk.program.wait_exit(STOP_GRACE);
                    return Err(exit.map_or(Fault::OutputClosed, Fault::Died));
                }
            }
        }
    }
}

fn request_line(job: &Job<'_>) -> serde_json::Result<Vec<u8>> {
    let attributes = &job.attributes;
    let text = std::str::from_utf8(job.payload).ok();
    let request = Request {
        id: &attributes.id,
        function: attributes.function,
        criticality: attributes.criticality,
        deadline_ms: attributes.deadline_ms,
        traceparent: attributes.traceparent(),
        idempotency_key: attributes.idempotency_key.as_deref(),
        body: text,
        body_base64: text.is_none().then(|| BASE64.encode(job.payload)),
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    Ok(line)
}

fn read_answer(line: &[u8], id: &str, reply: &mut Vec<u8>) -> Result<(), Failed> {
    let no_answer = |why: String| Fault::NotAnAnswer { why, found: found(line) };
    let answer: Answer<'_> =
        serde_json::from_slice(line).map_err(|error| no_answer(format!("as JSON: {error}")))?;
    if answer.id != id {
        return Err(Fault::WrongId { found: found(answer.id.as_bytes()), expected: id.to_owned() }.into());
    }
    match (answer.result, answer.result_base64, answer.error) {
        (Some(result), None, None) => {
            let bytes = bytes_of(result).map_err(|error| no_answer(format!("in `result`: {error}")))?;
            reply.extend_from_slice(&bytes);
            Ok(())
        }
        (None, Some(result), None) => BASE64
            .decode_vec(result.as_bytes(), reply)
            .map_err(|error| no_answer(format!("in `result_base64`: {error}")).into()),
        (None, None, Some(error)) => {
            let bytes = bytes_of(error).map_err(|error| no_answer(format!("in `error`: {error}")))?;
            Err(Failed::Function(bytes.into_owned()))
        }
        _ => Err(no_answer("because it needs one of `result`, `result_base64` and `error`".into()).into()),
    }
}

/// A text stands for its characters, any other value for itself as it is written.
fn bytes_of(value: &RawValue) -> serde_json::Result<Cow<'_, [u8]>> {
    if value.get().starts_with('"') {
        return serde_json::from_str::<String>(value.get()).map(|text| Cow::Owned(text.into_bytes()));
    }
    Ok(Cow::Borrowed(value.get().as_bytes()))
}

#[cfg(test)]
mod tests;
