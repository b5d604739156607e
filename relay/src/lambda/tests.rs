//! The keeper and programs that ask the Runtime API for their calls, some of them as they should. With published runtime clients:
//! `tests/lambda.rs` of the workspace.

use std::time::Duration;

use quickfire_client::TraceContext;

use super::*;
use crate::job::Ended;
use crate::job::tests::{job, job_until, plan};
use crate::keeper::Keeper;
use crate::keeper::tests::{ask, check_answer};

/// `next()` gives the headers and the event of a call, `post(path, body)` the status of what it was answered.
const CLIENT: &str = r#"
import base64, http.client, json, os, socket, sys, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def ask(method, path, body=None, headers={}):
    api.request(method, "/2018-06-01/runtime/" + path, body, headers)
    answer = api.getresponse()
    return answer, answer.read()
def next():
    answer, event = ask("GET", "invocation/next")
    assert answer.status == 200, (answer.status, event)
    return answer.headers, event
def post(path, body, headers={}): return ask("POST", path, body, headers)[0].status
def respond(headers, body): return post("invocation/%s/response" % headers["Lambda-Runtime-Aws-Request-Id"], body)
def fail(headers, body, more={}): return post("invocation/%s/error" % headers["Lambda-Runtime-Aws-Request-Id"], body, more)
"#;

fn python(script: &str) -> Plan {
    plan(Runtime::Lambda, &["python3", "-c", &format!("{CLIENT}{script}")])
}

fn first_answer(plan: &Plan) -> Result<String, String> {
    ask(&mut Keeper::<Lambda>::new(plan), &job(b"{}"))
}

fn check_fault(script: &str, expected: &str) {
    check_answer(first_answer(&python(script)), expected);
}

#[test]
fn a_call_comes_with_the_headers_of_lambda() {
    let plan = python(
        "headers, event = next()\nrespond(headers, '\\n'.join('%s: %s' % pair for pair in headers.items()).encode() + b'\\n' + event)",
    );
    let mut full = job(b"{\"a\": 1}");
    full.attributes.begun_ns = 1;
    full.attributes.deadline_ms = Some(17);
    let trace_id =
        [0x5b, 0xef, 0x4d, 0xe7, 0xad, 0x49, 0xb0, 0xe8, 0x7f, 0x6e, 0xf6, 0xc8, 0x7f, 0xc2, 0xe7, 0];
    full.attributes.trace = Some(TraceContext { trace_id, parent_span_id: [0x9a; 8], trace_flags: 1 });
    let told = ask(&mut Keeper::<Lambda>::new(&plan), &full).unwrap().to_lowercase();
    for line in [
        "content-type: application/json",
        "lambda-runtime-aws-request-id: 00000000-0000-0001-0000-00000000001f",
        "lambda-runtime-deadline-ms: 17",
        "lambda-runtime-invoked-function-arn: arn:aws:lambda:local:000000000000:function:test",
        "lambda-runtime-trace-id: root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;parent=9a9a9a9a9a9a9a9a;sampled=1",
        "{\"a\": 1}",
    ] {
        assert!(told.lines().any(|found| found == line), "{line}: {told}");
    }
    let alone = first_answer(&plan).unwrap().to_lowercase();
    assert!(!alone.contains("trace-id") && alone.contains("deadline-ms: 900000"), "{alone}");
}

#[test]
fn a_program_finds_the_environment_of_lambda() {
    let script = "headers, _ = next()\nrespond(headers, json.dumps(dict(os.environ)))";
    let large = Job { result_size_max: 1 << 20, ..job(b"{}") };
    let plan = python(script);
    let told = ask(&mut Keeper::<Lambda>::new(&plan), &large).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["AWS_LAMBDA_FUNCTION_NAME"], "test");
    assert_eq!(told["AWS_LAMBDA_FUNCTION_VERSION"], "$LATEST");
    assert_eq!(told["AWS_LAMBDA_LOG_GROUP_NAME"], "/aws/lambda/test");
    for name in ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_LOG_STREAM_NAME", "LAMBDA_TASK_ROOT"] {
        assert!(told[name].is_string(), "{name}");
    }
}

#[test]
fn one_process_answers_call_after_call() {
    let plan = python(
        "n = 0\nwhile True:\n  headers, event = next()\n  n += 1\n  assert respond(headers, event + b'%d' % n) == 202",
    );
    let mut keeper = Keeper::<Lambda>::new(&plan);
    keeper.start_ahead();
    for expected in ["x1", "x2", "x3"] {
        assert_eq!(ask(&mut keeper, &job(b"x")), Ok(expected.into()));
    }
    keeper.end();
}

#[test]
fn a_program_that_waited_longer_than_a_start_may_take_is_as_good_as_before() {
    // Given one that asks for the next call when nobody listens, and no call for a while
    let script =
        "while True:\n  headers, event = next()\n  respond(headers, b'%d' % os.getpid())\n  time.sleep(0.2)";
    let plan = python(script);
    let mut keeper = Keeper::<Lambda>::new(&plan);
    let first = ask(&mut keeper, &job(b""));
    keeper.instance().unwrap().start_timeout = Duration::from_secs(1);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&mut keeper, &job(b"")), first);
}

#[test]
fn an_error_of_the_function_is_its_own_and_the_program_goes_on() {
    let script = "headers, _ = next()\nassert fail(headers, '{\"errorType\": \"Oh\"}') == 202\n\
                  headers, _ = next()\nassert fail(headers, '', {'Lambda-Runtime-Function-Error-Type': 'Function.Oh'}) == 202\n\
                  headers, _ = next()\nrespond(headers, 'still here')";
    let plan = python(script);
    let mut keeper = Keeper::<Lambda>::new(&plan);
    for expected in [Err("{\"errorType\": \"Oh\"}"), Err("Function.Oh"), Ok("still here")] {
        let expected = expected.map(String::from).map_err(String::from);
        assert_eq!(ask(&mut keeper, &job(b"")), expected);
    }
}

#[test]
fn a_streamed_result_is_taken_whole_and_may_fail_at_its_end() {
    // Given chunks, and the trailers in which a stream tells its failure
    let script = "\
def stream(headers, chunks, trailers=b''):
  host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
  connection = socket.create_connection((host, int(port)))
  connection.sendall(b'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\\r\\nHost: x\\r\\nTransfer-Encoding: chunked\\r\\n'
    b'Lambda-Runtime-Function-Response-Mode: streaming\\r\\nTrailer: Lambda-Runtime-Function-Error-Type\\r\\n\\r\\n'
    % headers['Lambda-Runtime-Aws-Request-Id'].encode())
  for chunk in chunks: connection.sendall(b'%x\\r\\n%s\\r\\n' % (len(chunk), chunk))
  connection.sendall(b'0\\r\\n' + trailers + b'\\r\\n')
  assert connection.recv(100).startswith(b'HTTP/1.1 202'), 'not accepted'
headers, _ = next()
stream(headers, [b'one ', b'two'])
headers, _ = next()
stream(headers, [b'half'], b'Lambda-Runtime-Function-Error-Type: Oh\\r\\nLambda-Runtime-Function-Error-Body: ' + base64.b64encode(b'{\"a\":1}') + b'\\r\\n')
headers, _ = next()
stream(headers, [b'half'], b'Lambda-Runtime-Function-Error-Type: Oh\\r\\n')
next()";
    let plan = python(script);
    let mut keeper = Keeper::<Lambda>::new(&plan);
    assert_eq!(ask(&mut keeper, &job(b"")), Ok("one two".into()));
    assert_eq!(ask(&mut keeper, &job(b"")), Err("{\"a\":1}".into()));
    assert_eq!(ask(&mut keeper, &job(b"")), Err("Oh".into()));
}

#[test]
fn a_result_that_is_too_large_is_refused_and_the_rings_to_tell() {
    let script = "while True:\n  headers, event = next()\n  status = respond(headers, b'x' * int(event))\n  \
                  print(status, file=sys.stderr)\n  if status != 202: api.close()";
    let plan = python(script);
    let mut keeper = Keeper::<Lambda>::new(&plan);
    assert_eq!(ask(&mut keeper, &job(b"1024")).map(|result| result.len()), Ok(1024));
    assert_eq!(ask(&mut keeper, &job(b"1025")).map(|result| result.len()), Ok(1025));
    assert_eq!(ask(&mut keeper, &job(b"1024")).map(|result| result.len()), Ok(1024));
    assert_eq!(ask(&mut keeper, &job(b"3000000")).map(|result| result.len()), Ok(1025));
    assert_eq!(ask(&mut keeper, &job(b"1")).map(|result| result.len()), Ok(1));
}

#[test]
fn broken_conversations_are_told_by_name() {
    check_fault("next(); sys.exit(3)", "died: the program ended (exit status: 3)");
    check_fault("sys.exit(4)", "init_failed: the program ended (exit status: 4)");
    let init = "assert post('init/error', '{\"errorMessage\": \"no model\"}') == 202; time.sleep(1000)";
    check_fault(init, "init_error: the program says that it cannot start: {\"errorMessage\": \"no model\"}");
    check_fault("next(); assert post('invocation/x/response', '') == 400; time.sleep(1000)", "wrong_id: ");
    check_fault("next(); ask('GET', 'invocation/next'); time.sleep(1000)", "not_answered: ");
    let unready = Plan { start_timeout: Duration::from_millis(50), ..python("time.sleep(1000)") };
    let told = first_answer(&unready).unwrap_err();
    assert_eq!(told, "start_timeout: the program was not ready after 50 ms: it did not ask for a call");
}

#[test]
fn the_end_of_stderr_goes_with_the_fault() {
    let told = first_answer(&python("import no_such_module")).unwrap_err();
    assert!(told.starts_with("init_failed: "), "{told}");
    assert!(told.contains("\nstderr:\n") && told.contains("No module named 'no_such_module'"), "{told}");
}

#[test]
fn what_the_api_does_not_have_is_told_as_such() {
    let script = "headers, _ = next()\ntold = [ask('GET', 'nothing')[0].status, ask('GET', '../../x')[0].status,\n  \
                  post('init/error', ''), post('invocation/next', ''), ask('GET', 'invocation/x/response')[0].status]\n\
                  respond(headers, json.dumps(told))";
    assert_eq!(first_answer(&python(script)), Ok("[404, 404, 403, 404, 404]".into()));
}

#[test]
fn a_second_answer_is_refused_and_costs_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    // Given a program that answers twice, and goes on
    let script = format!(
        "while True:\n  headers, event = next()\n  respond(headers, b'%d' % os.getpid())\n  \
         open({:?}, 'a').write('%d\\n' % respond(headers, 'again'))",
        told.display().to_string()
    );
    let plan = python(&script);
    let mut keeper = Keeper::<Lambda>::new(&plan);
    for _ in 0..3 {
        assert!(ask(&mut keeper, &job(b"")).is_ok());
    }
    let told = std::fs::read_to_string(told).unwrap();
    assert!(told.lines().all(|status| status == "400"), "{told}");
}

#[test]
fn one_that_ends_after_its_answer_costs_no_call() {
    let plan = python("headers, _ = next(); respond(headers, b'%d' % os.getpid())");
    let mut keeper = Keeper::<Lambda>::new(&plan);
    let mut pids: Vec<_> = (0..3).map(|_| ask(&mut keeper, &job(b"")).unwrap()).collect();
    pids.dedup();
    assert_eq!(pids.len(), 3);
}

#[test]
fn a_call_that_is_given_up_ends_the_program_and_the_next_gets_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("begun");
    let script = format!(
        "while True:\n  headers, event = next()\n  if event == b'hang': open({:?}, 'w').close(); time.sleep(1000)\n  \
         respond(headers, b'%d' % os.getpid())",
        mark.display().to_string()
    );
    let plan = python(&script);
    let mut keeper = Keeper::<Lambda>::new(&plan);
    let first = ask(&mut keeper, &job(b"")).unwrap();
    let begun = || mark.exists().then_some(Ended::TimedOut);
    let stopped = ask(&mut keeper, &job_until(b"hang", &begun)).unwrap_err();
    assert_eq!(stopped, "stopped: the call's time was over; the program was killed");
    assert_ne!(ask(&mut keeper, &job(b"")).unwrap(), first);
}
