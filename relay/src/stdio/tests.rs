//! The keeper and a line of JSON for each call, with programs that keep the contract and programs that do not.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::Runtime;
use crate::job::Ended;
use crate::job::tests::{job, job_until, plan};
use crate::keeper::Keeper;
use crate::keeper::tests::{ask, check_answer};

/// What every script can use: `calls` gives the requests, `say` writes a line.
const PRELUDE: &str = r#"
import json, os, sys, time
def say(value, end="\n"):
    sys.stdout.write(value if isinstance(value, str) else json.dumps(value))
    sys.stdout.write(end)
    sys.stdout.flush()
calls = map(json.loads, sys.stdin)
"#;

fn python(script: &str) -> Plan {
    plan(Runtime::Stdio, &["python3", "-c", &format!("{PRELUDE}{script}")])
}

fn shell(script: &str) -> Plan {
    plan(Runtime::Stdio, &["sh", "-c", script])
}

fn first_answer(plan: &Plan) -> Result<String, String> {
    ask(&mut Keeper::<Stdio>::new(plan), &job(b"hello"))
}

fn check_fault(script: &str, expected: &str) {
    check_answer(first_answer(&python(script)), expected);
}

#[test]
fn a_request_is_one_line_with_everything_known_of_the_call() {
    let mut full = job(b"two\nlines");
    full.attributes.deadline_ms = Some(17);
    full.attributes.idempotency_key = Some("0a".into());
    full.attributes.trace = Some(Default::default());
    let zeros = format!("00-{}-{}-00", "0".repeat(32), "0".repeat(16));
    let expected = format!(
        r#"{{"id":"1f","function":"test","criticality":"normal","deadline_ms":17,"traceparent":"{zeros}","idempotency_key":"0a","body":"two\nlines"}}"#
    );
    assert_eq!(String::from_utf8(request_line(&full).unwrap()).unwrap(), expected + "\n");
    let bytes = String::from_utf8(request_line(&job(&[0xFF, 0])).unwrap()).unwrap();
    assert!(bytes.ends_with("\"body_base64\":\"/wA=\"}\n"), "{bytes}");
}

#[test]
fn an_answer_is_a_text_or_bytes_or_any_json_or_an_error() {
    let check = |line: &str, expected: Result<&[u8], &[u8]>| {
        let mut reply = Vec::new();
        let read = match read_answer(line.as_bytes(), "1f", &mut reply) {
            Ok(()) => Ok(reply),
            Err(Failed::Function(bytes)) => Err(bytes),
            Err(Failed::Fault(fault)) => panic!("{line}: {fault}"),
        };
        assert_eq!(read.as_deref().map_err(Vec::as_slice), expected, "{line}");
    };
    check(r#"{"id":"1f","result":"a\nb"}"#, Ok(b"a\nb"));
    check(r#"{"id":"1f","result_base64":"/wA="}"#, Ok(&[0xFF, 0]));
    check(r#"{"result":{"a": 1.00, "b":[]}, "id":"1f", "more":2}"#, Ok(br#"{"a": 1.00, "b":[]}"#));
    check(r#"{"id":"1f","result":null}"#, Ok(b"null"));
    check(r#"{"id":"1f","error":"no"}"#, Err(b"no"));
    check("{\"id\":\"1f\",\"error\":{\"code\":7}}\r", Err(br#"{"code":7}"#));
}

#[test]
fn a_line_that_is_no_answer_is_told_with_what_is_wrong() {
    for (line, why) in [
        ("", "as JSON"),
        ("hello", "as JSON"),
        ("[]", "as JSON"),
        (r#"{"result":1}"#, "missing field `id`"),
        (r#"{"id":31,"result":1}"#, "as JSON"),
        (r#"{"id":"1f"}"#, "it needs one of"),
        (r#"{"id":"1f","result":1,"error":2}"#, "it needs one of"),
        (r#"{"id":"1f","result":1,"result":2}"#, "duplicate field"),
        (r#"{"id":"1f","result":"\ud800"}"#, "in `result`"),
        (r#"{"id":"1f","result_base64":"?"}"#, "in `result_base64`"),
        ("\u{1F}\u{0}", "as JSON"),
    ] {
        match read_answer(line.as_bytes(), "1f", &mut Vec::new()) {
            Err(Failed::Fault(fault @ Fault::NotAnAnswer { .. })) => {
                assert!(fault.to_string().contains(why), "{line}: {fault}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn no_line_makes_the_relay_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_answer(&line, "1f", &mut Vec::new());
    }

    #[test]
    fn every_payload_is_one_line_and_what_is_sent_back_is_the_result(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let line = request_line(&job(&payload)).unwrap();
        prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let request: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let mut answer = serde_json::json!({ "id": request["id"] });
        match request.get("body") {
            Some(body) => answer["result"] = body.clone(),
            None => answer["result_base64"] = request["body_base64"].clone(),
        }
        let mut reply = Vec::new();
        prop_assert!(read_answer(&serde_json::to_vec(&answer).unwrap(), "1f", &mut reply).is_ok());
        prop_assert_eq!(reply, payload);
    }
}

#[test]
fn one_process_answers_call_after_call() {
    let script = "for n, call in enumerate(calls): say({'id': call['id'], 'result': call['body'] + str(n)})";
    let plan = python(script);
    let mut keeper = Keeper::<Stdio>::new(&plan);
    for expected in ["hello0", "hello1", "hello2"] {
        assert_eq!(ask(&mut keeper, &job(b"hello")), Ok(expected.into()));
    }
    keeper.end();
}

#[test]
fn an_error_of_the_program_is_its_own_and_it_goes_on() {
    let script = "for n, call in enumerate(calls): say({'id': call['id'], 'error': {'code': n}})";
    let plan = python(script);
    let mut keeper = Keeper::<Stdio>::new(&plan);
    for expected in ["{\"code\": 0}", "{\"code\": 1}"] {
        assert_eq!(ask(&mut keeper, &job(b"")), Err(expected.into()));
    }
}

#[test]
fn more_than_the_pipes_hold_goes_through() {
    let plan = python("for call in calls: say({'id': call['id'], 'result': call['body']})");
    let payload = "ü".repeat(300_000);
    let large = Job { result_size_max: payload.len(), ..job(payload.as_bytes()) };
    assert_eq!(ask(&mut Keeper::<Stdio>::new(&plan), &large), Ok(payload.clone()));
}

#[test]
fn a_result_that_is_too_large_is_the_rings_to_refuse() {
    let plan = python("for call in calls: say({'id': call['id'], 'result': 'x' * 1025})");
    let reply = ask(&mut Keeper::<Stdio>::new(&plan), &job(b"")).unwrap();
    assert_eq!(reply.len(), 1025);
}

#[test]
fn broken_conversations_are_told_by_name() {
    check_fault("say('hello')", "not_an_answer: a line on stdout is not an answer, as JSON: ");
    check_fault("for call in calls: say({'id': '7', 'result': 1})", "wrong_id: the answer has the id \"7\"");
    let twice = "for call in calls: say((json.dumps({'id': call['id'], 'result': 1}) + '\\n') * 2, '')";
    check_fault(twice, "two_answers: there is more than the one answer: \"{");
    check_fault("next(calls); say('{\"id\": \"1f\"', '')", "partial_line: ");
    check_fault("next(calls); sys.exit(3)", "died: the program ended (exit status: 3)");
    check_fault("next(calls); os.kill(os.getpid(), 9)", "died: the program ended (signal: 9");
    check_fault("next(calls); os.close(1); time.sleep(1000)", "output_closed: ");
    check_fault(
        "say('x' * 20000, ''); time.sleep(1000)",
        "line_too_large: a line on stdout has more than 10240",
    );
    let nowhere = Plan { command: vec!["/nowhere/x".into()], ..python("") };
    assert!(first_answer(&nowhere).unwrap_err().starts_with("cannot_start: "));
}

#[test]
fn the_end_of_stderr_goes_with_the_fault() {
    let told = first_answer(&python("next(calls); print('on line 1', file=sys.stderr); sys.exit(1)"));
    let expected = "died: the program ended (exit status: 1) before it answered\nstderr:\non line 1\n";
    assert_eq!(told, Err(expected.into()));
}

#[test]
fn a_broken_process_is_replaced_for_the_next_call() {
    // Given one that breaks with the second call of its life
    let script = "say({'id': next(calls)['id'], 'result': os.getpid()}); next(calls); sys.exit(1)";
    let plan = python(script);
    let mut keeper = Keeper::<Stdio>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    assert!(ask(&mut keeper, &job(b"")).unwrap_err().starts_with("died: "));
    let second = ask(&mut keeper, &job(b"")).unwrap();
    assert_ne!(first, second);
}

#[test]
fn one_that_ended_between_calls_costs_no_call() {
    let plan = python("say({'id': next(calls)['id'], 'result': os.getpid()})");
    let mut keeper = Keeper::<Stdio>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    // Given that it has ended
    while keeper.instance().unwrap().program.wait_exit(Duration::from_secs(1)).is_none() {}
    let second = ask(&mut keeper, &job(b"")).unwrap();
    assert_ne!(first, second);
}

#[test]
fn one_that_talked_between_calls_costs_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!(
        "say({{'id': next(calls)['id'], 'result': os.getpid()}})\nwhile not os.path.exists({0:?}): time.sleep(0.001)\n\
         os.remove({0:?}); say('and more'); time.sleep(1000)",
        go.display().to_string()
    );
    let plan = python(&script);
    let mut keeper = Keeper::<Stdio>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    // Given that it has said what nobody asked for
    std::fs::write(&go, "").unwrap();
    let stdout = keeper.instance().unwrap().program.stdout.as_ref().unwrap();
    poll(&mut [PollFd::new(stdout, PollFlags::IN)], None).unwrap();
    let second = ask(&mut keeper, &job(b"")).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_call_that_is_given_up_ends_the_process_and_the_next_gets_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("begun");
    let script = format!(
        "for call in calls:\n  if call['body'] == 'hang': open({:?}, 'w').close(); time.sleep(1000)\n  \
         say({{'id': call['id'], 'result': os.getpid()}})",
        mark.display().to_string()
    );
    let plan = python(&script);
    let mut keeper = Keeper::<Stdio>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    let begun = || mark.exists().then_some(Ended::Cancelled);
    let stopped = ask(&mut keeper, &job_until(b"hang", &begun)).unwrap_err();
    assert_eq!(stopped, "stopped: the call was cancelled; the program was killed");
    let second = ask(&mut keeper, &job(b"")).unwrap();
    assert_ne!(first, second);
}

#[test]
fn calls_given_up_say_nothing_against_the_program() {
    let plan = python(
        "for call in calls: say({'id': call['id'], 'result': 'here'}) if call['body'] else time.sleep(1000)",
    );
    let mut keeper = Keeper::<Stdio>::new(&plan);
    for _ in 0..5 {
        let looks = Cell::new(0);
        let soon = || {
            looks.set(looks.get() + 1);
            (looks.get() > 1).then_some(Ended::TimedOut)
        };
        assert!(ask(&mut keeper, &job_until(b"", &soon)).unwrap_err().starts_with("stopped: "));
    }
    assert_eq!(ask(&mut keeper, &job(b"x")), Ok("here".into()));
}

#[test]
fn a_program_that_never_answers_is_not_started_for_each_call() {
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let plan = shell(&format!("echo start >> {}; echo no model >&2; exit 4", starts.display()));
    let mut keeper = Keeper::<Stdio>::new(&plan);
    keeper.start_ahead();
    let mut told = Vec::new();
    for _ in 0..100 {
        told.push(ask(&mut keeper, &job(b"")).unwrap_err());
    }
    let paused = told.last().unwrap();
    assert!(paused.starts_with("paused: the program is started again in "), "{paused}");
    assert!(paused.contains("died: ") && paused.ends_with("no model\n"), "{paused}");
    let count = std::fs::read_to_string(&starts).unwrap().lines().count();
    assert!(count < 100, "{count} starts");
}

#[test]
fn an_answer_before_the_end_counts() {
    let plan = python("say({'id': next(calls)['id'], 'result': 'last words'}); sys.exit(9)");
    assert_eq!(first_answer(&plan), Ok("last words".into()));
}
