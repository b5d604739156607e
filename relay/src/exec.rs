//! Runtime `exec`: a process for each call. The payload is its stdin, its stdout the result, its exit code the outcome.
//!
//! Always: a call has ended when its process has; whatever the process started in its group ends with it.
//! Never: keeps anything from one call to the next.

use quickfire_client::serve::{FunctionError, running_call};

use crate::fault::Fault;
use crate::job::{Attributes, Job};
use crate::plan::Plan;
use crate::program::{Program, Streams};
use crate::talk::{Step, Talk};

/// The variables that tell the process of its call; unset where there is nothing to tell.
pub const VARIABLES: [&str; 5] = [
    "QUICKFIRE_CALL_ID",
    "QUICKFIRE_CRITICALITY",
    "QUICKFIRE_DEADLINE_MS",
    "QUICKFIRE_IDEMPOTENCY_KEY",
    "TRACEPARENT",
];

/// Runs the process of one call.
pub fn answer(plan: &Plan, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), FunctionError> {
    let mut program = None;
    call(plan, job, reply, &mut program).map_err(|fault| {
        let stderr = program.as_mut().map(|program| {
            program.kill();
            program.stderr_tail()
        });
        fault.answer(stderr.as_deref().unwrap_or_default(), job.result_size_max)
    })
}

fn call(plan: &Plan, job: &Job<'_>, reply: &mut Vec<u8>, program: &mut Option<Program>) -> Result<(), Fault> {
    let variables = variables(&job.attributes);
    let variables: Vec<_> = variables.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let program = program.insert(Program::spawn(&plan.command, &variables, Streams::Pipes, running_call())?);
    let mut talk =
        Talk { program, unwritten: job.payload, output: reply, output_size_max: job.result_size_max };
    loop {
        if talk.unwritten.is_empty() {
            talk.close_input();
        }
        match talk.step(job.is_ended).map_err(Fault::Pipe)? {
            Step::Output | Step::OutputClosed | Step::Nothing => {}
            // One byte more than fits, from which the ring makes its own answer. The process ends with `program`.
            Step::TooMuch => return Ok(()),
            Step::Exited(exit) if exit.success() => return Ok(()),
            Step::Exited(exit) => return Err(Fault::Exit(exit)),
            Step::Ended(ended) => return Err(Fault::Stopped(ended)),
        }
    }
}

fn variables(attributes: &Attributes<'_>) -> Vec<(&'static str, String)> {
    let [id, criticality, deadline_ms, idempotency_key, trace] = VARIABLES;
    let mut variables = vec![(id, attributes.id.clone()), (criticality, attributes.criticality.to_owned())];
    variables.extend(attributes.deadline_ms.map(|ms| (deadline_ms, ms.to_string())));
    variables.extend(attributes.idempotency_key.clone().map(|key| (idempotency_key, key)));
    variables.extend(attributes.traceparent().map(|text| (trace, text)));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;
    use crate::job::tests::{job, job_until};
    use crate::job::{self, Ended};

    fn plan(script: &str) -> Plan {
        job::tests::plan(Runtime::Exec, &["sh", "-c", script])
    }

    fn run(script: &str, job: &Job<'_>) -> Result<Vec<u8>, String> {
        let mut reply = Vec::new();
        match answer(&plan(script), job, &mut reply) {
            Ok(()) => Ok(reply),
            Err(error) => Err(String::from_utf8(error.bytes().to_vec()).unwrap()),
        }
    }

    #[test]
    fn the_payload_goes_in_and_the_result_comes_out() {
        assert_eq!(run("tr a-z A-Z", &job(b"hello")), Ok(b"HELLO".to_vec()));
        assert_eq!(run("cat", &job(b"")), Ok(vec![]));
        assert_eq!(run("exec >&-; sleep 0.01", &job(b"")), Ok(vec![]), "one that closes its output early");
    }

    #[test]
    fn more_than_the_pipes_hold_goes_through_both_ways_at_once() {
        let payload: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let large = Job { result_size_max: payload.len(), ..job(&payload) };
        assert_eq!(run("cat", &large), Ok(payload.clone()));
    }

    #[test]
    fn a_process_need_not_read_its_input() {
        let payload = vec![b'x'; 1_000_000];
        assert_eq!(run("exec <&-; echo done", &job(&payload)), Ok(b"done\n".to_vec()));
        assert_eq!(run("head -c 3", &job(&payload)), Ok(b"xxx".to_vec()));
    }

    #[test]
    fn another_exit_is_an_error_with_the_end_of_stderr() {
        let failed = run("echo half; echo no such user >&2; exit 3", &job(b""));
        assert_eq!(failed, Err("exit: the program ended (exit status: 3)\nstderr:\nno such user\n".into()));
        let killed = run("kill -9 $$", &job(b""));
        assert_eq!(killed, Err("exit: the program ended (signal: 9 (SIGKILL))".into()));
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let plan = Plan { command: vec!["/nowhere/x".into()], ..plan("") };
        let error = answer(&plan, &job(b""), &mut Vec::new()).unwrap_err();
        assert!(error.bytes().starts_with(b"cannot_start: "));
    }

    #[test]
    fn the_process_knows_its_call() {
        let mut full = job(b"");
        full.attributes.deadline_ms = Some(17);
        full.attributes.idempotency_key = Some("0a".into());
        full.attributes.trace = Some(Default::default());
        let script = "echo $QUICKFIRE_CALL_ID $QUICKFIRE_CRITICALITY $QUICKFIRE_DEADLINE_MS \
                      $QUICKFIRE_IDEMPOTENCY_KEY $TRACEPARENT";
        let zeros = format!("00-{}-{}-00", "0".repeat(32), "0".repeat(16));
        assert_eq!(run(script, &full), Ok(format!("1f normal 17 0a {zeros}\n").into_bytes()));
        assert_eq!(run("echo ${QUICKFIRE_DEADLINE_MS-none}", &job(b"")), Ok(b"none\n".to_vec()));
    }

    #[test]
    fn a_result_of_any_size_is_read_up_to_one_byte_more_than_fits() {
        // Expect: the process, which never ends by itself, is killed
        assert_eq!(run("cat /dev/zero", &job(b"")).map(|result| result.len()), Ok(1025));
        assert_eq!(run("head -c 1024 /dev/zero", &job(b"")).map(|result| result.len()), Ok(1024));
    }

    #[test]
    fn a_call_that_is_given_up_kills_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("begun");
        let begun = || mark.exists().then_some(Ended::TimedOut);
        let script = format!("echo begun >&2; sleep 1000 & touch {}; wait", mark.display());
        let stopped = run(&script, &job_until(b"", &begun));
        let expected = "stopped: the call's time was over; the program was killed\nstderr:\nbegun\n";
        assert_eq!(stopped, Err(expected.into()));
        let at_once = || Some(Ended::Cancelled);
        let stopped = run("sleep 1000", &job_until(b"", &at_once)).unwrap_err();
        assert!(stopped.starts_with("stopped: the call was cancelled"), "{stopped}");
    }

    #[test]
    fn what_a_process_leaves_in_its_group_holds_no_call_up() {
        // Given a background process that keeps stdout open
        let result = run("sleep 1000 & echo done", &job(b""));
        assert_eq!(result, Ok(b"done\n".to_vec()));
    }
}
